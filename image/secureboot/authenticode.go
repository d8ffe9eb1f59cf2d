package secureboot

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"fmt"
	"unicode/utf16"

	"quantavirt/internal/authenticode"
	"quantavirt/internal/pefile"
)

// Object identifiers of Authenticode.
var (
	oidIndirectData = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 2, 1, 4}  // SPC_INDIRECT_DATA_OBJID
	oidPEImageData  = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 2, 1, 15} // SPC_PE_IMAGE_DATAOBJ
)

// The structures of "Authenticode Signature Format".
type (
	indirectData struct {
		Data   attributeValue
		Digest digestInfo
	}
	attributeValue struct {
		Type  asn1.ObjectIdentifier
		Value peImageData
	}
	peImageData struct {
		Flags asn1.BitString
		File  asn1.RawValue
	}
	digestInfo struct {
		Algorithm pkix.AlgorithmIdentifier
		Digest    []byte
	}
)

// Digest is the SHA-256 Authenticode digest of an image ("Calculating the PE
// Image Hash"): all of it but the checksum and the signatures.
func Digest(image []byte) ([sha256.Size]byte, error) {
	f, err := pefile.Open(bytes.NewReader(image), int64(len(image)))
	if err != nil {
		return [sha256.Size]byte{}, err
	}
	return digest(image, f)
}

func digest(image []byte, f *pefile.File) ([sha256.Size]byte, error) {
	next := f.SizeOfHeaders
	for _, s := range f.Sections {
		if s.Data.Size > 0 && s.Data.Offset != next {
			return [sha256.Size]byte{}, fmt.Errorf("secureboot: a gap before section %s at %#x would not be signed", s.Name, s.Data.Offset)
		}
		next += s.Data.Size
	}
	end := len(image) - int(f.Certificates.Size)
	h := sha256.New()
	h.Write(image[:f.Checksum])
	h.Write(image[f.Checksum+4 : f.CertificateSlot])
	h.Write(image[f.CertificateSlot+8 : end])
	h.Write(make([]byte, -end&(authenticode.Align-1)))
	return [sha256.Size]byte(h.Sum(nil)), nil
}

// Sign returns the image with a signature at its end. An image that is signed
// already is refused.
func (k Key) Sign(image []byte) ([]byte, error) {
	f, err := pefile.Open(bytes.NewReader(image), int64(len(image)))
	if err != nil {
		return nil, fmt.Errorf("secureboot: %w", err)
	}
	if f.Certificates.Size != 0 {
		return nil, errors.New("secureboot: the image is signed already")
	}
	sum, err := digest(image, f)
	if err != nil {
		return nil, err
	}
	content, err := marshalIndirect(sum[:])
	if err != nil {
		return nil, fmt.Errorf("secureboot: %w", err)
	}
	signature, err := k.signContent(oidIndirectData, content)
	if err != nil {
		return nil, fmt.Errorf("secureboot: %w", err)
	}
	out := pad(bytes.Clone(image))
	at := len(out)
	out = binary.LittleEndian.AppendUint32(out, uint32(authenticode.Header+len(signature)))
	out = binary.LittleEndian.AppendUint16(out, authenticode.Revision)
	out = binary.LittleEndian.AppendUint16(out, authenticode.PKCS7)
	out = pad(append(out, signature...))
	binary.LittleEndian.PutUint32(out[f.CertificateSlot:], uint32(at))
	binary.LittleEndian.PutUint32(out[f.CertificateSlot+4:], uint32(len(out)-at))
	return out, nil
}

func pad(b []byte) []byte { return append(b, make([]byte, -len(b)&(authenticode.Align-1))...) }

// obsolete is what SpcPeImageData.file holds, as the format demands: [0] EXPLICIT
// of the choice [2] EXPLICIT, a string [0] IMPLICIT in UTF-16.
func obsolete() (asn1.RawValue, error) {
	var text []byte
	for _, c := range utf16.Encode([]rune("<<<Obsolete>>>")) {
		text = binary.BigEndian.AppendUint16(text, c)
	}
	name, err := asn1.Marshal(asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, Bytes: text})
	if err != nil {
		return asn1.RawValue{}, err
	}
	link, err := asn1.Marshal(asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 2, IsCompound: true, Bytes: name})
	return explicit(link), err
}

func marshalIndirect(sum []byte) ([]byte, error) {
	file, err := obsolete()
	if err != nil {
		return nil, err
	}
	return asn1.Marshal(indirectData{
		Data:   attributeValue{oidPEImageData, peImageData{File: file}},
		Digest: digestInfo{algorithm(oidSHA256), sum},
	})
}

// Verify checks that one of the trusted certificates has signed the image. The
// validity times of certificates do not count, as for firmware.
func Verify(image []byte, trusted ...*x509.Certificate) error {
	f, err := pefile.Open(bytes.NewReader(image), int64(len(image)))
	if err != nil {
		return fmt.Errorf("secureboot: %w", err)
	}
	sum, err := digest(image, f)
	if err != nil {
		return err
	}
	signatures, err := authenticode.Signatures(image[f.Certificates.Offset:][:f.Certificates.Size])
	if err != nil {
		return fmt.Errorf("secureboot: %w", err)
	}
	err = errors.New("the image is not signed")
	for _, der := range signatures {
		if err = verifyOne(der, sum[:], trusted); err == nil {
			return nil
		}
	}
	return fmt.Errorf("secureboot: %w", err)
}

func verifyOne(der, sum []byte, trusted []*x509.Certificate) error {
	s, err := authenticode.Parse(der)
	if err != nil {
		return err
	}
	content, err := signedContent(s, oidIndirectData, trusted)
	if err != nil {
		return err
	}
	var indirect indirectData
	if _, err := asn1.Unmarshal(content, &indirect); err != nil {
		return fmt.Errorf("content of the signature: %w", err)
	}
	if !indirect.Digest.Algorithm.Algorithm.Equal(oidSHA256) || !bytes.Equal(indirect.Digest.Digest, sum) {
		return errors.New("the image is not the one that was signed")
	}
	return nil
}
