package volume

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"quantavirt/internal/disks/disktest"
	"quantavirt/internal/qverr"
)

// machine is a made-up /sys and /dev.
type machine struct {
	t *testing.T
	Host
}

func newMachine(t *testing.T) machine {
	return machine{t, Host{Sys: t.TempDir(), Dev: t.TempDir()}}
}

func (m machine) write(path, text string) {
	m.t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		m.t.Fatal(err)
	}
}

// disk adds a device with partitions; content is that of each in turn, the
// disk's own first.
func (m machine) disk(name string, contents ...[]byte) {
	m.t.Helper()
	for i, data := range contents {
		dir, dev := filepath.Join(m.Sys, "devices", name), name
		if i > 0 {
			dev = fmt.Sprintf("%s%d", name, i)
			dir = filepath.Join(dir, dev)
			m.write(filepath.Join(dir, "partition"), fmt.Sprintln(i))
		}
		m.write(filepath.Join(dir, "size"), fmt.Sprintln(len(data)/512))
		m.write(filepath.Join(m.Dev, dev), string(data))
		link := filepath.Join(m.Sys, "class/block", dev)
		if err := os.MkdirAll(filepath.Dir(link), 0o755); err != nil {
			m.t.Fatal(err)
		}
		if err := os.Symlink(dir, link); err != nil {
			m.t.Fatal(err)
		}
	}
}

func TestScanAndChoose(t *testing.T) {
	mbr := append(disktest.MBR(), make([]byte, 4096-512)...)
	empty := make([]byte, 4096)
	for _, c := range []struct {
		name  string
		disks map[string][][]byte
		want  string
		found string // device and PARTUUID
		code  qverr.Code
	}{
		{"nothing", nil, "", "", qverr.NoEnt},
		{"whole disk", map[string][][]byte{"vda": {disktest.Ext4(Label)}, "vdb": {disktest.Ext4("other")}, "sr0": {disktest.Ext4(Label)}}, "", "vda ", 0},
		{"partition by label", map[string][][]byte{"vda": {disktest.GPT("boot", "data"), empty, disktest.Ext4(Label)}}, "", "vda2 12345678-9abc-def0-0102-030405060701", 0},
		{"partition by name", map[string][][]byte{"vda": {disktest.GPT("boot", Label), empty, disktest.Ext4("")}}, "", "vda2 12345678-9abc-def0-0102-030405060701", 0},
		{"disk with partitions is none", map[string][][]byte{"vda": {append(mbr[:1024:1024], disktest.Super(Label)...), empty}}, "", "", qverr.NoEnt},
		{"partition of a DOS table", map[string][][]byte{"sda": {mbr, disktest.Ext4(Label)}}, "", "sda1 cafe1234-01", 0},
		{"not formatted", map[string][][]byte{"vda": {disktest.GPT(Label), empty}}, "", "", qverr.StrFormat},
		{"two", map[string][][]byte{"vda": {disktest.Ext4(Label)}, "sdb": {disktest.GPT("a"), disktest.Ext4(Label)}}, "", "", qverr.Config},
		{"two, one named", map[string][][]byte{"vda": {disktest.Ext4(Label)}, "sdb": {disktest.GPT("a"), disktest.Ext4(Label)}}, "partuuid=12345678-9ABC-def0-0102-030405060700", "sdb1 12345678-9abc-def0-0102-030405060700", 0},
		{"by UUID", map[string][][]byte{"vda": {disktest.Ext4("any")}}, "UUID=30313233-3435-3637-3839-616263646566", "vda ", 0},
		{"empty PARTUUID names nothing", map[string][][]byte{"vda": {disktest.Ext4(Label)}}, "PARTUUID=", "", qverr.NoEnt},
		{"no medium", map[string][][]byte{"sdc": {{}}}, "", "", qverr.NoEnt},
		{"tiny", map[string][][]byte{"vda": {empty[:512]}}, "", "", qverr.NoEnt},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newMachine(t)
			for name, contents := range c.disks {
				m.disk(name, contents...)
			}
			blocks, err := m.Scan()
			if err != nil {
				t.Fatal(err)
			}
			b, err := Choose(blocks, c.want)
			if qverr.CodeOf(err) != c.code {
				t.Fatalf("%+v: %v", blocks, err)
			}
			if c.code == 0 {
				if got := filepath.Base(b.Device) + " " + b.PartUUID; got != c.found || b.FS == nil || b.FS.Size != 1<<20 {
					t.Errorf("found %q, %+v", got, b.FS)
				}
			}
		})
	}
}

func TestUnreadableDiskHidesNoOther(t *testing.T) {
	m := newMachine(t)
	m.disk("vda", disktest.Ext4(Label))
	m.disk("vdb", disktest.Ext4("x"))
	if err := os.Remove(filepath.Join(m.Dev, "vdb")); err != nil {
		t.Fatal(err)
	}
	blocks, err := m.Scan()
	if qverr.CodeOf(err) != qverr.StrIO || !strings.Contains(err.Error(), "vdb") {
		t.Errorf("%v", err)
	}
	if b, err := Choose(blocks, ""); err != nil || filepath.Base(b.Device) != "vda" {
		t.Errorf("%v %v", b, err)
	}
}

