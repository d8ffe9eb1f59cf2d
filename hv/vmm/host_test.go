package vmm

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestHostStats(t *testing.T) {
	proc := t.TempDir()
	for name, text := range map[string]string{
		"7/smaps": "00400000-00500000 r-xp 00000000 00:01 5   /bin/hv\nRss:   90 kB\nPss:    40 kB\nPss_Dirty:  1 kB\n" +
			"7f00-7f10 rw-s 00000000 00:01 9   /memfd:guest-ram (deleted)\nPss:  2048 kB\nVmFlags: rd wr sh\n" +
			"c000000000-c000400000 rw-p 00000000 00:00 0 \nPss:   1000 kB\n",
		"7/task/7/comm": "hv\n", "7/task/7/schedstat": "1 999000000 1\n",
		"7/task/8/comm": "vcpu1\n", "7/task/8/schedstat": "500 7000000 3\n",
		"7/task/9/comm": "vcpu0\n", "7/task/9/schedstat": "500 2000 3\n",
	} {
		path := filepath.Join(proc, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	h, err := readHost(proc, 7)
	if err != nil || h.Threads != 3 || h.PSS != 3088<<10 || h.GuestPSS != 2048<<10 || h.Beyond() != 1040<<10 || !slices.Equal(h.Steal, []int64{2, 7000}) {
		t.Errorf("%+v, %v", h, err)
	}
	if _, err := readHost(proc, 8); err == nil {
		t.Error("a process that is not there")
	}
	// And the real thing.
	h, err = readHost("/proc", os.Getpid())
	if err != nil || h.Threads == 0 || h.PSS == 0 || h.GuestPSS != 0 {
		t.Errorf("%+v, %v", h, err)
	}
}

func TestHex(t *testing.T) {
	var h Hex
	text, err := Hex(0xfff0).MarshalText()
	if err != nil || string(text) != "0xfff0" || h.UnmarshalText(text) != nil || h != 0xfff0 {
		t.Errorf("%s, %v, %#x", text, err, h)
	}
	if h.UnmarshalText([]byte("x")) == nil {
		t.Error("x is no number")
	}
}
