package net

import (
	"os"
	"unsafe"

	"quantavirt/hv/memory"
	"quantavirt/hv/virtio"
	"quantavirt/hv/virtio/vhost"
	"quantavirt/internal/qverr"
)

const setBackend = 0x4008af30 // VHOST_NET_SET_BACKEND

// kernel moves packets with vhost-net: they never come into this process.
type kernel struct {
	tap     *tapQueue
	mem     *memory.Memory
	dev     *vhost.Dev
	started bool
	paused  bool
}

func newVhost(tap *tapQueue, file *os.File, mem *memory.Memory) (*kernel, error) {
	dev, err := vhost.Open(file, mem)
	if err != nil {
		return nil, err
	}
	return &kernel{tap: tap, mem: mem, dev: dev}, nil
}

func (k *kernel) features() uint64 {
	return segmentation | featureMergeable&k.dev.Features()
}

func (k *kernel) start(features uint64, rx, tx *virtio.Queue, _ virtio.Host) error {
	if err := k.dev.SetFeatures(features); err != nil {
		return qverr.New(qverr.NetVhost, "%w", err)
	}
	for i, q := range []*virtio.Queue{rx, tx} {
		if err := k.dev.SetQueue(uint32(i), q, k.mem); err != nil {
			return qverr.New(qverr.NetVhost, "%w", err)
		}
	}
	k.started = true
	if k.paused {
		return nil
	}
	return k.attach(int32(k.tap.fd))
}

// attach gives both queues a backend; -1 takes it away and waits for the worker.
// The queues keep their place.
func (k *kernel) attach(fd int32) error {
	if !k.started {
		return nil
	}
	for i := range uint32(2) {
		b := struct {
			index uint32
			fd    int32
		}{i, fd}
		if err := k.dev.Ioctl(setBackend, unsafe.Pointer(&b)); err != nil {
			return qverr.New(qverr.NetVhost, "backend %d of vhost-net: %w", fd, err)
		}
	}
	return nil
}

func (k *kernel) stop() {
	_ = k.attach(-1)
	k.started = false
}

func (k *kernel) pause() error {
	k.paused = true
	return k.attach(-1)
}

func (k *kernel) resume() error {
	k.paused = false
	return k.attach(int32(k.tap.fd))
}

func (k *kernel) close() { k.dev.Close() }
