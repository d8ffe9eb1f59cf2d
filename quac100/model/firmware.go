package model

import (
	"bytes"
	"crypto/sha3"
	"time"

	"github.com/cloudflare/circl/sign/mldsa/mldsa87"

	"quantavirt/quac100/regs"
)

// firmware is the update block: two banks, of which one runs. An image goes into memory of the card, is checked there and
// only then written to the idle bank; after a reset it runs on trial until it is committed.
type firmware struct {
	state     regs.FWState
	unlocked  time.Time // until when steps are taken
	task      uint32    // the step under way: a bit of FW_CTRL
	stage     []byte
	banks     [2]bank
	running   int
	next      int
	good      int // bank of the last commit
	committed bool
	trial     *time.Timer
	epoch     int // of the staging; a reset drops what a task does
	cut       bool
	flash     bool // programming fails
}

// bank is one place for an image.
type bank struct {
	valid                  bool
	version, build, secver uint32
}

const (
	fwUnlockTime = 60 * time.Second
	fwTrialTime  = 10 * time.Minute
	fwBootTries  = 3
)

func (c *Card) initFirmware() {
	g := &c.cfg
	f := &c.fw
	f.banks[0] = bank{true, g.FWVersion, g.FWBuild, g.FWSecVer}
	f.committed = true
}

// showFirmware stores what does not change by itself in the registers.
func (c *Card) showFirmware() {
	f := &c.fw
	run := &f.banks[f.running]
	c.set(regs.FWVersion, run.version)
	c.set(regs.FWBuild, run.build)
	c.set(regs.FWSecVer, run.secver)
	for i, r := range []regs.Reg{regs.FWAVersion, regs.FWBVersion} {
		b := f.banks[i]
		if !b.valid {
			b = bank{}
		}
		c.set(r, b.version)
		c.set(r+4, b.secver)
	}
	if len(c.cfg.FWKey) > 0 {
		id := sha3.Sum256(c.cfg.FWKey)
		c.set(regs.FWKeyID, le.Uint32(id[:]))
	}
}

func (c *Card) fwStatus() uint32 {
	f := &c.fw
	v := uint32(f.state)
	for _, b := range []struct {
		bit uint32
		on  bool
	}{
		{regs.FWBusy, f.task != 0}, {regs.FWBankAValid, f.banks[0].valid}, {regs.FWBankBValid, f.banks[1].valid},
		{regs.FWRunningBank, f.running == 1}, {regs.FWNextBank, f.next == 1}, {regs.FWCommitted, f.committed},
		{regs.FWLastGood, f.banks[f.good].valid},
	} {
		if b.on {
			v |= b.bit
		}
	}
	return v
}

func (c *Card) writeFirmware(r regs.Reg, v uint32) {
	switch r {
	case regs.FWCtrl:
		c.fwStep(v)
	case regs.FWUnlock:
		c.fwUnlock(v == regs.FWUnlockToken)
	default: // addresses and lengths
		c.set(r, v)
	}
}

func (c *Card) fwUnlock(token bool) {
	f := &c.fw
	f.unlocked = time.Time{}
	if token {
		f.unlocked = time.Now().Add(fwUnlockTime)
	}
	switch {
	case token && f.state == regs.FWIdle:
		f.state = regs.FWUnlocked
	case !token && f.state == regs.FWUnlocked:
		f.state = regs.FWIdle
	}
}

// fwFail ends a step with an error; what was staged is erased.
func (c *Card) fwFail(e regs.FWErrorCode) {
	c.set(regs.FWError, uint32(e))
	c.dropStage()
	c.fw.state = regs.FWFailed
	c.raise(regs.CauseFWEvent)
}

func (c *Card) dropStage() {
	f := &c.fw
	clear(f.stage)
	f.stage, f.task = nil, 0
	f.epoch++
	c.set(regs.FWBytes, 0)
}

