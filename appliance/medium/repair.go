package medium

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"

	"quantavirt/internal/qverr"
)

// checker is dosfstools' program in the image.
const checker = "/sbin/fsck.fat"

const (
	// passes is how often it is run at most: a folder that has lost its clusters is
	// only seen to point nowhere by the next.
	passes      = 3
	repairLimit = 5 * time.Minute
)

// fsckRepaired is its exit status when there was something to repair: fsck.fat(8).
const fsckRepaired = 1

// Repair has fsck.fat, which lies at program, make whole what a power cut left half done on a FAT that was not unmounted in
// order; any other is left alone. FAT has no journal: table, folders and files reach the
// disk in no order. Of a file its clusters stay up to the first that is free or
// another's; a name whose clusters are all another's keeps none, and is an empty file
// then. QV_STR_ERR_IO: it cannot be made whole.
func Repair(ctx context.Context, program, device string) error {
	if dirty, err := isDirty(device); err != nil || !dirty {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, repairLimit)
	defer cancel()
	said := ""
	for range passes {
		out, err := exec.CommandContext(ctx, program, "-a", "-w", device).CombinedOutput()
		said = strings.ToValidUTF8(strings.TrimSpace(string(out)), "?")
		var exit *exec.ExitError
		switch {
		case err == nil:
			return nil
		case !errors.As(err, &exit) || exit.ExitCode() != fsckRepaired:
			return qverr.New(qverr.StrIO, "repair the boot medium %s: %w: %.300s", device, err, said)
		}
	}
	return qverr.New(qverr.StrIO, "the boot medium %s is not whole after %d repairs: %.300s", device, passes, said)
}

// Where a FAT says that it is in use: bits of the boot sector, as Linux sets and clears
// them, and of the table's second entry, as firmware does ("Microsoft FAT Specification",
// sections 3.2, 3.3 and 4).
const (
	state16, state32 = 37, 65
	stateDirty       = 1
	tableClean       = 0x08000000
)

// isDirty tells whether a FAT was not unmounted in order.
func isDirty(device string) (bool, error) {
	f, err := os.Open(device)
	if err != nil {
		return false, qverr.New(qverr.CodeOf(err), "boot medium: %w", err)
	}
	defer f.Close()
	b := make([]byte, 512)
	if _, err := f.ReadAt(b, 0); err != nil {
		return false, qverr.New(qverr.StrIO, "boot medium %s: %w", device, err)
	}
	if string(b[82:90]) != "FAT32   " {
		return b[state16]&stateDirty != 0, nil
	}
	le := binary.LittleEndian
	entry := make([]byte, 4)
	second := int64(le.Uint16(b[14:]))*int64(le.Uint16(b[11:])) + 4 // reserved sectors, and bytes of one
	if _, err := f.ReadAt(entry, second); err != nil && !errors.Is(err, io.EOF) {
		return false, qverr.New(qverr.StrIO, "boot medium %s: %w", device, err)
	}
	return b[state32]&stateDirty != 0 || le.Uint32(entry)&tableClean == 0, nil
}
