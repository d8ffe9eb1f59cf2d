package update

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cloudflare/circl/sign/mldsa/mldsa87"

	"quantavirt/appliance/api/spec"
	"quantavirt/appliance/event"
	"quantavirt/appliance/store"
	"quantavirt/appliance/task"
	"quantavirt/internal/bundle"
	"quantavirt/internal/initapi"
	"quantavirt/internal/pefile/petest"
	"quantavirt/internal/qverr"
	"quantavirt/internal/slot"
)

func key(n byte) *mldsa87.PrivateKey {
	_, k := mldsa87.NewKeyFromSeed(&[mldsa87.SeedSize]byte{n})
	return k
}

func public(k *mldsa87.PrivateKey) []byte { return k.Public().(*mldsa87.PublicKey).Bytes() }

// system is a unified kernel image that says its version.
func system(version string) []byte {
	return petest.Image(0x600, petest.Section{Name: ".osrel", Data: "ID=quantavirt\n"},
		petest.Section{Name: ".cmdline", Data: "console=ttyS0 panic=10"},
		petest.Section{Name: ".ucode", Data: "microcode"},
		petest.Section{Name: ".initrd", Data: strings.Repeat("initramfs "+version, 2000)},
		petest.Section{Name: ".linux", Data: strings.Repeat("kernel "+version, 1500)})
}

func sum(data []byte) string {
	s := sha256.Sum256(data)
	return hex.EncodeToString(s[:])
}

// pack makes a bundle with the system of a version.
func pack(t testing.TB, version string, change func(*bundle.Manifest), keys ...*mldsa87.PrivateKey) []byte {
	t.Helper()
	if keys == nil {
		keys = []*mldsa87.PrivateKey{key(1)}
	}
	data := map[string][]byte{"virtual.efi": system(version), "hardware.efi": []byte("the other " + version)}
	m := bundle.Manifest{Version: version, Counter: 1}
	for name, role := range map[string]string{"virtual.efi": "virtual", "hardware.efi": "hardware"} {
		m.Files = append(m.Files, bundle.File{Name: name, Role: bundle.RoleUKI, Build: role, Size: int64(len(data[name])), SHA256: sum(data[name])})
	}
	if change != nil {
		change(&m)
	}
	var out bytes.Buffer
	err := bundle.Write(&out, m, keys, func(f bundle.File) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data[f.Name])), nil })
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// node is a machine with a disk, a data volume and a boot loader.
type node struct {
	t        *testing.T
	firmware Firmware
	esp      *memory
	dir      string // data volume and image
	boots    int
	systems  map[string]string // SHA-256 of a system: its version

	up     spec.UplinkInfoState
	data   bool
	cards  []spec.Card
	vms    map[string]spec.VMState
	ready  error
	broken map[string]bool // VMs that do not start
	dog    bool            // the hardware watchdog has reset the machine
	dead   string          // why the daemon cannot start: the rescue listener runs

	mu       sync.Mutex
	asked    []string // of PID 1
	rebooted chan struct{}
	loaded   string // command line of the kernel that was loaded

	// of the present boot
	version string
	slot    uint32
	svc     *Service
	db      *store.DB
	tasks   *task.Manager
	stop    func()
	log     *bytes.Buffer
}

// newNode installs version 1.0 in slot 1. both: its disk boots on both kinds of
// firmware, as installed disks do.
func newNode(t *testing.T, firmware Firmware, both bool) *node {
	t.Helper()
	n := &node{t: t, firmware: firmware, esp: newMemory(64 << 20), dir: t.TempDir(), systems: make(map[string]string),
		up: spec.UplinkInfoStateUp, data: true, vms: map[string]spec.VMState{}, broken: map[string]bool{}}
	if err := os.MkdirAll(filepath.Join(n.dir, "etc", "update-keys"), 0o755); err != nil {
		t.Fatal(err)
	}
	n.file("etc/image.json", `{"build":"virtual"}`)
	n.file("etc/update-keys/update-1.pub", string(public(key(1))))
	first := system("1.0")
	n.systems[sum(first)] = "1.0"
	if firmware == UEFI || both {
		create(t, n.esp, loaderFolder+"/"+systemdBoot, "loader")
		create(t, n.esp, uki(slot.Name{Sequence: 1}), string(first))
	}
	if firmware == BIOS || both {
		var env slot.Env
		env.Bless(1)
		block, err := env.Encode()
		if err != nil {
			t.Fatal(err)
		}
		create(t, n.esp, slot.EnvFile, string(block))
		for _, p := range n.pieces(first) {
			create(t, n.esp, inFolder(1, p.name), p.text)
		}
	}
	info, err := slot.Info{Sequence: 1, Version: "1.0", Build: "virtual", SHA256: sum(first), State: slot.StateGood}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	create(t, n.esp, inFolder(1, slot.InfoFile), string(info))
	n.boot()
	return n
}

