package acpi

import (
	"encoding/binary"
	"fmt"

	"quantavirt/internal/qverr"
)

// Range is a range of guest addresses.
type Range struct{ Base, Size uint64 }

// Config is the machine that the tables describe.
type Config struct {
	APICIDs []uint32 // of the CPUs, ascending

	ECAM      Range // of bus 0 on
	Low, High Range // where BARs may lie; High.Size 0: only below 4 GiB

	PM         uint16 // first of 12 ports: PM1a events, PM1a control, PM timer
	GPE        uint16 // first of 4 ports: 16 general purpose events
	Reset      uint16 // port that takes ResetValue
	ResetValue uint8
	SCI        int
	SleepOff   int // SLP_TYP of S5

	COM1    uint16
	COM1IRQ int

	IOAPIC, LAPIC uint64

	Generation      uint64 // address of the generation id
	GenerationEvent int    // that tells of a new one, 0 to 15
}

const (
	oemID      = "QVIRT "
	oemTableID = "QVMACHIN"
	creatorID  = "QVRT"

	headerSize = 36
	rsdpSize   = 36
	facsSize   = 64

	maxCPUs = 1024
	// firstWideID is the first APIC id that a processor entry of the MADT cannot hold.
	firstWideID = 255
)

// Build returns the tables as they lie in memory from address at on, which must
// be a multiple of 64. The RSDP comes first.
func Build(c Config, at uint64) ([]byte, error) {
	if at%64 != 0 || at >= 1<<32 || len(c.APICIDs) < 1 || len(c.APICIDs) > maxCPUs {
		return nil, qverr.New(qverr.Inval, "ACPI tables for %d CPUs at %#x", len(c.APICIDs), at)
	}
	blob := make([]byte, 64)
	add := func(table []byte) uint64 {
		for len(blob)%64 != 0 {
			blob = append(blob, 0)
		}
		addr := at + uint64(len(blob))
		blob = append(blob, table...)
		return addr
	}
	facsAddr := add(facs())
	dsdtAddr := add(dsdt(c))
	tables := []uint64{add(fadt(c, facsAddr, dsdtAddr)), add(madt(c)), add(mcfg(c))}
	xsdtAddr := add(xsdt(tables))
	copy(blob, rsdp(xsdtAddr))
	return blob, nil
}

// table puts the header in front of body and makes the checksum right.
func table(signature string, revision uint8, body []byte) []byte {
	t := make([]byte, headerSize, headerSize+len(body))
	copy(t, signature)
	binary.LittleEndian.PutUint32(t[4:], uint32(headerSize+len(body)))
	t[8] = revision
	copy(t[10:], oemID)
	copy(t[16:], oemTableID)
	binary.LittleEndian.PutUint32(t[24:], 1)
	copy(t[28:], creatorID)
	binary.LittleEndian.PutUint32(t[32:], 1)
	t = append(t, body...)
	t[9] = checksum(t)
	return t
}

// checksum is what makes the bytes add up to zero.
func checksum(b []byte) (sum uint8) {
	for _, v := range b {
		sum -= v
	}
	return sum
}

func rsdp(xsdt uint64) []byte {
	r := make([]byte, rsdpSize)
	copy(r, "RSD PTR ")
	copy(r[9:], oemID)
	r[15] = 2
	binary.LittleEndian.PutUint32(r[20:], rsdpSize)
	binary.LittleEndian.PutUint64(r[24:], xsdt)
	r[8] = checksum(r[:20])
	r[32] = checksum(r)
	return r
}

func xsdt(tables []uint64) []byte {
	var body []byte
	for _, addr := range tables {
		body = binary.LittleEndian.AppendUint64(body, addr)
	}
	return table("XSDT", 1, body)
}

func facs() []byte {
	f := make([]byte, facsSize)
	copy(f, "FACS")
	binary.LittleEndian.PutUint32(f[4:], facsSize)
	f[32] = 2 // version
	return f
}

// Flags of the FADT (ACPI 6.5, table 5.10) and of its IAPC boot architecture.
const (
	fadtWBINVD    = 1 << 0
	fadtC1        = 1 << 2
	fadtNoSleepB  = 1 << 5
	fadtNoFixRTC  = 1 << 6
	fadtTimer32   = 1 << 8
	fadtResetReg  = 1 << 10
	bootNoVGA     = 1 << 2
	bootNoASPM    = 1 << 4
	bootNoRTC     = 1 << 5
	fadtSize      = 276
	fadtRevision  = 6
	genericIO     = 1
	centuryInCMOS = 0x32
)

// fadt says: fixed power button, no sleep button, no RTC alarm, 32-bit PM timer,
// always in ACPI mode (no SMI port). There is an RTC, but without interrupts, so
// that an operating system had better leave it alone.
func fadt(c Config, facs, dsdt uint64) []byte {
	b := make([]byte, fadtSize)
	le := binary.LittleEndian
	le.PutUint32(b[36:], uint32(facs))
	le.PutUint32(b[40:], uint32(dsdt))
	le.PutUint16(b[46:], uint16(c.SCI))
	le.PutUint32(b[56:], uint32(c.PM))
	le.PutUint32(b[64:], uint32(c.PM)+4)
	le.PutUint32(b[76:], uint32(c.PM)+8)
	le.PutUint32(b[80:], uint32(c.GPE))
	b[88], b[89], b[91], b[92] = 4, 2, 4, 4
	le.PutUint16(b[96:], 0xfff) // C2 and C3 latencies: none
	le.PutUint16(b[98:], 0xfff)
	b[108] = centuryInCMOS
	le.PutUint16(b[109:], bootNoVGA|bootNoASPM|bootNoRTC)
	le.PutUint32(b[112:], fadtWBINVD|fadtC1|fadtNoSleepB|fadtNoFixRTC|fadtTimer32|fadtResetReg)
	ioRegister(b[116:], 8, 1, c.Reset)
	b[128] = c.ResetValue
	b[131] = 5 // minor version
	le.PutUint64(b[140:], dsdt)
	ioRegister(b[148:], 32, 2, c.PM)
	ioRegister(b[172:], 16, 2, c.PM+4)
	ioRegister(b[208:], 32, 3, c.PM+8)
	ioRegister(b[220:], 32, 1, c.GPE)
	return table("FACP", fadtRevision, b[headerSize:])
}