func TestCheckWant(t *testing.T) {
	for want, good := range map[string]bool{"": true, "ram": true, "/dev/vda": true, "PARTUUID=x": true, "uuid=y": true, "vda": false, "LABEL=x": false, "UUID=": false} {
		if err := CheckWant(want); (err == nil) != good {
			t.Errorf("%q: %v", want, err)
		}
	}
}

func TestAwaitLateDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t)
		m.write(filepath.Join(m.Sys, "bus/usb/devices/usb1/class"), "")
		for file, text := range hub("not attached") {
			m.write(filepath.Join(m.Sys, file), text)
		}
		stick := filepath.Join(m.Sys, "bus/usb/devices/1-1:1.0/bInterfaceClass")
		events := make(chan struct{})
		go func() {
			time.Sleep(quietHub / 2) // no event tells of it
			m.write(filepath.Join(m.Sys, portState), "default\n")
			time.Sleep(quietHub)
			m.write(stick, "08\n")
			events <- struct{}{}
			time.Sleep(4 * time.Second)
			m.disk("sda", disktest.Ext4(Label))
			events <- struct{}{}
		}()
		begin := time.Now()
		b, err := m.Await(t.Context(), "", quiet(m), events)
		if err != nil || filepath.Base(b.Device) != "sda" || time.Since(begin) != quietHub/2+quietHub+4*time.Second {
			t.Errorf("%v %v after %v", b, err, time.Since(begin))
		}
	})
}

// quiet asks hubs of a machine in which the file "connected" says what is at their ports.
func quiet(m machine) *Probing {
	return &Probing{Sys: m.Sys, Connections: func(_ string, ports []int) (map[int]bool, error) {
		text, err := os.ReadFile(filepath.Join(m.Sys, connectedFile))
		return map[int]bool{ports[0]: string(text) == "yes"}, err
	}}
}

const connectedFile = "connected"

// hub is one with a port.
func hub(state string, more ...string) map[string]string {
	files := map[string]string{
		"bus/usb/devices/1-0:1.0/bInterfaceClass": "09\n",
		portState:     state + "\n",
		connectedFile: "no",
	}
	for i := 0; i+1 < len(more); i += 2 {
		files[more[i]] = more[i+1]
	}
	return files
}

const portState = "bus/usb/devices/1-0:1.0/usb1-port1/state"

func TestAwaitEnds(t *testing.T) {
	for name, c := range map[string]struct {
		files map[string]string
		took  time.Duration
	}{
		"no bus":                {nil, 0},
		"virtio disk, loaded":   {map[string]string{"bus/virtio/devices/virtio0/modalias": "virtio:d00000002v00001AF4\n"}, 0},
		"USB host":              {map[string]string{"bus/usb/devices/usb1/class": ""}, blindHub},
		"USB keyboard":          {map[string]string{"bus/usb/devices/usb1/class": "", "bus/usb/devices/1-1:1.0/bInterfaceClass": "03\n"}, blindHub},
		"USB hub":               {hub("not attached", "bus/usb/devices/usb1/class", ""), quietHub},
		"USB hub, in use":       {hub("configured"), quietHub},
		"USB hub, asleep":       {hub("suspended"), quietHub},
		"USB hub, mute":         {map[string]string{"bus/usb/devices/1-0:1.0/bInterfaceClass": "09\n", portState: "not attached\n"}, blindHub},
		"USB hub, older":        {hub("not attached", "bus/usb/devices/power/connected_duration", "400\n"), quietHub - 400*time.Millisecond},
		"USB device, addressed": {hub("addressed"), quietDevice},
		"USB device, unseen":    {hub("not attached", connectedFile, "yes"), quietDevice},
		"kernel before 6.5":     {hub(""), quietHub},
		"USB stick that sleeps": {map[string]string{"bus/usb/devices/1-1:1.0/bInterfaceClass": "08\n"}, quietDevice},
		"card reader":           {map[string]string{"class/mmc_host/mmc0/uevent": ""}, quietHost},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMachine(t)
				for file, text := range c.files {
					m.write(filepath.Join(m.Sys, file), text)
				}
				begin := time.Now()
				_, err := m.Await(t.Context(), "", quiet(m), make(chan struct{}))
				if qverr.CodeOf(err) != qverr.NoEnt || time.Since(begin) != c.took {
					t.Errorf("%v after %v, want %v", err, time.Since(begin), c.took)
				}
			})
		})
	}
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t)
		m.write(filepath.Join(m.Sys, "bus/usb/devices/usb1/class"), "")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second) // less than blindHub
		defer cancel()
		begin := time.Now()
		if _, err := m.Await(ctx, "", quiet(m), make(chan struct{})); err == nil || time.Since(begin) != time.Second {
			t.Errorf("%v after %v", err, time.Since(begin))
		}
	})
}