type namedText struct{ name, text string }

// pieces of a system as GRUB loads them.
func (n *node) pieces(image []byte) []namedText {
	n.t.Helper()
	f := filepath.Join(n.t.TempDir(), "uki")
	if err := os.WriteFile(f, image, 0o600); err != nil {
		n.t.Fatal(err)
	}
	file, err := os.Open(f)
	if err != nil {
		n.t.Fatal(err)
	}
	defer file.Close()
	i, err := openImage(file, int64(len(image)), sum(image))
	if err != nil {
		n.t.Fatal(err)
	}
	kernel, err := io.ReadAll(i.kernel)
	if err != nil {
		n.t.Fatal(err)
	}
	r, err := i.uki.Initrd()
	if err != nil {
		n.t.Fatal(err)
	}
	initrd, err := io.ReadAll(r)
	if err != nil {
		n.t.Fatal(err)
	}
	return []namedText{{slot.Kernel, string(kernel)}, {slot.Initramfs, string(initrd)}, {slot.Cmdline, string(i.forGRUB)}}
}

func (n *node) file(name, text string) {
	n.t.Helper()
	if err := os.WriteFile(filepath.Join(n.dir, name), []byte(text), 0o600); err != nil {
		n.t.Fatal(err)
	}
}

// load does what the boot loader does on a file system: it picks a slot, counts
// a try, and reads it whole. The version is that of the system; "" is none.
func (n *node) load(m *memory) (seq uint32, version string) {
	if n.firmware == BIOS {
		return n.loadBIOS(m)
	}
	names, _ := m.List(slot.UKIFolder)
	// systemd-boot passes over a file that is no program.
	names = slices.DeleteFunc(names, func(f string) bool { return len(m.files[path.Join(slot.UKIFolder, f)]) == 0 })
	name, ok := slot.First(names)
	if !ok {
		return 0, ""
	}
	file := uki(name)
	if tried := name.Tried(); tried != name {
		data := m.files[file]
		delete(m.files, file)
		file = uki(tried)
		m.files[file] = data
	}
	return name.Sequence, n.systems[sum(m.files[file])]
}

func (n *node) loadBIOS(m *memory) (seq uint32, version string) {
	env, err := slot.ParseEnv(m.files[slot.EnvFile])
	if err != nil {
		return 0, ""
	}
	seq, after := env.Boot()
	block, err := after.Encode()
	if err != nil {
		n.t.Fatal(err)
	}
	m.files[slot.EnvFile] = block
	for sum, version := range n.systems {
		whole := true
		for _, p := range n.pieces(system(version)) {
			whole = whole && string(m.files[inFolder(seq, p.name)]) == p.text
		}
		if whole && sum != "" {
			return seq, version
		}
	}
	return seq, ""
}

// boot ends what runs, without its doing, and boots the machine.
func (n *node) boot() {
	n.t.Helper()
	seq, version := n.load(n.esp)
	if version == "" {
		n.t.Fatalf("slot %d is no whole system", seq)
	}
	n.start(seq, version)
}

// start starts the daemon of a system.
func (n *node) start(seq uint32, version string) {
	n.t.Helper()
	if n.stop != nil {
		n.stop()
	}
	n.boots++
	n.slot, n.version, n.log = seq, version, &bytes.Buffer{}
	n.rebooted, n.asked = make(chan struct{}), nil
	for name := range n.vms {
		n.vms[name] = spec.VMStateSTOPPED
	}
	dir := filepath.Join(n.dir, "data")
	if !n.data {
		dir = n.t.TempDir()
	}
	n.serve(dir)
}

