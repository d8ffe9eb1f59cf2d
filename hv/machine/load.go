package machine

import (
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"quantavirt/hv/acpi"
	"quantavirt/hv/memory"
	"quantavirt/internal/qverr"
)

// loadGuest fills the memory as a boot loader and firmware would have: kernel,
// initrd, command line, ACPI tables, memory map. RAM is zero before.
func (m *Machine) loadGuest() (entryPoint, error) {
	m.image = nil
	if m.firmware != nil {
		return m.loadFirmware()
	}
	k, err := parseKernel(m.opts.Kernel)
	if err != nil {
		return entryPoint{}, err
	}
	if err := m.writeACPI(); err != nil {
		return entryPoint{}, err
	}
	if err := m.mem.WriteAt(append([]byte(m.opts.Cmdline), 0), cmdlineAddr); err != nil {
		return entryPoint{}, err
	}
	if k.elf != nil {
		if err := m.copySegments(k.elf, m.opts.Kernel, 0); err != nil {
			return entryPoint{}, err
		}
		return m.enterPVH(k.elf)
	}
	if m.opts.Unpacked != nil {
		return m.loadUnpacked(k.bz)
	}
	return m.loadBz(k.bz)
}

func (m *Machine) checkCmdline(limit int) error {
	if n := len(m.opts.Cmdline); n > limit {
		return qverr.New(qverr.Inval, "a kernel command line of %d bytes: this kernel takes %d", n, limit)
	}
	return nil
}

// loadInitrd puts the initrd as high as the kernel allows, above floor.
func (m *Machine) loadInitrd(floor, limit uint64) (span, error) {
	if m.opts.Initrd == nil {
		return span{}, nil
	}
	size, err := fileSize(m.opts.Initrd)
	if err != nil || size == 0 {
		return span{}, err
	}
	top := min(m.mem.LowEnd(), limit+1)
	if size > top || (top-size)&^(memory.PageSize-1) < floor {
		return span{}, qverr.New(qverr.VMStart, "an initrd of %d bytes does not fit between %#x and %#x: the VM needs more memory", size, floor, top)
	}
	r := span{(top - size) &^ (memory.PageSize - 1), size}
	return r, m.mem.Fill(r.addr, r.size, m.opts.Initrd, 0)
}

func fileSize(f *os.File) (uint64, error) {
	st, err := f.Stat()
	if err != nil {
		return 0, qverr.New(qverr.IO, "size of %s: %w", f.Name(), err)
	}
	return uint64(st.Size()), nil
}

// readFile fills dst straight from the file. A file that has become shorter is
// an error of its own.
func readFile(r io.ReaderAt, dst []byte, off int64) error {
	if n, err := r.ReadAt(dst, off); n < len(dst) {
		if err == nil {
			err = io.ErrUnexpectedEOF
		}
		return qverr.New(qverr.IO, "load %d bytes at %d of a boot file: %w", len(dst), off, err)
	}
	return nil
}

// readSparse is readFile for a file with holes, over which it leaves dst alone: that
// must be zero, and is not touched for nothing.
func readSparse(f *os.File, dst []byte, off int64) error {
	end := off + int64(len(dst))
	for at := off; at < end; {
		data, err := unix.Seek(int(f.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) { // a hole up to the end of the file
			var last [1]byte
			return readFile(f, last[:], end-1)
		}
		if err != nil {
			return readFile(f, dst[at-off:], at) // a file system that knows no holes
		}
		hole, err := unix.Seek(int(f.Fd()), data, unix.SEEK_HOLE)
		if err != nil {
			return qverr.New(qverr.IO, "load a boot file: %w", err)
		}
		if data = min(data, end); data < end {
			if err := readFile(f, dst[data-off:min(hole, end)-off], data); err != nil {
				return err
			}
		}
		at = min(hole, end)
	}
	return nil
}

// writeACPI puts the tables where the RSDP is looked for.
func (m *Machine) writeACPI() error {
	blob, err := acpi.Build(m.acpiConfig(), tablesStart)
	if err != nil {
		return err
	}
	if len(blob) > tablesEnd-tablesStart {
		return qverr.New(qverr.VMCreate, "%d bytes of ACPI tables have no room", len(blob))
	}
	return m.mem.WriteAt(blob, tablesStart)
}

// acpiConfig is the machine as the tables describe it.
func (m *Machine) acpiConfig() acpi.Config {
	w := windows(m.mem, physBits(m.cpuid))
	return acpi.Config{
		APICIDs: m.topo.apicIDs(),
		ECAM:    acpi.Range{Base: ecamBase, Size: ecamSize},
		Low:     acpi.Range{Base: w.Low.Base, Size: w.Low.End - w.Low.Base},
		High:    acpi.Range{Base: w.High.Base, Size: w.High.End - w.High.Base},
		PM:      portPM, GPE: portGPE, Reset: portReset, ResetValue: cf9Reset | 2,
		Generation: generationAddr, GenerationEvent: gpeGeneration,
		SCI: irqSCI, COM1: portCOM1, COM1IRQ: irqCOM1,
		IOAPIC: ioapicAddr, LAPIC: lapicAddr, SleepOff: sleepTypeOff,
	}
}
