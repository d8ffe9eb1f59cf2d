package uevent

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const message = "add@/devices/pci0000:00/0000:00:03.0/virtio1/block/vda\x00ACTION=add\x00SUBSYSTEM=block\x00DEVNAME=vda\x00DEVTYPE=disk\x00SEQNUM=1\x00"

func TestParse(t *testing.T) {
	e, ok := Parse([]byte(message))
	if !ok || e.Action != "add" || e.Env["SUBSYSTEM"] != "block" || e.Env["DEVNAME"] != "vda" || e.Path != "/devices/pci0000:00/0000:00:03.0/virtio1/block/vda" {
		t.Errorf("%+v %v", e, ok)
	}
	for _, bad := range []string{"", "libudev\x00\xfe\xed", "@/devices"} {
		if _, ok := Parse([]byte(bad)); ok {
			t.Errorf("%q was accepted", bad)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(message))
	f.Fuzz(func(_ *testing.T, msg []byte) { Parse(msg) })
}

// The kernel repeats an event on request: writing to a device's uevent file.
func TestListen(t *testing.T) {
	l, err := Listen()
	if err != nil {
		t.Skipf("no device events here: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	got := make(chan Event, 16)
	l.Subscribe(func(e Event) {
		select {
		case got <- e:
		default:
		}
	})
	go func() { done <- l.Run(ctx) }()
	if err := os.WriteFile("/sys/class/mem/null/uevent", []byte("change"), 0); err == nil {
		select {
		case e := <-got:
			if e.Action != "change" || e.Env["DEVNAME"] != "null" {
				t.Errorf("%+v", e)
			}
		case <-time.After(5 * time.Second):
			t.Log("device events do not reach this network namespace")
		}
	} else if !errors.Is(err, unix.EACCES) && !errors.Is(err, unix.EROFS) && !errors.Is(err, unix.ENOENT) {
		t.Error(err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
