package regs

// Status is DEV_STATUS.
type Status uint32

// Bits of DEV_STATUS.
const (
	StatusReady           Status = 1 << 0
	StatusError           Status = 1 << 1
	StatusBusy            Status = 1 << 2
	StatusDMAActive       Status = 1 << 3
	StatusSelfTestOK      Status = 1 << 4
	StatusFIPSOK          Status = 1 << 5
	StatusQRNGReady       Status = 1 << 6
	StatusCryptoReady     Status = 1 << 7
	StatusTempWarn        Status = 1 << 8
	StatusTempCrit        Status = 1 << 9
	StatusEntropyLow      Status = 1 << 10
	StatusPowerWarn       Status = 1 << 11
	StatusTamper          Status = 1 << 12
	StatusRecovering      Status = 1 << 13
	StatusSelfTestRunning Status = 1 << 14
	StatusInitializing    Status = 1 << 15
	StatusCMDQRun         Status = 1 << 16
	StatusRSPQRun         Status = 1 << 17
	StatusHalted          Status = 1 << 18
	StatusThrottled       Status = 1 << 19
	StatusZeroized        Status = 1 << 20
	StatusFWBusy          Status = 1 << 21
	StatusFWPending       Status = 1 << 22
	StatusKeyStoreFull    Status = 1 << 23
)

// Control is DEV_CONTROL.
type Control uint32

// Bits of DEV_CONTROL.
const (
	ControlEnable      Control = 1 << 0
	ControlDMA         Control = 1 << 1
	ControlInt         Control = 1 << 2
	ControlCrypto      Control = 1 << 3
	ControlFIPS        Control = 1 << 4
	ControlQRNG        Control = 1 << 5
	ControlLowPower    Control = 1 << 6
	ControlZeroize     Control = 1 << 8  // write 1 to start
	ControlSelfTestRun Control = 1 << 12 // write 1 to start
	ControlReset       Control = 1 << 31 // write 1 to start

	// ControlRun is what a driver sets at bring-up.
	ControlRun = ControlEnable | ControlDMA | ControlInt | ControlCrypto | ControlQRNG
)

// Caps is DEV_CAPS: what the card can do.
type Caps uint32

// Bits of DEV_CAPS.
const (
	CapMLKEM512  Caps = 1 << 0
	CapMLKEM768  Caps = 1 << 1
	CapMLKEM1024 Caps = 1 << 2
	CapMLDSA44   Caps = 1 << 4
	CapMLDSA65   Caps = 1 << 5
	CapMLDSA87   Caps = 1 << 6
	CapSLHDSA    Caps = 1 << 8
	CapQRNG      Caps = 1 << 12
	CapKeyStore  Caps = 1 << 13
	CapAsync     Caps = 1 << 14
	CapBatch     Caps = 1 << 15
	CapDMA       Caps = 1 << 16
	CapSRIOV     Caps = 1 << 17
	CapFIPS      Caps = 1 << 18
	CapAER       Caps = 1 << 19
	CapFLR       Caps = 1 << 20
	CapAESGCM    Caps = 1 << 21
	CapSLHSHAKE  Caps = 1 << 22
	CapFWUpdate  Caps = 1 << 23
	CapPerf      Caps = 1 << 24
	CapSG        Caps = 1 << 25
	CapKeyWrap   Caps = 1 << 26
	CapSimulator Caps = 1 << 31

	CapMLKEM = CapMLKEM512 | CapMLKEM768 | CapMLKEM1024
	CapMLDSA = CapMLDSA44 | CapMLDSA65 | CapMLDSA87

	// CapsFull is DEV_CAPS of a card with all of version 1.
	CapsFull Caps = 0x07B5F177
)

// Caps2 is DEV_CAPS2: sizes, most of them as powers of two.
type Caps2 uint32

// MaxRing is the largest ring in entries.
func (c Caps2) MaxRing() int { return 1 << (c & 0xF) }

// MinRing is the smallest ring in entries.
func (c Caps2) MinRing() int { return 1 << (c >> 4 & 0xF) }

