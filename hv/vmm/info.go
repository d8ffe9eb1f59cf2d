package vmm

import (
	"time"

	"quantavirt/hv/limit"
)

// The names of a VM's two consoles. Both are in every guest.
const (
	ConsoleSerial = "serial"
	ConsoleVirtio = "virtio-console"
)

// Info is what a VM process says about itself.
type Info struct {
	Name    string    `json:"name"`
	UUID    string    `json:"uuid"`
	Version string    `json:"version"` // of the hv binary
	State   State     `json:"state"`
	Since   time.Time `json:"state_since"`
	Started time.Time `json:"started_at"` // when the vCPUs began to run
	CPUs    int       `json:"cpus"`
	Memory  int64     `json:"memory_bytes"`
	// Resets counts the resets since the start, by the guest and by Reset.
	Resets int `json:"resets"`
	// PowerButton is when the guest was last asked to power off; nil if it never was
	// or was reset since.
	PowerButton *time.Time `json:"power_button_at,omitempty"`
	CID         uint32     `json:"cid,omitempty"`
	Devices     []Device   `json:"devices"`
}

// Device is one device of the machine.
type Device struct {
	ID      string `json:"id"`
	Kind    string `json:"kind"`              // "virtio-blk", "virtio-net", …
	Address string `json:"address,omitempty"` // PCI address in the guest, "00:03.0"
	Backend string `json:"backend,omitempty"` // "raw", "vhost-net", "tap", "vhost-vsock"
	Ready   bool   `json:"ready"`             // the guest's driver has it in use
	// Broken says why the device stopped until the guest resets it, "" if it did not.
	Broken string `json:"broken,omitempty"`
}

// Stats are the counters of a VM process. They start at 0 with the process and
// keep counting over a reset of the guest.
type Stats struct {
	State         State     `json:"state"`
	Time          time.Time `json:"time"`
	UptimeSeconds float64   `json:"uptime_seconds"` // since the vCPUs began to run
	// FirstEntry is when the first vCPU first entered guest code.
	FirstEntry *time.Time  `json:"first_entry_at,omitempty"`
	CPU        CPUStats    `json:"cpu"`
	VCPUs      []VCPUStats `json:"vcpus"`
	Disks      []DiskStats `json:"disks"`
	NICs       []NICStats  `json:"nics"`
	// Devices are all of them, with what is wrong with one.
	Devices []Device `json:"devices"`
	// Consoles count what the guest printed.
	Consoles     []ConsoleStats `json:"consoles"`
	GuestTouched int64          `json:"guest_touched_bytes"` // guest RAM in use on the host
	// Balloon is nil for a VM without one.
	Balloon *BalloonStats `json:"balloon,omitempty"`
	Process ProcStats     `json:"process"`
}

// CPUStats is the processor time of the whole process in microseconds (getrusage).
type CPUStats struct {
	UserUS   int64 `json:"user_us"`
	SystemUS int64 `json:"system_us"`
}

// VCPUStats counts the exits of one vCPU to user space, and the processor time of
// its thread in microseconds, guest and host together.
type VCPUStats struct {
	ID    int    `json:"id"`
	Exits uint64 `json:"exits"`
	IO    uint64 `json:"io_exits"`
	MMIO  uint64 `json:"mmio_exits"`
	// Reasons counts all exits by their reason: "io", "mmio", "interrupted", …
	Reasons map[string]uint64 `json:"exits_by_reason"`
	CPUUS   int64             `json:"cpu_us"`
}

// ConsoleStats counts the bytes of one console: what was kept, over all starts of the VM,
// and what was dropped since this start because the guest printed more than it may.
type ConsoleStats struct {
	ID      string `json:"id"`
	Bytes   uint64 `json:"bytes"`
	Dropped uint64 `json:"dropped_bytes"`
}

// NICStats counts the packets of one network device as the guest sees them. With
// vhost-net the kernel moves them unseen, and Offloaded is true and the rest 0:
// read the TAP's statistics instead.
type NICStats struct {
	ID        string `json:"id"`
	Offloaded bool   `json:"offloaded"`
	Queues    int    `json:"queues"`  // pairs that the guest uses now
	Link      bool   `json:"link_up"` // the cable is in
	// Limits of each direction, which only devices that are not offloaded have.
	Limits    limit.Limits `json:"limits,omitzero"`
	RxPackets uint64       `json:"rx_packets"`
	RxBytes   uint64       `json:"rx_bytes"`
	TxPackets uint64       `json:"tx_packets"`
	TxBytes   uint64       `json:"tx_bytes"`
	RxDropped uint64       `json:"rx_dropped"`
	TxErrors  uint64       `json:"tx_errors"`
}

// BalloonStats is how the balloon stands, in bytes.
type BalloonStats struct {
	Target int64 `json:"target_bytes"` // memory that is to be left to the guest
	Actual int64 `json:"actual_bytes"` // memory that the guest says is left to it
	// Inflated and Reported are what came back to the host by the balloon and by free
	// page reporting. They only grow: pages come and go many times.
	Inflated uint64 `json:"inflated_bytes"`
	Reported uint64 `json:"reported_bytes"`
	Ready    bool   `json:"ready"` // the guest has a driver
	// Guest is what the guest last said of its memory; nil before it did.
	Guest *GuestMemory `json:"guest,omitempty"`
}

// GuestMemory is how the guest fares, in its own words: bytes, and counts since it
// started. What it does not tell is 0.
type GuestMemory struct {
	Time        time.Time `json:"time"`
	Free        uint64    `json:"free_bytes"`
	Total       uint64    `json:"total_bytes"`
	Available   uint64    `json:"available_bytes"`
	Caches      uint64    `json:"caches_bytes"`
	SwapIn      uint64    `json:"swap_in_bytes"`
	SwapOut     uint64    `json:"swap_out_bytes"`
	MajorFaults uint64    `json:"major_faults"`
	MinorFaults uint64    `json:"minor_faults"`
	OOMKills    uint64    `json:"oom_kills"`
}

// ProcStats is the VM process beside guest RAM.
type ProcStats struct {
	HeapBytes    uint64 `json:"heap_bytes"`    // live Go heap
	RuntimeBytes uint64 `json:"runtime_bytes"` // all memory the Go runtime holds
	Goroutines   int    `json:"goroutines"`
	GCs          uint32 `json:"gcs"`
}
