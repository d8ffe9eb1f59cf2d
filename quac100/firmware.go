package quac100

import (
	"context"
	"errors"
	"fmt"
	"time"

	"quantavirt/internal/qverr"
	"quantavirt/quac100/regs"
)

// Firmware is what the card says of its banks.
type Firmware struct {
	State      regs.FWState     // of the update
	Error      regs.FWErrorCode // of the last step
	Running    int              // bank 0 or 1
	Next       int              // bank after the next reset
	Committed  bool             // the running image is not on trial
	Valid      [2]bool
	Version    [2]uint32 // as regs.Version splits it; 0 for an empty bank
	SecVersion [2]uint32
	MinSecVer  uint32
	BootTries  uint32
}

// Firmware reads the state of the banks.
func (c *Card) Firmware() Firmware {
	v := c.bus.Read32(regs.FWStatus)
	bit := func(b uint32) int {
		if v&b != 0 {
			return 1
		}
		return 0
	}
	return Firmware{
		State: regs.FWState(v & regs.FWStateMask), Error: regs.FWErrorCode(c.bus.Read32(regs.FWError)),
		Running: bit(regs.FWRunningBank), Next: bit(regs.FWNextBank), Committed: v&regs.FWCommitted != 0,
		Valid:      [2]bool{v&regs.FWBankAValid != 0, v&regs.FWBankBValid != 0},
		Version:    [2]uint32{c.bus.Read32(regs.FWAVersion), c.bus.Read32(regs.FWBVersion)},
		SecVersion: [2]uint32{c.bus.Read32(regs.FWASecVer), c.bus.Read32(regs.FWBSecVer)},
		MinSecVer:  c.bus.Read32(regs.FWMinSecVer), BootTries: c.bus.Read32(regs.FWBootTries),
	}
}

// stepTime bounds one step of an update; programming is the longest.
const stepTime = 60 * time.Second

// UpdateFirmware gives an image to the card, which checks it and writes it to
// the idle bank; operations go on meanwhile. progress, which may be nil, is told
// of bytes. The image starts with Reset and must then be committed with
// CommitFirmware within ten minutes, or the card goes back to the old one.
// QUACFWUpdate when the card refuses the image: nothing has changed then.
func (c *Card) UpdateFirmware(ctx context.Context, image []byte, progress func(done, total int)) error {
	if len(image) > regs.FWImageMax || len(image) <= regs.FWHeaderSize+regs.FWSignatureSize {
		return qverr.New(qverr.QUACFWUpdate, "a firmware image of %d bytes can not be one", len(image))
	}
	c.updating.Lock()
	defer c.updating.Unlock()
	if f := c.failure.Load(); f != nil {
		return f.err
	}
	if !c.callers.enter() {
		return c.given()
	}
	defer c.callers.leave()
	err := c.update(ctx, image, progress)
	if err != nil {
		c.bus.Write32(regs.FWCtrl, regs.FWAbort)
	}
	return err
}

func (c *Card) update(ctx context.Context, image []byte, progress func(done, total int)) error {
	c.bus.Write32(regs.FWCtrl, regs.FWAbort)
	c.bus.Write32(regs.FWUnlock, regs.FWUnlockToken)
	c.bus.Write32(regs.FWImageLen, uint32(len(image)))
	c.bus.Write32(regs.FWBankSel, uint32(1-c.Firmware().Running))
	if err := c.fwStep(ctx, regs.FWBegin, regs.FWReceiving); err != nil {
		return err
	}
	if err := c.fwLoad(ctx, image, progress); err != nil {
		return err
	}
	if err := c.fwStep(ctx, regs.FWVerify, regs.FWVerified); err != nil {
		return err
	}
	return c.fwStep(ctx, regs.FWActivate, regs.FWActivated)
}

// fwLoad passes the image on, chunk by chunk, through one block of the pool.
func (c *Card) fwLoad(ctx context.Context, image []byte, progress func(done, total int)) error {
	b, err := c.pool.get(ctx, blockClasses-1)
	if err != nil {
		return err
	}
	defer c.pool.put(b, len(b.Bytes))
	for done := 0; done < len(image); {
		n := copy(b.Bytes, image[done:])
		for r, v := range map[regs.Reg]uint32{
			regs.FWStageAddrLo: uint32(b.IOVA), regs.FWStageAddrHi: uint32(b.IOVA >> 32),
			regs.FWStageLen: uint32(n), regs.FWStageOffset: uint32(done),
		} {
			c.bus.Write32(r, v)
		}
		want := regs.FWReceiving
		if done += n; done == len(image) {
			want = regs.FWLoaded
		}
		if err := c.fwStep(ctx, regs.FWLoad, want); err != nil {
			return err
		}
		if progress != nil {
			progress(done, len(image))
		}
	}
	return nil
}

// fwStep starts a step and waits until it has led to a state.
func (c *Card) fwStep(ctx context.Context, step uint32, want regs.FWState) error {
	c.bus.Write32(regs.FWCtrl, step)
	var v uint32
	err := c.poll(ctx, stepTime, func() (bool, error) {
		if v = c.bus.Read32(regs.FWStatus); v == regs.GoneWord {
			return false, qverr.New(qverr.QUACNotFound, "card %s no longer answers", c.bus.Address())
		}
		return v&regs.FWBusy == 0, nil
	})
	if errors.Is(err, errPoll) {
		return qverr.New(qverr.QUACFWUpdate, "a step of the firmware update of card %s takes longer than %s", c.bus.Address(), stepTime)
	}
	if err != nil {
		return err
	}
	if got := regs.FWState(v & regs.FWStateMask); got != want {
		why := regs.FWErrorCode(c.bus.Read32(regs.FWError))
		return qverr.New(qverr.QUACFWUpdate, "card %s refuses the firmware: %s", c.bus.Address(), why).With("reason", fmt.Sprint(uint32(why)))
	}
	return nil
}

// CommitFirmware keeps the running image for good and raises the lowest
// security version that the card accepts to its own.
func (c *Card) CommitFirmware(ctx context.Context) error {
	c.updating.Lock()
	defer c.updating.Unlock()
	c.bus.Write32(regs.FWUnlock, regs.FWUnlockToken)
	return c.fwStep(ctx, regs.FWCommit, regs.FWIdle)
}

// RollbackFirmware arms the other bank; Reset starts it.
func (c *Card) RollbackFirmware(ctx context.Context) error {
	c.updating.Lock()
	defer c.updating.Unlock()
	c.bus.Write32(regs.FWUnlock, regs.FWUnlockToken)
	return c.fwStep(ctx, regs.FWRollback, regs.FWActivated)
}