// CommandSize is the size of a command entry in bytes.
func (c Caps2) CommandSize() int { return 1 << (c >> 8 & 0xF) }

// ResponseSize is the size of a response entry in bytes.
func (c Caps2) ResponseSize() int { return 1 << (c >> 12 & 0xF) }

// QueuePairs is the number of ring pairs.
func (c Caps2) QueuePairs() int { return int(c >> 16 & 0xF) }

// Vectors is the number of MSI-X vectors.
func (c Caps2) Vectors() int { return int(c >> 20 & 0xFF) }

// MaxSG is the largest number of entries in a scatter-gather list.
func (c Caps2) MaxSG() int { return 1 << (c >> 28 & 0xF) }

// Caps2Default is DEV_CAPS2 of version 1.
const Caps2Default Caps2 = 0x8101564C

// Limits is DEV_LIMITS.
type Limits uint32

// MaxInFlight is the largest number of commands in flight.
func (l Limits) MaxInFlight() int { return int(l & 0xFFFF) }

// KeySlots is the number of key slots.
func (l Limits) KeySlots() int { return int(l >> 16) }

// Rev splits DEV_REV.
func Rev(v uint32) (silicon, minor, major uint8) { return uint8(v), uint8(v >> 8), uint8(v >> 16) }

// Version splits FW_VERSION.
func Version(v uint32) (major, minor uint8, patch uint16) {
	return uint8(v >> 24), uint8(v >> 16), uint16(v)
}

// ErrBit is one bit number of ERR_STATUS.
type ErrBit uint8

// Bits of ERR_STATUS. Bits 1 to 10 raise CauseError, ErrFatal raises CauseFatal.
const (
	ErrAccess          ErrBit = 0
	ErrDMA             ErrBit = 1
	ErrCMDQ            ErrBit = 2
	ErrRSPQ            ErrBit = 3
	ErrCryptoInternal  ErrBit = 4
	ErrSelfTest        ErrBit = 5
	ErrQRNGHealth      ErrBit = 6
	ErrThermalShutdown ErrBit = 7
	ErrKeyStore        ErrBit = 8
	ErrFirmware        ErrBit = 9
	ErrWatchdog        ErrBit = 10
	ErrTamper          ErrBit = 11
	ErrFatal           ErrBit = 31
)

// Mask is the bit's value in ERR_STATUS.
func (b ErrBit) Mask() uint32 { return 1 << b }

// Values of THERM_STATE.
const (
	ThermNormal   = 0
	ThermWarning  = 1
	ThermCritical = 2
	ThermShutdown = 3
)

// Bits of SELFTEST_STATUS.
const (
	SelfTestRunning uint32 = 1 << 0
	SelfTestPassed  uint32 = 1 << 1
	SelfTestFailed  uint32 = 1 << 2
)

// Bits of FIPS_STATUS.
const (
	FIPSOn     uint32 = 1 << 0
	FIPSTested uint32 = 1 << 1
	FIPSError  uint32 = 1 << 2
)

// KeyZeroizeToken is what KEY_ZEROIZE wants to see: "ZERO".
const KeyZeroizeToken uint32 = 0x5A45524F

// Tokens of RESET.
const (
	ResetSoft  uint32 = 0x52535430
	ResetAbort uint32 = 0x52535431
	ResetRing  uint32 = 0x52535432
	ResetFull  uint32 = 0x52535446
)

// Values of the low byte of RESET_CAUSE.
const (
	CausePowerUp  = 0
	CauseSoft     = 1
	CauseAbort    = 2
	CauseRing     = 3
	CauseFull     = 4
	CauseFLR      = 5
	CauseWatchdog = 6
	CauseFWSwitch = 7
)

// SplitResetCause splits RESET_CAUSE.
func SplitResetCause(v uint32) (cause, softCount uint8) { return uint8(v), uint8(v >> 8) }

// Thermal thresholds: the least distance between two of them, and the hysteresis when falling, in milli-degrees Celsius.
const ThermStep = 5000
