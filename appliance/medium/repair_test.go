package medium

import (
	"bytes"
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"quantavirt/internal/fat32"
	"quantavirt/internal/hosttool"
	"quantavirt/internal/qverr"
)

// volume is a FAT32 with files, in memory.
type volume []byte

func (v volume) WriteAt(p []byte, at int64) (int, error) { return copy(v[at:], p), nil }

const (
	volumeSize  = 34 << 20
	clusterSize = 512
	lastCluster = 0x0fffffff
)

// Files of a volume: of ten clusters, of two hundred, and of two in a folder of its own.
var (
	fileA = bytes.Repeat([]byte("A bcde "), 5000/7)
	fileB = bytes.Repeat([]byte("B b longer\n"), 100_000/11)
	fileC = bytes.Repeat([]byte("C"), 700)
)

const (
	nameA, shortA = "EFI/Linux/A.EFI", "A       EFI"
	nameB, shortB = "EFI/Linux/a longer name.efi", "ALONGE~1EFI"
	nameC, shortC = "qv/C.TXT", "C       TXT"
	folderEFI     = "EFI        "
	folderQV      = "QV~1       "
)

// newVolume makes one that is not unmounted.
func newVolume(t *testing.T) volume {
	t.Helper()
	v := make(volume, volumeSize)
	_, err := fat32.Format(v, fat32.Volume{
		Label: "QV-ESP", Serial: 1, Size: volumeSize, SectorSize: 512, Time: time.Date(2026, 1, 15, 14, 32, 2, 0, time.UTC),
		Files: []fat32.File{fat32.Bytes(nameA, fileA), fat32.Bytes(nameB, fileB), fat32.Bytes(nameC, fileC)},
	})
	if err != nil {
		t.Fatal(err)
	}
	if per := v[13]; per != 1 {
		t.Fatalf("%d sectors in a cluster", per)
	}
	v[state32] |= stateDirty
	return v
}

func (v volume) reserved() int64 { return int64(binary.LittleEndian.Uint16(v[14:])) * 512 }
func (v volume) tables() int64   { return int64(binary.LittleEndian.Uint32(v[36:])) * 512 }

// entry is a cluster's place in the first table.
func (v volume) entry(cluster uint32) []byte { return v[v.reserved()+int64(cluster)*4:] }

func (v volume) set(cluster, next uint32) { binary.LittleEndian.PutUint32(v.entry(cluster), next) }

// record is that of a short name in its folder.
func (v volume) record(short string) []byte { return v[bytes.Index(v, []byte(short)):][:32] }

// first is a file's first cluster.
func (v volume) first(short string) uint32 {
	r := v.record(short)
	return uint32(binary.LittleEndian.Uint16(r[20:]))<<16 | uint32(binary.LittleEndian.Uint16(r[26:]))
}

func (v volume) cluster(n uint32) []byte {
	return v[v.reserved()+2*v.tables()+int64(n-2)*clusterSize:][:clusterSize]
}

