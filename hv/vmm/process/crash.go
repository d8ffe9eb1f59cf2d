package process

import (
	"quantavirt/hv/kvm"
	"quantavirt/hv/machine"
	"quantavirt/hv/vmm"
)

// crashOf is the crash report of an end that is one, else nil. The daemon adds the
// consoles, whose rings it can read.
func (vm *VM) crashOf(exit machine.Exit, r vmm.ExitReport) *vmm.CrashReport {
	if !r.Reason.Crashed() {
		return nil
	}
	c := &vmm.CrashReport{Time: r.Time, Reason: r.Reason, Code: r.Code, Message: r.Message, Devices: vm.info().Devices}
	if exit.Crash == nil {
		return c
	}
	if exit.Crash.VCPU >= 0 {
		c.VCPU = &exit.Crash.VCPU
	}
	c.RegistersReset = exit.Crash.RegistersReset
	for id, v := range exit.Crash.VCPUs {
		out := vmm.VCPUCrash{ID: id, LastExits: []vmm.ExitRecord{}}
		if v.Err != nil {
			out.Error = v.Err.Error()
		} else {
			out.Registers = registersOf(&v.Regs, &v.Sregs)
		}
		for _, e := range v.Last {
			out.LastExits = append(out.LastExits, exitRecord(e))
		}
		c.VCPUs = append(c.VCPUs, out)
	}
	return c
}

func exitRecord(e machine.LastExit) vmm.ExitRecord {
	r := vmm.ExitRecord{Reason: kvm.ReasonName(e.Reason), Addr: vmm.Hex(e.Addr), Size: e.Size, Data: vmm.Hex(e.Data)}
	switch {
	case e.Size == 0:
	case e.Write:
		r.Access = "write"
	default:
		r.Access = "read"
	}
	return r
}

// registersOf names the registers as debuggers do. A segment is its selector; bases
// are shown where 64-bit code has some.
func registersOf(r *kvm.Regs, s *kvm.Sregs) map[string]vmm.Hex {
	out := map[string]vmm.Hex{}
	for name, v := range map[string]uint64{
		"rax": r.RAX, "rbx": r.RBX, "rcx": r.RCX, "rdx": r.RDX, "rsi": r.RSI, "rdi": r.RDI, "rsp": r.RSP, "rbp": r.RBP,
		"r8": r.R8, "r9": r.R9, "r10": r.R10, "r11": r.R11, "r12": r.R12, "r13": r.R13, "r14": r.R14, "r15": r.R15,
		"rip": r.RIP, "rflags": r.RFLAGS,
		"cr0": s.CR0, "cr2": s.CR2, "cr3": s.CR3, "cr4": s.CR4, "cr8": s.CR8, "efer": s.EFER, "apic_base": s.APICBase,
		"gdt": s.GDT.Base, "idt": s.IDT.Base, "fs_base": s.FS.Base, "gs_base": s.GS.Base,
		"cs": uint64(s.CS.Selector), "ds": uint64(s.DS.Selector), "es": uint64(s.ES.Selector),
		"fs": uint64(s.FS.Selector), "gs": uint64(s.GS.Selector), "ss": uint64(s.SS.Selector),
		"tr": uint64(s.TR.Selector), "ldt": uint64(s.LDT.Selector),
	} {
		out[name] = vmm.Hex(v)
	}
	return out
}
