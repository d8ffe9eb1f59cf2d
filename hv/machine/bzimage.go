package machine

import (
	"encoding/binary"
	"io"

	"quantavirt/internal/qverr"
)

// Offsets of Documentation/arch/x86/boot.rst, the same in the file and in
// struct boot_params.
const (
	bpE820Count  = 0x1e8
	bpSetupSects = 0x1f1
	bpSysSize    = 0x1f4
	bpVidMode    = 0x1fa
	bpBootFlag   = 0x1fe
	bpJump       = 0x200
	bpMagic      = 0x202
	bpVersion    = 0x206
	bpLoader     = 0x210
	bpLoadFlags  = 0x211
	bpInitrd     = 0x218
	bpInitrdSize = 0x21c
	bpCmdline    = 0x228
	bpInitrdMax  = 0x22c
	bpAlign      = 0x230
	bpXLoad      = 0x236
	bpCmdMax     = 0x238
	bpPayload    = 0x248
	bpPayloadLen = 0x24c
	bpPrefAddr   = 0x258
	bpInitSize   = 0x260
	bpHeaderEnd  = 0x268
	bpRSDP       = 0x070
	bpE820       = 0x2d0

	bzMagic      = 0x53726448 // "HdrS"
	bzMinVersion = 0x020c     // the first with xloadflags
	bz64         = 1 << 0     // xloadflags: 64-bit entry at 0x200
	bzHigh       = 1 << 0     // loadflags: the kernel goes to 1 MiB and above
	bzMoved      = 1 << 1     // loadflags: the kernel was moved at random (KASLR_FLAG)
	bzLoaderID   = 0xff       // not registered
	bz64Entry    = 0x200

	bzMaxPayload = 1 << 30
	minAlign     = 2 << 20 // the least that startup_64 takes
)

// bzHeader is the set-up header of a bzImage.
type bzHeader struct {
	raw                [bpHeaderEnd]byte // file bytes from 0 on
	kernelOff          int64             // where the protected-mode part begins in the file
	kernelSize         uint64
	prefAddr, initSize uint64
	align              uint64 // of the kernel's physical address
	initrdMax          uint64
	cmdMax             int
	payload            payload
}

// payload is where the packed kernel lies in the file.
type payload struct {
	off, size int64
}

func parseBz(r io.ReaderAt) (*bzHeader, error) {
	h := &bzHeader{}
	if err := readExact(r, h.raw[:], 0); err != nil {
		return nil, err
	}
	le := binary.LittleEndian
	b := h.raw[:]
	switch {
	case le.Uint16(b[bpBootFlag:]) != 0xaa55 || le.Uint32(b[bpMagic:]) != bzMagic:
		return nil, notKernel("it is neither a bzImage nor an ELF file")
	case le.Uint16(b[bpVersion:]) < bzMinVersion:
		return nil, notKernel("boot protocol %#x is older than %#x", le.Uint16(b[bpVersion:]), bzMinVersion)
	case b[bpLoadFlags]&bzHigh == 0:
		return nil, notKernel("it is a zImage")
	case le.Uint16(b[bpXLoad:])&bz64 == 0:
		return nil, notKernel("it has no 64-bit entry")
	}
	sects := int64(b[bpSetupSects])
	if sects == 0 {
		sects = 4
	}
	h.kernelOff = (sects + 1) * 512
	h.kernelSize = uint64(le.Uint32(b[bpSysSize:])) * 16
	h.prefAddr, h.initSize = le.Uint64(b[bpPrefAddr:]), uint64(le.Uint32(b[bpInitSize:]))
	h.initrdMax, h.cmdMax = uint64(le.Uint32(b[bpInitrdMax:])), int(le.Uint32(b[bpCmdMax:]))
	h.align = max(uint64(le.Uint32(b[bpAlign:])), minAlign)
	h.payload = payload{h.kernelOff + int64(le.Uint32(b[bpPayload:])), int64(le.Uint32(b[bpPayloadLen:]))}
	if h.kernelSize <= bz64Entry || h.kernelSize > bzMaxPayload {
		return nil, notKernel("%d bytes of protected-mode code", h.kernelSize)
	}
	if h.prefAddr < highStart || h.prefAddr > 1<<32 || h.prefAddr%0x1000 != 0 || h.initSize < h.kernelSize {
		return nil, notKernel("it wants %#x bytes at %#x", h.initSize, h.prefAddr)
	}
	// syssize is rounded up to 16 bytes; the last of them may be missing.
	var last [1]byte
	if err := readExact(r, last[:], h.kernelOff+int64(h.kernelSize)-16); err != nil {
		return nil, err
	}
	return h, nil
}

