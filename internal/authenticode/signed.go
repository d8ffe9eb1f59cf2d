package authenticode

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"fmt"
	"io"
	"math/big"

	"quantavirt/internal/pefile"
)

// The header of an entry of the certificate table (WIN_CERTIFICATE): length with
// the header, revision, type.
const (
	Header   = 8
	Revision = 0x0200
	PKCS7    = 0x0002
	Align    = 8
)

// OIDSignedData is that of PKCS #7 signedData.
var OIDSignedData = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 2}

// The structures of RFC 2315, as far as they are used.
type (
	// ContentInfo is some content with its type.
	ContentInfo struct {
		Type    asn1.ObjectIdentifier
		Content asn1.RawValue `asn1:"explicit,optional,tag:0"`
	}
	// SignedData is content with its signers.
	SignedData struct {
		Version      int
		Digests      []pkix.AlgorithmIdentifier `asn1:"set"`
		Content      ContentInfo
		Certificates asn1.RawValue `asn1:"optional,tag:0"`
		Signers      []SignerInfo  `asn1:"set"`
	}
	// SignerInfo is one signature.
	SignerInfo struct {
		Version    int
		ID         IssuerAndSerial
		Digest     pkix.AlgorithmIdentifier
		Attributes asn1.RawValue `asn1:"optional,tag:0"`
		Algorithm  pkix.AlgorithmIdentifier
		Signature  []byte
	}
	// IssuerAndSerial names a certificate.
	IssuerAndSerial struct {
		Issuer asn1.RawValue
		Serial *big.Int
	}
)

// Signatures takes the PKCS #7 entries out of a certificate table.
func Signatures(table []byte) (list [][]byte, err error) {
	for len(table) >= Header {
		n := binary.LittleEndian.Uint32(table)
		if n < Header || uint64(n) > uint64(len(table)) {
			return nil, fmt.Errorf("certificate of %d bytes in a table with %d left", n, len(table))
		}
		if binary.LittleEndian.Uint16(table[6:]) == PKCS7 {
			list = append(list, table[Header:n])
		}
		table = table[min(len(table), int(n+Align-1)&^(Align-1)):]
	}
	return list, nil
}

// Signed is a signature that was parsed, not verified.
type Signed struct {
	Data         SignedData
	Signer       SignerInfo
	Certificates []*x509.Certificate
}

// Parse reads a ContentInfo with a SignedData of one signer. Bytes after it are
// padding.
func Parse(der []byte) (*Signed, error) {
	var outer ContentInfo
	if _, err := asn1.Unmarshal(der, &outer); err != nil {
		return nil, fmt.Errorf("PKCS #7: %w", err)
	}
	if !outer.Type.Equal(OIDSignedData) {
		return nil, fmt.Errorf("PKCS #7 content of type %v, want signed data", outer.Type)
	}
	var s Signed
	if _, err := asn1.Unmarshal(outer.Content.Bytes, &s.Data); err != nil {
		return nil, fmt.Errorf("PKCS #7 signed data: %w", err)
	}
	if len(s.Data.Signers) != 1 {
		return nil, fmt.Errorf("%d signers, want one", len(s.Data.Signers))
	}
	s.Signer = s.Data.Signers[0]
	var err error
	s.Certificates, err = x509.ParseCertificates(s.Data.Certificates.Bytes)
	return &s, err
}

// Certificate is the signer's, nil if the signature does not bring it.
func (s *Signed) Certificate() *x509.Certificate {
	for _, c := range s.Certificates {
		if c.SerialNumber.Cmp(s.Signer.ID.Serial) == 0 && bytes.Equal(c.RawIssuer, s.Signer.ID.Issuer.FullBytes) {
			return c
		}
	}
	return nil
}

// of reads the PKCS #7 entries of a program.
func of(image io.ReaderAt, size int64) ([][]byte, error) {
	f, err := pefile.Open(image, size)
	if err != nil {
		return nil, err
	}
	table := make([]byte, f.Certificates.Size)
	if _, err := image.ReadAt(table, int64(f.Certificates.Offset)); err != nil && len(table) > 0 {
		return nil, fmt.Errorf("certificate table: %w", err)
	}
	return Signatures(table)
}
