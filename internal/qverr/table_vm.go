package qverr

import "syscall"

// vmRows are the failures of whole life-cycle operations.
var vmRows = []Entry{
	{Code: VMCreate, Name: "QV_ERR_VM_CREATE", Severity: SevError, HTTPStatus: 500, ExitCode: 1, Errno: syscall.EIO,
		Summary: "The VM could not be created",
		Causes: []string{
			"The configuration names resources that cannot be reserved",
			"The definition could not be stored",
		},
		Recovery: []string{
			"Check the configuration: quantavirt vm validate --config FILE",
			"Check that its disks, images and networks are there",
		}},
	{Code: VMStart, Name: "QV_ERR_VM_START", Severity: SevError, HTTPStatus: 500, ExitCode: 1, Errno: syscall.EIO,
		Summary: "The VM could not be started",
		Causes: []string{
			"The kernel did not give the VM its VMCS (Intel) or VMCB (AMD)",
			"A disk, network or device of the VM could not be opened",
			"The VM process ended during start",
		},
		Recovery: []string{
			"Read the cause in the task and the log: quantavirt log tail --level error --last 1h",
			"Check that hardware virtualization works: quantavirt system info",
		}},
	{Code: VMStop, Name: "QV_ERR_VM_STOP", Severity: SevError, HTTPStatus: 500, ExitCode: 1, Errno: syscall.EIO,
		Summary: "The VM could not be stopped",
		Causes: []string{
			"The guest ignores the power button",
			"The VM hangs in an operation",
		},
		Recovery: []string{
			"End it without the guest's help: quantavirt vm stop NAME --force",
			"See whether it is stuck: quantavirt vm show NAME",
		}},
	{Code: VMDestroy, Name: "QV_ERR_VM_DESTROY", Severity: SevError, HTTPStatus: 500, ExitCode: 1, Errno: syscall.EIO,
		Summary: "The VM could not be destroyed",
		Causes: []string{
			"The VM still runs",
			"A migration or a snapshot of it is under way",
		},
		Recovery: []string{
			"Stop the VM first, or use quantavirt vm destroy --force NAME",
			"Wait for or cancel its migration or snapshot: quantavirt task list",
		}},
	{Code: VMPause, Name: "QV_ERR_VM_PAUSE", Severity: SevError, HTTPStatus: 500, ExitCode: 1, Errno: syscall.EIO,
		Summary: "The VM could not be paused",
		Causes: []string{
			"The VM is not running",
			"A vCPU did not leave guest mode",
		},
		Recovery: []string{
			"Check that the VM is RUNNING: quantavirt vm show NAME",
			"Check the state of the hypervisor: quantavirt system info",
		}},
	{Code: VMResume, Name: "QV_ERR_VM_RESUME", Severity: SevError, HTTPStatus: 500, ExitCode: 1, Errno: syscall.EIO,
		Summary: "The VM could not be resumed",
		Causes: []string{
			"The VM is not paused",
			"Resources that it needs are no longer free",
		},
		Recovery: []string{
			"Check that the VM is PAUSED: quantavirt vm show NAME",
			"Check free memory and devices: quantavirt system info",
		}},
	{Code: VMSnapshot, Name: "QV_ERR_VM_SNAPSHOT", Severity: SevError, HTTPStatus: 500, ExitCode: 1, Errno: syscall.EIO,
		Summary: "The snapshot could not be taken",
		Causes: []string{
			"Too little disk space for the VM's state",
			"A disk of the VM is raw, and raw disks have no snapshots",
		},
		Recovery: []string{
			"Free disk space",
			"Make sure that every disk of the VM is qcow2: quantavirt storage info NAME",
		}},
	{Code: VMRestore, Name: "QV_ERR_VM_RESTORE", Severity: SevError, HTTPStatus: 500, ExitCode: 1, Errno: syscall.EIO,
		Summary: "The snapshot could not be restored",
		Causes: []string{
			"The VM still runs",
			"The snapshot does not exist or is damaged",
		},
		Recovery: []string{
			"Stop the VM first",
			"Check that the snapshot is there and intact",
		}},
	{Code: VMClone, Name: "QV_ERR_VM_CLONE", Severity: SevError, HTTPStatus: 500, ExitCode: 1, Errno: syscall.EIO,
		Summary: "The VM could not be cloned",
		Causes: []string{
			"Too little disk space for the copy",
			"A linked clone was asked of a running source",
		},
		Recovery: []string{
			"Free disk space",
			"Stop the source VM before making a linked clone",
		}},
	{Code: VMStuck, Name: "QV_ERR_VM_STUCK", Severity: SevError, HTTPStatus: 500, ExitCode: 1, Errno: syscall.ETIMEDOUT,
		Summary: "The VM no longer responds",
		Causes: []string{
			"The VM process answers nothing on its control socket",
			"A device or disk of the VM blocks",
		},
		Recovery: []string{
			"Destroy it by force: quantavirt vm destroy --force NAME",
		}},
}

var memoryRows = []Entry{
	{Code: Hugepage, Name: "QV_ERR_HUGEPAGE", Severity: SevError, HTTPStatus: 500, ExitCode: 1, Errno: syscall.ENOMEM,
		Summary: "Huge pages could not be allocated",
		Causes: []string{
			"Fewer huge pages are reserved than the VM needs",
			"Memory is too fragmented for new ones",
		},
		Recovery: []string{
			"Reserve them early: echo N > /proc/sys/vm/nr_hugepages",
			"Or set memory.hugepages to off for this VM",
		}},
	{Code: Balloon, Name: "QV_ERR_BALLOON", Severity: SevError, HTTPStatus: 500, ExitCode: 1, Errno: syscall.EIO,
		Summary: "The guest's balloon driver does not answer",
		Causes: []string{
			"The guest has no VirtIO balloon driver",
			"The guest's agent or driver hangs",
		},
		Recovery: []string{
			"Install the VirtIO balloon driver in the guest",
			"Check the guest agent",
		}},
	{Code: HotplugMem, Name: "QV_ERR_HOTPLUG_MEM", Severity: SevError, HTTPStatus: 500, ExitCode: 1, Errno: syscall.EIO,
		Summary: "Memory could not be added to the running VM",
		Causes: []string{
			"The guest's kernel has no ACPI memory hotplug",
			"The new size is above memory.max_size",
		},
		Recovery: []string{
			"Use a guest kernel with ACPI memory hotplug",
			"Raise memory.max_size while the VM is stopped",
		}},
	{Code: MemEncrypt, Name: "QV_ERR_MEM_ENCRYPT", Severity: SevError, HTTPStatus: 500, ExitCode: 1, Errno: syscall.EOPNOTSUPP,
		Summary: "Memory encryption could not be set up",
		Causes: []string{
			"The host has neither AMD SEV nor Intel TDX, or it is off",
			"The firmware is too old",
		},
		Recovery: []string{
			"Check that the host offers AMD SEV or Intel TDX: quantavirt system capabilities",
			"Update the host's firmware and enable the feature in it",
		}},
	{Code: NUMA, Name: "QV_ERR_NUMA", Severity: SevError, HTTPStatus: 500, ExitCode: 1, Errno: syscall.ENOMEM,
		Summary: "Memory of the wanted NUMA node could not be had",
		Causes: []string{
			"The host has no NUMA node of that number",
			"The node has too little free memory",
		},
		Recovery: []string{
			"Choose a node that exists: quantavirt system info",
			"Choose another node or leave memory.numa_node out",
		}},
}
