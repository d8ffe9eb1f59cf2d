package net

import (
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"quantavirt/hv/limit"
	"quantavirt/hv/virtio"
)

// maxPacket is the largest packet with its header, in either direction: 64 KiB of
// segments behind an Ethernet header with a VLAN tag.
const maxPacket = headerSize + 18 + 65535

// Counters count the packets of one pair as the guest sees them. They only grow,
// and stay 0 while the kernel moves the packets.
type Counters struct {
	RxPackets, RxBytes, RxDropped, TxPackets, TxBytes, TxErrors atomic.Uint64
	_                                                           [16]byte // to a cache line
}

// Stats is the sum over all pairs.
type Stats struct {
	RxPackets, RxBytes, RxDropped, TxPackets, TxBytes, TxErrors uint64
}

// Stats reads the counters.
func (d *Device) Stats() Stats {
	var s Stats
	for i := range d.counters {
		c := &d.counters[i]
		s.RxPackets += c.RxPackets.Load()
		s.RxBytes += c.RxBytes.Load()
		s.RxDropped += c.RxDropped.Load()
		s.TxPackets += c.TxPackets.Load()
		s.TxBytes += c.TxBytes.Load()
		s.TxErrors += c.TxErrors.Load()
	}
	return s
}

// user moves packets in this process, from and to guest memory itself. It shares
// nothing with the other pairs, and allocates nothing for a packet.
type user struct {
	file *os.File // pollable: a goroutine that waits for it costs no thread
	fd   int
	rx   receiver
	tx   virtio.Worker
	iov  vector // of transmit, which one goroutine runs
	gate *limit.Gate

	counters *Counters
	running  bool
}

func newUser(tap *tapQueue, counters *Counters, rx, tx *limit.Limiter) (*user, error) {
	// A file of our own on the TAP, so that its deadlines are ours.
	fd, err := unix.FcntlInt(uintptr(tap.fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, err
	}
	u := &user{file: os.NewFile(uintptr(fd), "tap"), fd: fd, counters: counters}
	u.gate = limit.NewGate(tx, u.tx.Wake)
	u.tx.Handle, u.tx.Ready = u.transmit, u.gate.Open
	if err := u.rx.init(u.file, counters, rx); err != nil {
		u.file.Close()
		return nil, err
	}
	return u, nil
}

func (u *user) features() uint64 { return segmentation | featureMergeable }

func (u *user) start(features uint64, rx, tx *virtio.Queue, host virtio.Host) error {
	u.running = true
	u.rx.start(features&featureMergeable != 0, rx, host)
	u.tx.Start(tx, host)
	return nil
}

func (u *user) stop() {
	if u.running {
		u.rx.stop()
		u.tx.Stop()
		u.running = false
	}
}

func (u *user) pause() error {
	u.rx.pause()
	u.tx.Pause()
	return nil
}

func (u *user) resume() error {
	u.rx.resume()
	u.tx.Resume()
	return nil
}

// reopen has changed limits hold at once.
func (u *user) reopen() {
	u.gate.Reopen()
	u.rx.gate.Reopen()
}

func (u *user) close() { u.file.Close() }

// transmit hands a packet of the guest to the TAP, from where it lies: the kernel
// copies it and checks the header.
func (u *user) transmit(c *virtio.Chain) (uint32, error) {
	n := virtio.Len(c.Read)
	if n <= headerSize || n > maxPacket {
		u.counters.TxErrors.Add(1)
		return 0, nil
	}
	u.iov.reset()
	u.iov.add(c.Read)
	if _, errno := u.iov.transfer(unix.SYS_WRITEV, u.fd); errno != 0 {
		u.counters.TxErrors.Add(1)
		return 0, nil
	}
	u.gate.Charge(uint64(n - headerSize))
	u.counters.TxPackets.Add(1)
	u.counters.TxBytes.Add(uint64(n - headerSize))
	return 0, nil
}
