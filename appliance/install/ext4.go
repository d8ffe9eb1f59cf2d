package install

import (
	"context"
	"fmt"
	"os/exec"
	"strconv"
	"strings"

	"quantavirt/internal/disks"
	"quantavirt/internal/qverr"
)

// Tools are the programs of e2fsprogs, by their paths, with arguments that come
// first.
type Tools struct{ Mke2fs, E2fsck []string }

// inImage are those of the product's image.
var inImage = Tools{Mke2fs: []string{"/sbin/mke2fs"}, E2fsck: []string{"/sbin/e2fsck"}}

// makeData makes the data volume in a part of a disk: ext4, labelled QV-DATA. It
// is addressed on the disk itself, so that no partition device need be there yet.
func (t Tools) makeData(ctx context.Context, disk string, off, size int64) error {
	const block = 4096
	args := append(t.Mke2fs[1:len(t.Mke2fs):len(t.Mke2fs)], "-q", "-F", "-t", "ext4", "-b", strconv.Itoa(block), "-L", disks.LabelData, "-m", "1",
		"-E", fmt.Sprintf("offset=%d", off), disk, strconv.FormatInt(size/block, 10))
	return run(ctx, t.Mke2fs[0], args...)
}

// checkData reads all of the new file system's structure back.
func (t Tools) checkData(ctx context.Context, disk string, off int64) error {
	args := append(t.E2fsck[1:len(t.E2fsck):len(t.E2fsck)], "-f", "-n", fmt.Sprintf("%s?offset=%d", disk, off))
	return run(ctx, t.E2fsck[0], args...)
}

func run(ctx context.Context, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	out, err := cmd.CombinedOutput()
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		text := strings.ToValidUTF8(strings.TrimSpace(string(out)), "?")
		return qverr.New(qverr.StrIO, "%s: %w: %.300s", strings.Join(append([]string{name}, args...), " "), err, text)
	}
	return nil
}
