package vfio

import (
	"errors"

	"quantavirt/hv/memory"
)

// Container maps memory for DMA: *vfio.Container of quantavirt/internal/vfio.
type Container interface {
	Map(iova uint64, mem []byte) error
	Unmap(iova, size uint64) error
}

// Space is the guest's RAM as its functions reach it.
type Space struct {
	container Container
	mapped    []memory.Region
}

// NewSpace pins all RAM of the guest and maps it at its guest addresses. The errors are
// those of Container.Map; nothing is mapped then.
func NewSpace(c Container, m *memory.Memory) (*Space, error) {
	m.Pin()
	s := &Space{container: c}
	for _, r := range m.Regions() {
		if err := c.Map(r.GPA, r.Data); err != nil {
			return nil, errors.Join(err, s.Close())
		}
		s.mapped = append(s.mapped, r)
	}
	return s, nil
}

// Close takes the RAM away from the functions, which must be quiet, and unpins it.
func (s *Space) Close() error {
	var err error
	for _, r := range s.mapped {
		err = errors.Join(err, s.container.Unmap(r.GPA, r.Size))
	}
	s.mapped = nil
	return err
}
