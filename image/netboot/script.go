package netboot

import (
	"fmt"
	"strings"
)

// firstScript lets iPXE tell which machine it runs on, and comes back for the
// script of that machine. If anything fails, the firmware goes on with its next
// boot device.
func (b *booter) firstScript() string {
	return "#!ipxe\nchain --replace " + b.url(pathScript) +
		"?mac=${netX/mac}&serial=${serial:uristring}&uuid=${uuid} || exit 1\n"
}

// script boots a machine.
func (b *booter) script(id Identity, set *Set, e *Entry) string {
	var words []string
	initrds := b.tree.initrds()
	for _, name := range initrds {
		words = append(words, "initrd="+name) // what the kernel goes by when UEFI started it
	}
	words = append(words, b.cmdline, "BOOTIF=01-"+strings.ReplaceAll(id.MAC.String(), ":", "-"))
	if w := set.words(e); w != "" {
		words = append(words, w)
	}
	if set.config(e) != nil {
		words = append(words, "quantavirt.config="+b.configURL(id))
	}
	var s strings.Builder
	fmt.Fprintf(&s, "#!ipxe\necho QuantaVirt for %s\n", id.MAC)
	fmt.Fprintf(&s, "kernel %s %s || exit 1\n", b.url(fileKernel), strings.Join(words, " "))
	for _, name := range initrds {
		fmt.Fprintf(&s, "initrd %s || exit 1\n", b.url(name))
	}
	s.WriteString("boot || exit 1\n")
	return s.String()
}

// exitScript lets the firmware go on with its next boot device.
const exitScript = "#!ipxe\necho This machine has its configuration: on to the next boot device\nexit 1\n"
