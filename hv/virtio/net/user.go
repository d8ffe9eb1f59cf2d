package net

import (
	"encoding/binary"
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"quantavirt/hv/virtio"
)

// maxFrame is the largest frame without segmentation offload, with a header: the
// guest's buffers need not hold more, since no GUEST_TSO is offered.
const (
	maxFrame = headerSize + 18 + 65535
	// maxPacket is the largest thing the guest may send, with segmentation offload.
	maxPacket = headerSize + 18 + 65535
)

// Counters count packets as the guest sees them. They only grow, and stay 0 while
// the kernel moves the packets.
type Counters struct {
	RxPackets, RxBytes, RxDropped, TxPackets, TxBytes, TxErrors atomic.Uint64
}

// user moves packets in this process.
type user struct {
	tap      *os.File // pollable: a goroutine that waits for it costs no thread
	counters *Counters
	rx, tx   virtio.Worker

	wg     sync.WaitGroup
	filled atomic.Int32  // bytes in packet; 0 while the reader has it
	packet []byte        // one packet from the TAP
	taken  chan struct{} // packet may be filled again
	done   chan struct{} // closed by stop
}

func newUser(tap *os.File, counters *Counters) (*user, error) {
	// A file of our own on the TAP, so that its deadlines are ours.
	fd, err := unix.FcntlInt(tap.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, err
	}
	u := &user{tap: os.NewFile(uintptr(fd), "tap"), counters: counters}
	u.rx.Handle, u.rx.Ready = u.receive, func() bool { return u.filled.Load() > 0 }
	u.tx.Handle = u.transmit
	return u, nil
}

// features: segmentation is left to the host in both directions, so that each
// received packet fits into one buffer of the guest.
func (u *user) features() uint64 {
	return featureCSum | featureGuestCSum | featureHostTSO4 | featureHostTSO6 | featureHostECN
}

func (u *user) start(_ uint64, rx, tx *virtio.Queue, host virtio.Host) error {
	u.taken, u.done = make(chan struct{}, 1), make(chan struct{})
	u.filled.Store(0)
	if u.packet == nil {
		u.packet = make([]byte, maxFrame)
	}
	_ = u.tap.SetReadDeadline(time.Time{})
	u.rx.Start(rx, host)
	u.tx.Start(tx, host)
	u.wg.Go(u.read)
	return nil
}

func (u *user) stop() {
	if u.done == nil {
		return
	}
	close(u.done)
	_ = u.tap.SetReadDeadline(time.Unix(1, 0))
	u.wg.Wait()
	u.rx.Stop()
	u.tx.Stop()
	u.done = nil
}

func (u *user) pause() error {
	u.rx.Pause()
	u.tx.Pause()
	return nil
}

func (u *user) resume() error {
	u.rx.Resume()
	u.tx.Resume()
	return nil
}

func (u *user) close() { u.tap.Close() }

// read fetches one packet at a time; while the guest has no buffer for it, the
// TAP's own queue fills and drops, as a network card does.
func (u *user) read() {
	for {
		n, err := u.tap.Read(u.packet)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
		if err != nil {
			// The interface is down (EIO) or gone (EBADFD). Ask again when something changes.
			if !u.idle() {
				return
			}
			continue
		}
		if n <= headerSize {
			continue
		}
		u.filled.Store(int32(n))
		u.rx.Wake()
		select {
		case <-u.taken:
		case <-u.done:
			return
		}
	}
}

// idle waits a moment while the TAP cannot be read, and returns false when the
// device is stopped.
func (u *user) idle() bool {
	timer := time.NewTimer(time.Second)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-u.done:
		return false
	}
}

// receive gives the packet to the guest.
func (u *user) receive(c *virtio.Chain) (uint32, error) {
	packet := u.packet[:u.filled.Load()]
	// num_buffers: always one, since buffers are not merged (section 5.1.6.4.1).
	binary.LittleEndian.PutUint16(packet[10:], 1)
	n := 0
	if len(packet) > virtio.Len(c.Write) {
		u.counters.RxDropped.Add(1)
	} else {
		n = c.CopyIn(packet)
		u.counters.RxPackets.Add(1)
		u.counters.RxBytes.Add(uint64(n - headerSize))
	}
	u.filled.Store(0)
	u.taken <- struct{}{}
	return uint32(n), nil
}

// transmit hands a packet of the guest to the TAP, from where it lies: the kernel
// copies it and checks the header.
func (u *user) transmit(c *virtio.Chain) (uint32, error) {
	n := virtio.Len(c.Read)
	if n <= headerSize || n > maxPacket {
		u.counters.TxErrors.Add(1)
		return 0, nil
	}
	raw, err := u.tap.SyscallConn()
	if err != nil {
		return 0, err
	}
	ctlErr := raw.Control(func(fd uintptr) { _, err = unix.Writev(int(fd), c.Read) })
	if ctlErr != nil || err != nil {
		u.counters.TxErrors.Add(1)
		return 0, nil
	}
	u.counters.TxPackets.Add(1)
	u.counters.TxBytes.Add(uint64(n - headerSize))
	return 0, nil
}
