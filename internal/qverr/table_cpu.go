package qverr

import "syscall"

var cpuRows = []Entry{
	{Code: VMCSAlloc, Name: "QV_ERR_VMCS_ALLOC", Severity: SevError, HTTPStatus: 500, ExitCode: 1, Errno: syscall.ENOMEM,
		Summary: "The VMCS (Intel) of a vCPU could not be allocated",
		Causes: []string{
			"Host memory is short",
			"Too many VMs run",
		},
		Recovery: []string{
			"Free host memory",
			"Run fewer VMs on this node",
		}},
	{Code: VMCBAlloc, Name: "QV_ERR_VMCB_ALLOC", Severity: SevError, HTTPStatus: 500, ExitCode: 1, Errno: syscall.ENOMEM,
		Summary: "The VMCB (AMD) of a vCPU could not be allocated",
		Causes: []string{
			"Host memory is short",
			"Too many VMs run",
		},
		Recovery: []string{
			"Free host memory",
			"Run fewer VMs on this node",
		}},
	{Code: VMLaunchInsn, Name: "QV_ERR_VMLAUNCH", Severity: SevError, HTTPStatus: 500, ExitCode: 1, Errno: syscall.EIO,
		Summary: "The first entry into the guest (VMLAUNCH) failed",
		Causes: []string{
			"The vCPU's state is not one that the CPU accepts",
			"The CPU reported a VMX abort",
			"Nested virtualization below is incomplete",
		},
		Recovery: []string{
			"Check the VMCS fields in the log of the VM",
			"Look for a VMX abort: dmesg",
			"On a node that is itself a VM, check its nested virtualization",
		}},
	{Code: VMResumeInsn, Name: "QV_ERR_VMRESUME", Severity: SevError, HTTPStatus: 500, ExitCode: 1, Errno: syscall.EIO,
		Summary: "Entering the guest again (VMRESUME) failed",
		Causes: []string{
			"The vCPU's state became inconsistent",
		},
		Recovery: []string{
			"Read the last VM-exit reason in the log: quantavirt log tail --level error --last 1h",
			"Check that the VMCS is consistent; restart the VM",
		}},
	{Code: VMExit, Name: "QV_ERR_VMEXIT", Severity: SevError, HTTPStatus: 500, ExitCode: 1, Errno: syscall.EIO,
		Summary: "The guest left guest mode for a reason that is not handled",
		Causes: []string{
			"The guest executed an instruction that cannot be emulated",
			"The guest went into a triple fault",
		},
		Recovery: []string{
			"Note the exit reason in the VM's log",
			"Check the guest for a triple fault or invalid instructions",
		}},
	{Code: EPTSetup, Name: "QV_ERR_EPT_SETUP", Severity: SevError, HTTPStatus: 500, ExitCode: 1, Errno: syscall.ENOMEM,
		Summary: "Nested paging (Intel EPT) could not be set up",
		Causes: []string{
			"No memory for the page tables",
			"The CPU does not report EPT",
		},
		Recovery: []string{
			"Check that memory for page tables is free",
			"Check the CPU for EPT: grep -c ept /proc/cpuinfo",
		}},
	{Code: NPTSetup, Name: "QV_ERR_NPT_SETUP", Severity: SevError, HTTPStatus: 500, ExitCode: 1, Errno: syscall.ENOMEM,
		Summary: "Nested paging (AMD NPT) could not be set up",
		Causes: []string{
			"No memory for the page tables",
			"The CPU does not report NPT",
		},
		Recovery: []string{
			"Check that memory for page tables is free",
			"Check the CPU for NPT: grep -c npt /proc/cpuinfo",
		}},
	{Code: EPTViolation, Name: "QV_ERR_EPT_VIOLATION", Severity: SevError, HTTPStatus: 500, ExitCode: 1, Errno: syscall.EFAULT,
		Summary: "The guest accessed memory that nothing backs",
		Causes: []string{
			"The guest used an address that is neither memory nor a device",
			"The guest expects more memory than it has",
		},
		Recovery: []string{
			"Check the memory configuration of the VM",
			"Check guest drivers that map physical addresses",
		}},
	{Code: CPUID, Name: "QV_ERR_CPUID", Severity: SevError, HTTPStatus: 500, ExitCode: 1, Errno: syscall.EINVAL,
		Summary: "The guest's CPUID could not be built",
		Causes: []string{
			"The CPU model or a feature asks for a leaf that the host does not support",
		},
		Recovery: []string{
			"Check cpu.model and cpu.features of the VM",
			"Use cpu.model host",
		}},
	{Code: MSR, Name: "QV_ERR_MSR", Severity: SevError, HTTPStatus: 500, ExitCode: 1, Errno: syscall.EPERM,
		Summary: "Access to a model-specific register failed",
		Causes: []string{
			"The guest touched a register that is forbidden to it",
			"The host's kernel refuses a register of the VM's state",
		},
		Recovery: []string{
			"Check the MSR bitmap configuration",
			"Check guest software that writes model-specific registers",
		}},
	{Code: Pin, Name: "QV_ERR_PIN", Severity: SevError, HTTPStatus: 500, ExitCode: 1, Errno: syscall.EINVAL,
		Summary: "A vCPU could not be pinned",
		Causes: []string{
			"The named host CPU does not exist",
			"The host CPU is offline",
		},
		Recovery: []string{
			"Compare cpu.pinning with the host's CPUs: quantavirt system info",
		}},
	{Code: Topology, Name: "QV_ERR_TOPOLOGY", Severity: SevError, HTTPStatus: 422, ExitCode: 1, Errno: syscall.EINVAL,
		Summary: "The CPU topology does not add up",
		Causes: []string{
			"sockets × cores × threads differs from cpu.count",
		},
		Recovery: []string{
			"Make sockets × cores × threads equal the number of vCPUs",
		}},
	{Code: TripleFault, Name: "QV_ERR_TRIPLE_FAULT", Severity: SevError, HTTPStatus: 500, ExitCode: 1, Errno: syscall.EFAULT,
		Summary: "The guest crashed with a triple fault",
		Causes: []string{
			"The guest operating system crashed",
			"The guest's kernel or boot configuration does not fit the machine",
		},
		Recovery: []string{
			"Check the guest's boot configuration and kernel",
			"Read the last console output: quantavirt vm console NAME",
		}},
}