// ioRegister fills a generic address structure; size is 1 for bytes, 2 for words
// and 3 for double words.
func ioRegister(b []byte, bits, size uint8, port uint16) {
	b[0], b[1], b[3] = genericIO, bits, size
	binary.LittleEndian.PutUint64(b[4:], uint64(port))
}

func madt(c Config) []byte {
	le := binary.LittleEndian
	body := le.AppendUint32(nil, uint32(c.LAPIC))
	body = le.AppendUint32(body, 1) // there are 8259s
	for uid, id := range c.APICIDs {
		if wide(uid, id) {
			body = append(body, 9, 16, 0, 0)
			body = le.AppendUint32(body, id)
			body = le.AppendUint32(body, 1) // enabled
			body = le.AppendUint32(body, uint32(uid))
			continue
		}
		body = append(body, 0, 8, byte(uid), byte(id))
		body = le.AppendUint32(body, 1) // enabled
	}
	body = append(body, 1, 12, 0, 0)
	body = le.AppendUint32(body, uint32(c.IOAPIC))
	body = le.AppendUint32(body, 0)
	override := func(irq, gsi int, flags uint16) {
		body = append(body, 2, 10, 0, byte(irq))
		body = le.AppendUint32(body, uint32(gsi))
		body = le.AppendUint16(body, flags)
	}
	override(0, 2, 0)                           // the timer
	override(c.SCI, c.SCI, 0x0d)                // level, active high
	body = append(body, 4, 6, 0xff, 0, 0, 0x01) // LINT1 of all CPUs is the NMI
	if last := len(c.APICIDs) - 1; wide(last, c.APICIDs[last]) {
		body = append(body, 10, 12, 0, 0, 0xff, 0xff, 0xff, 0xff, 1, 0, 0, 0) // and of those with x2APIC
	}
	return table("APIC", 5, body)
}

// wide tells whether a CPU needs an x2APIC entry: its APIC id or, as 255 stands for
// all CPUs, its number has no room in the old one.
func wide(uid int, id uint32) bool { return uid >= firstWideID || id >= firstWideID }

// processors are the CPUs in the namespace, by the numbers that the MADT has.
func processors(c Config) []byte {
	var out []byte
	for uid := range c.APICIDs {
		out = append(out, device(fmt.Sprintf("C%03X", uid),
			name("_HID", text("ACPI0007")),
			name("_UID", integer(uint64(uid))),
		)...)
	}
	return out
}

func mcfg(c Config) []byte {
	body := make([]byte, 8)
	body = binary.LittleEndian.AppendUint64(body, c.ECAM.Base)
	body = append(body, 0, 0, 0, byte(c.ECAM.Size>>20-1), 0, 0, 0, 0)
	return table("MCFG", 1, body)
}

func dsdt(c Config) []byte {
	windows := [][]byte{
		busNumbers(0, uint16(c.ECAM.Size>>20-1)),
		ioPorts(0xcf8, 8),
		ioWindow(0, 0xcf7),
		ioWindow(0xd00, 0xffff),
		memoryWindow32(c.Low),
	}
	if c.High.Size > 0 {
		windows = append(windows, memoryWindow64(c.High))
	}
	off := integer(uint64(c.SleepOff))
	aml := join(
		scope(`\_SB`,
			device("PCI0",
				name("_HID", eisaID("PNP0A08")),
				name("_CID", eisaID("PNP0A03")),
				name("_UID", integer(0)),
				name("_SEG", integer(0)),
				name("_BBN", integer(0)),
				name("_CRS", resources(windows...)),
			),
			// An operating system uses ECAM only when it is reserved.
			device("ECAM",
				name("_HID", eisaID("PNP0C02")),
				name("_UID", text("ECAM")),
				name("_CRS", resources(memoryFixed(c.ECAM), ioPorts(c.PM, 12), ioPorts(c.GPE, 4))),
			),
			device("COM1",
				name("_HID", eisaID("PNP0501")),
				name("_UID", integer(1)),
				name("_CRS", resources(ioPorts(c.COM1, 8), irqLine(c.COM1IRQ))),
			),
			device("VGEN",
				name("_HID", text("QVRT0001")),
				name("_CID", text("VM_Gen_Counter")),
				name("_DDN", text("VM_Gen_Counter")),
				name("ADDR", list(integer(c.Generation&0xffff_ffff), integer(c.Generation>>32))),
			),
			processors(c),
		),
		scope(`\_GPE`,
			method(fmt.Sprintf("_E%02X", c.GenerationEvent), notify(`\_SB.VGEN`, 0x80)),
		),
		name("_S5", list(off, off, integer(0), integer(0))),
	)
	return table("DSDT", 2, aml)
}