func (n *node) serve(dir string) {
	n.t.Helper()
	log := slog.New(slog.NewTextHandler(n.log, nil))
	var err error
	if n.db, err = store.Open(filepath.Join(dir, "state.db")); err != nil {
		n.t.Fatal(err)
	}
	if n.tasks, err = task.NewManager(n.db, &event.Bus{}, log); err != nil {
		n.t.Fatal(err)
	}
	// 10 ms go by from look to look, and none while VMs are started again.
	var clock time.Duration
	uptime := func() time.Duration {
		r, err := n.svc.record()
		if a := r.Armed; err != nil || a == nil || a.BootID == n.bootOf().BootID || a.Restored != "" {
			clock += 10 * time.Millisecond
		}
		return clock
	}
	n.svc = New(Deps{
		Log: log, DB: n.db, Tasks: n.tasks, Init: pid1{n}, VMs: guests{n}, DataDir: dir,
		Uplink:  func() spec.UplinkInfo { return spec.UplinkInfo{State: n.up} },
		Cards:   func(context.Context) []spec.Card { return n.cards },
		Ready:   func(context.Context) error { return n.ready },
		Version: n.version, Etc: filepath.Join(n.dir, "etc"), PStore: filepath.Join(n.dir, "pstore"),
		Mount:      func(_ string, _ bool, fn func(Volume) error) error { return fn(n.esp) },
		Uptime:     uptime,
		Broken:     n.dead,
		LoadKernel: func(_, _ *os.File, cmdline string) error { n.loaded = cmdline; return nil },
	})
	n.svc.every = time.Millisecond
	n.stop = func() {
		n.tasks.Close(context.Background())
		_ = n.db.Close()
		n.stop = nil
	}
	n.t.Cleanup(func() {
		if n.stop != nil {
			n.stop()
		}
	})
}

// bootOf is what PID 1 says about this boot.
func (n *node) bootOf() initapi.Boot {
	medium := mediumUEFI
	if n.firmware == BIOS {
		medium = mediumBIOS
	}
	return initapi.Boot{BootID: fmt.Sprint("boot-", n.boots), Medium: medium, Slot: slot.Digits(n.slot), ESPDevice: "/dev/vda2", ESPPartUUID: "esp", DogReset: n.dog,
		Data: initapi.DataVolume{Persistent: n.data, PartUUID: "data"}}
}

// settle lets the daemon find out what boot this is, until that is done or the
// node reboots.
func (n *node) settle() {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), 20*time.Second)
	var wait sync.WaitGroup
	defer wait.Wait()
	defer cancel()
	rebooted := n.rebooted
	wait.Go(func() {
		select {
		case <-rebooted:
			cancel()
		case <-ctx.Done():
		}
	})
	n.svc.Start(ctx, n.bootOf())
	if ctx.Err() == context.DeadlineExceeded {
		n.t.Fatal("the daemon does not come to a decision")
	}
}

type pid1 struct{ *node }

func (p pid1) ask(what string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked = append(p.asked, what)
	if what != "blessed" {
		select {
		case <-p.rebooted:
		default:
			close(p.rebooted)
		}
	}
	return nil
}

func (p pid1) Reboot(context.Context) error  { return p.ask("reboot") }
func (p pid1) Kexec(context.Context) error   { return p.ask("kexec") }
func (p pid1) Blessed(context.Context) error { return p.ask("blessed") }

func (n *node) did(what string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, a := range n.asked {
		if a == what {
			return true
		}
	}
	return false
}

type guests struct{ *node }

func (g guests) List() []spec.VM {
	g.mu.Lock()
	defer g.mu.Unlock()
	var out []spec.VM
	for name, state := range g.vms {
		out = append(out, spec.VM{Name: name, State: state})
	}
	return out
}

func (g guests) Start(_ context.Context, name, _ string) (spec.Task, error) {
	return g.tasks.Start(task.Spec{Kind: "vm.start", Target: "vms/" + name}, func(context.Context, *task.Progress) error {
		if g.broken[name] {
			return qverr.New(qverr.VMStart, "broken")
		}
		g.mu.Lock()
		defer g.mu.Unlock()
		g.vms[name] = spec.VMStateRUNNING
		return nil
	})
}

// quick is a short health window.
var quick = Options{Good: 20 * time.Millisecond, Limit: 400 * time.Millisecond}

// update uploads a bundle and waits for the task.
func (n *node) update(data []byte, o Options) error {
	n.t.Helper()
	t, err := n.svc.Upload(n.t.Context(), "req", bytes.NewReader(data), o)
	if err != nil {
		return err
	}
	t, err = n.tasks.Wait(n.t.Context(), t.ID)
	if err != nil {
		return err
	}
	if t.State != spec.TaskStateSucceeded {
		return t.Error.Err()
	}
	return nil
}

// must is update of a version that is then known.
func (n *node) must(version string, o Options) {
	n.t.Helper()
	n.systems[sum(system(version))] = version
	if err := n.update(pack(n.t, version, nil), o); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) slots() spec.SlotList {
	n.t.Helper()
	l, err := n.svc.Slots(n.t.Context())
	if err != nil {
		n.t.Fatal(err)
	}
	return l
}

// find is a slot by version.
func (n *node) find(version string) spec.Slot {
	n.t.Helper()
	for _, s := range n.slots().Items {
		if s.Version == version {
			return s
		}
	}
	n.t.Fatalf("no slot with %s: %+v", version, n.slots().Items)
	return spec.Slot{}
}
