package config

import (
	"quantavirt/hv/limit"
	"quantavirt/internal/qverr"
)

// Disk is one virtio-blk device.
type Disk struct {
	ID       string       `json:"id"`
	File     string       `json:"file"`   // descriptor name
	Format   string       `json:"format"` // "raw"
	ReadOnly bool         `json:"readonly,omitempty"`
	Serial   string       `json:"serial,omitempty"` // at most 20 bytes
	Queues   int          `json:"queues,omitempty"` // 1 to 64, 0 means 1
	Cache    string       `json:"cache,omitempty"`  // none, writeback (default), writethrough
	Discard  bool         `json:"discard,omitempty"`
	Limits   limit.Limits `json:"limits,omitzero"`
}

func (m *Machine) validateDisks() error {
	if len(m.Disks) > MaxDisks {
		return bad("disks", "%d disks: %d are possible", len(m.Disks), MaxDisks)
	}
	seen := map[string]bool{}
	for i, d := range m.Disks {
		switch {
		case d.ID == "" || seen[d.ID]:
			return bad("disks.id", "disk %d has no id of its own (%q)", i, d.ID)
		case d.File == "":
			return bad("disks.file", "disk %s names no file", d.ID)
		case d.Format != "raw":
			return qverr.New(qverr.Unsupported, "disk %s: format %q", d.ID, d.Format).With("path", "disks.format")
		case len(d.Serial) > MaxSerial:
			return bad("disks.serial", "disk %s: a serial has at most %d bytes", d.ID, MaxSerial)
		case d.Queues < 0 || d.Queues > MaxQueues:
			return bad("disks.queues", "disk %s: %d queues: 1 to %d are possible", d.ID, d.Queues, MaxQueues)
		case d.Cache != "" && d.Cache != "none" && d.Cache != "writeback" && d.Cache != "writethrough":
			return bad("disks.cache", "disk %s: cache mode %q is unknown", d.ID, d.Cache)
		}
		if err := d.Limits.Validate(); err != nil {
			return bad("disks.limits", "disk %s: %w", d.ID, err)
		}
		seen[d.ID] = true
	}
	return nil
}
