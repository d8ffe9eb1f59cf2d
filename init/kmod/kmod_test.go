package kmod

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"quantavirt/internal/qverr"
)

const (
	testDep = `kernel/net/llc/llc.ko:
kernel/net/802/stp.ko: kernel/net/llc/llc.ko
kernel/net/bridge/bridge.ko: kernel/net/802/stp.ko kernel/net/llc/llc.ko
kernel/arch/x86/kvm/kvm.ko:
kernel/arch/x86/kvm/kvm-amd.ko: kernel/arch/x86/kvm/kvm.ko
kernel/drivers/net/virtio_net.ko.xz:
kernel/drivers/a.ko: kernel/drivers/b.ko
kernel/drivers/b.ko: kernel/drivers/a.ko
kernel/drivers/picky.ko:
kernel/drivers/broken.ko:
`
	testAlias = `# Aliases extracted from modules themselves.
alias cpu:type:x86,ven*fam*mod*:feature:*00C2* kvm_amd
alias virtio:d00000001v* virtio_net
alias rtnl-link-bridge bridge
alias pci:v00001234d0000????sv*sd*bc01sc[0-9A]*i* picky
alias pci:v*d*sv*sd*bc0Csc03i30* broken
`
)

// kernel records what it is given.
type kernel struct {
	mu    sync.Mutex
	given []string
	fail  map[string]error
}

func (k *kernel) insert(file, params string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	name := nameOf(file)
	k.given = append(k.given, strings.TrimSpace(name+" "+params))
	return k.fail[name]
}

