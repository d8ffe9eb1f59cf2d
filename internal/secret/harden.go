package secret

import (
	"bufio"
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"quantavirt/internal/qverr"
)

// Protection is what holds for this process.
type Protection struct {
	Locked     bool // its memory stays out of swap
	NoCoreDump bool // neither the kernel nor another process of its user can dump it
	NoSwap     bool // the machine has no swap at all
	Wiped      bool // stack and heap are wiped after use
}

// mclOnFault locks a page when it is first touched: what the Go runtime only reserves
// takes no memory (mlockall(2), since Linux 4.4).
const mclOnFault = 0x4

// Harden locks the memory of this process, now and in future, and forbids dumps of
// it. The error says what could not be done; Protection says what holds.
func Harden() (Protection, error) {
	p := Protection{Wiped: Wiped}
	var errs []error
	// A process with a limit would fail later, in the middle of something else.
	if limit, err := mayLock(); err != nil {
		errs = append(errs, err)
	} else if !limit {
		errs = append(errs, qverr.New(qverr.Perm, "lock the memory of the process: it may lock some only"))
	} else if err := unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | mclOnFault); err != nil {
		errs = append(errs, qverr.New(qverr.CodeOf(err), "lock the memory of the process: %w", err))
	} else {
		p.Locked = true
	}
	err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{})
	if err == nil {
		err = unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	}
	if err != nil {
		errs = append(errs, qverr.New(qverr.CodeOf(err), "forbid core dumps: %w", err))
	} else {
		p.NoCoreDump = true
	}
	if p.NoSwap, err = noSwap(); err != nil {
		errs = append(errs, err)
	}
	return p, errors.Join(errs...)
}

// mayLock says whether there is no limit to what the process may lock.
func mayLock() (bool, error) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit); err != nil {
		return false, qverr.New(qverr.CodeOf(err), "limit of locked memory: %w", err)
	}
	if limit.Cur == unix.RLIM_INFINITY {
		return true, nil
	}
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&head, &data[0]); err != nil {
		return false, qverr.New(qverr.CodeOf(err), "capabilities: %w", err)
	}
	return data[0].Effective&(1<<unix.CAP_IPC_LOCK) != 0, nil
}

// noSwap says whether nothing can be swapped to. A kernel that knows no swap has no
// list of it.
func noSwap() (bool, error) {
	f, err := os.Open("/proc/swaps")
	if errors.Is(err, os.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, qverr.New(qverr.CodeOf(err), "list of swap: %w", err)
	}
	defer func() { _ = f.Close() }()
	return swapless(f), nil
}

// swapless reads the list: a heading, and a line for each place.
func swapless(list io.Reader) bool {
	s := bufio.NewScanner(list)
	s.Scan()
	return !s.Scan()
}
