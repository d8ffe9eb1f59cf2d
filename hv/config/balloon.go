package config

// Balloon is the virtio-balloon device.
type Balloon struct {
	// Target is the memory in bytes that is left to the guest at first, a multiple of
	// 4096 from 16 MiB to all of it; 0 means all.
	Target int64 `json:"target_bytes,omitempty"`
}

func (m *Machine) validateBalloon() error {
	if m.Balloon != nil && len(m.PCI) > 0 {
		return bad("balloon", "functions of the host have the guest's memory pinned: it cannot be given back")
	}
	if m.Balloon != nil && m.MemoryFrom.HugePage != "" {
		return bad("balloon", "the balloon gives back pages of 4 KiB: none of a huge page is free by that")
	}
	if m.Balloon == nil || m.Balloon.Target == 0 {
		return nil
	}
	if t := m.Balloon.Target; t < MinMemory || t > m.Memory || t%4096 != 0 {
		return bad("balloon.target_bytes", "%d bytes are left to the guest: a multiple of 4096 from 16 MiB to its memory of %d is needed", t, m.Memory)
	}
	return nil
}
