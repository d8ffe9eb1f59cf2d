package fat32

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"quantavirt/internal/hosttool"
	"quantavirt/internal/qverr"
)

// hurt is a volume with files, not unmounted, to which something was done.
type hurt struct {
	*repair
	data  []byte
	slots map[string]int // of names: where their record is
}

// inMemory is a Disk.
type inMemory []byte

func (m inMemory) ReadAt(p []byte, at int64) (int, error)  { return bytes.NewReader(m).ReadAt(p, at) }
func (m inMemory) WriteAt(p []byte, at int64) (int, error) { return copy(m[at:], p), nil }

// damage makes a volume and does something to it.
func damage(t testing.TB, do func(h *hurt)) []byte {
	t.Helper()
	data := make(inMemory, smallVolume)
	_, err := Format(data, Volume{Label: "QV-ESP", Serial: 1, Size: int64(len(data)), SectorSize: 512, Time: when, Files: []File{
		Bytes("EFI/Linux/A.EFI", random(1, 5000)), Bytes("EFI/Linux/a longer name.efi", random(2, 100_000)), Bytes("qv/B.TXT", random(3, 700)),
	}})
	if err != nil {
		t.Fatal(err)
	}
	data[stateOffset] |= stateDirty
	r, err := openRepair(data)
	if err != nil || r == nil {
		t.Fatal(err)
	}
	h := &hurt{repair: r, data: data, slots: make(map[string]int)}
	for _, short := range []string{"A       EFI", "ALONGE~1EFI", "B       TXT", "EFI        ", "QV~1       "} {
		h.slots[short] = bytes.Index(data, []byte(short))
		if h.slots[short] < 0 {
			t.Fatalf("no record of %q", short)
		}
	}
	do(h)
	for c, next := range h.table {
		binary.LittleEndian.PutUint32(data[r.reserved*r.sector+int64(4*c):], next)
	}
	return data
}

// smallVolume is a small FAT32.
const smallVolume = 34 << 20

func (h *hurt) record(short string) []byte { return h.data[h.slots[short]:][:recordSize] }

func (h *hurt) first(short string) uint32 {
	e := h.record(short)
	return uint32(binary.LittleEndian.Uint16(e[recordHigh:]))<<16 | uint32(binary.LittleEndian.Uint16(e[recordLow:]))
}

// After a repair fsck.vfat finds nothing, and what was whole is as it was.
func TestRepair(t *testing.T) {
	a, long, b := random(1, 5000), random(2, 100_000), random(3, 700)
	for name, c := range map[string]struct {
		do         func(h *hurt)
		a, long, b []byte // nil: gone
	}{
		"nothing": {do: func(*hurt) {}, a: a, long: long, b: b},
		"lost clusters": {do: func(h *hurt) {
			h.set(60000, 60001)
			h.set(60001, lastCluster)
		}, a: a, long: long, b: b},
		"chain breaks off": {do: func(h *hurt) { h.set(h.first("ALONGE~1EFI")+3, 0) }, a: a, long: long[:3*512], b: b},
		"no chain":         {do: func(h *hurt) { h.set(h.first("ALONGE~1EFI"), 0) }, a: a, long: []byte{}, b: b},
		"chain into another": {do: func(h *hurt) { h.set(h.first("ALONGE~1EFI"), h.first("A       EFI")+1) },
			a: a, long: long[:512], b: b},
		"chain in a ring":  {do: func(h *hurt) { h.set(h.first("B       TXT")+1, h.first("B       TXT")) }, a: a, long: long, b: b},
		"chain out of all": {do: func(h *hurt) { h.set(h.first("B       TXT"), 0x0ffffff0) }, a: a, long: long, b: b[:512]},
		"chain too long":   {do: func(h *hurt) { binary.LittleEndian.PutUint32(h.record("ALONGE~1EFI")[recordLength:], 600) }, a: a, long: long[:600], b: b},
		"two names": {do: func(h *hurt) {
			e, f := h.record("A       EFI"), h.record("ALONGE~1EFI")
			copy(f[recordHigh:], e[recordHigh:])
		}, a: a, b: b},
		"folder not written":     {do: func(h *hurt) { copy(h.data[h.offset(h.first("QV~1       ")):], make([]byte, 512)) }, a: a, long: long},
		"folder without cluster": {do: func(h *hurt) { h.set(h.first("EFI        "), 0) }, b: b},
		"second table":           {do: func(h *hurt) { copy(h.data[(h.reserved+h.fat)*h.sector+400:], "something else") }, a: a, long: long, b: b},
	} {
		t.Run(name, func(t *testing.T) {
			data := damage(t, c.do)
			if done, err := Repair(inMemory(data)); err != nil || !done {
				t.Fatalf("%v %v", done, err)
			}
			path := filepath.Join(t.TempDir(), "volume.img")
			if err := os.WriteFile(path, data, 0o600); err != nil {
				t.Fatal(err)
			}
			report := hosttool.Run(t, "fsck.vfat", "-n", "-v", path)
			for _, bad := range []string{"wrong", "differ", "Free cluster", "Orphaned", "Dirty", "Reclaimed", "Truncating", "shared", "Contains"} {
				if strings.Contains(report, bad) {
					t.Errorf("fsck.vfat:\n%s", report)
				}
			}
			out := t.TempDir()
			hosttool.Run(t, "mcopy", "-s", "-n", "-i", path, "::/", out)
			for file, want := range map[string][]byte{"EFI/Linux/A.EFI": c.a, "EFI/Linux/a longer name.efi": c.long, "qv/B.TXT": c.b} {
				got, err := os.ReadFile(filepath.Join(out, file))
				if !bytes.Equal(got, want) || (err == nil) != (want != nil) {
					t.Errorf("%s: %d bytes, want %d; %v", file, len(got), len(want), err)
				}
			}
			if done, err := Repair(inMemory(data)); done || err != nil {
				t.Errorf("once more: %v %v", done, err)
			}
		})
	}
}

