package volume

import (
	"context"
	"strings"
	"time"

	"quantavirt/internal/qverr"
)

// Checker is the program that Check runs.
const Checker = "/sbin/e2fsck"

// Bits of e2fsck's exit status (e2fsck(8)).
const (
	fsckRepaired    = 1
	fsckReboot      = 2 // of a mounted file system only
	fsckNotRepaired = 4
)

// Run runs a program with arguments, waits for its end, and returns its exit
// status, -1 if a signal ended it, and what it printed.
type Run func(ctx context.Context, argv ...string) (status int, output string, err error)

// Check has e2fsck repair what can be repaired without asking, if the
// superblock asks for a check, and reads that again; a volume that was unmounted
// in order is not looked at. why is the reason, "" if there was none. QV_STR_ERR_IO: the file system is
// damaged beyond that and must not be mounted.
func (b *Block) Check(ctx context.Context, now time.Time, run Run) (why string, err error) {
	if why = b.FS.CheckWanted(now); why == "" {
		return "", nil
	}
	status, output, err := run(ctx, Checker, "-p", b.FSDevice())
	switch {
	case err != nil:
		return why, qverr.New(qverr.CodeOf(err), "check %s (%s): %w", b, why, err)
	case status >= 0 && status&^(fsckRepaired|fsckReboot) == 0:
		return why, b.read()
	}
	what := "e2fsck failed"
	if status > 0 && status&fsckNotRepaired != 0 {
		what = "errors are left that e2fsck does not repair by itself"
	}
	return why, qverr.New(qverr.StrIO, "check %s (%s): %s (status %d): %s", b, why, what, status, lastLine(output)).
		WithHint("start with quantavirt.rescue and repair it by hand: e2fsck -f %s; or restore a backup", b.Device)
}

func lastLine(output string) string {
	lines := strings.Split(strings.TrimSpace(output), "\n")
	text := strings.TrimSpace(lines[len(lines)-1])
	if len(text) > 200 {
		text = text[:200] + "…"
	}
	return strings.ToValidUTF8(text, "?")
}