func newLoader(t *testing.T, o Options) (*Loader, *kernel) {
	t.Helper()
	o.Dir = t.TempDir()
	for name, text := range map[string]string{"modules.dep": testDep, "modules.alias": testAlias, "modules.builtin": "kernel/fs/ext4/ext4.ko\n"} {
		if err := os.WriteFile(filepath.Join(o.Dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	k := &kernel{fail: map[string]error{"picky": unix.ENODEV, "broken": unix.EINVAL, "llc": unix.EEXIST}}
	o.Insert = k.insert
	l, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return l, k
}

func TestLoad(t *testing.T) {
	l, k := newLoader(t, Options{Params: func(m string) string {
		if m == "kvm_amd" {
			return "nested=0"
		}
		return ""
	}})
	for range 2 {
		if err := l.All([]string{"bridge", "stp", "kvm-amd", "ext4", "virtio-net"}); err != nil {
			t.Fatal(err)
		}
	}
	if len(k.given) != 6 {
		t.Errorf("given: %v", k.given)
	}
	at := func(name string) int { return slices.Index(k.given, name) }
	if at("llc") > at("stp") || at("stp") > at("bridge") || at("kvm") > at("kvm_amd nested=0") || at("kvm_amd nested=0") < 0 {
		t.Errorf("order: %v", k.given)
	}
	for name, want := range map[string]error{"nothing": qverr.NoEnt, "broken": qverr.Inval, "a": qverr.Config} {
		if err := l.Load(name); !errors.Is(err, want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	k.fail["broken"] = nil
	if err := l.Load("broken"); err != nil {
		t.Errorf("a second try: %v", err)
	}
}

// The quiet loader inserts with the lowest priority, and knows what the other did.
func TestQuiet(t *testing.T) {
	l, k := newLoader(t, Options{})
	nice := make(map[string]int)
	l.opts.Insert = func(file, params string) error {
		raw, err := unix.Getpriority(unix.PRIO_PROCESS, 0) // this thread's, as 20 - nice
		k.mu.Lock()
		nice[nameOf(file)] = 20 - raw
		k.mu.Unlock()
		return errors.Join(err, k.insert(file, params))
	}
	q := l.Quiet()
	if err := errors.Join(l.Load("llc"), q.Load("bridge"), l.Load("stp"), l.Load("kvm")); err != nil {
		t.Fatal(err)
	}
	if len(k.given) != 4 || nice["llc"] == 19 || nice["stp"] != 19 || nice["bridge"] != 19 || nice["kvm"] == 19 {
		t.Errorf("given %v with %v", k.given, nice)
	}
	if err := q.Load("broken"); !errors.Is(err, qverr.Inval) {
		t.Errorf("%v", err)
	}
}

func TestAsk(t *testing.T) {
	for _, c := range []struct {
		alias string
		given []string
		err   error
	}{
		{"cpu:type:x86,ven0002fam0019mod0001:feature:,0000,0001,00C2,00C3", []string{"kvm", "kvm_amd"}, nil},
		{"virtio:d00000001v00001AF4", []string{"virtio_net"}, nil},
		{"virtio:d00000002v00001AF4", nil, nil},
		{"rtnl-link-bridge", []string{"llc", "stp", "bridge"}, nil},
		{"bridge", []string{"llc", "stp", "bridge"}, nil},
		{"pci:v00001234d00005678sv00001AF4sd00000001bc01sc06i01", []string{"picky"}, nil},
		{"pci:v00001234d00005678sv00001AF4sd00000001bc01scFFi01", nil, nil},
		{"pci:v00008086d00005678sv00001AF4sd00000001bc0Csc03i30", []string{"broken"}, qverr.Inval},
		{"fs-ext4", nil, nil},
	} {
		l, k := newLoader(t, Options{Blacklist: []string{"nothing"}})
		if err := l.Ask(c.alias); !errors.Is(err, c.err) {
			t.Errorf("%s: %v", c.alias, err)
		}
		if !slices.Equal(k.given, c.given) {
			t.Errorf("%s: given %v, want %v", c.alias, k.given, c.given)
		}
		if l.Knows(c.alias) != (c.given != nil) {
			t.Errorf("%s: known %v", c.alias, l.Knows(c.alias))
		}
	}
	l, k := newLoader(t, Options{Blacklist: []string{"virtio_net"}})
	if err := l.Ask("virtio:d00000001v00001AF4"); err != nil || k.given != nil {
		t.Errorf("blacklisted: %v %v", k.given, err)
	}
}

func TestManyAtOnce(t *testing.T) {
	l, k := newLoader(t, Options{})
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			if err := l.Load("bridge"); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if len(k.given) != 3 {
		t.Errorf("given: %v", k.given)
	}
}

func TestDevices(t *testing.T) {
	root := t.TempDir()
	for name, text := range map[string]string{
		"pci/devices/0000:00:01.0": "pci:a\n", "pci/devices/0000:00:02.0": "pci:a\n", "virtio/devices/virtio0": "virtio:b\n",
		"../devices/system/cpu": "cpu:c\n", "empty/drivers/x": "no\n",
	} {
		dir := filepath.Join(root, "bus", name)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "modalias"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := Devices(root)
	slices.Sort(got)
	if err != nil || !slices.Equal(got, []string{"cpu:c", "pci:a", "virtio:b"}) {
		t.Errorf("%v %v", got, err)
	}
	if got, err := Devices(root, "virtio", "gone"); err != nil || !slices.Equal(got, []string{"virtio:b"}) {
		t.Errorf("%v %v", got, err)
	}
}

func TestMatch(t *testing.T) {
	for _, c := range []struct {
		pattern, s string
		want       bool
	}{
		{"a*c", "abbbc", true}, {"a*c", "abcd", false}, {"*", "", true}, {"a?", "ab", true}, {"a?", "a", false},
		{"[a-c]x", "bx", true}, {"[!a-c]x", "bx", false}, {"[!a-c]x", "dx", true}, {"[ab", "a", false}, {"**b*", "aab", true}, {"", "", true}, {"", "a", false},
	} {
		if got := match(c.pattern, c.s); got != c.want {
			t.Errorf("match(%q, %q) = %v", c.pattern, c.s, got)
		}
	}
}

func FuzzMatch(f *testing.F) {
	f.Add("pci:v*d[0-9]*", "pci:v1d2")
	f.Fuzz(func(t *testing.T, pattern, s string) {
		got := match(pattern, s)
		if !strings.ContainsAny(pattern, "*?[") && got != (pattern == s) {
			t.Errorf("match(%q, %q) = %v", pattern, s, got)
		}
	})
}
