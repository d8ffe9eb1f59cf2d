package keyfile

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"encoding/asn1"
	"encoding/pem"

	"golang.org/x/crypto/cryptobyte"
	der "golang.org/x/crypto/cryptobyte/asn1"

	"quantavirt/internal/qverr"
)

const typeEncrypted = "ENCRYPTED PRIVATE KEY"

// Identifiers of RFC 8018 and RFC 3565.
var (
	oidPBES2  = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 13}
	oidPBKDF2 = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 12}
	oidSHA256 = asn1.ObjectIdentifier{1, 2, 840, 113549, 2, 9} // HMAC
	oidAES256 = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, 42}
)

// Iterations of PBKDF2: what is written, and the most that is read.
const (
	iterations    = 600_000
	maxIterations = 10_000_000
)

// EncryptPrivate encrypts what MarshalPrivate makes, by a passphrase: PBES2 with
// PBKDF2, HMAC-SHA-256 and AES-256-CBC (RFC 8018), which OpenSSL reads and writes too. The
// result is PEM.
func EncryptPrivate(plain, passphrase []byte) ([]byte, error) {
	return encryptPrivate(plain, passphrase, iterations)
}

func encryptPrivate(plain, passphrase []byte, n int) ([]byte, error) {
	salt, iv := make([]byte, 16), make([]byte, aes.BlockSize)
	_, _ = rand.Read(salt) // never fails
	_, _ = rand.Read(iv)
	block, err := passphraseCipher(passphrase, salt, n)
	if err != nil {
		return nil, err
	}
	pad := aes.BlockSize - len(plain)%aes.BlockSize
	padded := make([]byte, len(plain)+pad)
	copy(padded, plain)
	copy(padded[len(plain):], bytes.Repeat([]byte{byte(pad)}, pad))
	cipher.NewCBCEncrypter(block, iv).CryptBlocks(padded, padded) // CBC works in place
	var b cryptobyte.Builder
	b.AddASN1(der.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(der.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1ObjectIdentifier(oidPBES2)
			b.AddASN1(der.SEQUENCE, func(b *cryptobyte.Builder) { addParameters(b, salt, iv, n) })
		})
		b.AddASN1OctetString(padded)
	})
	out, err := b.Bytes()
	if err != nil {
		return nil, qverr.New(qverr.PQCEncrypt, "encode an encrypted key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: typeEncrypted, Bytes: out}), nil
}

func addParameters(b *cryptobyte.Builder, salt, iv []byte, n int) {
	b.AddASN1(der.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(oidPBKDF2)
		b.AddASN1(der.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1OctetString(salt)
			b.AddASN1Int64(int64(n))
			b.AddASN1(der.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1ObjectIdentifier(oidSHA256)
				b.AddASN1NULL()
			})
		})
	})
	b.AddASN1(der.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(oidAES256)
		b.AddASN1OctetString(iv)
	})
}

func passphraseCipher(passphrase, salt []byte, n int) (cipher.Block, error) {
	key, err := pbkdf2.Key(sha256.New, string(passphrase), salt, n, 32)
	if err != nil {
		return nil, qverr.New(qverr.PQCKDF, "key of a passphrase: %w", err)
	}
	defer clear(key)
	return aes.NewCipher(key)
}

// IsEncrypted says whether a PEM file is one of EncryptPrivate or of its kind.
func IsEncrypted(data []byte) bool {
	block, _ := pem.Decode(data)
	return block != nil && block.Type == typeEncrypted
}

