package pqc

import (
	"fmt"

	"quantavirt/internal/qverr"
	"quantavirt/quac100/regs"
)

// Algorithm identifies an algorithm with its parameter set. Where the QUAC 100
// has the algorithm, the number is the card's. As text it is the name that the
// standard gives it, such as ML-KEM-768.
type Algorithm uint16

// Algorithms.
const (
	MLKEM512  = Algorithm(regs.MLKEM512)
	MLKEM768  = Algorithm(regs.MLKEM768)
	MLKEM1024 = Algorithm(regs.MLKEM1024)

	MLDSA44 = Algorithm(regs.MLDSA44)
	MLDSA65 = Algorithm(regs.MLDSA65)
	MLDSA87 = Algorithm(regs.MLDSA87)

	SLHDSA128s = Algorithm(regs.SLHSHA2128s) // the SHA2 sets
	SLHDSA128f = Algorithm(regs.SLHSHA2128f)
	SLHDSA192s = Algorithm(regs.SLHSHA2192s)
	SLHDSA192f = Algorithm(regs.SLHSHA2192f)
	SLHDSA256s = Algorithm(regs.SLHSHA2256s)
	SLHDSA256f = Algorithm(regs.SLHSHA2256f)

	AES256GCM        = Algorithm(regs.AES256GCM)
	ChaCha20Poly1305 = Algorithm(0x4201)

	SHA256   = Algorithm(0x5001)
	SHA384   = Algorithm(0x5002)
	SHA512   = Algorithm(0x5003)
	SHA3_256 = Algorithm(0x5004)
	SHA3_384 = Algorithm(0x5005)
	SHA3_512 = Algorithm(0x5006)
	SHAKE128 = Algorithm(0x5007)
	SHAKE256 = Algorithm(0x5008)

	HKDFSHA3_256 = Algorithm(0x6001)
)

// Family is what an algorithm does.
type Family uint8

// Families.
const (
	FamilyKEM Family = iota + 1
	FamilySignature
	FamilyAEAD
	FamilyHash
	FamilyXOF
	FamilyKDF
)

// Params are the sizes of an algorithm in bytes; what an algorithm does not
// have is 0.
type Params struct {
	Algorithm Algorithm
	Name      string
	Family    Family
	PublicKey int
	SecretKey int // expanded form of ML-KEM and ML-DSA; the key of an AEAD
	Seed      int // short form of a secret key
	Output    int // ciphertext of a KEM, signature, tag of an AEAD, hash value; of a XOF what a pre-hashed signature takes
	Shared    int // shared key of a KEM
	Nonce     int // of an AEAD
	Strength  int // security in bits against collisions (hashes), else against key search
}

// table is from FIPS 203 table 3, FIPS 204 tables 1 and 2, FIPS 205 table 2,
// FIPS 202, FIPS 180-4, SP 800-38D and RFC 8439.
var table = []Params{
	{Algorithm: MLKEM512, Name: "ML-KEM-512", Family: FamilyKEM, PublicKey: 800, SecretKey: 1632, Seed: 64, Output: 768, Shared: 32, Strength: 128},
	{Algorithm: MLKEM768, Name: "ML-KEM-768", Family: FamilyKEM, PublicKey: 1184, SecretKey: 2400, Seed: 64, Output: 1088, Shared: 32, Strength: 192},
	{Algorithm: MLKEM1024, Name: "ML-KEM-1024", Family: FamilyKEM, PublicKey: 1568, SecretKey: 3168, Seed: 64, Output: 1568, Shared: 32, Strength: 256},

	{Algorithm: MLDSA44, Name: "ML-DSA-44", Family: FamilySignature, PublicKey: 1312, SecretKey: 2560, Seed: 32, Output: 2420, Strength: 128},
	{Algorithm: MLDSA65, Name: "ML-DSA-65", Family: FamilySignature, PublicKey: 1952, SecretKey: 4032, Seed: 32, Output: 3309, Strength: 192},
	{Algorithm: MLDSA87, Name: "ML-DSA-87", Family: FamilySignature, PublicKey: 2592, SecretKey: 4896, Seed: 32, Output: 4627, Strength: 256},

	{Algorithm: SLHDSA128s, Name: "SLH-DSA-SHA2-128s", Family: FamilySignature, PublicKey: 32, SecretKey: 64, Seed: 48, Output: 7856, Strength: 128},
	{Algorithm: SLHDSA128f, Name: "SLH-DSA-SHA2-128f", Family: FamilySignature, PublicKey: 32, SecretKey: 64, Seed: 48, Output: 17088, Strength: 128},
	{Algorithm: SLHDSA192s, Name: "SLH-DSA-SHA2-192s", Family: FamilySignature, PublicKey: 48, SecretKey: 96, Seed: 72, Output: 16224, Strength: 192},
	{Algorithm: SLHDSA192f, Name: "SLH-DSA-SHA2-192f", Family: FamilySignature, PublicKey: 48, SecretKey: 96, Seed: 72, Output: 35664, Strength: 192},
	{Algorithm: SLHDSA256s, Name: "SLH-DSA-SHA2-256s", Family: FamilySignature, PublicKey: 64, SecretKey: 128, Seed: 96, Output: 29792, Strength: 256},
	{Algorithm: SLHDSA256f, Name: "SLH-DSA-SHA2-256f", Family: FamilySignature, PublicKey: 64, SecretKey: 128, Seed: 96, Output: 49856, Strength: 256},

	{Algorithm: AES256GCM, Name: "AES-256-GCM", Family: FamilyAEAD, SecretKey: 32, Output: 16, Nonce: 12, Strength: 256},
	{Algorithm: ChaCha20Poly1305, Name: "ChaCha20-Poly1305", Family: FamilyAEAD, SecretKey: 32, Output: 16, Nonce: 12, Strength: 256},

	{Algorithm: SHA256, Name: "SHA2-256", Family: FamilyHash, Output: 32, Strength: 128},
	{Algorithm: SHA384, Name: "SHA2-384", Family: FamilyHash, Output: 48, Strength: 192},
	{Algorithm: SHA512, Name: "SHA2-512", Family: FamilyHash, Output: 64, Strength: 256},
	{Algorithm: SHA3_256, Name: "SHA3-256", Family: FamilyHash, Output: 32, Strength: 128},
	{Algorithm: SHA3_384, Name: "SHA3-384", Family: FamilyHash, Output: 48, Strength: 192},
	{Algorithm: SHA3_512, Name: "SHA3-512", Family: FamilyHash, Output: 64, Strength: 256},
	{Algorithm: SHAKE128, Name: "SHAKE-128", Family: FamilyXOF, Output: 32, Strength: 128},
	{Algorithm: SHAKE256, Name: "SHAKE-256", Family: FamilyXOF, Output: 64, Strength: 256},

	{Algorithm: HKDFSHA3_256, Name: "HKDF-SHA3-256", Family: FamilyKDF, Output: 32, Strength: 256},
}