// Firmware says in the table that it was interrupted.
func TestRepairAfterFirmware(t *testing.T) {
	data := damage(t, func(h *hurt) {
		h.table[1] &^= tableClean
		h.set(60000, lastCluster)
	})
	data[stateOffset] = 0
	if done, err := Repair(inMemory(data)); !done || err != nil {
		t.Fatalf("%v %v", done, err)
	}
	if done, err := Repair(inMemory(data)); done || err != nil {
		t.Errorf("once more: %v %v", done, err)
	}
}

func TestNotRepaired(t *testing.T) {
	clean := damage(t, func(h *hurt) { h.set(60000, lastCluster) })
	clean[stateOffset] = 0
	before := slices.Clone(clean)
	if done, err := Repair(inMemory(clean)); done || err != nil || !bytes.Equal(clean, before) {
		t.Errorf("a volume that was unmounted: %v %v", done, err)
	}
	for name, at := range map[string]int{"type": 82, "sectors of a cluster": 13, "sector": 12, "tables": 16, "reserved": 14, "signature": 510, "root": 44, "length of a table": 38} {
		data := damage(t, func(*hurt) {})
		data[at] = 0
		if at == 14 || at == 38 {
			data[at], data[at+1] = 0xff, 0xff
		}
		before := slices.Clone(data)
		if _, err := Repair(inMemory(data)); err == nil || !bytes.Equal(data, before) {
			t.Errorf("%s: %v", name, err)
		} else if code := qverr.CodeOf(err); code != qverr.Unsupported && code != qverr.IO {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Whatever stands in boot sector, table and folders, a repair ends, and the next one
// has nothing to do.
func FuzzRepair(f *testing.F) {
	base := damage(f, func(*hurt) {})
	start := bytes.Index(base, []byte("EFI        ")) - 4*recordSize
	f.Add(uint16(90), []byte{1, 2, 3}, uint16(0), []byte{9})
	f.Add(uint16(16384), []byte{0, 0, 0, 0}, uint16(64), []byte{0xe5})
	f.Fuzz(func(t *testing.T, at uint16, table []byte, in uint16, folders []byte) {
		data := inMemory(slices.Clone(base))
		copy(data[at:], table)
		copy(data[start+int(in):], folders)
		done, err := Repair(data)
		if err != nil || !done {
			return
		}
		if done, err := Repair(data); done || err != nil {
			t.Errorf("%v %v", done, err)
		}
	})
}
