package hostpci

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"regexp"
	"strings"
	"syscall"
	"time"

	"quantavirt/internal/qverr"
)

// faults of one function, so that a VM cannot fill the log.
type faults struct {
	count int // since last was logged
	last  time.Time
}

// faultEvery is how often the faults of a function are logged.
const faultEvery = 10 * time.Second

// What the kernel says of an access that the IOMMU has stopped: of Intel's
//
//	DMAR: [DMA Read NO_PASID] Request device [00:08.0] fault addr 0xe0000000 [fault reason 0x06] PTE Read access is not set
//
// and of AMD's
//
//	AMD-Vi: Event logged [IO_PAGE_FAULT domain=0x000d address=0xe0000000 flags=0x0000]
//
// behind the function's driver and address.
var (
	intelFault = regexp.MustCompile(`DMAR: \[DMA (Read|Write)[^\]]*\] Request device \[(?:([0-9a-f]{4}):)?([0-9a-f]{2}:[0-9a-f]{2}\.[0-7])\] fault addr (0x[0-9a-f]+)`)
	amdFault   = regexp.MustCompile(`([0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]): AMD-Vi: Event logged \[IO_PAGE_FAULT .*address=(0x[0-9a-f]+) flags=(0x[0-9a-f]+)`)
)

// fault is one access that was stopped.
type fault struct{ function, access, address string }

func parseFault(line string) (fault, bool) {
	if m := intelFault.FindStringSubmatch(line); m != nil {
		domain := m[2]
		if domain == "" {
			domain = "0000"
		}
		return fault{domain + ":" + m[3], strings.ToLower(m[1]), m[4]}, true
	}
	if m := amdFault.FindStringSubmatch(line); m != nil {
		return fault{m[1], "access", m[2]}, true
	}
	return fault{}, false
}

// Watch logs what the IOMMU stops, with the VM whose function it was, until ctx ends.
func (s *Service) Watch(ctx context.Context) error {
	f, err := os.OpenFile("/dev/kmsg", os.O_RDONLY, 0)
	if err != nil {
		return qverr.New(qverr.IO, "messages of the kernel: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = f.Close() })
	defer stop()
	if _, err := f.Seek(0, io.SeekEnd); err != nil {
		return qverr.New(qverr.IO, "messages of the kernel: %w", err)
	}
	s.follow(f)
	return ctx.Err()
}

// follow reads records of /dev/kmsg, one line each.
func (s *Service) follow(r io.Reader) {
	lines := bufio.NewReaderSize(r, 16<<10) // a record must fit
	for {
		line, err := lines.ReadString('\n')
		if f, ok := parseFault(line); ok {
			s.stopped(f)
		}
		// EPIPE: records were lost, and the next read goes on after them.
		if err != nil && !errors.Is(err, syscall.EPIPE) {
			return
		}
	}
}

func (s *Service) stopped(f fault) {
	s.mu.Lock()
	seen := s.faults[f.function]
	if seen == nil {
		seen = &faults{}
		s.faults[f.function] = seen
	}
	seen.count++
	count, vm := seen.count, s.vms[f.function]
	if time.Since(seen.last) < faultEvery {
		s.mu.Unlock()
		return
	}
	seen.last, seen.count = time.Now(), 0
	s.mu.Unlock()
	whose := "the node"
	if vm != "" {
		whose = "VM " + vm
	}
	s.log.Error("DMA was stopped by the IOMMU", "err", qverr.New(qverr.Perm, "%s of %s tried to %s %s: the address is not its memory",
		f.function, whose, f.access, f.address), "faults", count)
}
