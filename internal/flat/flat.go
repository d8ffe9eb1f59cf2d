// Package flat makes kernels of a few hundred bytes for tests: PVH ELF files that run
// a list of memory accesses and port accesses in 32-bit mode without paging, where a
// test can say each access that a bad driver makes.
package flat

import "encoding/binary"

// Kernel is a list of steps under construction.
type Kernel struct{ steps []byte }

// The numbers of the steps, as the code below counts them down.
const (
	opWrite32 = iota + 1
	opWrite16
	opWrite8
	opWait
	opCheck
	opOut8
	opOut16
	opOut32
	opJump
	opString
	opTriple
)

const (
	// loadAt is where the kernel is loaded and entered.
	loadAt  = 0x10_0000
	stepLen = 12
	com1    = 0x3f8
)

// interpreter reads steps of three words (operation, ebx, ecx) from esi.
var interpreter = assemble()

// assemble joins the handlers: each follows a test of the operation that jumps over it.
func assemble() []byte {
	code := []byte("\xfc\xbe\x00\x00\x00\x00" + // cld; mov $steps, %esi
		"\xad\x8b\x1e\x8b\x4e\x04\x83\xc6\x08") // next: lods; mov (%esi), %ebx; mov 4(%esi), %ecx; add $8, %esi
	next := 6
	for _, handler := range []string{
		"\x89\x0b",                         // mov %ecx, (%ebx)
		"\x66\x89\x0b",                     // mov %cx, (%ebx)
		"\x88\x0b",                         // mov %cl, (%ebx)
		"\x85\x0b\x75\x04\xf3\x90\xeb\xf8", // test %ecx, (%ebx); jnz +4; pause; jmp back
		"\x39\x0b\x74\x0b\x66\xba\xf8\x03\xb0\x46\xee\xf4\xeb\xfd\x90", // cmp %ecx, (%ebx); je +11; print F; hlt for ever
		"\x89\xda\x88\xc8\xee",     // mov %ebx, %edx; mov %cl, %al; out %al, %dx
		"\x89\xda\x89\xc8\x66\xef", // mov %ebx, %edx; mov %ecx, %eax; out %ax, %dx
		"\x89\xda\x89\xc8\xef",     // mov %ebx, %edx; mov %ecx, %eax; out %eax, %dx
		"\x89\xde",                 // mov %ebx, %esi
		"\x89\xf5\x89\xde\x66\xba\xf8\x03\xf3\x6e\x89\xee", // mov %esi, %ebp; mov %ebx, %esi; mov $0x3f8, %dx; rep outsb; mov %ebp, %esi
		"\x0f\x0b", // ud2, without an IDT
	} {
		code = append(code, 0x48, 0x75, byte(len(handler)+5)) // dec %eax; jnz over
		code = append(code, handler...)
		code = append(code, 0xe9) // jmp next
		code = binary.LittleEndian.AppendUint32(code, uint32(next-len(code)-4))
	}
	code = append(code, "\xf4\xeb\xfd"...) // hlt for ever
	for len(code)%16 != 0 {
		code = append(code, 0x90)
	}
	binary.LittleEndian.PutUint32(code[2:], uint32(loadAt+len(code)))
	return code
}

func (k *Kernel) step(op, a, b uint32) *Kernel {
	for _, v := range []uint32{op, a, b} {
		k.steps = binary.LittleEndian.AppendUint32(k.steps, v)
	}
	return k
}

// Write32 stores v at addr; Write16 and Write8 store less of it.
func (k *Kernel) Write32(addr, v uint32) *Kernel { return k.step(opWrite32, addr, v) }

// Write16 stores 16 bits.
func (k *Kernel) Write16(addr uint32, v uint16) *Kernel { return k.step(opWrite16, addr, uint32(v)) }

// Write8 stores a byte.
func (k *Kernel) Write8(addr uint32, v uint8) *Kernel { return k.step(opWrite8, addr, uint32(v)) }

// Wait waits until the 32 bits at addr have one of bits.
func (k *Kernel) Wait(addr, bits uint32) *Kernel { return k.step(opWait, addr, bits) }

// Check prints F and stops for good when the 32 bits at addr are not v.
func (k *Kernel) Check(addr, v uint32) *Kernel { return k.step(opCheck, addr, v) }

