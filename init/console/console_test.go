package console

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"quantavirt/internal/qvlog"
)

// terminal makes a pseudo-terminal: what the kernel's consoles are to PID 1.
func terminal(t *testing.T) (screen *os.File, path string) {
	t.Helper()
	screen, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("no pseudo-terminals here: %v", err)
	}
	t.Cleanup(func() { _ = screen.Close() })
	n, err := unix.IoctlGetInt(int(screen.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(screen.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	return screen, fmt.Sprintf("/dev/pts/%d", n)
}

// lines reads what is shown.
func lines(screen io.Reader) <-chan string {
	c := make(chan string, 100)
	go func() {
		for s := bufio.NewScanner(screen); s.Scan(); {
			c <- strings.TrimRight(s.Text(), "\r")
		}
	}()
	return c
}

func expect(t *testing.T, shown <-chan string, want string) {
	t.Helper()
	limit := time.After(10 * time.Second)
	for {
		select {
		case line := <-shown:
			if line == want {
				return
			}
		case <-limit:
			t.Fatalf("%q was not shown", want)
		}
	}
}

func openSet(t *testing.T, input bool, paths ...string) *Set {
	t.Helper()
	dir := t.TempDir()
	var names []string
	for i, p := range paths {
		name := fmt.Sprintf("tty%d", i)
		if err := os.Symlink(p, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
		names = append(names, name)
	}
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	return Open(ctx, qvlog.New(io.Discard, qvlog.Options{}), dir, append(names, "missing"), input)
}

func TestBannerOnAllConsolesAndAgainOnEnter(t *testing.T) {
	a, pathA := terminal(t)
	b, pathB := terminal(t)
	s := openSet(t, true, pathA, pathB)
	if got := s.Names(); len(got) != 2 {
		t.Errorf("consoles: %v", got)
	}
	shownA, shownB := lines(a), lines(b)
	s.Say("a problem")
	s.Show([]string{"first line", "second\x1b[2J line"})
	for _, shown := range []<-chan string{shownA, shownB} {
		expect(t, shown, "a problem")
		expect(t, shown, "first line")
		expect(t, shown, "second[2J line")
	}
	if _, err := b.WriteString("\n"); err != nil {
		t.Fatal(err)
	}
	expect(t, shownB, "first line")
	s.Show([]string{"changed"})
	expect(t, shownA, "changed")
	expect(t, shownB, "changed")
}

// A console that takes nothing holds up neither the caller nor the others.
func TestStuckConsole(t *testing.T) {
	stuck, stuckPath := terminal(t) // nobody reads this one
	good, goodPath := terminal(t)
	_ = stuck
	s := openSet(t, false, stuckPath, goodPath)
	shown := lines(good)
	for range 3 * waiting {
		s.Say(strings.Repeat("x", 1000))
		expect(t, shown, strings.Repeat("x", 1000))
	}
	s.Say("still there")
	expect(t, shown, "still there")
	begin := time.Now()
	s.Flush(50 * time.Millisecond)
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("flush took %v", took)
	}
}