// Algorithms lists what the software provider has, in the order of the
// standards. The slice is the caller's.
func Algorithms() []Params { return append([]Params(nil), table...) }

// Params returns the sizes of a. PQCAlgorithm: there is no such algorithm.
func (a Algorithm) Params() (Params, error) {
	for i := range table {
		if table[i].Algorithm == a {
			return table[i], nil
		}
	}
	return Params{}, qverr.New(qverr.PQCAlgorithm, "there is no algorithm %#04x", uint16(a))
}

// of is Params of an algorithm that has to be of a family.
func (f Family) of(a Algorithm) (Params, error) {
	p, err := a.Params()
	if err == nil && p.Family != f {
		err = qverr.New(qverr.PQCAlgorithm, "%s is no %s", a, f)
	}
	return p, err
}

// pair is Params of an algorithm that has key pairs.
func (a Algorithm) pair() (Params, error) {
	p, err := a.Params()
	if err == nil && p.PublicKey == 0 {
		err = qverr.New(qverr.PQCAlgorithm, "%s has no key pairs", a)
	}
	return p, err
}

// checkPair checks the sizes of what GenerateKey gets.
func (p Params) checkPair(seed, public, secret []byte) error {
	if seed == nil || len(seed) == p.Seed {
		if len(public) == p.PublicKey && len(secret) == p.SecretKey {
			return nil
		}
	}
	return qverr.New(qverr.PQCKeygen, "%s: seed, public and secret key of %d, %d and %d bytes, want %d, %d and %d",
		p.Name, len(seed), len(public), len(secret), p.Seed, p.PublicKey, p.SecretKey)
}

// checkEncapsulate checks the sizes of what Encapsulate gets.
func (p Params) checkEncapsulate(ciphertext, shared []byte) error {
	if len(ciphertext) == p.Output && len(shared) == p.Shared {
		return nil
	}
	return qverr.New(qverr.PQCEncaps, "%s: room for ciphertext and shared key of %d and %d bytes, want %d and %d",
		p.Name, len(ciphertext), len(shared), p.Output, p.Shared)
}

// checkDecapsulate checks the sizes of what Decapsulate gets.
func (p Params) checkDecapsulate(shared, ciphertext []byte) error {
	if len(ciphertext) == p.Output && len(shared) == p.Shared {
		return nil
	}
	return qverr.New(qverr.PQCDecaps, "%s: ciphertext of %d bytes and room for a shared key of %d, want %d and %d",
		p.Name, len(ciphertext), len(shared), p.Output, p.Shared)
}

func (f Family) String() string {
	names := [...]string{FamilyKEM: "key encapsulation mechanism", FamilySignature: "signature scheme", FamilyAEAD: "authenticated cipher",
		FamilyHash: "hash function", FamilyXOF: "extendable-output function", FamilyKDF: "key derivation function"}
	if int(f) < len(names) && names[f] != "" {
		return names[f]
	}
	return fmt.Sprintf("family %d", uint8(f))
}

func (a Algorithm) String() string {
	if p, err := a.Params(); err == nil {
		return p.Name
	}
	return fmt.Sprintf("algorithm %#04x", uint16(a))
}

// MarshalText makes the name the form of an algorithm in JSON.
func (a Algorithm) MarshalText() ([]byte, error) {
	p, err := a.Params()
	return []byte(p.Name), err
}

// UnmarshalText is ParseAlgorithm.
func (a *Algorithm) UnmarshalText(text []byte) (err error) {
	*a, err = ParseAlgorithm(string(text))
	return err
}

// ParseAlgorithm finds an algorithm by its name. PQCAlgorithm: there is none.
func ParseAlgorithm(name string) (Algorithm, error) {
	for i := range table {
		if table[i].Name == name {
			return table[i].Algorithm, nil
		}
	}
	return 0, qverr.New(qverr.PQCAlgorithm, "there is no algorithm %q", name)
}