// After a repair dosfstools find nothing more, and what was whole is as it was.
func TestRepair(t *testing.T) {
	empty := []byte{}
	for name, c := range map[string]struct {
		do      func(v volume)
		a, b, c []byte // nil: gone
	}{
		"nothing": {do: func(volume) {}, a: fileA, b: fileB, c: fileC},
		"lost clusters": {do: func(v volume) {
			v.set(60000, 60001)
			v.set(60001, lastCluster)
		}, a: fileA, b: fileB, c: fileC},
		"chain breaks off":   {do: func(v volume) { v.set(v.first(shortB)+2, 0) }, a: fileA, b: fileB[:2*clusterSize], c: fileC},
		"no chain":           {do: func(v volume) { v.set(v.first(shortB), 0) }, a: fileA, b: empty, c: fileC},
		"chain into another": {do: func(v volume) { v.set(v.first(shortB), v.first(shortA)+1) }, a: fileA, b: fileB[:clusterSize], c: fileC},
		"chain in a ring":    {do: func(v volume) { v.set(v.first(shortC)+1, v.first(shortC)) }, a: fileA, b: fileB, c: fileC},
		"chain out of all":   {do: func(v volume) { v.set(v.first(shortC), 0x0ffffff0) }, a: fileA, b: fileB, c: fileC[:clusterSize]},
		"chain too long":     {do: func(v volume) { binary.LittleEndian.PutUint32(v.record(shortB)[28:], 600) }, a: fileA, b: fileB[:600], c: fileC},
		"two names": {do: func(v volume) {
			copy(v.record(shortB)[20:], v.record(shortA)[20:])
		}, a: fileA, b: empty, c: fileC},
		"folder not written":     {do: func(v volume) { clear(v.cluster(v.first(folderQV))) }, a: fileA, b: fileB},
		"folder without cluster": {do: func(v volume) { v.set(v.first(folderEFI), 0) }, c: fileC},
		"second table":           {do: func(v volume) { copy(v[v.reserved()+v.tables()+400:], "something else") }, a: fileA, b: fileB, c: fileC},
	} {
		t.Run(name, func(t *testing.T) {
			v := newVolume(t)
			c.do(v)
			path := write(t, v)
			if err := Repair(t.Context(), hosttool.Path(t, "fsck.fat"), path); err != nil {
				t.Fatal(err)
			}
			if dirty, err := isDirty(path); dirty || err != nil {
				t.Errorf("dirty %v, %v", dirty, err)
			}
			hosttool.Run(t, "fsck.fat", "-n", path)
			out := t.TempDir()
			hosttool.Run(t, "mcopy", "-s", "-n", "-i", path, "::/", out)
			for file, want := range map[string][]byte{nameA: c.a, nameB: c.b, nameC: c.c} {
				got, err := os.ReadFile(filepath.Join(out, file))
				if !bytes.Equal(got, want) || (err == nil) != (want != nil) {
					t.Errorf("%s: %d bytes, want %d; %v", file, len(got), len(want), err)
				}
			}
		})
	}
}

func write(t *testing.T, v volume) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "volume.img")
	if err := os.WriteFile(path, v, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// A volume that was unmounted in order is not looked at.
func TestNotRepaired(t *testing.T) {
	v := newVolume(t)
	v[state32] = 0
	if err := Repair(t.Context(), "/nonexistent", write(t, v)); err != nil {
		t.Error(err)
	}
	// Firmware says it in the table.
	v.set(1, lastCluster&^tableClean)
	if err := Repair(t.Context(), "/nonexistent", write(t, v)); qverr.CodeOf(err) != qverr.StrIO {
		t.Error(err)
	}
	copy(v[82:], "FAT16   ")
	if dirty, err := isDirty(write(t, v)); dirty || err != nil {
		t.Errorf("FAT16: %v %v", dirty, err)
	}
	v[state16] = stateDirty
	if dirty, err := isDirty(write(t, v)); !dirty || err != nil {
		t.Errorf("FAT16 in use: %v %v", dirty, err)
	}
}

// What is no file system stays as it is.
func TestBeyondRepair(t *testing.T) {
	program := hosttool.Path(t, "fsck.fat")
	for name, at := range map[string]int{"sectors of a cluster": 13, "sector": 12, "tables": 16} {
		v := newVolume(t)
		v[at] = 0
		path := write(t, v)
		err := Repair(t.Context(), program, path)
		if err == nil {
			t.Errorf("%s: repaired", name)
			continue
		}
		if !strings.Contains(err.Error(), path) || qverr.CodeOf(err) != qverr.StrIO {
			t.Errorf("%s: %v", name, err)
		}
		f, openErr := os.Open(path)
		if openErr != nil {
			t.Fatal(openErr)
		}
		got, readErr := io.ReadAll(f)
		if readErr != nil || f.Close() != nil || !bytes.Equal(got, v) {
			t.Errorf("%s: changed", name)
		}
	}
}
