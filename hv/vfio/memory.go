package vfio

import "quantavirt/hv/memory"

// Container maps memory for DMA: *vfio.Container of quantavirt/internal/vfio.
type Container interface {
	Map(iova uint64, mem []byte) error
}

// MapMemory pins all RAM of the guest and lets its functions reach it at its guest
// addresses. That ends with the last function: the kernel then has nobody to keep the
// addresses from, and forgets them at once, where to unmap them one by one takes an
// emulated IOMMU a millisecond for each page. The errors are those of Container.Map.
func MapMemory(c Container, m *memory.Memory) error {
	m.Pin()
	for _, r := range m.Regions() {
		if err := c.Map(r.GPA, r.Data); err != nil {
			return err
		}
	}
	return nil
}
