package vmm

import (
	"fmt"
	"os"

	"quantavirt/hv/config"
	"quantavirt/internal/vfio"
)

// AddPCI gives functions of the host to the VM to be started, as they were opened
// (vfio.Assign) in the order of the addresses. The files become those of the Spec, which
// must be closed after the start: a function comes free when nobody has it open.
func (s *Spec) AddPCI(addresses []string, a *vfio.Assignment) {
	if s.Files == nil {
		s.Files = map[string]*os.File{}
	}
	s.Machine.VFIO = "vfio"
	s.Files[s.Machine.VFIO] = a.Container
	for i, address := range addresses {
		p := config.PCI{Address: address, Device: fmt.Sprintf("pci%d", i)}
		s.Files[p.Device] = a.Devices[i]
		s.Machine.PCI = append(s.Machine.PCI, p)
	}
}
