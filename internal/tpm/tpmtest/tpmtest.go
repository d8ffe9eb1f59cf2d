// Package tpmtest gives tests a TPM: swtpm of Debian, in a directory of the
// test.
package tpmtest

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"quantavirt/image/tools"
	"quantavirt/internal/tpm"
)

// New starts a TPM of its own for the test, switched on and with all registers zero.
func New(t testing.TB) *tpm.Device {
	t.Helper()
	root, err := tools.Ensure(t.Context(), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := pair(t)
	defer theirs.Close()
	cmd := root.Command("swtpm", "socket", "--tpm2", "--tpmstate", "dir="+t.TempDir()+"/", "--flags", "startup-clear",
		"--fd", "3")
	cmd.ExtraFiles = []*os.File{theirs}
	log, err := os.Create(filepath.Join(t.TempDir(), "swtpm.log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	conn, err := net.FileConn(ours)
	if err != nil {
		t.Fatal(err)
	}
	_ = ours.Close()
	t.Cleanup(func() {
		_ = conn.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if text, err := os.ReadFile(log.Name()); err == nil && t.Failed() {
			t.Logf("swtpm: %s", text)
		}
	})
	return tpm.New(conn)
}

func pair(t testing.TB) (ours, theirs *os.File) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return os.NewFile(uintptr(fds[0]), "ours"), os.NewFile(uintptr(fds[1]), "theirs")
}
