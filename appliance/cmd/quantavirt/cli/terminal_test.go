package cli

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// openPTY returns a terminal and the side a person would sit at.
func openPTY(t *testing.T) (person, terminal *os.File) {
	t.Helper()
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no pseudo-terminals here: %v", err)
	}
	t.Cleanup(func() { person.Close() })
	n, err := unix.IoctlGetInt(int(person.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(person.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		terminal, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	}
	if err != nil {
		t.Skipf("no pseudo-terminals here: %v", err)
	}
	t.Cleanup(func() { terminal.Close() })
	return person, terminal
}

func canonical(t *testing.T, f *os.File) bool {
	t.Helper()
	mode, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return mode.Lflag&unix.ICANON != 0
}

// Ctrl-C goes to the guest, Ctrl-] leaves, and the terminal is as it was.
func TestConsoleOnATerminal(t *testing.T) {
	person, tty := openPTY(t)
	fromGuest := make(chan string, 1)
	env := node(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, rw, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: quantavirt-console\r\n\r\nlogin: ")
		data, _ := io.ReadAll(rw.Reader)
		fromGuest <- string(data)
	}))
	shown := make(chan string, 64)
	exit := make(chan int, 1)
	go func() {
		exit <- Run(t.Context(), []string{"vm", "console", "web"},
			Env{In: tty, Out: chanWriter(shown), Err: io.Discard, Getenv: func(k string) string { return env[k] }})
	}()
	limit := time.After(30 * time.Second)
	for seen := ""; !strings.Contains(seen, "login: "); {
		select {
		case s := <-shown:
			seen += s
		case <-limit:
			t.Fatalf("the console shows %q", seen)
		}
	}
	if canonical(t, tty) {
		t.Error("the terminal is not in raw mode while attached")
	}
	if _, err := person.WriteString("root\r\x03\x1d"); err != nil {
		t.Fatal(err)
	}
	select {
	case code := <-exit:
		if code != 0 {
			t.Errorf("exit %d", code)
		}
	case <-limit:
		t.Fatal("Ctrl-] does not leave")
	}
	if got := <-fromGuest; got != "root\r\x03" {
		t.Errorf("the guest got %q", got)
	}
	if !canonical(t, tty) {
		t.Error("the terminal stays in raw mode")
	}
}

type chanWriter chan string

func (c chanWriter) Write(p []byte) (int, error) {
	c <- string(p)
	return len(p), nil
}
