package regs

// Bits of DMA_CONTROL.
const (
	DMAEnable uint32 = 1 << 0
	DMAReset  uint32 = 1 << 1 // write 1 to start; needs both queues off
	DMASG     uint32 = 1 << 2
)

// DMA_STATUS: the state in bits 1:0, and a bit.
const (
	DMAIdle    uint32 = 0
	DMARunning uint32 = 1
	DMAStopped uint32 = 2
	DMAFailed  uint32 = 3
	DMALatched uint32 = 1 << 8
)

// Bits of DMA_ERROR.
const (
	DMAErrReadFault   uint32 = 1 << 0
	DMAErrWriteFault  uint32 = 1 << 1
	DMAErrUnmapped    uint32 = 1 << 2
	DMAErrAlign       uint32 = 1 << 3
	DMAErrOutOfWindow uint32 = 1 << 4
	DMAErrSGFormat    uint32 = 1 << 5
	DMAErrLength      uint32 = 1 << 6
	DMAErrTimeout     uint32 = 1 << 7
	DMAErrMore        uint32 = 1 << 31
)

// Bits of DMA_XLAT_CTRL.
const (
	XlatWindow uint32 = 1 << 0
	XlatOffset uint32 = 1 << 1
)

// Limits of the DMA engine.
const (
	SGAlign = 16
	SGMax   = 256
)

// Bits of NTT_CONTROL.
const (
	NTTRun       uint32 = 1 << 0 // write 1 to start
	NTTViewMLDSA uint32 = 1 << 8
)

// Bits of NTT_STATUS.
const (
	NTTIdle       uint32 = 1 << 0
	NTTBusy       uint32 = 1 << 1
	NTTError      uint32 = 1 << 2
	NTTSelfTestOK uint32 = 1 << 3
	NTTEngines           = 8
)

// Moduli shown in NTT_PARAM_Q.
const (
	QMLKEM uint32 = 3329
	QMLDSA uint32 = 8380417
)

// Bits of QRNG_CONTROL.
const (
	QRNGEnable       uint32 = 1 << 0
	QRNGContinuous   uint32 = 1 << 1
	QRNGHealthCheck  uint32 = 1 << 2
	QRNGConditioning uint32 = 1 << 3
	QRNGRestart      uint32 = 1 << 4 // write 1 to start
	QRNGIRQOnReady   uint32 = 1 << 8
	QRNGIRQOnLow     uint32 = 1 << 9
)

// Bits of QRNG_STATUS.
const (
	QRNGReady   uint32 = 1 << 0
	QRNGHealthy uint32 = 1 << 1
	QRNGLow     uint32 = 1 << 2
	QRNGError   uint32 = 1 << 3
	QRNGStartup uint32 = 1 << 4
)

// QRNG_HEALTH: the level in bits 1:0, and alarms.
const (
	QRNGHealthOK       uint32 = 0
	QRNGHealthWarning  uint32 = 1
	QRNGHealthDegraded uint32 = 2
	QRNGHealthFailed   uint32 = 3
	QRNGHealthLevel    uint32 = 3
	QRNGAlarmRCT       uint32 = 1 << 8
	QRNGAlarmAPT       uint32 = 1 << 9
	QRNGAlarmStartup   uint32 = 1 << 10
	QRNGAlarmSources   uint32 = 1 << 11
	QRNGAlarmBias      uint32 = 1 << 12
)

// Quality is AUX[1:0] of QRNG_READ.
type Quality uint16

// Qualities of random data.
const (
	QualityStandard Quality = 0 // DRBG, reseeded for each started 64 KiB
	QualityHigh     Quality = 1 // pool bits one to one
	QualityMaximum  Quality = 2 // two pool bits for an output bit
	QualityFast     Quality = 3 // DRBG only
)

// QRNG limits and fixed numbers.
const (
	QRNGSources       = 8
	QRNGPoolBits      = 1 << 20
	QRNGReseedBits    = 512
	QRNGReseedBytes   = 64 << 10
	QRNGReadMax       = 1 << 20
	QRNGRawMax        = 64 << 10
	QRNGReseedMax     = 256
	QRNGRCTCutoffVal  = 9
	QRNGAPTCutoffVal  = 71
	QRNGAPTWindowVal  = 512
	QRNGStartupLenVal = 1024
)

// Bits of DETAIL in the response of QRNG_HEALTH.
const (
	StatRCT        uint32 = 1 << 0
	StatAPT        uint32 = 1 << 1
	StatMonobit    uint32 = 1 << 2
	StatRuns       uint32 = 1 << 3
	StatLongestRun uint32 = 1 << 4
	StatChiSquare  uint32 = 1 << 5
	StatMinEntropy uint32 = 1 << 6
)

// Bits of PERF_CTRL.
const (
	PerfEnable   uint32 = 1 << 0
	PerfSnapshot uint32 = 1 << 1 // write 1 to start
	PerfClear    uint32 = 1 << 2 // write 1 to start
)

// Classes of PERF_HIST_SEL.
const (
	HistAll       = 0
	HistKEMKeygen = 1
	HistEncaps    = 2
	HistDecaps    = 3
	HistSigKeygen = 4
	HistSign      = 5
	HistVerify    = 6
	HistQRNG      = 7
	HistAES       = 8
	HistKeyOps    = 9
	HistClasses   = 10
	HistBuckets   = 16
)
