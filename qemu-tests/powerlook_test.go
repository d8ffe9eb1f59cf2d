package qemutests

import (
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	bootmedium "quantavirt/appliance/medium"
	"quantavirt/internal/hosttool"
	"quantavirt/internal/slot"
	"quantavirt/qemu-tests/writelog"
)

// loaders look at the EFI system partition of a disk as systemd-boot and GRUB do.
type loaders struct {
	t    *testing.T
	disk *os.File
	at   int64 // the partition
	// sums of the files that each slot boots from, once it is whole
	whole map[uint32][2]string
}

// mtools runs one of the mtools on the partition.
func (b *loaders) mtools(name, path string) []byte {
	cmd := exec.CommandContext(b.t.Context(), name, map[string][]string{"mdir": {"-b"}}[name]...)
	cmd.Args = append(cmd.Args, "-i", fmt.Sprintf("%s@@%d", b.disk.Name(), b.at), "::/"+path)
	cmd.Env = append(os.Environ(), "MTOOLS_SKIP_CHECK=1")
	out, _ := cmd.Output() // what is not there has no content
	return out
}

// names are those of the images that systemd-boot finds. It passes over a file in
// which nothing is, as it does over all that is no program.
func (b *loaders) names() []string {
	var names []string
	for line := range strings.FieldsSeq(string(b.mtools("mdir", slot.UKIFolder))) {
		if name := filepath.Base(line); len(b.mtools("mtype", slot.UKIFolder+"/"+name)) > 0 {
			names = append(names, name)
		}
	}
	return names
}

// uefi is what systemd-boot boots next, and the sum of its image.
func (b *loaders) uefi() (seq uint32, sum string) {
	n, ok := slot.First(b.names())
	if !ok {
		return 0, ""
	}
	return n.Sequence, fmt.Sprintf("%x", sha256.Sum256(b.mtools("mtype", slot.UKIFolder+"/"+n.String())))
}

// bios is what GRUB boots next, and the sum of its files.
func (b *loaders) bios() (seq uint32, sum string) {
	env, err := slot.ParseEnv(b.mtools("mtype", slot.EnvFile))
	if err != nil {
		return 0, ""
	}
	seq, _ = env.Boot()
	all := sha256.New()
	for _, f := range []string{slot.Kernel, slot.Initramfs, slot.Cmdline} {
		data := b.mtools("mtype", filepath.Join(slot.Folder, slot.Digits(seq), f))
		fmt.Fprintf(all, "%d ", len(data))
		_, _ = all.Write(data)
	}
	return seq, fmt.Sprintf("%x", all.Sum(nil))
}

// know takes the present state of the disk as whole.
func (b *loaders) know() {
	u, uefi := b.uefi()
	g, bios := b.bios()
	if u != g || u == 0 {
		b.t.Fatalf("UEFI boots slot %d, BIOS slot %d", u, g)
	}
	b.whole[u] = [2]string{uefi, bios}
}

// look wants both loaders to boot something whole.
func (b *loaders) look(point int) {
	b.t.Helper()
	if seq, sum := b.uefi(); seq == 0 || sum != b.whole[seq][0] {
		b.t.Errorf("after %d systemd-boot boots slot %d of %v, which is not whole", point, seq, b.names())
	}
	if seq, sum := b.bios(); seq == 0 || sum != b.whole[seq][1] {
		b.t.Errorf("after %d GRUB boots slot %d, which is not whole", point, seq)
	}
}

// look wants both loaders to boot a whole system after each small write of the
// update to the EFI system partition, without booting it.
func (r *recording) look(t *testing.T, l *writelog.Log, disk func() *os.File) {
	t.Helper()
	begin := time.Now()
	b := &loaders{t: t, disk: disk(), at: partition(t, r.disk, partESP).offset, whole: make(map[uint32][2]string)}
	from, to := l.Before(r.Marks["write"]), l.Before(r.Marks["end"])
	apply := func(from, to int) {
		if err := l.Apply(b.disk, from, to); err != nil {
			t.Fatal(err)
		}
	}
	apply(0, from)
	b.know()
	apply(from, to)
	b.know()
	if len(b.whole) != 2 {
		t.Fatalf("the update changed nothing: %v", b.whole)
	}
	b.disk = disk()
	size := partition(t, r.disk, partESP).size
	payload := l.Before(r.Marks["boot"]) - 60 // before that tables are written, sector by sector
	looked, repaired, at := 0, 0, 0
	for point := from; point <= to; point++ {
		e := l.Entries[point-1]
		small := e.Size > 0 && e.Size <= 8<<10 && e.Offset >= b.at && e.Offset < b.at+size
		if !small || point < payload && point%rounds(200, 20) != 0 {
			continue
		}
		apply(at, point)
		at = point
		b.look(point)
		if looked++; looked%rounds(10, 1) == 0 {
			b.lookRepaired(size, point)
			repaired++
		}
	}
	t.Logf("%.1f s: what the loaders boot is whole after each of %d writes, and when the partition is repaired after %d of them",
		time.Since(begin).Seconds(), looked, repaired)
}

// lookRepaired looks at a copy of the partition, made whole as the node does it.
func (b *loaders) lookRepaired(size int64, point int) {
	b.t.Helper()
	path := filepath.Join(b.t.TempDir(), "esp.img")
	if err := copySparse(path, io.NewSectionReader(b.disk, b.at, size)); err != nil {
		b.t.Fatal(err)
	}
	defer os.Remove(path)
	if err := bootmedium.Repair(b.t.Context(), hosttool.Path(b.t, "fsck.fat"), path); err != nil {
		b.t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		b.t.Fatal(err)
	}
	defer f.Close()
	(&loaders{t: b.t, disk: f, whole: b.whole}).look(point)
}
