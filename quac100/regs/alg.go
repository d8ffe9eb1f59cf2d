package regs

import "fmt"

// Alg is an algorithm id, the PARAM of a command.
type Alg uint16

// Algorithm ids.
const (
	AlgNone        Alg = 0
	MLKEM512       Alg = 0x1100
	MLKEM768       Alg = 0x1101
	MLKEM1024      Alg = 0x1102
	MLDSA44        Alg = 0x2100
	MLDSA65        Alg = 0x2101
	MLDSA87        Alg = 0x2102
	SLHSHA2128s    Alg = 0x2200
	SLHSHA2128f    Alg = 0x2201
	SLHSHA2192s    Alg = 0x2202
	SLHSHA2192f    Alg = 0x2203
	SLHSHA2256s    Alg = 0x2204
	SLHSHA2256f    Alg = 0x2205
	SLHSHAKE128s   Alg = 0x2210
	SLHSHAKE128f   Alg = 0x2211
	SLHSHAKE192s   Alg = 0x2212
	SLHSHAKE192f   Alg = 0x2213
	SLHSHAKE256s   Alg = 0x2214
	SLHSHAKE256f   Alg = 0x2215
	AES256GCM      Alg = 0x4101
	AlgRaw         Alg = 0x4F00 // only in key attributes
	SharedSize         = 32
	GCMNonceSize       = 12
	GCMTagSize         = 16
	AESKeySize         = 32
	GCMMaxAAD          = 64 << 10
	MaxContextSize     = 255

	// GCMDeviceNonce is AUX of AES_GCM_ENC when the card makes the nonce.
	GCMDeviceNonce uint16 = 1
)

// Family groups algorithms that share opcodes.
type Family uint8

// Families.
const (
	FamilyKEM Family = iota + 1
	FamilySignature
	FamilySymmetric
)

// Sizes of an algorithm in bytes. Output is the ciphertext of a KEM, the signature of a signature scheme,
// and what AES-GCM adds to a plaintext.
type Sizes struct {
	Alg    Alg
	Name   string
	Family Family
	Cap    Caps
	Public int
	Secret int
	Output int
	Seed   int
}

var algorithms = []Sizes{
	{MLKEM512, "ML-KEM-512", FamilyKEM, CapMLKEM512, 800, 1632, 768, 64},
	{MLKEM768, "ML-KEM-768", FamilyKEM, CapMLKEM768, 1184, 2400, 1088, 64},
	{MLKEM1024, "ML-KEM-1024", FamilyKEM, CapMLKEM1024, 1568, 3168, 1568, 64},
	{MLDSA44, "ML-DSA-44", FamilySignature, CapMLDSA44, 1312, 2560, 2420, 32},
	{MLDSA65, "ML-DSA-65", FamilySignature, CapMLDSA65, 1952, 4032, 3309, 32},
	{MLDSA87, "ML-DSA-87", FamilySignature, CapMLDSA87, 2592, 4896, 4627, 32},
	{SLHSHA2128s, "SLH-DSA-SHA2-128s", FamilySignature, CapSLHDSA, 32, 64, 7856, 48},
	{SLHSHA2128f, "SLH-DSA-SHA2-128f", FamilySignature, CapSLHDSA, 32, 64, 17088, 48},
	{SLHSHA2192s, "SLH-DSA-SHA2-192s", FamilySignature, CapSLHDSA, 48, 96, 16224, 72},
	{SLHSHA2192f, "SLH-DSA-SHA2-192f", FamilySignature, CapSLHDSA, 48, 96, 35664, 72},
	{SLHSHA2256s, "SLH-DSA-SHA2-256s", FamilySignature, CapSLHDSA, 64, 128, 29792, 96},
	{SLHSHA2256f, "SLH-DSA-SHA2-256f", FamilySignature, CapSLHDSA, 64, 128, 49856, 96},
	{SLHSHAKE128s, "SLH-DSA-SHAKE-128s", FamilySignature, CapSLHSHAKE, 32, 64, 7856, 48},
	{SLHSHAKE128f, "SLH-DSA-SHAKE-128f", FamilySignature, CapSLHSHAKE, 32, 64, 17088, 48},
	{SLHSHAKE192s, "SLH-DSA-SHAKE-192s", FamilySignature, CapSLHSHAKE, 48, 96, 16224, 72},
	{SLHSHAKE192f, "SLH-DSA-SHAKE-192f", FamilySignature, CapSLHSHAKE, 48, 96, 35664, 72},
	{SLHSHAKE256s, "SLH-DSA-SHAKE-256s", FamilySignature, CapSLHSHAKE, 64, 128, 29792, 96},
	{SLHSHAKE256f, "SLH-DSA-SHAKE-256f", FamilySignature, CapSLHSHAKE, 64, 128, 49856, 96},
	{AES256GCM, "AES-256-GCM", FamilySymmetric, CapAESGCM, 0, AESKeySize, GCMTagSize, 0},
}

// Algorithms returns the sizes of every algorithm, ordered by id. The slice is the caller's.
func Algorithms() []Sizes { return append([]Sizes(nil), algorithms...) }

