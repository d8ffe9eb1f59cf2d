package machine

import (
	"encoding/binary"

	"quantavirt/hv/kvm"
	"quantavirt/internal/qverr"
)

// entryPoint is how the first vCPU starts.
type entryPoint struct {
	reset bool   // as after power-on; the rest does not count
	long  bool   // 64-bit mode with identity-mapped tables, else 32-bit without paging
	rip   uint64 // first instruction
	arg   uint64 // RSI in 64-bit mode, EBX in 32-bit mode
}

const (
	cr0PE   = 1 << 0
	cr0ET   = 1 << 4
	cr0PG   = 1 << 31
	cr4PAE  = 1 << 5
	eferLME = 1 << 8
	eferLMA = 1 << 10

	rflagsFixed = 1 << 1

	// Selectors of the Linux boot protocol.
	selCode = 0x10
	selData = 0x18
	selTask = 0x20

	msrMiscEnable     = 0x1a0
	msrMTRRDefType    = 0x2ff
	miscFastString    = 1 << 0
	mtrrEnable        = 1 << 11
	mtrrWriteBack     = 6
	lapicLINT0        = 0x350
	lapicLINT1        = 0x360
	lapicModeExtInt   = 7 << 8
	lapicModeNMI      = 4 << 8
	lapicDeliveryMask = 0x700 | 1<<16
)

// makeVCPUs makes one generation of vCPUs; the first starts at entry, the others
// wait for its start-up message.
func (m *Machine) makeVCPUs(entry entryPoint) (list []*vcpu, err error) {
	defer func() {
		if err != nil {
			for _, v := range list {
				_ = v.kvm.Close()
			}
		}
	}()
	for id := range m.opts.CPUs {
		c, err := m.vm.CreateVCPU(int(m.topo.apicID(id)))
		if err != nil {
			return list, err
		}
		list = append(list, &vcpu{m: m, id: id, kvm: c, counters: m.counters[id]})
		if err := setUpCPU(c, m.topo.cpuidFor(m.cpuid, id), entry.reset); err != nil {
			return list, err
		}
		if id == 0 && !entry.reset {
			if err := setEntry(c, entry); err != nil {
				return list, err
			}
		}
	}
	return list, nil
}

// setUpCPU does what firmware would have done on each CPU, unless there is one.
func setUpCPU(c *kvm.VCPU, leaves []kvm.CPUIDEntry, firmware bool) error {
	if err := c.SetCPUID(leaves); err != nil {
		return err
	}
	if firmware {
		return c.SetMSRs([]kvm.MSR{{Index: msrMiscEnable, Value: miscFastString}})
	}
	if err := c.SetMSRs([]kvm.MSR{
		{Index: msrMiscEnable, Value: miscFastString},
		{Index: msrMTRRDefType, Value: mtrrEnable | mtrrWriteBack},
	}); err != nil {
		return err
	}
	// LINT0 takes the PIC's interrupts, LINT1 is the NMI.
	l, err := c.LAPIC()
	if err != nil {
		return err
	}
	for reg, mode := range map[int]uint32{lapicLINT0: lapicModeExtInt, lapicLINT1: lapicModeNMI} {
		v := binary.LittleEndian.Uint32(l[reg:])
		binary.LittleEndian.PutUint32(l[reg:], v&^lapicDeliveryMask|mode)
	}
	return c.SetLAPIC(l)
}

func setEntry(c *kvm.VCPU, e entryPoint) error {
	s, err := c.Sregs()
	if err != nil {
		return err
	}
	code := kvm.Segment{Limit: 0xffff_ffff, Selector: selCode, Type: 11, Present: 1, DB: 1, S: 1, G: 1}
	data := kvm.Segment{Limit: 0xffff_ffff, Selector: selData, Type: 3, Present: 1, DB: 1, S: 1, G: 1}
	regs := kvm.Regs{RIP: e.rip, RFLAGS: rflagsFixed}
	s.CR0, s.CR4, s.EFER = cr0PE|cr0ET, 0, 0
	if e.long {
		code.DB, code.L = 0, 1
		s.CR3, s.CR4, s.CR0 = pageTableAddr, cr4PAE, s.CR0|cr0PG
		s.EFER = eferLME | eferLMA
		regs.RSI = e.arg
	} else {
		regs.RBX = e.arg
	}
	s.CS, s.DS, s.ES, s.FS, s.GS, s.SS = code, data, data, data, data, data
	s.TR = kvm.Segment{Limit: 103, Selector: selTask, Type: 11, Present: 1}
	s.GDT = kvm.Table{Base: gdtAddr, Limit: 5*8 - 1}
	s.IDT = kvm.Table{}
	if err := c.SetSregs(s); err != nil {
		return err
	}
	return c.SetRegs(regs)
}

// writeTables puts the descriptor table and, for 64-bit mode, the page tables
// into guest memory: the first 4 GiB mapped one to one in pages of 2 MiB.
func (m *Machine) writeTables(long bool) error {
	code := uint64(0x00cf9b000000ffff)
	if long {
		code = 0x00af9b000000ffff
	}
	gdt := []uint64{0, 0, code, 0x00cf93000000ffff, 0x00008b0000000067}
	for i, d := range gdt {
		if err := m.mem.PutUint64(gdtAddr+uint64(8*i), d); err != nil {
			return err
		}
	}
	if !long {
		return nil
	}
	tables, err := m.mem.Slice(pageTableAddr, 6*0x1000)
	if err != nil {
		return qverr.New(qverr.VMStart, "page tables: %w", err)
	}
	const present, writable, large = 1, 2, 1 << 7
	put := func(table, index int, v uint64) {
		binary.LittleEndian.PutUint64(tables[table*0x1000+index*8:], v)
	}
	put(0, 0, pageTableAddr+0x1000|present|writable)
	for gb := range 4 {
		put(1, gb, uint64(pageTableAddr+0x2000+gb*0x1000)|present|writable)
		for i := range 512 {
			put(2+gb, i, uint64(gb)<<30|uint64(i)<<21|present|writable|large)
		}
	}
	return nil
}
