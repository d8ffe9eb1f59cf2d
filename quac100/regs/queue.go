package regs

// Ring geometry. Indices run from 0 to size-1; HEAD is always the consumer's, TAIL always the producer's.
const (
	RingMin       = 16
	RingMax       = 4096
	RingAlign     = 4096
	CommandSize   = 64
	ResponseSize  = 32
	MaxTransfer   = 16 << 20
	TimeoutMinMS  = 10
	TimeoutMaxMS  = 600000
	MaxInFlightHi = 4096
)

// Bits of CMDQ_CTRL and RSPQ_CTRL.
const (
	QueueEnable uint32 = 1 << 0
	QueueAbort  uint32 = 1 << 2 // CMDQ only; write 1 to start
	QueueReset  uint32 = 1 << 3 // write 1 to start
)

// Bits of CMDQ_STATUS.
const (
	CMDQRunning  uint32 = 1 << 0
	CMDQEmpty    uint32 = 1 << 1
	CMDQFull     uint32 = 1 << 2
	CMDQHalted   uint32 = 1 << 3
	CMDQDraining uint32 = 1 << 4
	CMDQStalled  uint32 = 1 << 5
	CMDQPaused   uint32 = 1 << 6
)

// HaltReason is CMDQ_STATUS[15:8].
type HaltReason uint8

// Halt reasons.
const (
	HaltNone       HaltReason = 0
	HaltFetch      HaltReason = 1
	HaltWrite      HaltReason = 2
	HaltInternal   HaltReason = 3
	HaltErrorState HaltReason = 4
	HaltThermal    HaltReason = 5
	HaltReset      HaltReason = 6
)

// SplitCMDQStatus takes the halt reason and the number of commands in flight out of CMDQ_STATUS.
func SplitCMDQStatus(v uint32) (reason HaltReason, inFlight int) {
	return HaltReason(v >> 8), int(v >> 16)
}

// Bits of CMDQ_ERR.
const (
	CMDQErrBadTail    uint32 = 1 << 0
	CMDQErrFetchFault uint32 = 1 << 1
	CMDQErrBadCfg     uint32 = 1 << 2
	CMDQErrLocked     uint32 = 1 << 3
)

// Bits of RSPQ_STATUS.
const (
	RSPQRunning uint32 = 1 << 0
	RSPQEmpty   uint32 = 1 << 1
	RSPQFull    uint32 = 1 << 2
	RSPQHalted  uint32 = 1 << 3
	RSPQPhase   uint32 = 1 << 8
)

// Bits of RSPQ_ERR.
const (
	RSPQErrBadHead    uint32 = 1 << 0
	RSPQErrWriteFault uint32 = 1 << 1
	RSPQErrBadCfg     uint32 = 1 << 2
	RSPQErrLocked     uint32 = 1 << 3
)
