package jail

import (
	"encoding/binary"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// run asks a program about one call, on the simulator of package bpf, which reads its
// packet big-endian.
func run(t *testing.T, code []bpf.Instruction, arch, call uint32, args ...uint64) action {
	t.Helper()
	vm, err := bpf.NewVM(code)
	if err != nil {
		t.Fatal(err)
	}
	data := make([]byte, 64)
	binary.BigEndian.PutUint32(data[offCall:], call)
	binary.BigEndian.PutUint32(data[offArch:], arch)
	for i, a := range args {
		binary.BigEndian.PutUint32(data[offArgs+8*i:], uint32(a))
		binary.BigEndian.PutUint32(data[offArgs+8*i+4:], uint32(a>>32))
	}
	got, err := vm.Run(data)
	if err != nil {
		t.Fatal(err)
	}
	return action(uint32(got))
}

func TestProgram(t *testing.T) {
	const pid, arch, i386 = 7, unix.AUDIT_ARCH_X86_64, 0x4000_0003
	full := program(allowlist, pid, actKill)
	for _, c := range []struct {
		name string
		arch uint32
		call uint32
		args []uint64
		want action
	}{
		{"KVM_RUN", arch, unix.SYS_IOCTL, []uint64{3, 0xae80, 0}, actAllow},
		{"the last ioctl", arch, unix.SYS_IOCTL, []uint64{3, unix.BLKGETSIZE64}, actAllow},
		{"another ioctl", arch, unix.SYS_IOCTL, []uint64{3, unix.TIOCSTI}, actKill},
		{"ioctl with a high half, which the kernel ignores", arch, unix.SYS_IOCTL, []uint64{3, 1<<32 | 0xae80}, actAllow},
		{"another architecture", i386, unix.SYS_IOCTL, []uint64{3, 0xae80, 0}, actKill},
		{"x32", arch, 0x4000_0000 | unix.SYS_READ, nil, actKill},
		{"mmap", arch, unix.SYS_MMAP, []uint64{0, 4096, unix.PROT_READ | unix.PROT_WRITE}, actAllow},
		{"mmap of code", arch, unix.SYS_MMAP, []uint64{0, 4096, unix.PROT_READ | unix.PROT_EXEC}, actKill},
		{"thread", arch, unix.SYS_CLONE, []uint64{onlyThreads}, actAllow},
		{"process", arch, unix.SYS_CLONE, []uint64{uint64(unix.SIGCHLD)}, actKill},
		{"thread in a namespace", arch, unix.SYS_CLONE, []uint64{onlyThreads | unix.CLONE_NEWNET}, actKill},
		{"tgkill", arch, unix.SYS_TGKILL, []uint64{pid, 9, 23}, actAllow},
		{"tgkill of another", arch, unix.SYS_TGKILL, []uint64{pid + 1, 9, 23}, actKill},
		{"second match", arch, unix.SYS_PRCTL, []uint64{unix.PR_SET_NAME}, actAllow},
		{"prctl", arch, unix.SYS_PRCTL, []uint64{unix.PR_SET_DUMPABLE}, actKill},
		{"statx by descriptor", arch, unix.SYS_STATX, []uint64{3, 0, unix.AT_EMPTY_PATH | unix.AT_STATX_DONT_SYNC}, actAllow},
		{"statx by path", arch, unix.SYS_STATX, []uint64{3, 0, 0}, actKill},
		{"last rule", arch, unix.SYS_RECVFROM, nil, actAllow},
		{"open", arch, unix.SYS_OPENAT, nil, actKill},
		{"unknown", arch, 999, nil, actKill},
	} {
		if got := run(t, full, c.arch, c.call, c.args...); got != c.want {
			t.Errorf("%s: %#x, want %#x", c.name, got, c.want)
		}
	}
	if got := run(t, program(allowlist, pid, actLog), arch, unix.SYS_OPENAT); got != actLog {
		t.Errorf("development: %#x", got)
	}
	seal := sealProgram(allowlist, actKill)
	for call, want := range map[uint32]action{unix.SYS_MEMFD_CREATE: actKill, unix.SYS_IO_URING_SETUP: actKill, unix.SYS_READ: actAllow} {
		if got := run(t, seal, arch, call); got != want {
			t.Errorf("sealed, call %d: %#x", call, got)
		}
	}
}

func TestAllowlist(t *testing.T) {
	seen := map[uint32]bool{}
	for _, r := range allowlist {
		if seen[r.call] {
			t.Errorf("call %d has two rows", r.call)
		}
		seen[r.call] = true
		if len(r.why) < 3 || r.when != nil && len(r.when) == 0 {
			t.Errorf("call %d: no reason, or matches that allow nothing", r.call)
		}
		for _, m := range r.when {
			if m.arg < 0 || m.arg > 5 || m.why == "" || m.value != self && m.value&^m.mask != 0 {
				t.Errorf("call %d: %+v", r.call, m)
			}
		}
	}
	if allowlist[0].call != unix.SYS_IOCTL || ioctls[0].value != 0xae80 {
		t.Error("KVM_RUN does not come first")
	}
}

// TestIoctls holds the list against the sources of hv: what is not used is not allowed,
// and what is used is.
func TestIoctls(t *testing.T) {
	used, list := sources{}, sources{}
	err := filepath.WalkDir("../..", func(path string, d os.DirEntry, err error) error {
		switch {
		case err != nil || !d.IsDir() && (!strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go")):
			return err
		case d.IsDir() && (d.Name() == "jail" || d.Name() == "cmd" || d.Name() == "guesttool"): // not in a jail
			return filepath.SkipDir
		case d.IsDir():
			return nil
		}
		return used.read(path)
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := list.read("ioctls.go"); err != nil {
		t.Fatal(err)
	}
	if len(used) < 40 {
		t.Errorf("only %d requests were found", len(used))
	}
	for request, where := range used {
		if list[request] == "" {
			t.Errorf("%s: %s is not in the list", where, request)
		}
	}
	for request, where := range list {
		if used[request] == "" {
			t.Errorf("%s: %s is allowed, and hv does not use it", where, request)
		}
	}
}

// sources are the requests in some files, and where one is: numbers of the types of KVM
// and vhost in hexadecimal, and names of package unix.
type sources map[string]string

func (s sources) read(path string) error {
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, path, nil, parser.SkipObjectResolution)
	if err != nil {
		return err
	}
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.BasicLit:
			v, err := strconv.ParseUint(strings.ReplaceAll(n.Value, "_", ""), 0, 32)
			if kind := v >> 8 & 0xff; err == nil && strings.HasPrefix(n.Value, "0x") && v >= 0xae00 && (kind == 0xae || kind == 0xaf) {
				s[strconv.FormatUint(v, 16)] = fset.Position(n.Pos()).String()
			}
		case *ast.SelectorExpr:
			if pkg, ok := n.X.(*ast.Ident); ok && pkg.Name == "unix" && isRequest(n.Sel.Name) {
				s[n.Sel.Name] = fset.Position(n.Pos()).String()
			}
		}
		return true
	})
	return nil
}

// isRequest tells names of ioctl requests from others of package unix.
func isRequest(name string) bool {
	for _, prefix := range []string{"TUNGET", "TUNSET", "BLK", "SIOC", "FS_IOC", "VHOST_"} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}
