package model

import (
	"context"
	"crypto/rand"
	"io"
	"runtime"
	"sync"
	"time"

	"quantavirt/quac100/regs"
)

// Config describes one card. Zero fields take the values of the default model.
type Config struct {
	Serial    uint64 // 0 for 0x51430001
	FWVersion uint32 // 0 for 1.0.0
	FWBuild   uint32
	FWSecVer  uint32 // 0 for 1

	TempCore  int32 // milli-degrees Celsius
	TempMem   int32
	TempBoard int32
	TempVRM   int32
	VCoreMV   uint32
	VAuxMV    uint32
	PowerMW   uint32
	ClockMHz  uint32

	// Entropy feeds the raw samples of the QRNG sources; nil is the host's random reader. A seeded stream makes the
	// card's random output repeatable as far as the order of its commands is.
	Entropy io.Reader
	// HostMSIX says that the environment keeps the MSI-X table and masks vectors itself, as QEMU and VFIO do.
	HostMSIX bool
	// Workers is the number of commands executed at once, 0 for the number of processors, at least 2.
	Workers int
	// KeyFile holds the persistent keys; empty: they live as long as the Card. It is made with mode 0600, and has the keys
	// in clear text, as the flash memory of a real card may.
	KeyFile string
	// FWKey is the public ML-DSA-87 key that firmware images must be signed with; without one none is accepted.
	FWKey []byte
	// FWTrialTime is how long an image runs without a commit; 0 for 10 minutes.
	FWTrialTime time.Duration
	// FailSelfTest names self-tests that fail from power-up on.
	FailSelfTest regs.SelfTest
}

func (c *Config) setDefaults() {
	def := func(p *uint32, v uint32) {
		if *p == 0 {
			*p = v
		}
	}
	temp := func(p *int32, v int32) {
		if *p == 0 {
			*p = v
		}
	}
	if c.Serial == 0 {
		c.Serial = 0x51430001
	}
	def(&c.FWVersion, 0x01000000)
	def(&c.FWSecVer, 1)
	temp(&c.TempCore, 45000)
	temp(&c.TempMem, 42000)
	temp(&c.TempBoard, 40000)
	temp(&c.TempVRM, 50000)
	def(&c.VCoreMV, 850)
	def(&c.VAuxMV, 3300)
	def(&c.PowerMW, 25000)
	def(&c.ClockMHz, 1000)
	if c.Entropy == nil {
		c.Entropy = rand.Reader
	}
	if c.FWTrialTime == 0 {
		c.FWTrialTime = fwTrialTime
	}
	if c.Workers <= 0 {
		c.Workers = max(2, runtime.GOMAXPROCS(0))
	}
}

// phase is the part of the device state that is not derived from registers.
type phase uint8

const (
	phaseReset    phase = iota // work is being dropped; registers read 0
	phaseInit                  // self-tests run
	phaseOK                    // READY, RUNNING, HALTED or THERMAL
	phaseError                 // a self-test or the firmware failed
	phaseShutdown              // too hot
	phaseZeroized              // tamper
)

const regWords = 0x900 / 4

// Card is one QUAC 100. Its methods may be called from any goroutine.
type Card struct {
	cfg Config
	ops map[regs.Opcode]*op

	mu    sync.Mutex
	out   []int // vectors to send when mu is released
	host  Host
	world sync.WaitGroup
	stop  bool

	// Conditions on mu: work for the fetcher, the workers, the poster, the manager, the filler and the saver; any progress.
	fetchC, jobC, postC, manageC, fillC, saveC, fwC, progress *sync.Cond

	config [regs.CfgSize]byte
	reg    [regWords]uint32 // registers that are plain storage
	phase  phase
	gen    uint64 // of the commands; a reset starts a new one

	powerUp, uptime, heart time.Time

	msix    msix
	irq     irq
	queue   queue
	dma     dmaState
	manager manager
	qrng    *qrng
	keys    keyStore
	fw      firmware
	perf    perf
	thermal thermal
	faults  faults
	fwDead  bool // the firmware failed: every command answers FW_ERROR
}