// fwFrom names the states that a step may be taken in; steps that are not there may be taken in any.
var fwFrom = map[uint32][]regs.FWState{
	regs.FWBegin: {regs.FWUnlocked}, regs.FWLoad: {regs.FWReceiving}, regs.FWVerify: {regs.FWLoaded},
	regs.FWActivate: {regs.FWVerified}, regs.FWCommit: {regs.FWTrial}, regs.FWRollback: {regs.FWUnlocked, regs.FWTrial},
}

// fwStep starts the step of one bit of FW_CTRL.
func (c *Card) fwStep(bit uint32) {
	f := &c.fw
	if bit == regs.FWAbort {
		c.set(regs.FWError, 0)
		c.dropStage()
		if f.state != regs.FWTrial {
			f.state, f.next = regs.FWIdle, f.running
		}
		return
	}
	from, known := fwFrom[bit]
	if !known || f.task != 0 {
		c.accessError(uint64(regs.FWCtrl)) // none, several at once, or one is under way
		return
	}
	allowed := false
	for _, s := range from {
		allowed = allowed || f.state == s
	}
	switch {
	case time.Now().After(f.unlocked):
		c.fwRefuse(regs.FWErrLocked)
		return
	case !allowed:
		c.fwRefuse(regs.FWErrOrder)
		return
	}
	f.unlocked = time.Now().Add(fwUnlockTime)
	switch bit {
	case regs.FWBegin:
		c.fwBegin()
	case regs.FWCommit:
		c.fwCommit()
	case regs.FWRollback:
		c.fwRollback()
	default:
		f.task = bit
		c.progressFW(0)
		c.fwC.Signal()
	}
}

// fwRefuse says why a step was not taken; an image on trial stays so.
func (c *Card) fwRefuse(e regs.FWErrorCode) {
	if c.fw.state == regs.FWTrial {
		c.set(regs.FWError, uint32(e))
		c.raise(regs.CauseFWEvent)
		return
	}
	c.fwFail(e)
}

func (c *Card) fwBegin() {
	f := &c.fw
	c.set(regs.FWError, 0)
	n := c.get(regs.FWImageLen)
	switch {
	case n <= regs.FWHeaderSize+regs.FWSignatureSize || n > regs.FWImageMax:
		c.fwFail(regs.FWErrLength)
	case c.get(regs.FWBankSel) != uint32(1-f.running):
		c.fwFail(regs.FWErrOrder)
	default:
		c.dropStage()
		f.stage = make([]byte, 0, n)
		f.state = regs.FWReceiving
		c.raise(regs.CauseFWEvent)
	}
}

func (c *Card) fwCommit() {
	f := &c.fw
	f.committed, f.good, f.state = true, f.running, regs.FWIdle
	c.set(regs.FWMinSecVer, max(c.get(regs.FWMinSecVer), f.banks[f.running].secver))
	c.set(regs.FWBootTries, 0)
	c.stopTrial()
	c.raise(regs.CauseFWEvent)
}

func (c *Card) fwRollback() {
	f := &c.fw
	other := &f.banks[1-f.running]
	switch {
	case !other.valid:
		c.fwRefuse(regs.FWErrOrder)
	case other.secver < c.get(regs.FWMinSecVer):
		c.fwRefuse(regs.FWErrRollback)
	default:
		f.next, f.state = 1-f.running, regs.FWActivated
		c.stopTrial()
		c.raise(regs.CauseFWEvent)
	}
}

func (c *Card) stopTrial() {
	if c.fw.trial != nil {
		c.fw.trial.Stop()
		c.fw.trial = nil
	}
}

// progressFW shows how far a step is, in parts of a thousand.
func (c *Card) progressFW(permille uint32) {
	c.set(regs.FWProgress, uint32(c.fw.state)<<16|permille)
}

