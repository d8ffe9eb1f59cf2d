package regs

import "fmt"

// Cause is a bit number of INT_CAUSE, INT_ENABLE, INT_MASK, INT_FORCE and INT_AUTOCLR.
type Cause uint8

// Interrupt causes.
const (
	CausePair0        Cause = 0 // 0 to 3 are reserved for queue pairs
	CauseDMAError     Cause = 4
	CauseCMDQHalt     Cause = 5
	CauseRSPQFull     Cause = 6
	CauseRspAvail     Cause = 8
	CauseCryptoError  Cause = 9
	CauseCMDQEmpty    Cause = 10
	CauseEntropyLow   Cause = 12
	CauseEntropyReady Cause = 13
	CauseSelfTestDone Cause = 14
	CauseTemp         Cause = 16
	CausePower        Cause = 17
	CauseThrottle     Cause = 18
	CauseTamper       Cause = 20
	CauseKeyEvent     Cause = 21
	CauseFWEvent      Cause = 22
	CauseError        Cause = 24
	CauseQRNGHealth   Cause = 25
	CauseFatal        Cause = 31
)

var causeNames = map[Cause]string{
	CauseDMAError: "DMA error", CauseCMDQHalt: "ring halted", CauseRSPQFull: "response ring full", CauseRspAvail: "responses",
	CauseCryptoError: "crypto error", CauseCMDQEmpty: "ring empty", CauseEntropyLow: "entropy low", CauseEntropyReady: "entropy ready",
	CauseSelfTestDone: "self-test done", CauseTemp: "temperature", CausePower: "power", CauseThrottle: "throttle",
	CauseTamper: "tamper", CauseKeyEvent: "keys", CauseFWEvent: "firmware", CauseError: "error", CauseQRNGHealth: "QRNG health",
	CauseFatal: "fatal",
}

func (c Cause) String() string {
	if n, ok := causeNames[c]; ok {
		return n
	}
	return fmt.Sprintf("cause %d", uint8(c))
}

// Mask is the cause's bit.
func (c Cause) Mask() uint32 { return 1 << c }

// Causes is every cause that has a meaning.
const Causes uint32 = 0xF | 1<<CauseDMAError | 1<<CauseCMDQHalt | 1<<CauseRSPQFull | 1<<CauseRspAvail |
	1<<CauseCryptoError | 1<<CauseCMDQEmpty | 1<<CauseEntropyLow | 1<<CauseEntropyReady | 1<<CauseSelfTestDone |
	1<<CauseTemp | 1<<CausePower | 1<<CauseThrottle | 1<<CauseTamper | 1<<CauseKeyEvent | 1<<CauseFWEvent |
	1<<CauseError | 1<<CauseQRNGHealth | 1<<CauseFatal

// Vectors of the reset routing.
const (
	VectorErrors    = 0
	VectorResponses = 1
	VectorCrypto    = 5
	VectorQRNG      = 6
	VectorThermal   = 7
	VectorKeys      = 8
	VectorFirmware  = 9
)

// Bits of MSIX_CONTROL.
const (
	MSIXEnabled      uint32 = 1 << 0 // read only
	MSIXMasked       uint32 = 1 << 1 // read only
	MSIXSingleVector uint32 = 1 << 8 // send every cause on vector 0
)

// Coalesce is INT_COALESCE.
type Coalesce uint32

// CoalesceEnable is its switch.
const CoalesceEnable Coalesce = 1 << 31

// NewCoalesce makes an enabled INT_COALESCE of a time in microseconds and a count of responses.
func NewCoalesce(us uint16, count uint8) Coalesce {
	return CoalesceEnable | Coalesce(count)<<16 | Coalesce(us)
}

// Micros is the longest time an uncounted response waits.
func (c Coalesce) Micros() int { return int(c & 0xFFFF) }

// Count is the number of responses that makes an event.
func (c Coalesce) Count() int { return int(c >> 16 & 0xFF) }

// Route returns the routing register and the shift of a cause's vector nibble in it.
func (c Cause) Route() (Reg, uint) { return IntRoute0 + Reg(c/8)*4, uint(c%8) * 4 }
