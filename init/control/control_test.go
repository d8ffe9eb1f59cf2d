package control

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"quantavirt/init/unixhttp"
	"quantavirt/internal/initapi"
	"quantavirt/internal/qverr"
	"quantavirt/internal/qvlog"
)

type fakeNode struct {
	mu    sync.Mutex
	calls []string
	step  chan struct{}
	exits map[int]initapi.Exit
}

func (f *fakeNode) called(what string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, what)
}

func (f *fakeNode) Boot() initapi.Boot {
	return initapi.Boot{Hostname: "node", Options: map[string]string{"debug": ""}, Steps: []initapi.Step{{Name: "kvm", TookMS: 3, Problem: initapi.NewProblem(qverr.NoVMX)}}}
}

func (f *fakeNode) WaitBoot(ctx context.Context, step string) error {
	if step == "nonsense" {
		return qverr.New(qverr.NoEnt, "no step")
	}
	select {
	case <-f.step:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (f *fakeNode) Kexec() { f.called("kexec") }
func (f *fakeNode) Unlock(_ context.Context, key string) error {
	f.called("unlock " + key)
	if key != "right" {
		return qverr.New(qverr.Perm, "another key")
	}
	return nil
}
func (f *fakeNode) Blessed() { f.called("blessed") }

func (f *fakeNode) WaitCards(ctx context.Context, after int) (initapi.Cards, error) {
	if after < 2 {
		return initapi.Cards{Look: 2, Cards: []initapi.Card{{Address: "0000:01:00.0", Bound: true}}}, nil
	}
	<-ctx.Done()
	return initapi.Cards{}, ctx.Err()
}

func (f *fakeNode) Exit(pid int) (initapi.Exit, bool) { e, ok := f.exits[pid]; return e, ok }

func (f *fakeNode) WaitExit(_ context.Context, pid int) (initapi.Exit, error) {
	if e, ok := f.exits[pid]; ok {
		return e, nil
	}
	return initapi.Exit{}, qverr.New(qverr.NoEnt, "no process %d", pid)
}

func (f *fakeNode) Banner(lines []string) { f.called("banner " + strings.Join(lines, "|")) }
func (f *fakeNode) Ready()                { f.called("ready") }
func (f *fakeNode) Reboot()               { f.called("reboot") }
func (f *fakeNode) PowerOff()             { f.called("poweroff") }
func (f *fakeNode) Log() []byte           { return []byte("one\ntwo\n") }

func serve(t *testing.T, n Node) (*initapi.Client, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "run", "init.sock")
	s, err := Listen(path, n, qvlog.New(io.Discard, qvlog.Options{}))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return initapi.NewClient(path), path
}

func TestClientAndServer(t *testing.T) {
	exit := initapi.Exit{PID: 7, Status: -1, Signal: 9, Time: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	f := &fakeNode{step: make(chan struct{}), exits: map[int]initapi.Exit{7: exit}}
	c, path := serve(t, f)
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v %v", st.Mode(), err)
	}
	ctx := t.Context()
	if b, err := c.Boot(ctx, false); err != nil || !reflect.DeepEqual(b, f.Boot()) {
		t.Errorf("%+v %v", b, err)
	}
	short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
	defer cancel()
	if _, err := c.Boot(short, true); !errors.Is(err, qverr.Timeout) {
		t.Errorf("wait: %v", err)
	}
	if got, err := c.Cards(ctx, 1); err != nil || got.Look != 2 || len(got.Cards) != 1 || !got.Cards[0].Bound {
		t.Errorf("cards: %+v %v", got, err)
	}
	if _, err := c.Cards(short, 2); !errors.Is(err, qverr.Timeout) {
		t.Errorf("cards that nothing has changed: %v", err)
	}
	close(f.step)
	for _, call := range []func() error{
		func() error { _, err := c.Boot(ctx, true); return err },
		func() error { _, err := c.BootStep(ctx, "modules"); return err },
		func() error { return c.Console(ctx, initapi.Banner{Lines: []string{"a", "b"}}) },
		func() error { return c.Ready(ctx) },
		func() error { return c.Reboot(ctx) },
		func() error { return c.PowerOff(ctx) },
		func() error { return c.Kexec(ctx) },
		func() error { return c.Blessed(ctx) },
		func() error { return c.Unlock(ctx, "right") },
	} {
		if err := call(); err != nil {
			t.Error(err)
		}
	}
	if want := []string{"banner a|b", "ready", "reboot", "poweroff", "kexec", "blessed", "unlock right"}; !reflect.DeepEqual(f.calls, want) {
		t.Errorf("calls: %v", f.calls)
	}
	if err := c.Unlock(ctx, "wrong"); !errors.Is(err, qverr.Perm) {
		t.Errorf("unlock with a wrong key: %v", err)
	}
	if log, err := c.Log(ctx); err != nil || string(log) != "one\ntwo\n" {
		t.Errorf("%q %v", log, err)
	}
	if e, err := c.Exit(ctx, 7); err != nil || e != exit {
		t.Errorf("%+v %v", e, err)
	}
	if e, err := c.WaitExit(ctx, 7); err != nil || e != exit {
		t.Errorf("%+v %v", e, err)
	}
}

func TestErrors(t *testing.T) {
	c, path := serve(t, &fakeNode{})
	ctx := t.Context()
	_, noStep := c.BootStep(ctx, "nonsense")
	_, noExit := c.Exit(ctx, 8)
	_, noWait := c.WaitExit(ctx, 8)
	_, badPID := c.Exit(ctx, -1)
	_, badLook := c.Cards(ctx, -1)
	_, nobody := initapi.NewClient(path+"x").Boot(ctx, false)
	for name, x := range map[string]struct {
		err  error
		code qverr.Code
	}{
		"step": {noStep, qverr.NoEnt}, "exit": {noExit, qverr.NoEnt}, "wait": {noWait, qverr.NoEnt},
		"pid": {badPID, qverr.Inval}, "look for cards": {badLook, qverr.Inval}, "no socket": {nobody, qverr.NoEnt},
		"large banner": {c.Console(ctx, initapi.Banner{Lines: []string{strings.Repeat("x", unixhttp.MaxBody)}}), qverr.Inval},
	} {
		if qverr.CodeOf(x.err) != x.code {
			t.Errorf("%s: %v", name, x.err)
		}
	}
}

// Another user is refused even where the socket's mode would let him in.
func TestOnlyRoot(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to become another user")
	}
	f := &fakeNode{}
	_, path := serve(t, f)
	for dir := path; dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	answer := make(chan string)
	go func() {
		// The thread dies with its user id.
		runtime.LockOSThread()
		if _, _, errno := syscall.RawSyscall(syscall.SYS_SETRESUID, 12345, 12345, 12345); errno != 0 {
			answer <- errno.Error()
			return
		}
		fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
		if err == nil {
			err = syscall.Connect(fd, &syscall.SockaddrUnix{Name: path})
		}
		if err == nil {
			_, err = syscall.Write(fd, []byte("POST /reboot HTTP/1.0\r\n\r\n"))
		}
		buf := make([]byte, 4096)
		n := 0
		if err == nil {
			n, err = syscall.Read(fd, buf)
		}
		if err != nil {
			answer <- err.Error()
			return
		}
		answer <- string(buf[:n])
	}()
	if got := <-answer; !strings.Contains(got, " 403 ") {
		t.Errorf("answer: %s", got)
	}
	if f.calls != nil {
		t.Errorf("calls: %v", f.calls)
	}
}
