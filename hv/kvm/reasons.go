package kvm

import "strconv"

// MaxReason is above all exit reasons that this kernel interface knows.
const MaxReason = 64

// reasonNames are the KVM_EXIT_* of <linux/kvm.h> that an x86 host can give.
var reasonNames = map[uint32]string{
	ExitUnknown: "unknown", 1: "exception", ExitIO: "io", 3: "hypercall", 4: "debug", ExitHLT: "hlt",
	ExitMMIO: "mmio", 7: "irq_window", ExitShutdown: "shutdown", ExitFailEntry: "fail_entry", ExitIntr: "interrupted",
	11: "set_tpr", 12: "tpr_access", 16: "nmi", ExitInternalError: "internal_error", ExitSystemEvent: "system_event",
	26: "ioapic_eoi", 27: "hyperv", 29: "rdmsr", 30: "wrmsr", 33: "bus_lock", 37: "notify", ExitMemoryFault: "memory_fault",
}

// ReasonName is the name of an exit reason as statistics and crash reports show it.
func ReasonName(reason uint32) string {
	if name, ok := reasonNames[reason]; ok {
		return name
	}
	return "exit_" + strconv.FormatUint(uint64(reason), 10)
}