// DecryptPrivate returns what ParsePrivate reads; the caller wipes it. PQCDecrypt: the
// passphrase is another. Unsupported: another encryption than EncryptPrivate's. Inval: it
// is malformed.
func DecryptPrivate(data, passphrase []byte) ([]byte, error) {
	data, err := unwrap(data, typeEncrypted)
	if err != nil {
		return nil, err
	}
	in := cryptobyte.String(data)
	var info, algorithm, parameters cryptobyte.String
	var scheme asn1.ObjectIdentifier
	var sealed []byte
	if !in.ReadASN1(&info, der.SEQUENCE) || !in.Empty() || !info.ReadASN1(&algorithm, der.SEQUENCE) ||
		!info.ReadASN1Bytes(&sealed, der.OCTET_STRING) || !info.Empty() ||
		!algorithm.ReadASN1ObjectIdentifier(&scheme) || !algorithm.ReadASN1(&parameters, der.SEQUENCE) || !algorithm.Empty() {
		return nil, malformed("no encrypted PKCS #8 key")
	}
	if !scheme.Equal(oidPBES2) {
		return nil, unsupported(scheme)
	}
	salt, iv, n, err := readParameters(parameters)
	if err != nil {
		return nil, err
	}
	if len(sealed) == 0 || len(sealed)%aes.BlockSize != 0 {
		return nil, malformed("an encrypted key of %d bytes", len(sealed))
	}
	block, err := passphraseCipher(passphrase, salt, n)
	if err != nil {
		return nil, err
	}
	plain := make([]byte, len(sealed))
	cipher.NewCBCDecrypter(block, iv).CryptBlocks(plain, sealed)
	pad := int(plain[len(plain)-1])
	whole := cryptobyte.String(plain)
	var key cryptobyte.String
	// What the padding cannot tell, the form of the key does.
	if pad < 1 || pad > aes.BlockSize || !whole.ReadASN1(&key, der.SEQUENCE) || len(whole) != pad {
		clear(plain)
		return nil, qverr.New(qverr.PQCDecrypt, "the passphrase does not open the key file")
	}
	return plain[:len(plain)-pad], nil
}

func unsupported(oid asn1.ObjectIdentifier) error {
	return qverr.New(qverr.Unsupported, "a key file encrypted by %s", oid).
		WithHint("encrypt it by AES-256: openssl pkcs8 -topk8 -v2 aes-256-cbc -v2prf hmacWithSHA256")
}

func readParameters(p cryptobyte.String) (salt, iv []byte, n int, err error) {
	var kdf, kdfParams, enc, prf cryptobyte.String
	var kdfOID, encOID, prfOID asn1.ObjectIdentifier
	if !p.ReadASN1(&kdf, der.SEQUENCE) || !p.ReadASN1(&enc, der.SEQUENCE) || !p.Empty() ||
		!kdf.ReadASN1ObjectIdentifier(&kdfOID) || !enc.ReadASN1ObjectIdentifier(&encOID) {
		return nil, nil, 0, malformed("how the key is encrypted")
	}
	if !kdfOID.Equal(oidPBKDF2) {
		return nil, nil, 0, unsupported(kdfOID)
	}
	if !encOID.Equal(oidAES256) {
		return nil, nil, 0, unsupported(encOID)
	}
	var length int
	if !kdf.ReadASN1(&kdfParams, der.SEQUENCE) || !kdf.Empty() || !kdfParams.ReadASN1Bytes(&salt, der.OCTET_STRING) ||
		!kdfParams.ReadASN1Integer(&n) || !kdfParams.PeekASN1Tag(der.SEQUENCE) && !kdfParams.Empty() && !kdfParams.ReadASN1Integer(&length) ||
		n < 1 || n > maxIterations || !enc.ReadASN1Bytes(&iv, der.OCTET_STRING) || !enc.Empty() || len(iv) != aes.BlockSize {
		return nil, nil, 0, malformed("how the key is encrypted")
	}
	if kdfParams.Empty() { // HMAC-SHA-1, the default of RFC 8018
		return nil, nil, 0, unsupported(asn1.ObjectIdentifier{1, 2, 840, 113549, 2, 7})
	}
	if !kdfParams.ReadASN1(&prf, der.SEQUENCE) || !prf.ReadASN1ObjectIdentifier(&prfOID) || !kdfParams.Empty() {
		return nil, nil, 0, malformed("how the key is encrypted")
	}
	if !prfOID.Equal(oidSHA256) {
		return nil, nil, 0, unsupported(prfOID)
	}
	return salt, iv, n, nil
}
