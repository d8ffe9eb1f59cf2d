package regs

import "fmt"

// Opcode is the operation of a command.
type Opcode uint16

// Opcodes.
const (
	OpNOP           Opcode = 0x0000
	OpEcho          Opcode = 0x0001
	OpKEMKeygen     Opcode = 0x0100
	OpKEMEncaps     Opcode = 0x0101
	OpKEMDecaps     Opcode = 0x0102
	OpSigKeygen     Opcode = 0x0200
	OpSign          Opcode = 0x0201
	OpVerify        Opcode = 0x0202
	OpQRNGRead      Opcode = 0x0300
	OpQRNGReseed    Opcode = 0x0301
	OpQRNGHealth    Opcode = 0x0302
	OpQRNGRaw       Opcode = 0x0303
	OpAESGCMEncrypt Opcode = 0x0500
	OpAESGCMDecrypt Opcode = 0x0501
	OpKeyImport     Opcode = 0x0600
	OpKeyExport     Opcode = 0x0601
	OpKeyDelete     Opcode = 0x0602
	OpKeyInfo       Opcode = 0x0603
	OpKeyList       Opcode = 0x0604
	OpKeyGenSym     Opcode = 0x0605
	OpKeyZeroizeAll Opcode = 0x0606
	OpSelfTest      Opcode = 0x0700
	OpHealth        Opcode = 0x0701
	OpInfo          Opcode = 0x0702

	EchoMax = 1 << 20
)

var opcodeNames = map[Opcode]string{
	OpNOP: "NOP", OpEcho: "ECHO", OpKEMKeygen: "KEM_KEYGEN", OpKEMEncaps: "KEM_ENCAPS", OpKEMDecaps: "KEM_DECAPS",
	OpSigKeygen: "SIG_KEYGEN", OpSign: "SIGN", OpVerify: "VERIFY", OpQRNGRead: "QRNG_READ", OpQRNGReseed: "QRNG_RESEED",
	OpQRNGHealth: "QRNG_HEALTH", OpQRNGRaw: "QRNG_RAW", OpAESGCMEncrypt: "AES_GCM_ENC", OpAESGCMDecrypt: "AES_GCM_DEC",
	OpKeyImport: "KEY_IMPORT", OpKeyExport: "KEY_EXPORT", OpKeyDelete: "KEY_DELETE", OpKeyInfo: "KEY_INFO",
	OpKeyList: "KEY_LIST", OpKeyGenSym: "KEY_GEN_SYM", OpKeyZeroizeAll: "KEY_ZEROIZE_ALL", OpSelfTest: "SELF_TEST",
	OpHealth: "HEALTH", OpInfo: "INFO",
}

func (o Opcode) String() string {
	if n, ok := opcodeNames[o]; ok {
		return n
	}
	return fmt.Sprintf("opcode 0x%04X", uint16(o))
}

// Flags of a command.
type Flags uint16

// Command flags.
const (
	FlagFence         Flags = 1 << 0
	FlagIRQ           Flags = 1 << 2
	FlagSGSrc0        Flags = 1 << 4
	FlagSGSrc1        Flags = 1 << 5
	FlagSGDst0        Flags = 1 << 6
	FlagSGDst1        Flags = 1 << 7
	FlagKeyInline     Flags = 1 << 8
	FlagKeyStore      Flags = 1 << 9
	FlagPersist       Flags = 1 << 10
	FlagDeterministic Flags = 1 << 11
	FlagSeed          Flags = 1 << 12
	FlagPrehash       Flags = 1 << 13
	FlagWrapped       Flags = 1 << 14

	FlagsSG Flags = FlagSGSrc0 | FlagSGSrc1 | FlagSGDst0 | FlagSGDst1
)

// RespStatus is the code of a response.
type RespStatus uint16