// New powers up a card. Its self-tests run in the background: see WaitReady.
func New(cfg Config) (*Card, error) {
	cfg.setDefaults()
	c := &Card{cfg: cfg, ops: buildOps(), host: nobody{}}
	for _, p := range []**sync.Cond{&c.fetchC, &c.jobC, &c.postC, &c.manageC, &c.fillC, &c.saveC, &c.fwC, &c.progress} {
		*p = sync.NewCond(&c.mu)
	}
	c.queue.running = make(map[*command]struct{})
	c.faults.selfTest = cfg.FailSelfTest
	c.qrng = newQRNG(cfg.Entropy)
	if err := c.loadKeys(); err != nil {
		return nil, err
	}
	c.initFirmware()
	c.lock()
	c.resetConfig()
	c.reset(resetPower)
	c.unlock()
	for _, run := range []func(){c.fetchLoop, c.postLoop, c.manageLoop, c.fillLoop, c.saveLoop, c.fwLoop} {
		c.world.Go(run)
	}
	for range cfg.Workers {
		c.world.Go(c.workLoop)
	}
	return c, nil
}

// Connect gives the card its surroundings; nil takes them away. Accesses under way to the old host end first.
func (c *Card) Connect(h Host) {
	if h == nil {
		h = nobody{}
	}
	c.lock()
	defer c.unlock()
	c.host = h
	for c.dma.busy > 0 {
		c.progress.Wait()
	}
}

// WaitReady waits until the card has left its start-up, and says whether it is ready. It is for programs in the same
// process; a driver polls DEV_STATUS.
func (c *Card) WaitReady(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() {
		c.lock()
		defer c.unlock()
		c.progress.Broadcast()
	})
	defer stop()
	c.lock()
	defer c.unlock()
	for c.phase == phaseReset || c.phase == phaseInit {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if c.stop {
			return errClosed
		}
		c.progress.Wait()
	}
	if c.phase != phaseOK {
		return errNotReady
	}
	return nil
}

// Close ends the card's goroutines. Commands in flight are dropped.
func (c *Card) Close() error {
	c.lock()
	c.stop = true
	c.dropAll()
	c.irq.stopTimers()
	c.stopTrial()
	for _, p := range []*sync.Cond{c.fetchC, c.jobC, c.postC, c.manageC, c.fillC, c.saveC, c.fwC, c.progress} {
		p.Broadcast()
	}
	c.unlock()
	c.world.Wait()
	return nil
}

func (c *Card) lock() { c.mu.Lock() }

// unlock releases the lock, then sends the interrupts that became due under it.
func (c *Card) unlock() {
	out, h := c.out, c.host
	c.out = nil
	c.mu.Unlock()
	for _, v := range out {
		h.Interrupt(v)
	}
}

func (c *Card) get(r regs.Reg) uint32    { return c.reg[r/4] }
func (c *Card) set(r regs.Reg, v uint32) { c.reg[r/4] = v }

// get64 and set64 access a LO/HI pair.
func (c *Card) get64(lo regs.Reg) uint64 { return uint64(c.get(lo+4))<<32 | uint64(c.get(lo)) }
func (c *Card) set64(lo regs.Reg, v uint64) {
	c.set(lo, uint32(v))
	c.set(lo+4, uint32(v>>32))
}

// add64 adds to a 64-bit counter.
func (c *Card) add64(lo regs.Reg, v uint64) { c.set64(lo, c.get64(lo)+v) }

// inc counts up to the largest value and stays there.
func (c *Card) inc(r regs.Reg) {
	if v := c.get(r); v != ^uint32(0) {
		c.set(r, v+1)
	}
}

func (c *Card) control() regs.Control { return regs.Control(c.get(regs.DevControl)) }
func (c *Card) fips() bool            { return c.control()&regs.ControlFIPS != 0 }
