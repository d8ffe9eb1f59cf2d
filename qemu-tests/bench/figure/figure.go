// Package figure is what the runner inside the appliance tells the bench outside.
package figure

// Figure is one measurement of one monitor, a line of JSON.
type Figure struct {
	Monitor string  `json:"monitor"` // one of Monitors
	Name    string  `json:"figure"`
	Unit    string  `json:"unit"`
	Value   float64 `json:"value"`
	// Exits are those of KVM, in the kernel or to the monitor, by request or by 64 KiB
	// of a stream; 0 where they are not counted.
	Exits float64 `json:"exits,omitempty"`
}

// The monitors: ours, and QEMU's with two of its machine types.
const (
	HV      = "hv"
	MicroVM = "microvm"
	Q35     = "q35"
)

// Monitors in the order in which they take turns.
var Monitors = []string{HV, MicroVM, Q35}

// Units. Times and memory are better the less they are, rates the more.
const (
	Milliseconds = "ms"
	MiB          = "MiB"
	PerSecond    = "/s"
	MBPerSecond  = "MB/s" // 1,000,000 bytes
)

// Names of figures, all from the start call on; those of I/O are made by the runner.
const (
	First    = "start to first instruction"
	BzImage  = "start to guest's init, bzImage"
	PVH      = "start to guest's init, PVH"
	Firmware = "start to init, SeaBIOS and GRUB"
	Memory   = "memory beyond guest RAM"
)