// fwLoop does the steps that take time.
func (c *Card) fwLoop() {
	c.lock()
	defer c.unlock()
	for !c.stop {
		if c.fw.task == 0 || c.faults.hang != HangNone {
			c.wait(c.fwC)
			continue
		}
		task, epoch := c.fw.task, c.fw.epoch
		var e regs.FWErrorCode
		switch task {
		case regs.FWLoad:
			e = c.fwLoad(epoch)
		case regs.FWVerify:
			e = c.fwVerify(epoch)
		case regs.FWActivate:
			e = c.fwActivate(epoch)
		}
		if c.fw.epoch != epoch {
			continue // dropped meanwhile
		}
		c.fw.task = 0
		if e != regs.FWErrNone {
			c.fwFail(e)
			continue
		}
		c.progressFW(1000)
		c.raise(regs.CauseFWEvent)
	}
}

// fwLoad fetches one chunk; called with the lock, which it gives up meanwhile.
func (c *Card) fwLoad(epoch int) regs.FWErrorCode {
	f := &c.fw
	n, at := c.get(regs.FWStageLen), c.get(regs.FWStageOffset)
	whole := uint32(cap(f.stage))
	if n == 0 || n > regs.FWChunkMax || at != uint32(len(f.stage)) || n > whole-at {
		return regs.FWErrLength
	}
	buf := make([]byte, n)
	if err := c.transfer(&access{gen: c.gen, iova: c.get64(regs.FWStageAddrLo), data: buf}); err != nil {
		return regs.FWErrDMA
	}
	if f.epoch != epoch {
		return 0
	}
	f.stage = append(f.stage, buf...)
	c.set(regs.FWBytes, uint32(len(f.stage)))
	if len(f.stage) == int(whole) {
		f.state = regs.FWLoaded
		sum := sha3.Sum512(f.stage[regs.FWHeaderSize : len(f.stage)-regs.FWSignatureSize])
		for i := range 16 {
			c.set(regs.FWDigest0+regs.Reg(4*i), le.Uint32(sum[4*i:]))
		}
	}
	return 0
}

// fwVerify checks the staged image; the lock is free meanwhile.
func (c *Card) fwVerify(epoch int) regs.FWErrorCode {
	f := &c.fw
	f.state = regs.FWVerifying
	image, least := f.stage, c.get(regs.FWMinSecVer)
	c.unlock()
	e := verifyImage(image, c.cfg.FWKey, least)
	c.lock()
	if e == 0 && f.epoch == epoch {
		f.state = regs.FWVerified
	}
	return e
}

// verifyImage checks an image against the trusted key and the lowest security version.
func verifyImage(image, key []byte, least uint32) regs.FWErrorCode {
	h, err := regs.ParseFWHeader(image)
	if err != nil {
		return regs.FWErrLength
	}
	payload, sig := image[regs.FWHeaderSize:len(image)-regs.FWSignatureSize], image[len(image)-regs.FWSignatureSize:]
	signer := sha3.Sum256(key)
	switch {
	case string(h.Magic[:]) != regs.FWMagic || h.Version != regs.FWHeaderVersion || h.HeaderLen != regs.FWHeaderSize || h.Flags != 0 ||
		h.Reserved0 != 0 || h.Reserved1 != [8]byte{} || h.Reserved2 != [64]byte{} || h.SigAlg != regs.MLDSA87 ||
		h.HashID != regs.FWHashSHA3512 || h.SignatureLen != regs.FWSignatureSize || h.SecVer > 255:
		return regs.FWErrHeader
	case h.Product != regs.IDWord || h.HWLow > regs.Revision || h.HWHigh < regs.Revision:
		return regs.FWErrProduct
	case int(h.PayloadLen) != len(payload):
		return regs.FWErrLength
	case sha3.Sum512(payload) != h.Digest:
		return regs.FWErrDigest
	case len(key) != mldsa87.PublicKeySize || !bytes.Equal(signer[:], h.Signer[:]):
		return regs.FWErrSigner
	case !circlVerify(regs.MLDSA87, key, []byte(regs.FWSignatureLabel), image[:regs.FWHeaderSize], sig):
		return regs.FWErrSignature
	case h.SecVer < least:
		return regs.FWErrRollback
	}
	return 0
}

