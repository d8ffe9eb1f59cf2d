package vmm

import (
	"fmt"
	"os"

	"quantavirt/hv/config"
	"quantavirt/internal/vfio"
)

// AddPCI opens functions of the host, which are bound to vfio-pci, and gives them to
// the VM to be started. Its files must be closed after the start, as all of Spec: a
// function comes free when nobody has it open. The errors are those of vfio.Open.
func (s *Spec) AddPCI(addresses []string) error {
	if len(addresses) == 0 {
		return nil
	}
	a, err := vfio.Assign(addresses)
	if err != nil {
		return err
	}
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
	return nil
}
