package qverr

import "syscall"

var successRows = []Entry{
	{Code: Success, Name: "QV_SUCCESS", Severity: SevInfo, HTTPStatus: 200, ExitCode: 0, Errno: 0,
		Summary: "The operation completed"},
}

// coreRows are the general errors that every subsystem may raise. Only Busy,
// Timeout and Again are transient; that set is fixed by the reference.
var coreRows = []Entry{
	{Code: Generic, Name: "QV_ERR_GENERIC", Severity: SevError, HTTPStatus: 500, ExitCode: 1, Errno: syscall.EIO,
		Summary: "Internal error without a more precise code",
		Causes: []string{
			"A defect in QuantaVirt",
			"A state that the software does not expect",
		},
		Recovery: []string{
			"Look at the log around the failure: quantavirt log tail --level error --last 1h",
			"Report the issue with a support bundle: quantavirt system support-bundle --output bundle.tar.gz",
		}},
	{Code: NoMem, Name: "QV_ERR_NOMEM", Severity: SevError, HTTPStatus: 507, ExitCode: 7, Errno: syscall.ENOMEM,
		Summary: "Not enough memory on the host",
		Causes: []string{
			"The running VMs and the node itself use all host memory",
			"The pool of huge pages is exhausted",
		},
		Recovery: []string{
			"Stop VMs that are not needed or give them less memory",
			"See what is free: quantavirt system info",
			"With huge pages, check how many are allocated: grep Huge /proc/meminfo",
		}},
	{Code: NoVMX, Name: "QV_ERR_NOVMX", Severity: SevFatal, HTTPStatus: 503, ExitCode: 6, Errno: syscall.ENODEV,
		Summary: "Intel VMX / AMD SVM hardware virtualization is not available",
		Causes: []string{
			"Hardware virtualization is disabled in BIOS/UEFI",
			"The CPU has neither VT-x (Intel) nor AMD-V (AMD)",
			"Another hypervisor holds the feature, or the node is itself a VM without nested virtualization",
		},
		Recovery: []string{
			"Enable VT-x/AMD-V in the BIOS/UEFI firmware settings",
			`Check that the CPU offers it: grep -c 'vmx\|svm' /proc/cpuinfo`,
			"Remove a conflicting hypervisor: rmmod kvm_intel kvm (or kvm_amd kvm), or enable nesting in the hypervisor below",
		}},
	{Code: NoIOMMU, Name: "QV_ERR_NOIOMMU", Severity: SevFatal, HTTPStatus: 503, ExitCode: 1, Errno: syscall.ENODEV,
		Summary: "No IOMMU is active on this host",
		Causes: []string{
			"Intel VT-d or AMD-Vi is disabled in the firmware",
			"The platform has no IOMMU",
			"The kernel was started without it",
		},
		Recovery: []string{
			"Enable VT-d (Intel) or AMD-Vi/IOMMU (AMD) in the BIOS/UEFI firmware settings",
			"Add intel_iommu=on or amd_iommu=on to the kernel command line",
			"Check the result: quantavirt system info shows the IOMMU groups",
		}},
	{Code: Inval, Name: "QV_ERR_INVAL", Severity: SevError, HTTPStatus: 400, ExitCode: 2, Errno: syscall.EINVAL,
		Summary: "Invalid parameter or argument",
		Causes: []string{
			"A value is out of its range or of the wrong type",
			"A configuration or an uploaded file is malformed",
		},
		Recovery: []string{
			"Compare the arguments with the limits in the documentation",
			"Check a VM configuration against the schema: quantavirt vm validate --config FILE",
		}},
	{Code: NoEnt, Name: "QV_ERR_NOENT", Severity: SevError, HTTPStatus: 404, ExitCode: 3, Errno: syscall.ENOENT,
		Summary: "The named resource does not exist",
		Causes: []string{
			"There is no VM, disk, image, network, token or task of that name",
			"The resource was deleted in the meantime",
		},
		Recovery: []string{
			"Check the spelling against the list: quantavirt vm list (network list, image list, disk list)",
			"Create or upload the resource first",
		}},
	{Code: Exist, Name: "QV_ERR_EXIST", Severity: SevError, HTTPStatus: 409, ExitCode: 5, Errno: syscall.EEXIST,
		Summary: "A resource of that name exists already",
		Causes: []string{
			"A VM with this name is already defined",
			"The name of a network, disk or image is taken",
		},
		Recovery: []string{
			"Choose a name that is not in use",
			"Or delete the existing resource first",
		}},
	{Code: Busy, Name: "QV_ERR_BUSY", Severity: SevWarning, Transient: true, HTTPStatus: 409, ExitCode: 5, Errno: syscall.EBUSY,
		Summary: "The resource is in use or locked",
		Causes: []string{
			"Another operation on the same object is still running",
			"A disk is attached to another VM",
		},
		Recovery: []string{
			"Wait for the running operation: quantavirt task list",
			"Look for a lock that outlived its owner, and detach the resource from its other user",
		}},
	{Code: Perm, Name: "QV_ERR_PERM", Severity: SevError, HTTPStatus: 403, ExitCode: 4, Errno: syscall.EPERM,
		Summary: "Permission denied",
		Causes: []string{
			"The token's scope or the calling user does not allow this operation",
			"Owner or mode of a file forbids the access",
		},
		Recovery: []string{
			"Use a token that has the needed scope; on the node run as root or as a member of group quantavirt",
			"Check owner and mode of the files named in the message",
		}},
	{Code: NoDev, Name: "QV_ERR_NODEV", Severity: SevError, HTTPStatus: 503, ExitCode: 6, Errno: syscall.ENODEV,
		Summary: "Device not found or not usable",
		Causes: []string{
			"The PCI device is not plugged or not visible",
			"A QUAC 100 card was not detected",
			"No driver is bound to the device, or its device node is missing",
		},
		Recovery: []string{
			"See whether the bus shows the device: lspci -nn",
			"Power off and reseat the card",
			"Check that the driver is loaded and bound: quantavirt system info",
		}},
	{Code: IO, Name: "QV_ERR_IO", Severity: SevError, HTTPStatus: 500, ExitCode: 8, Errno: syscall.EIO,
		Summary: "Input or output failed",
		Causes: []string{
			"A disk could not be read or written",
			"A device or peer stopped answering in the middle of a transfer",
		},
		Recovery: []string{
			"Check the health of the host's disks: smartctl -a DEVICE",
			"Check cabling and connectivity of the device or peer named in the message",
		}},
	{Code: Timeout, Name: "QV_ERR_TIMEOUT", Severity: SevWarning, Transient: true, HTTPStatus: 503, ExitCode: 9, Errno: syscall.ETIMEDOUT,
		Summary: "The operation did not end in time",
		Causes: []string{
			"A VM did not react before the deadline",
			"The node is overloaded",
			"A device stalls",
		},
		Recovery: []string{
			"Repeat with a longer timeout",
			"Check the load of the node: quantavirt system info",
			"Check the health of the device that the operation used",
		}},
	{Code: Again, Name: "QV_ERR_AGAIN", Severity: SevWarning, Transient: true, HTTPStatus: 503, ExitCode: 1, Errno: syscall.EAGAIN,
		Summary: "Temporarily not possible, try again",
		Causes: []string{
			"A resource is contended for the moment",
			"The service is starting or restarting",
		},
		Recovery: []string{
			"Repeat the operation after a short delay",
		}},
	{Code: NoSpc, Name: "QV_ERR_NOSPC", Severity: SevError, HTTPStatus: 507, ExitCode: 7, Errno: syscall.ENOSPC,
		Summary: "No space left",
		Causes: []string{
			"The data volume or the storage pool is full",
			"All slots for VMs are taken",
			"The node has no data volume and its memory cannot hold the upload",
		},
		Recovery: []string{
			"Delete images and disks that are not needed",
			"Remove unused VMs and old snapshots",
			"Give the node a (larger) volume labelled QV-DATA",
		}},
	{Code: Unsupported, Name: "QV_ERR_UNSUPPORTED", Severity: SevError, HTTPStatus: 422, ExitCode: 125, Errno: syscall.EOPNOTSUPP,
		Summary: "Feature not supported here",
		Causes: []string{
			"This hardware or firmware lacks the capability",
			"This version of QuantaVirt does not offer it",
		},
		Recovery: []string{
			"See what the node can do: quantavirt system capabilities",
			"Upgrade the firmware or the appliance",
		}},
	{Code: State, Name: "QV_ERR_STATE", Severity: SevError, HTTPStatus: 409, ExitCode: 5, Errno: syscall.EBADFD,
		Summary: "Invalid state transition",
		Causes: []string{
			"The operation is not allowed in the VM's present state, for example migrating a stopped VM",
		},
		Recovery: []string{
			"Look at the state first: quantavirt vm show NAME",
			"Bring the VM into a state that allows the operation",
		}},
	{Code: Config, Name: "QV_ERR_CONFIG", Severity: SevError, HTTPStatus: 422, ExitCode: 2, Errno: syscall.EINVAL,
		Summary: "The configuration is not valid",
		Causes: []string{
			"The document is not well-formed JSON",
			"A required field is missing or a key is unknown",
			"A value breaks the schema",
		},
		Recovery: []string{
			"Check the file: quantavirt vm validate --config FILE",
			"Correct the place that details.path names",
		}},
	{Code: Limit, Name: "QV_ERR_LIMIT", Severity: SevError, HTTPStatus: 429, ExitCode: 7, Errno: syscall.EMFILE,
		Summary: "A limit is exceeded",
		Causes: []string{
			"The largest number of VMs, vCPUs, network interfaces or disks is reached",
			"Requests come faster than the API accepts them",
		},
		Recovery: []string{
			"Remove what is not used, or send requests more slowly",
			"Raise the limit in the system configuration",
		}},
	{Code: Auth, Name: "QV_ERR_AUTH", Severity: SevError, HTTPStatus: 401, ExitCode: 4, Errno: syscall.EACCES,
		Summary: "Authentication failed",
		Causes: []string{
			"The API token is missing or wrong",
			"The credentials have expired or were revoked",
		},
		Recovery: []string{
			"Pass a valid token with --token or QUANTAVIRT_TOKEN",
			"Make a new one: quantavirt system token create",
		}},
	{Code: Version, Name: "QV_ERR_VERSION", Severity: SevError, HTTPStatus: 500, ExitCode: 1, Errno: syscall.EPROTONOSUPPORT,
		Summary: "Versions do not fit together",
		Causes: []string{
			"The configuration was written for another version of the schema",
			"Firmware, peer or stored state is of an incompatible version",
		},
		Recovery: []string{
			"Bring the configuration to the current schema version",
			"Upgrade the older side, firmware included",
		}},
}
