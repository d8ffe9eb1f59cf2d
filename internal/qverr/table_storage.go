package qverr

import "syscall"

var storageRows = []Entry{
	{Code: StrOpen, Name: "QV_STR_ERR_OPEN", Severity: SevError, HTTPStatus: 500, ExitCode: 1, Errno: syscall.ENOENT,
		Summary: "The disk image could not be opened",
		Causes: []string{
			"The file is not there or not readable",
			"The file is not in the format that was stated",
		},
		Recovery: []string{
			"Check path, permissions and format: quantavirt storage info NAME",
		}},
	{Code: StrFormat, Name: "QV_STR_ERR_FORMAT", Severity: SevError, HTTPStatus: 500, ExitCode: 1, Errno: syscall.EMEDIUMTYPE,
		Summary: "The disk's format is unknown or damaged",
		Causes: []string{
			"The file is of another format than stated",
			"The header of the image is corrupt",
		},
		Recovery: []string{
			"Check which format the file has: quantavirt storage info NAME",
			"Check a qcow2 image: qemu-img check FILE",
		}},
	{Code: StrLock, Name: "QV_STR_ERR_LOCK", Severity: SevError, HTTPStatus: 409, ExitCode: 1, Errno: syscall.EBUSY,
		Summary: "The disk image is locked by another process",
		Causes: []string{
			"Another VM uses the disk",
			"A lock outlived its owner",
		},
		Recovery: []string{
			"Find the other VM: quantavirt storage info NAME",
			"Remove the lock file of a process that no longer exists",
		}},
	{Code: StrReadonly, Name: "QV_STR_ERR_READONLY", Severity: SevError, HTTPStatus: 409, ExitCode: 1, Errno: syscall.EROFS,
		Summary: "A read-only disk cannot be written",
		Causes: []string{
			"The disk is attached read-only",
			"The volume it lies on is mounted read-only",
		},
		Recovery: []string{
			`Set "readonly": false in the VM's configuration, or use a writable disk`,
		}},
	{Code: StrFull, Name: "QV_STR_ERR_FULL", Severity: SevError, HTTPStatus: 507, ExitCode: 1, Errno: syscall.ENOSPC,
		Summary: "The disk image or its storage pool is full",
		Causes: []string{
			"The image has reached its size",
			"The file system of the host has no space left for it",
		},
		Recovery: []string{
			"Enlarge the disk image",
			"Free space on the host's file system",
		}},
	{Code: StrIO, Name: "QV_STR_ERR_IO", Severity: SevError, HTTPStatus: 500, ExitCode: 8, Errno: syscall.EIO,
		Summary: "Reading or writing the disk failed",
		Causes: []string{
			"A disk of the host fails",
			"The connection to network storage is lost",
		},
		Recovery: []string{
			"Check the health of the host's disks: smartctl -a DEVICE",
			"Check the connection to NFS or iSCSI storage",
		}},
	{Code: StrQCOW2Corrupt, Name: "QV_STR_ERR_QCOW2_CORRUPT", Severity: SevError, HTTPStatus: 500, ExitCode: 1, Errno: syscall.EUCLEAN,
		Summary: "The metadata of a qcow2 image is corrupt",
		Causes: []string{
			"The image was written by two processes at once",
			"The host lost power while another program wrote it",
			"The storage below returned wrong data",
		},
		Recovery: []string{
			"Repair a copy of it: qemu-img check --repair FILE",
			"Restore the disk from a backup",
		}},
	{Code: StrSnapshot, Name: "QV_STR_ERR_SNAPSHOT", Severity: SevError, HTTPStatus: 500, ExitCode: 1, Errno: syscall.EIO,
		Summary: "A snapshot operation on the disk failed",
		Causes: []string{
			"The qcow2 image is damaged",
			"No space for the snapshot",
		},
		Recovery: []string{
			"Check the integrity of the qcow2 image: qemu-img check FILE",
			"Make sure that enough space is free",
		}},
	{Code: StrEncryptKey, Name: "QV_STR_ERR_ENCRYPT_KEY", Severity: SevError, HTTPStatus: 500, ExitCode: 1, Errno: syscall.ENOKEY,
		Summary: "The key of the encrypted disk is not available",
		Causes: []string{
			"The post-quantum subsystem is not running",
			"The key is not in the keystore or the keystore is locked",
		},
		Recovery: []string{
			"Check that the PQC subsystem runs: quantavirt crypto quac100 status",
			"Check the keystore: quantavirt crypto key list",
		}},
	{Code: StrEncryptFail, Name: "QV_STR_ERR_ENCRYPT_FAIL", Severity: SevError, HTTPStatus: 500, ExitCode: 1, Errno: syscall.EBADMSG,
		Summary: "Encrypting or decrypting the disk failed",
		Causes: []string{
			"The key is not the disk's",
			"The data on the disk was changed",
			"The card failed",
		},
		Recovery: []string{
			"Check that the key is the right one",
			"Check the card: quantavirt crypto quac100 status",
		}},
	{Code: StrController, Name: "QV_STR_ERR_CONTROLLER", Severity: SevError, HTTPStatus: 500, ExitCode: 1, Errno: syscall.ENXIO,
		Summary: "The storage controller could not be initialised",
		Causes: []string{
			"The controller type does not fit the machine",
			"More queues are asked for than the controller has",
		},
		Recovery: []string{
			"Check that the controller type is compatible",
			"Reduce the number of queues",
		}},
	{Code: StrDiscard, Name: "QV_STR_ERR_DISCARD", Severity: SevError, HTTPStatus: 500, ExitCode: 1, Errno: syscall.EOPNOTSUPP,
		Summary: "A discard (TRIM) operation failed",
		Causes: []string{
			"The host's file system cannot punch holes",
			"Discard is not enabled for the disk",
		},
		Recovery: []string{
			"Check that the host's file system supports discard",
			"Check the VirtIO configuration of the disk",
		}},
}