// SizesOf returns the sizes of a; ok is false for an unknown id.
func SizesOf(a Alg) (s Sizes, ok bool) {
	for i := range algorithms {
		if algorithms[i].Alg == a {
			return algorithms[i], true
		}
	}
	return Sizes{}, false
}

func (a Alg) String() string {
	if s, ok := SizesOf(a); ok {
		return s.Name
	}
	return fmt.Sprintf("algorithm 0x%04X", uint16(a))
}

// HashID names the hash of a pre-hashed signature, AUX[15:8].
type HashID uint8

// Hash ids.
const (
	HashSHA256   HashID = 1
	HashSHA384   HashID = 2
	HashSHA512   HashID = 3
	HashSHA3256  HashID = 4
	HashSHA3384  HashID = 5
	HashSHA3512  HashID = 6
	HashSHAKE128 HashID = 7 // 32 bytes of output
	HashSHAKE256 HashID = 8 // 64 bytes of output
)

// KeyType is the type of a stored key.
type KeyType uint16

// Key types.
const (
	KeyKEMPublic       KeyType = 0
	KeyKEMSecret       KeyType = 1
	KeyKEMPair         KeyType = 2
	KeySignaturePublic KeyType = 3
	KeySignatureSecret KeyType = 4
	KeySignaturePair   KeyType = 5
	KeySymmetric       KeyType = 6
	KeyRaw             KeyType = 7
)

// Usage is what a key may be used for.
type Usage uint32

// Usage bits.
const (
	UsageEncrypt Usage = 1 << 0 // or encapsulate
	UsageDecrypt Usage = 1 << 1 // or decapsulate
	UsageSign    Usage = 1 << 2
	UsageVerify  Usage = 1 << 3
	UsageDerive  Usage = 1 << 4
	UsageWrap    Usage = 1 << 5
	UsageUnwrap  Usage = 1 << 6
	UsageExport  Usage = 1 << 7
)

// KeyState is the state of a stored key.
type KeyState uint16

// Key states.
const (
	KeyStateInput       KeyState = 0
	KeyActive           KeyState = 1
	KeySuspended        KeyState = 2
	KeyCompromised      KeyState = 3
	KeyExpired          KeyState = 5
	AttrPersistent      uint32   = 1 << 0
	AttrSensitive       uint32   = 1 << 1
	AttrExtractable     uint32   = 1 << 2
	AttrModifiable      uint32   = 1 << 3
	AttrCopyable        uint32   = 1 << 4
	AttrDestroyable     uint32   = 1 << 5
	AttrDefault         uint32   = AttrModifiable | AttrDestroyable
	KeySlots                     = 256
	NoKey               uint32   = 0
	KeyImportRawMax              = 64
	KeyZeroizeGuard     uint16   = 0x5A5A // AUX of KEY_ZEROIZE_ALL
	KeyExportPublic     uint16   = 1      // AUX of KEY_EXPORT
	KeyExportSecret     uint16   = 2
	KeyListAll          uint16   = 0 // AUX of KEY_LIST; otherwise type+1
	KeyMaxDeviceNonces           = 1 << 32
	KeyHandleGeneration          = 16 // shift of the generation in a handle
)

// SelfTest is a set of self-tests.
type SelfTest uint32

// Self-test bits.
const (
	TestKEMKeygen    SelfTest = 1 << 0
	TestEncaps       SelfTest = 1 << 1
	TestDecaps       SelfTest = 1 << 2
	TestSigKeygen    SelfTest = 1 << 3
	TestSign         SelfTest = 1 << 4
	TestVerify       SelfTest = 1 << 5
	TestMemory       SelfTest = 0x100
	TestNTT          SelfTest = 0x200
	TestDMA          SelfTest = 0x400
	TestPCIe         SelfTest = 0x800
	TestEntropyStart SelfTest = 0x1000
	TestEntropyCont  SelfTest = 0x2000
	TestEntropyNow   SelfTest = 0x4000
	TestFirmware     SelfTest = 0x10000
	TestIntegrity    SelfTest = 0x20000

	TestsStartup SelfTest = 0x703F
	TestsAll     SelfTest = 0x37F3F
)

var selfTestNames = []struct {
	bit  SelfTest
	name string
}{
	{TestKEMKeygen, "KEM key generation"}, {TestEncaps, "encapsulation"}, {TestDecaps, "decapsulation"},
	{TestSigKeygen, "signature key generation"}, {TestSign, "signing"}, {TestVerify, "verification"},
	{TestMemory, "memory"}, {TestNTT, "NTT"}, {TestDMA, "DMA"}, {TestPCIe, "PCIe loopback"},
	{TestEntropyStart, "entropy start-up"}, {TestEntropyCont, "entropy continuous"}, {TestEntropyNow, "entropy on demand"},
	{TestFirmware, "firmware"}, {TestIntegrity, "integrity"},
}

// Names returns the names of the tests in s, in the order of the bits.
func (s SelfTest) Names() []string {
	var out []string
	for _, t := range selfTestNames {
		if s&t.bit != 0 {
			out = append(out, t.name)
		}
	}
	return out
}