// loadBz copies the kernel to its preferred address and writes the zero page.
func (m *Machine) loadBz(h *bzHeader) (entryPoint, error) {
	if err := m.checkRoom(h); err != nil {
		return entryPoint{}, err
	}
	dst, err := m.mem.Slice(h.prefAddr, h.kernelSize)
	if err != nil {
		return entryPoint{}, err
	}
	if err := readFile(m.opts.Kernel, dst[:len(dst)-16], h.kernelOff); err != nil {
		return entryPoint{}, err
	}
	if _, err := m.opts.Kernel.ReadAt(dst[len(dst)-16:], h.kernelOff+int64(h.kernelSize)-16); err != nil && err != io.EOF {
		return entryPoint{}, qverr.New(qverr.IO, "read the kernel: %w", err)
	}
	initrd, err := m.loadInitrd(h.prefAddr+h.initSize, h.initrdMax)
	if err != nil {
		return entryPoint{}, err
	}
	return m.enterLong(h, initrd, 0, h.prefAddr+bz64Entry)
}

// enterLong prepares the 64-bit entry at rip of a kernel that is loaded; flags
// are added to the header's load flags.
func (m *Machine) enterLong(h *bzHeader, initrd span, flags byte, rip uint64) (entryPoint, error) {
	if err := m.writeZeroPage(h, initrd, flags); err != nil {
		return entryPoint{}, err
	}
	if err := m.writeTables(true); err != nil {
		return entryPoint{}, err
	}
	return entryPoint{long: true, rip: rip, arg: zeroPageAddr}, nil
}

// checkRoom refuses a kernel that does not fit into the RAM below 4 GiB.
func (m *Machine) checkRoom(h *bzHeader) error {
	if top := h.prefAddr + h.initSize; top > m.mem.LowEnd() {
		return qverr.New(qverr.VMStart, "the kernel needs memory up to %#x; the VM has %#x", top, m.mem.LowEnd())
	}
	return m.checkCmdline(h.cmdMax)
}

func (m *Machine) writeZeroPage(h *bzHeader, initrd span, flags byte) error {
	p, err := m.mem.Slice(zeroPageAddr, 0x1000)
	if err != nil {
		return err
	}
	le := binary.LittleEndian
	clear(p)
	// The header ends where the byte after the jump at 0x200 says.
	end := min(bpMagic+int(h.raw[bpJump+1]), bpHeaderEnd)
	copy(p[bpSetupSects:end], h.raw[bpSetupSects:end])
	p[bpLoader] = bzLoaderID
	p[bpLoadFlags] |= flags
	le.PutUint16(p[bpVidMode:], 0xffff) // normal
	le.PutUint32(p[bpCmdline:], cmdlineAddr)
	le.PutUint32(p[bpInitrd:], uint32(initrd.addr))
	le.PutUint32(p[bpInitrdSize:], uint32(initrd.size))
	le.PutUint64(p[bpRSDP:], tablesStart)
	list := memoryMap(m.mem)
	p[bpE820Count] = byte(len(list))
	for i, e := range list {
		at := p[bpE820+20*i:]
		le.PutUint64(at, e.addr)
		le.PutUint64(at[8:], e.size)
		le.PutUint32(at[16:], e.kind)
	}
	return nil
}
