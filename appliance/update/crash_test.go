package update

import (
	"maps"
	"testing"

	"quantavirt/appliance/api/spec"
	"quantavirt/internal/slot"
)

// cut is the machine after a power cut that left its partition in a state.
func (n *node) cut(files map[string][]byte) *memory {
	return &memory{files: maps.Clone(files), size: n.esp.size}
}

// survives wants the machine to boot a whole system from a state, and a blessed
// one after at most one trial.
func (n *node) survives(t *testing.T, what string, files map[string][]byte, firmware Firmware) *memory {
	t.Helper()
	was := n.firmware
	n.firmware = firmware
	defer func() { n.firmware = was }()
	m := n.cut(files)
	seq, version := n.load(m)
	if version == "" {
		t.Fatalf("%s: slot %d is booted and is not whole", what, seq)
	}
	d, err := readDisk(m, firmware)
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	if on, booted := d.trial(seq); !on {
		return m
	} else if !booted {
		t.Fatalf("%s: slot %d is on trial, and its try is not counted", what, seq)
	}
	again, version := n.load(m)
	if version == "" || again == seq {
		t.Fatalf("%s: after the failed try of slot %d, slot %d is booted: version %q", what, seq, again, version)
	}
	if on, _ := d.trial(again); on {
		t.Fatalf("%s: slot %d is the second trial in a row", what, again)
	}
	return m
}

// The power is cut between, and within, all operations on the partition: of an
// update, of the blessing, of a rollback, of giving up, and of the removal of old
// slots. A whole system is booted each time, by every loader of the disk; and from there
// another update is installed.
func TestPowerCut(t *testing.T) {
	everywhere(t, func(t *testing.T, n *node) {
		used := n.esp.size
		if free, err := n.esp.Free(); err == nil {
			used -= free
		}
		n.esp.size = 2*used + margin + used/2 // old slots have to go
		for _, version := range []string{"2.0", "3.0", "9.9"} {
			n.systems[sum(system(version))] = version
		}
		n.settle()
		n.esp.states, n.esp.log = nil, nil
		for _, version := range []string{"2.0", "3.0"} {
			n.must(version, quick)
			n.boot()
			n.settle()
		}
		if _, err := n.svc.RollBack(t.Context()); err != nil {
			t.Fatal(err)
		}
		n.boot()
		n.settle()
		n.up = spec.UplinkInfoStateDown
		n.must("3.0", quick)
		n.up = spec.UplinkInfoStateDown
		states, log := n.esp.states, n.esp.log
		if len(states) < 40 {
			t.Fatalf("only %d states", len(states))
		}
		d, err := readDisk(n.esp, n.firmware)
		if err != nil {
			t.Fatal(err)
		}
		uefi, bios := d.onUEFI(), d.onBIOS()
		for i, files := range states {
			if uefi {
				n.survives(t, log[i], files, UEFI)
			}
			if bios {
				n.survives(t, log[i], files, BIOS)
			}
			if i%7 == 0 { // each update takes its time
				n.goesOn(t, log[i], files)
			}
		}
		t.Logf("%d states", len(states))
	})
}

// goesOn boots the machine from a state and updates it.
func (n *node) goesOn(t *testing.T, what string, files map[string][]byte) {
	t.Helper()
	n.esp, n.up = n.cut(files), spec.UplinkInfoStateUp
	n.boot()
	n.settle()
	if n.did("reboot") {
		n.boot()
		n.settle()
	}
	forced := quick
	forced.Force = true
	if err := n.update(pack(t, "9.9", nil), forced); err != nil {
		t.Fatalf("%s: the next update: %v", what, err)
	}
	n.boot()
	n.settle()
	if n.version != "9.9" || n.find("9.9").State != spec.SlotState(slot.StateGood) {
		t.Fatalf("%s: after the next update %s runs", what, n.version)
	}
}

// A description is replaced while the power is cut: on FAT its name may for a while
// lead nowhere, and the new one has its first name still.
func TestTornDescription(t *testing.T) {
	everywhere(t, func(t *testing.T, n *node) {
		n.settle()
		name := inFolder(1, slot.InfoFile)
		for _, torn := range []string{"", "{", "\x00\x00"} {
			if _, ok := n.esp.files[name+pending]; !ok {
				n.esp.files[name+pending] = n.esp.files[name]
			}
			n.esp.files[name] = []byte(torn)
			if s := n.find("1.0"); s.State != spec.SlotStateGood || !s.Running || !s.Next {
				t.Errorf("%q: %+v", torn, s)
			}
		}
		n.must("2.0", quick)
		n.boot()
		n.settle()
		if n.version != "2.0" || n.find("2.0").State != spec.SlotStateGood {
			t.Errorf("%s runs", n.version)
		}
	})
}
