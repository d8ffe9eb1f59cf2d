package qverr

import "syscall"

var migrationRows = []Entry{
	{Code: MigConnect, Name: "QV_MIG_ERR_CONNECT", Severity: SevError, HTTPStatus: 500, ExitCode: 11, Errno: syscall.EHOSTUNREACH,
		Summary: "The destination host cannot be reached",
		Causes: []string{
			"The network between the hosts is down or filtered",
			"No hypervisor listens at the destination",
		},
		Recovery: []string{
			"Check the connection to the destination's migration port",
			"Check that the destination's hypervisor runs",
		}},
	{Code: MigAuth, Name: "QV_MIG_ERR_AUTH", Severity: SevError, HTTPStatus: 500, ExitCode: 11, Errno: syscall.EACCES,
		Summary: "The hosts could not authenticate each other",
		Causes: []string{
			"The hosts do not trust each other's identity",
			"The post-quantum handshake failed",
		},
		Recovery: []string{
			"Check the PQC key exchange in both logs",
			"Import each host's public key at the other: both must be in one trust domain",
		}},
	{Code: MigCPUCompat, Name: "QV_MIG_ERR_CPU_COMPAT", Severity: SevError, HTTPStatus: 500, ExitCode: 11, Errno: syscall.EOPNOTSUPP,
		Summary: "The destination's CPU lacks features of the VM's CPU",
		Causes: []string{
			`The VM uses cpu.model "host" and the hosts differ`,
			"A feature of cpu.features is missing at the destination",
		},
		Recovery: []string{
			`Use a named CPU model instead of "host"`,
			"Reduce cpu.features to what both hosts have",
		}},
	{Code: MigMemTransfer, Name: "QV_MIG_ERR_MEM_TRANSFER", Severity: SevError, HTTPStatus: 500, ExitCode: 11, Errno: syscall.EIO,
		Summary: "Memory pages could not be transferred",
		Causes: []string{
			"The connection broke or is too slow",
			"The guest dirties memory faster than it is sent before the timeout",
		},
		Recovery: []string{
			"Check the bandwidth between the hosts",
			"Increase the timeout",
			"Reduce the load that dirties the guest's memory",
		}},
	{Code: MigConverge, Name: "QV_MIG_ERR_CONVERGE", Severity: SevError, HTTPStatus: 500, ExitCode: 11, Errno: syscall.ETIME,
		Summary: "Migration cannot converge: memory is dirtied faster than it is sent",
		Causes: []string{
			"The guest writes more memory than the connection carries",
		},
		Recovery: []string{
			"Enable migration.auto_converge",
			"Reduce the guest's I/O",
			"Give the migration more bandwidth",
		}},
	{Code: MigDowntime, Name: "QV_MIG_ERR_DOWNTIME", Severity: SevError, HTTPStatus: 500, ExitCode: 11, Errno: syscall.ETIME,
		Summary: "The expected downtime is above max_downtime_ms",
		Causes: []string{
			"The last pages and the device state take longer to send than is allowed",
		},
		Recovery: []string{
			"Increase migration.max_downtime_ms",
			"Reduce the VM's memory",
			"Use post-copy mode",
		}},
	{Code: MigCancel, Name: "QV_MIG_ERR_CANCEL", Severity: SevWarning, HTTPStatus: 500, ExitCode: 11, Errno: syscall.ECANCELED,
		Summary: "The migration was cancelled",
		Causes: []string{
			"A user or a policy ended the migration",
		},
		Recovery: []string{
			"Nothing to repair: the VM goes on at the source",
			"Start the migration again when wanted",
		}},
	{Code: MigPQCKey, Name: "QV_MIG_ERR_PQC_KEY", Severity: SevError, HTTPStatus: 500, ExitCode: 11, Errno: syscall.EKEYREJECTED,
		Summary: "The post-quantum key exchange of the migration channel failed",
		Causes: []string{
			"One side has neither a working QUAC 100 nor the software provider",
			"The sides share no key exchange",
		},
		Recovery: []string{
			"Check the QUAC 100 or the software provider on both hosts: quantavirt crypto quac100 status",
		}},
	{Code: MigStorage, Name: "QV_MIG_ERR_STORAGE", Severity: SevError, HTTPStatus: 500, ExitCode: 11, Errno: syscall.EREMOTEIO,
		Summary: "The destination cannot access the VM's shared storage",
		Causes: []string{
			"The shared volume is not mounted at the destination",
			"The disk has another path there",
		},
		Recovery: []string{
			"Mount the NFS, iSCSI or Ceph volume on both hosts",
			"Or migrate with storage",
		}},
	{Code: MigRDMA, Name: "QV_MIG_ERR_RDMA", Severity: SevError, HTTPStatus: 500, ExitCode: 11, Errno: syscall.ENXIO,
		Summary: "The RDMA transport could not be initialised",
		Causes: []string{
			"A host has no RDMA adapter or no ibverbs",
		},
		Recovery: []string{
			"Check the RDMA adapters and ibverbs",
			"Fall back to the TCP transport",
		}},
	{Code: MigDevice, Name: "QV_MIG_ERR_DEVICE", Severity: SevError, HTTPStatus: 500, ExitCode: 11, Errno: syscall.EIO,
		Summary: "The state of a device could not be migrated",
		Causes: []string{
			"A passed-through device cannot be moved",
			"The destination does not know the device or its version",
		},
		Recovery: []string{
			"Check that the devices are compatible with the destination",
			"Unplug the device from the VM first",
		}},
}
