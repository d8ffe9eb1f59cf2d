package kvm

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"quantavirt/internal/qverr"
)

const apiVersion = 12

// Capabilities that a caller may ask for (KVM_CAP_*).
const (
	CapIRQChip          = 0
	CapUserMemory       = 3
	CapSetTSSAddr       = 4
	CapExtCPUID         = 7
	CapNrVCPUs          = 9
	CapIRQRouting       = 25
	CapIRQFD            = 32
	CapPIT2             = 33
	CapSetIdentityMap   = 37
	CapIOEventFD        = 36
	CapAdjustClock      = 39
	CapTSCControl       = 60
	CapGetTSCKHz        = 61
	CapMaxVCPUs         = 66
	CapTSCDeadlineTimer = 72
	CapKVMClockCtrl     = 76
	CapSignalMSI        = 77
	CapIOEventFDNoLen   = 100
	CapX2APICAPI        = 129
	CapImmediateExit    = 136
)

// System is /dev/kvm.
type System struct {
	file     *os.File
	fd       int
	mmapSize int
	amd      bool
}

// Open checks that file is a KVM that we can work with. It keeps file open and
// does not close it.
func Open(file *os.File) (*System, error) {
	s := &System{file: file, fd: int(file.Fd())}
	version, err := ioctl(s.fd, ioGetAPIVersion, 0)
	if err != nil {
		return nil, fail(qverr.NoVMX, "ask for the API version", err)
	}
	if version != apiVersion {
		return nil, qverr.New(qverr.NoVMX, "KVM: API version %d, need %d", version, apiVersion)
	}
	for _, c := range []struct {
		number int
		name   string
	}{
		{CapIRQChip, "in-kernel interrupt controller"}, {CapUserMemory, "user memory"},
		{CapIRQRouting, "interrupt routing"}, {CapIRQFD, "irqfd"}, {CapIOEventFD, "ioeventfd"},
		{CapIOEventFDNoLen, "ioeventfd of any length"}, {CapPIT2, "PIT"}, {CapImmediateExit, "immediate exit"},
		{CapExtCPUID, "CPUID"}, {CapTSCDeadlineTimer, "TSC deadline timer"},
	} {
		if s.Check(c.number) == 0 {
			return nil, qverr.New(qverr.Unsupported, "KVM: this kernel has no %s", c.name)
		}
	}
	if s.mmapSize, err = ioctl(s.fd, ioGetVCPUMmapSize, 0); err != nil {
		return nil, fail(qverr.NoVMX, "ask for the size of the vCPU area", err)
	}
	leaves, err := s.SupportedCPUID()
	if err != nil {
		return nil, err
	}
	for _, l := range leaves {
		if l.Function == 0 {
			s.amd = l.EBX == 0x68747541 || l.EBX == 0x6f677948 // Auth(enticAMD), Hygo(nGenuine)
		}
	}
	return s, nil
}

// AMD tells whether the host virtualizes by SVM, else it is VMX.
func (s *System) AMD() bool { return s.amd }

// Check is KVM_CHECK_EXTENSION: 0 when the capability is absent.
func (s *System) Check(capability int) int {
	n, err := ioctl(s.fd, ioCheckExtension, uintptr(capability))
	if err != nil {
		return 0
	}
	return n
}

// CPUIDEntry is one leaf, struct kvm_cpuid_entry2.
type CPUIDEntry struct {
	Function, Index, Flags uint32
	EAX, EBX, ECX, EDX     uint32
	_                      [3]uint32
}

// CPUIDSignificantIndex marks leaves whose index counts.
const CPUIDSignificantIndex = 1

const maxCPUID = 256

type cpuid2 struct {
	count, _ uint32
	entries  [maxCPUID]CPUIDEntry
}

// SupportedCPUID is what host and KVM offer together.
func (s *System) SupportedCPUID() ([]CPUIDEntry, error) {
	list := &cpuid2{count: maxCPUID}
	if err := ioctlPtr(s.fd, ioGetSupportedCPUID, unsafe.Pointer(list)); err != nil {
		return nil, fail(qverr.CPUID, "read the supported CPUID leaves", err)
	}
	return list.entries[:min(list.count, maxCPUID)], nil
}

// CreateVM makes an empty VM.
func (s *System) CreateVM() (*VM, error) {
	fd, err := ioctl(s.fd, ioCreateVM, 0)
	if err != nil {
		return nil, fail(qverr.VMCreate, "create VM", err)
	}
	unix.CloseOnExec(fd)
	return &VM{sys: s, fd: fd}, nil
}

// byVendor picks the code for the virtualization of this host.
func (s *System) byVendor(amd, intel qverr.Code) qverr.Code {
	if s.amd {
		return amd
	}
	return intel
}
