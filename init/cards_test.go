package main

import (
	"context"
	"testing"
	"time"

	"quantavirt/init/uevent"
	"quantavirt/internal/initapi/wire"
	"quantavirt/internal/qverr"
)

func TestOfCard(t *testing.T) {
	for text, want := range map[string]bool{
		"add@/devices/pci0000:00/0000:00:04.0/0000:01:00.0\x00SUBSYSTEM=pci\x00PCI_CLASS=108000\x00PCI_ID=1DB7:0100\x00": true,
		"remove@/devices/pci0000:00/0000:00:04.0/0000:01:00.0\x00SUBSYSTEM=pci\x00PCI_ID=1DB7:0100\x00":                  true,
		"bind@/devices/pci0000:00/0000:00:04.0/0000:01:00.0\x00SUBSYSTEM=pci\x00DRIVER=vfio-pci\x00PCI_ID=1DB7:0100\x00": false,
		"add@/devices/pci0000:00/0000:00:05.0\x00SUBSYSTEM=pci\x00PCI_ID=1AF4:1041\x00":                                  false,
		"add@/devices/pci0000:00/0000:00:05.0/virtio1\x00SUBSYSTEM=virtio\x00":                                           false,
	} {
		e, ok := uevent.Parse([]byte(text))
		if !ok || ofCard(e) != want {
			t.Errorf("%q: %v", text, !want)
		}
	}
	if !ofCard(uevent.Event{Action: uevent.Lost}) {
		t.Error("lost events are ignored")
	}
}

// Whoever waits for a look for cards gets the next one, and one who comes late the latest.
func TestWaitCards(t *testing.T) {
	n := newNode()
	short, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := n.WaitCards(short, 0); qverr.CodeOf(err) != qverr.Timeout {
		t.Errorf("before the first look: %v", err)
	}
	got := make(chan wire.Cards)
	go func() {
		c, _ := n.WaitCards(t.Context(), 0)
		got <- c
	}()
	n.showCards([]wire.Card{{Address: "0000:01:00.0"}}, wire.IOMMU{})
	if c := <-got; c.Look != 1 || len(c.Cards) != 1 {
		t.Errorf("%+v", c)
	}
	n.showCards(nil, wire.IOMMU{})
	if c, err := n.WaitCards(t.Context(), 1); err != nil || c.Look != 2 || n.Boot().CardLook != 2 {
		t.Errorf("%+v, %v", c, err)
	}
}
