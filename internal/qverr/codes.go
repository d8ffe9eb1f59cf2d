package qverr

// Code is a number of the error catalogue: 0 is success, every failure is
// negative, and the range tells the subsystem.
type Code int32

const (
	// Subsystem success.
	Success Code = 0 // QV_SUCCESS

	// Subsystem hypervisor.
	Generic      Code = -1  // QV_ERR_GENERIC
	NoMem        Code = -2  // QV_ERR_NOMEM
	NoVMX        Code = -3  // QV_ERR_NOVMX
	NoIOMMU      Code = -4  // QV_ERR_NOIOMMU
	Inval        Code = -5  // QV_ERR_INVAL
	NoEnt        Code = -6  // QV_ERR_NOENT
	Exist        Code = -7  // QV_ERR_EXIST
	Busy         Code = -8  // QV_ERR_BUSY
	Perm         Code = -9  // QV_ERR_PERM
	NoDev        Code = -10 // QV_ERR_NODEV
	IO           Code = -11 // QV_ERR_IO
	Timeout      Code = -12 // QV_ERR_TIMEOUT
	Again        Code = -13 // QV_ERR_AGAIN
	NoSpc        Code = -14 // QV_ERR_NOSPC
	Unsupported  Code = -15 // QV_ERR_UNSUPPORTED
	State        Code = -16 // QV_ERR_STATE
	Config       Code = -17 // QV_ERR_CONFIG
	Limit        Code = -18 // QV_ERR_LIMIT
	Auth         Code = -19 // QV_ERR_AUTH
	Version      Code = -20 // QV_ERR_VERSION
	VMCreate     Code = -21 // QV_ERR_VM_CREATE
	VMStart      Code = -22 // QV_ERR_VM_START
	VMStop       Code = -23 // QV_ERR_VM_STOP
	VMDestroy    Code = -24 // QV_ERR_VM_DESTROY
	VMPause      Code = -25 // QV_ERR_VM_PAUSE
	VMResume     Code = -26 // QV_ERR_VM_RESUME
	VMSnapshot   Code = -27 // QV_ERR_VM_SNAPSHOT
	VMRestore    Code = -28 // QV_ERR_VM_RESTORE
	VMClone      Code = -29 // QV_ERR_VM_CLONE
	VMStuck      Code = -30 // QV_ERR_VM_STUCK
	VMCSAlloc    Code = -31 // QV_ERR_VMCS_ALLOC
	VMCBAlloc    Code = -32 // QV_ERR_VMCB_ALLOC
	VMLaunchInsn Code = -33 // QV_ERR_VMLAUNCH
	VMResumeInsn Code = -34 // QV_ERR_VMRESUME
	VMExit       Code = -35 // QV_ERR_VMEXIT
	EPTSetup     Code = -36 // QV_ERR_EPT_SETUP
	NPTSetup     Code = -37 // QV_ERR_NPT_SETUP
	EPTViolation Code = -38 // QV_ERR_EPT_VIOLATION
	CPUID        Code = -39 // QV_ERR_CPUID
	MSR          Code = -40 // QV_ERR_MSR
	Pin          Code = -41 // QV_ERR_PIN
	Topology     Code = -42 // QV_ERR_TOPOLOGY
	TripleFault  Code = -43 // QV_ERR_TRIPLE_FAULT
	Hugepage     Code = -51 // QV_ERR_HUGEPAGE
	Balloon      Code = -52 // QV_ERR_BALLOON
	HotplugMem   Code = -53 // QV_ERR_HOTPLUG_MEM
	MemEncrypt   Code = -54 // QV_ERR_MEM_ENCRYPT
	NUMA         Code = -55 // QV_ERR_NUMA

	// Subsystem pqc.
	PQCInit        Code = -100 // PQC_ERR_INIT
	PQCKeygen      Code = -101 // PQC_ERR_KEYGEN
	PQCEncaps      Code = -102 // PQC_ERR_ENCAPS
	PQCDecaps      Code = -103 // PQC_ERR_DECAPS
	PQCSign        Code = -104 // PQC_ERR_SIGN
	PQCVerify      Code = -105 // PQC_ERR_VERIFY
	PQCEncrypt     Code = -106 // PQC_ERR_ENCRYPT
	PQCDecrypt     Code = -107 // PQC_ERR_DECRYPT
	PQCKeystore    Code = -108 // PQC_ERR_KEYSTORE
	PQCKeyNotFound Code = -109 // PQC_ERR_KEY_NOT_FOUND
	PQCKeyExpired  Code = -110 // PQC_ERR_KEY_EXPIRED
	PQCAlgorithm   Code = -111 // PQC_ERR_ALGORITHM
	PQCParamSet    Code = -112 // PQC_ERR_PARAM_SET
	PQCQRNG        Code = -113 // PQC_ERR_QRNG
	PQCSelfTest    Code = -114 // PQC_ERR_SELF_TEST
	PQCAttestation Code = -115 // PQC_ERR_ATTESTATION
	PQCFallback    Code = -116 // PQC_ERR_FALLBACK
	PQCKDF         Code = -117 // PQC_ERR_KDF

	// Subsystem quac100.
	QUACNotFound   Code = -200 // QUAC100_ERR_NOT_FOUND
	QUACDriver     Code = -201 // QUAC100_ERR_DRIVER
	QUACFWVersion  Code = -202 // QUAC100_ERR_FW_VERSION
	QUACMMIO       Code = -203 // QUAC100_ERR_MMIO
	QUACRingInit   Code = -204 // QUAC100_ERR_RING_INIT
	QUACRingFull   Code = -205 // QUAC100_ERR_RING_FULL
	QUACDMA        Code = -206 // QUAC100_ERR_DMA
	QUACInterrupt  Code = -207 // QUAC100_ERR_INTERRUPT
	QUACOvertemp   Code = -208 // QUAC100_ERR_OVERTEMP
	QUACWatchdog   Code = -209 // QUAC100_ERR_WATCHDOG
	QUACSelfTest   Code = -210 // QUAC100_ERR_SELF_TEST
	QUACFWUpdate   Code = -211 // QUAC100_ERR_FW_UPDATE
	QUACNTT        Code = -212 // QUAC100_ERR_NTT
	QUACQRNGHealth Code = -213 // QUAC100_ERR_QRNG_HEALTH
	QUACPower      Code = -214 // QUAC100_ERR_POWER

	// Subsystem migration.
	MigConnect     Code = -300 // QV_MIG_ERR_CONNECT
	MigAuth        Code = -301 // QV_MIG_ERR_AUTH
	MigCPUCompat   Code = -302 // QV_MIG_ERR_CPU_COMPAT
	MigMemTransfer Code = -303 // QV_MIG_ERR_MEM_TRANSFER
	MigConverge    Code = -304 // QV_MIG_ERR_CONVERGE
	MigDowntime    Code = -305 // QV_MIG_ERR_DOWNTIME
	MigCancel      Code = -306 // QV_MIG_ERR_CANCEL
	MigPQCKey      Code = -307 // QV_MIG_ERR_PQC_KEY
	MigStorage     Code = -308 // QV_MIG_ERR_STORAGE
	MigRDMA        Code = -309 // QV_MIG_ERR_RDMA
	MigDevice      Code = -310 // QV_MIG_ERR_DEVICE

	// Subsystem storage.
	StrOpen         Code = -400 // QV_STR_ERR_OPEN
	StrFormat       Code = -401 // QV_STR_ERR_FORMAT
	StrLock         Code = -402 // QV_STR_ERR_LOCK
	StrReadonly     Code = -403 // QV_STR_ERR_READONLY
	StrFull         Code = -404 // QV_STR_ERR_FULL
	StrIO           Code = -405 // QV_STR_ERR_IO
	StrQCOW2Corrupt Code = -406 // QV_STR_ERR_QCOW2_CORRUPT
	StrSnapshot     Code = -407 // QV_STR_ERR_SNAPSHOT
	StrEncryptKey   Code = -408 // QV_STR_ERR_ENCRYPT_KEY
	StrEncryptFail  Code = -409 // QV_STR_ERR_ENCRYPT_FAIL
	StrController   Code = -410 // QV_STR_ERR_CONTROLLER
	StrDiscard      Code = -411 // QV_STR_ERR_DISCARD

	// Subsystem network.
	NetCreate    Code = -500 // QV_NET_ERR_CREATE
	NetBridge    Code = -501 // QV_NET_ERR_BRIDGE
	NetTAP       Code = -502 // QV_NET_ERR_TAP
	NetVhost     Code = -503 // QV_NET_ERR_VHOST
	NetVhostUser Code = -504 // QV_NET_ERR_VHOST_USER
	NetDHCP      Code = -505 // QV_NET_ERR_DHCP
	NetNAT       Code = -506 // QV_NET_ERR_NAT
	NetMAC       Code = -507 // QV_NET_ERR_MAC
	NetMTU       Code = -508 // QV_NET_ERR_MTU
	NetPQCTunnel Code = -509 // QV_NET_ERR_PQC_TUNNEL
	NetFirewall  Code = -510 // QV_NET_ERR_FIREWALL
)
