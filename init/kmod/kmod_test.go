package kmod

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"quantavirt/internal/qverr"
)

// loader makes a Loader whose modules are only recorded.
func loader(t *testing.T) (l *Loader, loaded func() []string) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"modules.dep": "kernel/net/vhost_net.ko: kernel/vhost.ko kernel/tap.ko kernel/tun.ko\n" +
			"kernel/vhost.ko: kernel/iotlb.ko\nkernel/iotlb.ko:\nkernel/tap.ko:\nkernel/tun.ko:\nkernel/kvm-amd.ko: kernel/kvm.ko\nkernel/kvm.ko:\n",
		"modules.alias":   "alias pci:v00001AF4d*sv*sd*bc*sc*i* virtio_pci\nalias virtio:d00000001v* virtio_net\nalias cpu:type:x86,ven*fam*mod*:feature:*0081* kvm_amd\n",
		"modules.builtin": "kernel/drivers/virtio/virtio_pci.ko\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	l, err := New(dir)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var files []string
	l.insert = func(file string) error {
		mu.Lock()
		defer mu.Unlock()
		files = append(files, canonical(file))
		return nil
	}
	return l, func() []string { return files }
}

func TestDependenciesFirstAndOnce(t *testing.T) {
	l, loaded := loader(t)
	if err := l.LoadAll([]string{"vhost_net", "vhost", "kvm-amd", "kvm_amd", "virtio-pci"}); err != nil {
		t.Fatal(err)
	}
	got := loaded()
	for _, rule := range [][2]string{{"iotlb", "vhost"}, {"vhost", "vhost_net"}, {"tun", "vhost_net"}, {"kvm", "kvm_amd"}} {
		if slices.Index(got, rule[0]) > slices.Index(got, rule[1]) {
			t.Errorf("%s was loaded after %s: %v", rule[0], rule[1], got)
		}
	}
	if len(got) != 7 {
		t.Errorf("loaded %v, want each of 7 once", got)
	}
}

func TestUnknownModule(t *testing.T) {
	l, _ := loader(t)
	if got := qverr.CodeOf(l.Load("e1000")); got != qverr.NoEnt {
		t.Errorf("code %d", got)
	}
}

func TestAliases(t *testing.T) {
	l, _ := loader(t)
	for modalias, want := range map[string]string{
		"pci:v00001AF4d00001041sv00001AF4sd00001100bc02sc00i00":           "virtio_pci",
		"virtio:d00000001v00001AF4":                                       "virtio_net",
		"virtio:d00000002v00001AF4":                                       "",
		"cpu:type:x86,ven0002fam000Fmod006B:feature:,0000,0001,0081,0086": "kvm_amd",
		"pci:[": "",
	} {
		if got := strings.Join(l.For(modalias), " "); got != want {
			t.Errorf("%s: %q, want %q", modalias, got, want)
		}
	}
}

func TestPlugged(t *testing.T) {
	l, _ := loader(t)
	sys := t.TempDir()
	for i, modalias := range []string{"virtio:d00000001v00001AF4\n", "virtio:d00000001v00001AF4\n", "acpi:PNP0501:\n"} {
		dir := filepath.Join(sys, "devices", "virtio"+string(rune('0'+i)))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "modalias"), []byte(modalias), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := l.Plugged(sys); err != nil || !slices.Equal(got, []string{"virtio_net"}) {
		t.Errorf("%v, %v", got, err)
	}
}
