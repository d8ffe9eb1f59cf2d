package update

import (
	"fmt"

	"quantavirt/internal/qverr"
)

// starts refuses a system that the firmware would not start: some firmware stops
// there, and does not come to the slot before. A kernel that another starts does not
// pass the firmware, but at the cold boot after it was blessed it would.
func (s *Service) starts(got *received, o Options) error {
	_, slots := s.where()
	if s.Starts == nil || !slots || o.Force && !o.Kexec {
		return nil
	}
	if err := s.Starts(got.file, got.uki.Size); err != nil {
		return qverr.New(qverr.CodeOf(err), "Secure Boot is on, and the firmware would not start the new system: %w", err).
			WithHint("take a bundle whose system is signed by the builder's keys, or enrol the keys of who has signed it")
	}
	return nil
}

// refused says that the firmware did not start a slot's system, "" if it may have.
func (s *Service) refused(d *disk, seq uint32) string {
	if s.Starts == nil || d.firmware != UEFI {
		return ""
	}
	for _, n := range d.ukis[seq] {
		f, size, err := d.v.Open(uki(n))
		if err != nil {
			return ""
		}
		err = s.Starts(f, size)
		_ = f.Close()
		if err != nil {
			return fmt.Sprintf("Secure Boot is on, and the firmware did not start it: %v", err)
		}
	}
	return ""
}
