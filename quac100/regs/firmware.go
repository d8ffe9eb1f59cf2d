package regs

import "fmt"

// Bits of FW_CTRL; one at a time, each starts a step.
const (
	FWBegin    uint32 = 1 << 0
	FWLoad     uint32 = 1 << 1
	FWVerify   uint32 = 1 << 2
	FWActivate uint32 = 1 << 3
	FWAbort    uint32 = 1 << 4
	FWCommit   uint32 = 1 << 5
	FWRollback uint32 = 1 << 6
)

// FWUnlockToken is what FW_UNLOCK wants to see: "FWUP".
const FWUnlockToken uint32 = 0x46575550

// FW_STATUS: the state in bits 3:0, and bits.
const (
	FWStateMask      uint32 = 0xF
	FWBusy           uint32 = 1 << 7
	FWBankAValid     uint32 = 1 << 8
	FWBankBValid     uint32 = 1 << 9
	FWRunningBank    uint32 = 1 << 10
	FWNextBank       uint32 = 1 << 11
	FWCommitted      uint32 = 1 << 12
	FWLastGood       uint32 = 1 << 13
	FWChunkMax              = 1 << 20
	FWImageMax              = 16 << 20
	FWHeaderSize            = 256
	FWSignatureSize         = 4627
	FWSignerIDSize          = 32
	FWSignatureLabel        = "QUAC100-FW-v1"
)

// FWState is FW_STATUS[3:0].
type FWState uint8

// Firmware update states.
const (
	FWIdle        FWState = 0
	FWUnlocked    FWState = 1
	FWReceiving   FWState = 2
	FWLoaded      FWState = 3
	FWVerifying   FWState = 4
	FWVerified    FWState = 5
	FWProgramming FWState = 6
	FWActivated   FWState = 7
	FWTrial       FWState = 8
	FWFailed      FWState = 0xF
)

// FWErrorCode is FW_ERROR.
type FWErrorCode uint32

// Firmware update errors.
const (
	FWErrNone      FWErrorCode = 0
	FWErrLocked    FWErrorCode = 1
	FWErrLength    FWErrorCode = 2
	FWErrHeader    FWErrorCode = 3
	FWErrProduct   FWErrorCode = 4
	FWErrDigest    FWErrorCode = 5
	FWErrSignature FWErrorCode = 6
	FWErrSigner    FWErrorCode = 7
	FWErrRollback  FWErrorCode = 8
	FWErrDMA       FWErrorCode = 9
	FWErrFlash     FWErrorCode = 10
	FWErrOrder     FWErrorCode = 11
)

var fwErrorNames = [...]string{
	"no error", "locked", "wrong length", "bad header", "not for this product or hardware", "wrong digest", "wrong signature",
	"unknown signer", "security version too low", "DMA error", "flash error", "wrong order",
}

func (e FWErrorCode) String() string {
	if int(e) < len(fwErrorNames) {
		return fwErrorNames[e]
	}
	return fmt.Sprintf("firmware error %d", uint32(e))
}
