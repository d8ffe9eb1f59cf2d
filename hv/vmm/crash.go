package vmm

import (
	"fmt"
	"strconv"
	"time"

	"quantavirt/internal/qverr"
)

// CrashReport is what is known of a VM that ended by itself and not by power-off: the
// VM process writes it into its exit report, and the daemon keeps it.
type CrashReport struct {
	Time    time.Time  `json:"time"`
	Reason  Reason     `json:"reason"`
	Code    qverr.Code `json:"code"`
	Message string     `json:"message"`
	// VCPU is the one that failed; nil when none did, as when the process was killed.
	VCPU *int `json:"vcpu,omitempty"`
	// RegistersReset says that the registers of that vCPU are those after an INIT: KVM
	// resets a vCPU at a triple fault on AMD, and what they were is lost. Its last
	// exits then tell most.
	RegistersReset bool        `json:"registers_reset"`
	VCPUs          []VCPUCrash `json:"vcpus,omitempty"`
	Devices        []Device    `json:"devices,omitempty"`
	// Console is the end of each console by its name, at most CrashConsole bytes.
	Console map[string]string `json:"console,omitempty"`
	// Log is the end of the VM process's own log: of a panic, its stacks.
	Log string `json:"log,omitempty"`
}

// CrashConsole is how much of a console or log a crash report keeps, in bytes.
const CrashConsole = 8 << 10

// VCPUCrash is one vCPU in a crash report.
type VCPUCrash struct {
	ID        int            `json:"id"`
	Registers map[string]Hex `json:"registers,omitempty"`
	Error     string         `json:"error,omitempty"` // why there are none
	LastExits []ExitRecord   `json:"last_exits"`      // oldest first
}

// ExitRecord is one exit of a vCPU to the VM process.
type ExitRecord struct {
	Reason string `json:"reason"`            // "io", "mmio", "shutdown", …
	Access string `json:"access,omitempty"`  // "read" or "write" of a port or of memory without RAM
	Addr   Hex    `json:"address,omitempty"` // of the port or memory
	Size   int    `json:"size,omitempty"`    // in bytes
	Data   Hex    `json:"data,omitempty"`    // what was written, its first eight bytes
}

// Hex is a number that JSON shows in hexadecimal, as "0xfff0".
type Hex uint64

// MarshalText implements encoding.TextMarshaler.
func (h Hex) MarshalText() ([]byte, error) { return fmt.Appendf(nil, "%#x", uint64(h)), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (h *Hex) UnmarshalText(text []byte) error {
	v, err := strconv.ParseUint(string(text), 0, 64)
	*h = Hex(v)
	return err
}
