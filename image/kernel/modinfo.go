package kernel

import (
	"bytes"
	"debug/elf"
	"fmt"
	"strings"
)

// Firmware lists the files that a module may ask for, by their names below
// /lib/firmware, as its .modinfo section says. A module without any has none.
func Firmware(module []byte) ([]string, error) {
	f, err := elf.NewFile(bytes.NewReader(module))
	if err != nil {
		return nil, fmt.Errorf("kernel: module: %w", err)
	}
	section := f.Section(".modinfo")
	if section == nil {
		return nil, nil
	}
	info, err := section.Data()
	if err != nil {
		return nil, fmt.Errorf("kernel: .modinfo: %w", err)
	}
	var names []string
	for field := range bytes.SplitSeq(info, []byte{0}) {
		if name, ok := strings.CutPrefix(string(field), "firmware="); ok {
			names = append(names, name)
		}
	}
	return names, nil
}
