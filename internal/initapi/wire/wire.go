// Package wire is the contract between PID 1 and the management daemon:
// HTTP/1.1 with JSON on the UNIX socket Socket, which only root may open.
//
//	GET  /boot          Boot: what PID 1 found and did; with wait=1 once all steps
//	                    have ended, with step=NAME once that one has
//	GET  /cards?after=N Cards, once PID 1 has looked for them more than N times
//	GET  /exits?pid=N   Exit of a reaped process, 404 while it is not known; with
//	                    wait=1 it answers when the process has ended
//	GET  /log           what PID 1 and the daemon wrote last, as text
//	POST /console       Banner: text shown on every console
//	POST /ready         the API answers; recorded as the last boot step
//	POST /reboot        202; PID 1 ends everything in order, then reboots
//	POST /poweroff      202; the same, then powers off
//	POST /unlock        Unlock: opens a shut data volume and mounts it, then starts
//	                    the daemon anew with it
//	POST /kexec         202; the same, then starts the kernel that was loaded
//	POST /blessed       this boot is no trial, or no more: it need not be reset
//
// A failure is answered with the catalogue's error body (qverr.Body).
package wire

import "time"

// Socket is where PID 1 listens.
const Socket = "/run/quantavirt/init.sock"

// Boot is everything PID 1 knows about this boot.
type Boot struct {
	Version  string            `json:"version"`
	Hostname string            `json:"hostname"`
	Kernel   string            `json:"kernel"`  // release, as uname -r
	Cmdline  string            `json:"cmdline"` // whole kernel command line, token hashes left out
	Options  map[string]string `json:"options"` // quantavirt.* without the prefix; a bare option has the value ""
	BootID   string            `json:"boot_id"`
	Steps    []Step            `json:"steps"`
	Data     DataVolume        `json:"data_volume"`
	KVM      KVM               `json:"kvm"`
	IOMMU    IOMMU             `json:"iommu"`
	Cards    []Card            `json:"cards"`
	CardLook int               `json:"card_look"` // how many looks for cards there were: see Cards
	Consoles []string          `json:"consoles"`
	Watchdog string            `json:"watchdog,omitempty"`       // device fed by PID 1
	DogReset bool              `json:"watchdog_reset,omitempty"` // it has reset the machine before this boot
	Restarts int               `json:"daemon_restarts"`          // times the daemon had to be started again

	// What the node booted from: "uefi-disk", "bios-disk", "iso", "pxe" or "direct".
	Medium      string `json:"medium"`
	Slot        string `json:"slot,omitempty"`          // of a disk: eight digits
	ESPDevice   string `json:"esp_device,omitempty"`    // EFI system partition, /dev/…
	ESPPartUUID string `json:"esp_part_uuid,omitempty"` // lower case
	Trial       bool   `json:"trial,omitempty"`         // the boot loader tries this slot
	Card        string `json:"card,omitempty"`          // of "pxe": MAC address of the network card

	Rescue *Rescue `json:"rescue,omitempty"` // the last time of this boot that the daemon could not start
}

// Rescue is a time in which the rescue listener served in place of the daemon.
type Rescue struct {
	Active       bool      `json:"active"` // no daemon has been ready since
	Reason       string    `json:"reason"` // why the daemon could not start
	Since        time.Time `json:"since"`
	RetrySeconds int       `json:"retry_seconds"` // unused for so long, the listener makes way for the daemon
}

// Step is one boot step. Times are milliseconds since kernel start
// (CLOCK_BOOTTIME).
type Step struct {
	Name    string   `json:"name"`
	StartMS int64    `json:"start_ms"`
	TookMS  int64    `json:"took_ms"`
	Problem *Problem `json:"problem,omitempty"`
}

// Problem is something missing or failed, with its catalogue code.
type Problem struct {
	Code     int32  `json:"code"`
	Name     string `json:"name"`
	Message  string `json:"message"`
	Recovery string `json:"recovery"`
}

// DataVolume says where state is kept.
type DataVolume struct {
	Persistent bool     `json:"persistent"` // false: state is in RAM and lost at reboot
	Device     string   `json:"device,omitempty"`
	PartUUID   string   `json:"part_uuid,omitempty"`
	SizeBytes  int64    `json:"size_bytes"`
	Encrypted  bool     `json:"encrypted,omitempty"`
	Locked     bool     `json:"locked,omitempty"` // it is there, and shut: POST /unlock opens it
	Problem    *Problem `json:"problem,omitempty"`
}

// Unlock is what POST /unlock takes.
type Unlock struct {
	RecoveryKey string `json:"recovery_key"`
}

// KVM says whether guests can run.
type KVM struct {
	Available    bool     `json:"available"`
	Vendor       string   `json:"vendor,omitempty"` // "svm" or "vmx"
	Module       string   `json:"module,omitempty"` // kvm_amd or kvm_intel
	NestedPaging bool     `json:"nested_paging"`    // NPT or EPT in use
	Nested       bool     `json:"nested"`           // guests may themselves run KVM
	Problem      *Problem `json:"problem,omitempty"`
}

// IOMMU says whether devices can be passed through.
type IOMMU struct {
	Available bool     `json:"available"`
	Kind      string   `json:"kind,omitempty"` // "intel" (DMAR) or "amd" (IVRS): the ACPI table found
	Groups    []Group  `json:"groups"`
	Problem   *Problem `json:"problem,omitempty"`
}

// Group is one IOMMU group.
type Group struct {
	ID      int      `json:"id"`
	Devices []string `json:"devices"` // PCI addresses, e.g. 0000:00:05.0
}

// Card is a QUAC 100 that PID 1 found.
type Card struct {
	Address string   `json:"address"` // PCI address
	Group   int      `json:"group"`   // IOMMU group, -1 without one
	Bound   bool     `json:"bound"`   // bound to vfio-pci and its group viable
	Problem *Problem `json:"problem,omitempty"`
}

// Cards is what PID 1's latest look for cards found. It looks once as it boots, and each
// time that the kernel tells of one that was put in or taken out.
type Cards struct {
	Look  int    `json:"look"` // its number, from 1
	Cards []Card `json:"cards"`
}

// Exit is how a reaped process ended.
type Exit struct {
	PID    int       `json:"pid"`
	Status int       `json:"status"` // exit status, -1 if a signal ended it
	Signal int       `json:"signal"` // 0 if none
	Core   bool      `json:"core"`
	Time   time.Time `json:"time"`
}

// Banner is what POST /console shows.
type Banner struct {
	Lines []string `json:"lines"`
}