// Response codes.
const (
	RespSuccess       RespStatus = 0x00
	RespInvalidOpcode RespStatus = 0x01
	RespInvalidParam  RespStatus = 0x02
	RespInvalidLen    RespStatus = 0x03
	RespDMAError      RespStatus = 0x04
	RespCryptoFail    RespStatus = 0x05
	RespKeyNotFound   RespStatus = 0x06
	RespBusy          RespStatus = 0x07
	RespTimeout       RespStatus = 0x08
	RespSelfTestFail  RespStatus = 0x09
	RespQRNGDepleted  RespStatus = 0x0A
	RespQRNGHealth    RespStatus = 0x0B
	RespOverTemp      RespStatus = 0x0C
	RespFWError       RespStatus = 0x0D
	RespUnknown       RespStatus = 0xFF
)

var respNames = map[RespStatus]string{
	RespSuccess: "success", RespInvalidOpcode: "invalid opcode", RespInvalidParam: "invalid parameter",
	RespInvalidLen: "invalid length", RespDMAError: "DMA error", RespCryptoFail: "cryptographic failure",
	RespKeyNotFound: "key not found", RespBusy: "busy", RespTimeout: "timeout", RespSelfTestFail: "self-test failed",
	RespQRNGDepleted: "QRNG depleted", RespQRNGHealth: "QRNG health failure", RespOverTemp: "over-temperature",
	RespFWError: "firmware error", RespUnknown: "unknown error",
}

func (s RespStatus) String() string {
	if n, ok := respNames[s]; ok {
		return n
	}
	return fmt.Sprintf("response code 0x%04X", uint16(s))
}

// Detail is the reason in a response.
type Detail uint32

// Details.
const (
	DetailNone             Detail = 0
	DetailReservedNonzero  Detail = 1
	DetailUnknownFlag      Detail = 2
	DetailBadParamSet      Detail = 3
	DetailSrc0Len          Detail = 4
	DetailSrc1Len          Detail = 5
	DetailDst0Len          Detail = 6
	DetailDst1Len          Detail = 7
	DetailSrcFault         Detail = 8
	DetailDstFault         Detail = 9
	DetailSGList           Detail = 10
	DetailOverlap          Detail = 11
	DetailKeyUsage         Detail = 12
	DetailKeyType          Detail = 13
	DetailKeyState         Detail = 14
	DetailKeyStoreFull     Detail = 15
	DetailKeyCheck         Detail = 16
	DetailCtxLen           Detail = 17
	DetailHashID           Detail = 18
	DetailSigInvalid       Detail = 19
	DetailTagMismatch      Detail = 20
	DetailFIPSDenied       Detail = 21
	DetailFeatureOff       Detail = 22
	DetailAborted          Detail = 23
	DetailResetting        Detail = 24
	DetailZeroized         Detail = 25
	DetailNotExtractable   Detail = 26
	DetailWrapBad          Detail = 27
	DetailSelfTestRequired Detail = 28
	DetailQuota            Detail = 29
	DetailThermal          Detail = 30
	DetailBadAux           Detail = 31
)

var detailNames = [...]string{
	"NONE", "RESERVED_NONZERO", "UNKNOWN_FLAG", "BAD_PARAM_SET", "SRC0_LEN", "SRC1_LEN", "DST0_LEN", "DST1_LEN",
	"SRC_FAULT", "DST_FAULT", "SG_LIST", "OVERLAP", "KEY_USAGE", "KEY_TYPE", "KEY_STATE", "KEYSTORE_FULL", "KEY_CHECK",
	"CTX_LEN", "HASH_ID", "SIG_INVALID", "TAG_MISMATCH", "FIPS_DENIED", "FEATURE_OFF", "ABORTED", "RESETTING", "ZEROIZED",
	"NOT_EXTRACTABLE", "WRAP_BAD", "SELFTEST_REQUIRED", "QUOTA", "THERMAL", "BAD_AUX",
}

func (d Detail) String() string {
	if int(d) < len(detailNames) {
		return detailNames[d]
	}
	return fmt.Sprintf("detail %d", uint32(d))
}

// RespFlags are the flags of a response.
type RespFlags uint16

// Response flags. Bits 15:8 hold the queue number.
const (
	RespPhase        RespFlags = 1 << 0
	RespFIPSApproved RespFlags = 1 << 3
	RespVerified     RespFlags = 1 << 4
)

// Queue is the queue pair that answered.
func (f RespFlags) Queue() int { return int(f >> 8) }
