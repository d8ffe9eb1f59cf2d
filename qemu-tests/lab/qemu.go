package lab

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// launch is everything that the command line of QEMU is made from.
type launch struct {
	opts    Options
	dir     string // the node's directory
	kernel  string
	initrd  string
	apiPort int
	hash    string // of the token; "" when the node makes its own
	tapFD   int    // descriptor of the outside card in QEMU, 0 for none
	tpmFD   int    // and of the TPM's control channel
	ovmf    string // OVMF's program, "" for direct kernel boot
}

func (l launch) path(name string) string { return filepath.Join(l.dir, name) }

// args builds QEMU's command line. The IOMMU stands before the devices behind
// it, and an emulated machine reports AMD's SVM, so that guests run nested.
func (l launch) args() []string {
	o := l.opts
	a := []string{
		"-name", o.Name, "-nodefaults", "-no-user-config", "-display", "none", "-vga", "none",
		"-M", "q35,kernel-irqchip=split,memory-backend=mem" + l.machineOptions(),
		"-object", fmt.Sprintf("memory-backend-memfd,id=mem,size=%dM,share=on", o.Memory),
		"-m", fmt.Sprintf("%dM", o.Memory), "-smp", fmt.Sprint(o.CPUs),
		"-pidfile", l.path("qemu.pid"),
		"-qmp", "unix:" + l.path("qmp.sock") + ",server=on,wait=off",
		"-chardev", "socket,id=serial,path=" + l.path("serial.sock") + ",server=on,wait=off,logfile=" + l.path("console.log"),
		"-serial", "chardev:serial",
		"-rtc", "base=utc",
	}
	a = append(a, l.cpuArgs()...)
	a = append(a, l.firmwareArgs()...)
	switch o.IOMMU {
	case IOMMUIntel:
		a = append(a, "-device", "intel-iommu,intremap=on,caching-mode=on")
	case IOMMUAMD:
		a = append(a, "-device", "amd-iommu,dma-remap=on,intremap=on")
	}
	a = append(append(a, l.uplinkArgs()...), "-device", "virtio-rng-pci")
	if o.Outside {
		a = append(a, "-netdev", fmt.Sprintf("tap,id=outside,fd=%d,vhost=off", l.tapFD),
			"-device", "virtio-net-pci,netdev=outside,mac=52:54:00:71:76:02,romfile=")
	}
	if o.DataDisk > 0 {
		a = append(a,
			"-drive", "if=none,id=data,format=raw,cache=writeback,discard=unmap,file="+l.path("data.img"),
			"-device", "virtio-blk-pci,drive=data,serial=lab-data")
	}
	switch {
	case o.Card && o.Slot:
		a = append(a, "-device", "pcie-root-port,id=cardslot,bus=pcie.0,addr=0x8,chassis=1,slot=1")
	case o.Card:
		a = append(a, "-device", jsonText(cardDevice(l.dir, map[string]any{"addr": "0x8"})))
	}
	return append(a, o.Extra...)
}

// slowStrings hides that "rep movsb" and "rep stosb" are fast, which they are not
// under TCG: it makes them byte by byte. A kernel that does not see these flags
// copies and clears eight bytes at a time; measured: a huge page is cleared in a
// quarter of the time.
const slowStrings = ",erms=off,fsrm=off,fzrm=off,fsrs=off"

func (l launch) cpuArgs() []string {
	model := "max"
	accel := "tcg,thread=multi"
	if hardwareKVM() {
		accel = "kvm"
	} else {
		model += slowStrings
	}
	if l.opts.NoKVM {
		model += ",svm=off,vmx=off"
	}
	return []string{"-accel", accel, "-cpu", model}
}

// Emulated tells whether QEMU emulates the nodes' processors.
func Emulated() bool { return !hardwareKVM() }

// hardwareKVM trusts /proc/cpuinfo, not /dev/kvm: a device node is no proof of
// hardware that can run an ordinary kernel.
func hardwareKVM() bool {
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return false
	}
	for line := range bytes.Lines(info) {
		name, flags, ok := strings.Cut(string(line), ":")
		if ok && strings.TrimSpace(name) == "flags" {
			for _, flag := range strings.Fields(flags) {
				if flag == "svm" || flag == "vmx" {
					f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
					if err != nil {
						return false
					}
					return f.Close() == nil
				}
			}
			return false
		}
	}
	return false
}

func (l launch) cmdline() string {
	words := []string{"console=ttyS0", "quiet", "panic=10"}
	if l.opts.IOMMU == IOMMUIntel {
		words = append(words, "intel_iommu=on")
	}
	return strings.Join(append(words, l.ownWords()...), " ")
}

// ownWords is what the lab adds to a command line that the image brings.
func (l launch) ownWords() []string {
	var words []string
	if l.hash != "" {
		words = append(words, "quantavirt.token-hash="+l.hash)
	}
	if l.opts.Cmdline != "" {
		words = append(words, l.opts.Cmdline)
	}
	return words
}
