package secret

import (
	"bytes"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"unsafe"
)

func TestMain(m *testing.M) {
	switch os.Getenv("QUANTAVIRT_TEST_AS") {
	case "hardened":
		p, err := Harden()
		os.Stdout.WriteString(describe(p, err))
		os.Exit(0)
	default:
		os.Exit(m.Run())
	}
}

// describe is what the hardened process says of itself, by its own account and by the kernel's.
func describe(p Protection, err error) string {
	status, _ := os.ReadFile("/proc/self/status")
	limits, _ := os.ReadFile("/proc/self/limits")
	var locked, core string
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmLck:"); ok {
			locked = strings.Fields(rest)[0]
		}
	}
	for line := range strings.Lines(string(limits)) {
		if rest, ok := strings.CutPrefix(line, "Max core file size"); ok {
			core = strings.Fields(rest)[0]
		}
	}
	text := "fine"
	if err != nil {
		text = strings.ReplaceAll(err.Error(), "\n", "; ")
	}
	return strings.Join([]string{strconv.FormatBool(p.Locked), strconv.FormatBool(p.NoCoreDump), locked, core, text}, "\n")
}

func TestHarden(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "QUANTAVIRT_TEST_AS=hardened")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(out), "\n")
	may, err := mayLock()
	if err != nil {
		t.Fatal(err)
	}
	locked, _ := strconv.Atoi(lines[2])
	if lines[0] != strconv.FormatBool(may) || (locked > 0) != may {
		t.Errorf("locked %s, %d KiB; may be locked: %v (%s)", lines[0], locked, may, lines[4])
	}
	if lines[1] != "true" || lines[3] != "0" {
		t.Errorf("core dumps: %s, limit %s (%s)", lines[1], lines[3], lines[4])
	}
}

func TestSwapless(t *testing.T) {
	const head = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"
	if !swapless(strings.NewReader(head)) || !swapless(strings.NewReader("")) {
		t.Error("no swap is taken for some")
	}
	if swapless(strings.NewReader(head + "/dev/sda2 partition 1 0 -2\n")) {
		t.Error("swap is not seen")
	}
}

func TestBuffer(t *testing.T) {
	from := []byte("something that nobody may see")
	want := bytes.Clone(from)
	b, err := Take(from)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b.Bytes(), want) || !bytes.Equal(from, make([]byte, len(from))) {
		t.Errorf("buffer %q, source %q", b.Bytes(), from)
	}
	if flags := mapping(t, b); !strings.Contains(flags, " lo") || !strings.Contains(flags, " dd") || !strings.Contains(flags, " dc") {
		t.Errorf("the mapping is not locked, left out of dumps and of children: %s", flags)
	}
	b.Wipe()
	b.Wipe()
	if b.Bytes() != nil {
		t.Error("bytes after the wipe")
	}
	(*Buffer)(nil).Wipe()
}

// mapping returns the flags of the buffer's mapping (proc(5), smaps).
func mapping(t *testing.T, b *Buffer) string {
	t.Helper()
	data, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	start := strconv.FormatUint(uint64(uintptr(unsafe.Pointer(&b.Bytes()[0]))), 16) + "-"
	_, rest, ok := strings.Cut(string(data), start)
	if !ok {
		t.Fatalf("no mapping at %s", start)
	}
	_, flags, _ := strings.Cut(rest, "VmFlags:")
	flags, _, _ = strings.Cut(flags, "\n")
	return flags
}
