package vmm

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"quantavirt/hv/config"
	"quantavirt/internal/qverr"
)

func pair(t *testing.T) (ours, theirs *os.File) {
	t.Helper()
	ours, theirs, err := StartPair()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ours.Close(); theirs.Close() })
	return ours, theirs
}

func tempFile(t *testing.T, name, content string) *os.File {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func testMachine() config.Machine {
	return config.Machine{Name: "web", CPUs: 1, Memory: 64 << 20, Boot: config.Boot{Kernel: "kernel", Cmdline: "quiet"},
		Disks: []config.Disk{{ID: "d", File: "disk", Format: "raw"}}}
}

func testFiles(t *testing.T) map[string]*os.File {
	t.Helper()
	files := map[string]*os.File{}
	for _, name := range []string{"kernel", "disk", config.FileKVM, config.FileControl, config.FileExit} {
		files[name] = tempFile(t, name, "content of "+name)
	}
	return files
}

func TestFrame(t *testing.T) {
	ours, theirs := pair(t)
	sent := Frame{Machine: testMachine(), Jail: &Jail{UID: 1, GID: 2, Dir: "/x", Memlock: 3}, Grace: 4}
	if err := SendFrame(ours, sent, testFiles(t)); err != nil {
		t.Fatal(err)
	}
	got, files, err := ReceiveFrame(theirs)
	if err != nil {
		t.Fatal(err)
	}
	if got.Machine.Name != "web" || *got.Jail != *sent.Jail || got.Grace != 4 || len(files) != 5 {
		t.Errorf("%+v", got)
	}
	for name, f := range files {
		data, err := io.ReadAll(f)
		if err != nil || string(data) != "content of "+name {
			t.Errorf("%s holds %q (%v)", name, data, err)
		}
		if flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
			t.Errorf("%s would be inherited", name)
		}
		f.Close()
	}
	SendAnswer(theirs, nil)
	if err := receiveAnswer(ours); err != nil {
		t.Error(err)
	}
	SendAnswer(theirs, qverr.New(qverr.StrLock, "disk is locked").With("disk", "d"))
	err = receiveAnswer(ours)
	if !errors.Is(err, qverr.StrLock) || err.Error() != "disk is locked" || qverr.From(err).Details["disk"] != "d" {
		t.Errorf("%v", err)
	}
	theirs.Close()
	if err := receiveAnswer(ours); !errors.Is(err, io.EOF) {
		t.Errorf("%v", err)
	}
}

func TestFrameRefused(t *testing.T) {
	kvm := tempFile(t, "kvm", "")
	for name, tc := range map[string]struct {
		send func(ours *os.File) error
		want qverr.Code
	}{
		"nothing":  {func(ours *os.File) error { return ours.Close() }, qverr.State},
		"not JSON": {func(ours *os.File) error { return unix.Sendmsg(int(ours.Fd()), []byte("{"), nil, nil, 0) }, qverr.Inval},
		"other version": {func(ours *os.File) error {
			return unix.Sendmsg(int(ours.Fd()), []byte(`{"version":99}`), nil, nil, 0)
		}, qverr.Version},
		"names without files": {func(ours *os.File) error {
			return unix.Sendmsg(int(ours.Fd()), []byte(`{"version":1,"files":["kvm"]}`), nil, nil, 0)
		}, qverr.Inval},
		"files without names": {func(ours *os.File) error {
			return unix.Sendmsg(int(ours.Fd()), []byte(`{"version":1}`), unix.UnixRights(int(kvm.Fd())), nil, 0)
		}, qverr.Inval},
		"missing file": {func(ours *os.File) error {
			files := testFiles(t)
			delete(files, "disk")
			return SendFrame(ours, Frame{Machine: testMachine()}, files)
		}, qverr.Inval},
		"file too many": {func(ours *os.File) error {
			files := testFiles(t)
			files["more"] = kvm
			return SendFrame(ours, Frame{Machine: testMachine()}, files)
		}, qverr.Inval},
		"same name twice": {func(ours *os.File) error {
			fd := int(kvm.Fd())
			return unix.Sendmsg(int(ours.Fd()), []byte(`{"version":1,"files":["kvm","kvm"]}`), unix.UnixRights(fd, fd), nil, 0)
		}, qverr.Inval},
		"too long": {func(ours *os.File) error {
			return unix.Sendmsg(int(ours.Fd()), []byte(strings.Repeat(" ", maxFrame+1)), nil, nil, 0)
		}, qverr.Limit},
	} {
		ours, theirs := pair(t)
		before := countFDs(t)
		if err := tc.send(ours); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		made := countFDs(t) // what the test itself opened
		if _, _, err := ReceiveFrame(theirs); qverr.CodeOf(err) != tc.want {
			t.Errorf("%s: %v", name, err)
		}
		if after := countFDs(t); after > made {
			t.Errorf("%s: %d descriptors before, %d made, %d after", name, before, made, after)
		}
	}
	ours, _ := pair(t)
	m := testMachine()
	m.Boot.Cmdline = strings.Repeat("x", maxFrame)
	if err := SendFrame(ours, Frame{Machine: m}, testFiles(t)); !errors.Is(err, qverr.Limit) {
		t.Errorf("long frame: %v", err)
	}
}

func countFDs(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}