// Out8 writes a byte to a port; Out16 and Out32 write more.
func (k *Kernel) Out8(port uint16, v uint8) *Kernel { return k.step(opOut8, uint32(port), uint32(v)) }

// Out16 writes 16 bits to a port.
func (k *Kernel) Out16(port, v uint16) *Kernel { return k.step(opOut16, uint32(port), uint32(v)) }

// Out32 writes 32 bits to a port.
func (k *Kernel) Out32(port uint16, v uint32) *Kernel { return k.step(opOut32, uint32(port), v) }

// Print writes text to COM1, a port access a byte.
func (k *Kernel) Print(text string) *Kernel {
	for _, c := range []byte(text) {
		k.Out8(com1, c)
	}
	return k
}

// PrintMemory writes n bytes from addr to COM1 with one instruction.
func (k *Kernel) PrintMemory(addr, n uint32) *Kernel { return k.step(opString, addr, n) }

// TripleFault ends the guest.
func (k *Kernel) TripleFault() *Kernel { return k.step(opTriple, 0, 0) }

// Here is a place for Jump.
func (k *Kernel) Here() uint32 { return uint32(loadAt + len(interpreter) + len(k.steps)) }

// Jump goes on at a place.
func (k *Kernel) Jump(place uint32) *Kernel { return k.step(opJump, place, 0) }

// PowerOff asks for S5 by ACPI.
func (k *Kernel) PowerOff() *Kernel { return k.Out16(0x604, 0x3400) }

// ELF is the kernel as a file. A list that does not end in Jump ends in hlt.
func (k *Kernel) ELF() []byte {
	code := append(append([]byte{}, interpreter...), k.steps...)
	return ELF(append(code, make([]byte, stepLen)...))
}

// Echo is a kernel that prints ready and then what is typed on COM1.
func Echo() []byte {
	code := "\x66\xba\xf8\x03"
	for _, c := range []byte("ready\n") {
		code += "\xb0" + string([]byte{c}) + "\xee"
	}
	return ELF([]byte(code +
		"\x66\xba\xfd\x03\xec\xa8\x01\x75\x0b" + // look: mov $0x3fd, %dx; in %dx, %al; test $1, %al; jnz echo
		"\xb9\x00\x00\x01\x00\xf3\x90\xe2\xfc\xeb\xec" + // mov $0x10000, %ecx; pause; loop; jmp look
		"\x66\xba\xf8\x03\xec\xee\xeb\xe4")) // echo: mov $0x3f8, %dx; in; out; jmp look
}

// ELF makes a kernel of one segment of code, entered at its first byte, with a PVH note.
func ELF(code []byte) []byte {
	const (
		header, entry     = 64, 56
		noteAt, dataAt    = 0x800, 0x1000
		ptLoad, ptNote    = 1, 4
		pvhEntry, noteLen = 18, 24 // XEN_ELFNOTE_PHYS32_ENTRY
	)
	le := binary.LittleEndian
	b := make([]byte, dataAt)
	copy(b, "\x7fELF\x02\x01\x01")
	le.PutUint16(b[16:], 2)  // ET_EXEC
	le.PutUint16(b[18:], 62) // EM_X86_64
	le.PutUint64(b[32:], header)
	le.PutUint16(b[54:], entry)
	le.PutUint16(b[56:], 2)
	for i, s := range []struct {
		kind                    uint32
		off, paddr, file, inRAM uint64
	}{
		{ptLoad, dataAt, loadAt, uint64(len(code)), uint64(len(code)) + 0x1000},
		{ptNote, noteAt, 0, noteLen, noteLen},
	} {
		p := b[header+entry*i:]
		le.PutUint32(p, s.kind)
		le.PutUint64(p[8:], s.off)
		le.PutUint64(p[24:], s.paddr)
		le.PutUint64(p[32:], s.file)
		le.PutUint64(p[40:], s.inRAM)
	}
	le.PutUint32(b[noteAt:], 4)
	le.PutUint32(b[noteAt+4:], 8)
	le.PutUint32(b[noteAt+8:], pvhEntry)
	copy(b[noteAt+12:], "Xen\x00")
	le.PutUint64(b[noteAt+16:], loadAt)
	return append(b, code...)
}