// fwActivate writes the idle bank. While it is written the bank is not valid: a power cut leaves the running one.
func (c *Card) fwActivate(epoch int) regs.FWErrorCode {
	f := &c.fw
	h, err := regs.ParseFWHeader(f.stage)
	if err != nil {
		return regs.FWErrHeader
	}
	f.state = regs.FWProgramming
	idle := 1 - f.running
	f.banks[idle] = bank{}
	c.showFirmware()
	if f.cut {
		f.cut = false
		c.resetConfig()
		c.reset(resetPower)
		return 0
	}
	if f.flash {
		return regs.FWErrFlash
	}
	if f.epoch != epoch {
		return 0
	}
	f.banks[idle] = bank{true, h.FWVersion, h.Build, h.SecVer}
	f.next, f.state = idle, regs.FWActivated
	clear(f.stage)
	f.stage = nil
	c.showFirmware()
	return 0
}

// bootFirmware is what a full reset or power-up does to the banks. It returns the cause of the reset, 0 if nothing special.
func (c *Card) bootFirmware() (cause uint8) {
	f := &c.fw
	c.stopTrial()
	switch {
	case f.next != f.running:
		f.running = f.next
		f.committed = f.running == f.good
		cause = regs.CauseFWSwitch
		c.set(regs.FWBootTries, 0)
	case !f.committed && c.get(regs.FWBootTries)+1 >= fwBootTries || f.state == regs.FWFailed && !f.committed:
		f.running, f.next, f.committed = f.good, f.good, true
		cause = regs.CauseWatchdog
	}
	f.state = regs.FWIdle
	if !f.committed {
		f.state = regs.FWTrial
		c.set(regs.FWBootTries, c.get(regs.FWBootTries)+1)
		f.trial = time.AfterFunc(c.cfg.FWTrialTime, c.endTrial)
	} else {
		c.set(regs.FWBootTries, 0)
	}
	c.showFirmware()
	return cause
}

// endTrial is the watchdog of an image that nobody committed: the card restarts with the bank before it.
func (c *Card) endTrial() {
	c.lock()
	defer c.unlock()
	c.revert()
}

func (c *Card) revert() {
	if c.stop || c.fw.state != regs.FWTrial {
		return
	}
	c.fw.state = regs.FWFailed
	c.reset(resetFull)
}

// FailFlash lets the programming of a bank fail.
func (c *Card) FailFlash(on bool) { c.inject(func() { c.fw.flash = on }) }

// CutPower makes the next programming of a bank end with a power cut and a new start.
func (c *Card) CutPower() { c.inject(func() { c.fw.cut = true }) }

// SignFirmware makes an image as the maker does: header fields that follow from the rest are filled in.
func SignFirmware(key *mldsa87.PrivateKey, h regs.FWHeader, payload []byte) ([]byte, error) {
	public := key.Public().(*mldsa87.PublicKey).Bytes()
	copy(h.Magic[:], regs.FWMagic)
	h.Version, h.HeaderLen, h.Product = regs.FWHeaderVersion, regs.FWHeaderSize, regs.IDWord
	h.HWLow, h.HWHigh = regs.Revision, regs.Revision
	h.PayloadLen, h.SigAlg, h.HashID, h.SignatureLen = uint32(len(payload)), regs.MLDSA87, regs.FWHashSHA3512, regs.FWSignatureSize
	h.Digest, h.Signer = sha3.Sum512(payload), sha3.Sum256(public)
	image := h.Append(nil)
	sig := make([]byte, regs.FWSignatureSize)
	if err := mldsa87.SignTo(key, image, []byte(regs.FWSignatureLabel), true, sig); err != nil {
		return nil, err
	}
	return append(append(image, payload...), sig...), nil
}
