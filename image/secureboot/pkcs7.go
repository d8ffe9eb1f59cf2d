package secureboot

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
)

// Object identifiers of PKCS #1, #7 and #9 and of NIST.
var (
	oidData          = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 1}
	oidSignedData    = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 2}
	oidContentType   = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 3}
	oidMessageDigest = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 4}
	oidRSA           = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 1}
	oidSHA256        = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1}
)

// The structures of RFC 2315, as far as they are used.
type (
	contentInfo struct {
		Type    asn1.ObjectIdentifier
		Content asn1.RawValue `asn1:"explicit,optional,tag:0"`
	}
	signedData struct {
		Version      int
		Digests      []pkix.AlgorithmIdentifier `asn1:"set"`
		Content      contentInfo
		Certificates asn1.RawValue `asn1:"optional,tag:0"`
		Signers      []signerInfo  `asn1:"set"`
	}
	signerInfo struct {
		Version    int
		ID         issuerAndSerial
		Digest     pkix.AlgorithmIdentifier
		Attributes asn1.RawValue `asn1:"optional,tag:0"`
		Algorithm  pkix.AlgorithmIdentifier
		Signature  []byte
	}
	issuerAndSerial struct {
		Issuer asn1.RawValue
		Serial *big.Int
	}
	attribute struct {
		Type   asn1.ObjectIdentifier
		Values asn1.RawValue `asn1:"set"`
	}
)

func algorithm(oid asn1.ObjectIdentifier) pkix.AlgorithmIdentifier {
	return pkix.AlgorithmIdentifier{Algorithm: oid, Parameters: asn1.NullRawValue}
}

// signDetached signs data that the signature does not carry, without attributes,
// and returns a SignedData.
func (k Key) signDetached(data []byte) ([]byte, error) {
	return k.signedData(contentInfo{Type: oidData}, nil, data)
}

// signContent signs content of a type, which the signature carries, by way of
// the attributes that PKCS #7 then asks for, and returns a ContentInfo.
func (k Key) signContent(kind asn1.ObjectIdentifier, content []byte) ([]byte, error) {
	var value asn1.RawValue
	if _, err := asn1.Unmarshal(content, &value); err != nil {
		return nil, err
	}
	digest := sha256.Sum256(value.Bytes) // without tag and length, as section 9.3 says
	attributes, err := marshalAttributes(kind, digest[:])
	if err != nil {
		return nil, err
	}
	signed, err := k.signedData(contentInfo{Type: kind, Content: explicit(content)}, attributes, attributes)
	if err != nil {
		return nil, err
	}
	return asn1.Marshal(contentInfo{Type: oidSignedData, Content: explicit(signed)})
}

// explicit wraps DER into the tag [0].
func explicit(der []byte) asn1.RawValue {
	return asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: der}
}

// marshalAttributes returns the SET of the attributes.
func marshalAttributes(kind asn1.ObjectIdentifier, digest []byte) ([]byte, error) {
	var list []attribute
	for _, a := range []struct {
		oid   asn1.ObjectIdentifier
		value any
	}{{oidContentType, kind}, {oidMessageDigest, digest}} {
		der, err := asn1.Marshal(a.value)
		if err != nil {
			return nil, err
		}
		list = append(list, attribute{a.oid, asn1.RawValue{Class: asn1.ClassUniversal, Tag: asn1.TagSet, IsCompound: true, Bytes: der}})
	}
	return asn1.MarshalWithParams(list, "set")
}

// signedData signs tbs, which is content or attributes.
func (k Key) signedData(content contentInfo, attributes, tbs []byte) ([]byte, error) {
	digest := sha256.Sum256(tbs)
	signature, err := rsa.SignPKCS1v15(nil, k.Private, crypto.SHA256, digest[:])
	if err != nil {
		return nil, err
	}
	signer := signerInfo{
		Version:   1,
		ID:        issuerAndSerial{asn1.RawValue{FullBytes: k.Certificate.RawIssuer}, k.Certificate.SerialNumber},
		Digest:    algorithm(oidSHA256),
		Algorithm: algorithm(oidRSA),
		Signature: signature,
	}
	if attributes != nil {
		var set asn1.RawValue
		if _, err := asn1.Unmarshal(attributes, &set); err != nil {
			return nil, err
		}
		signer.Attributes = explicit(set.Bytes) // IMPLICIT: the tag stands for that of the SET
	}
	return asn1.Marshal(signedData{
		Version:      1,
		Digests:      []pkix.AlgorithmIdentifier{algorithm(oidSHA256)},
		Content:      content,
		Certificates: explicit(k.Certificate.Raw),
		Signers:      []signerInfo{signer},
	})
}

// signed is a signature that was parsed, not yet verified.
type signed struct {
	data         signedData
	signer       signerInfo
	certificates []*x509.Certificate
}

// parseSigned reads a ContentInfo with a SignedData of one signer. Bytes after
// it are padding.
func parseSigned(der []byte) (*signed, error) {
	var outer contentInfo
	if _, err := asn1.Unmarshal(der, &outer); err != nil {
		return nil, fmt.Errorf("PKCS #7: %w", err)
	}
	if !outer.Type.Equal(oidSignedData) {
		return nil, fmt.Errorf("PKCS #7 content of type %v, want signed data", outer.Type)
	}
	var s signed
	if _, err := asn1.Unmarshal(outer.Content.Bytes, &s.data); err != nil {
		return nil, fmt.Errorf("PKCS #7 signed data: %w", err)
	}
	if len(s.data.Signers) != 1 {
		return nil, fmt.Errorf("%d signers, want one", len(s.data.Signers))
	}
	s.signer = s.data.Signers[0]
	var err error
	s.certificates, err = x509.ParseCertificates(s.data.Certificates.Bytes)
	return &s, err
}

// content returns the signed content if one of the trusted certificates has
// signed it: the attributes name its digest, and the signature covers them.
func (s *signed) content(kind asn1.ObjectIdentifier, trusted []*x509.Certificate) ([]byte, error) {
	if !s.data.Content.Type.Equal(kind) {
		return nil, fmt.Errorf("signed content of type %v, want %v", s.data.Content.Type, kind)
	}
	if !s.signer.Digest.Algorithm.Equal(oidSHA256) || !s.signer.Algorithm.Algorithm.Equal(oidRSA) {
		return nil, fmt.Errorf("signed with %v and %v, want SHA-256 and RSA", s.signer.Digest.Algorithm, s.signer.Algorithm.Algorithm)
	}
	content := s.data.Content.Content.Bytes
	var value asn1.RawValue
	if _, err := asn1.Unmarshal(content, &value); err != nil {
		return nil, fmt.Errorf("signed content: %w", err)
	}
	digest := sha256.Sum256(value.Bytes)
	want, err := marshalAttributes(kind, digest[:])
	if err != nil {
		return nil, err
	}
	attributes, err := asn1.Marshal(asn1.RawValue{Class: asn1.ClassUniversal, Tag: asn1.TagSet, IsCompound: true, Bytes: s.signer.Attributes.Bytes})
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(attributes, want) {
		return nil, errors.New("the signature is not of this content")
	}
	key, err := s.trustedKey(trusted)
	if err != nil {
		return nil, err
	}
	digest = sha256.Sum256(attributes)
	if err := rsa.VerifyPKCS1v15(key, crypto.SHA256, digest[:], s.signer.Signature); err != nil {
		return nil, fmt.Errorf("signature: %w", err)
	}
	return content, nil
}

// trustedKey is the signer's key if its certificate is trusted.
func (s *signed) trustedKey(trusted []*x509.Certificate) (*rsa.PublicKey, error) {
	for _, c := range s.certificates {
		if c.SerialNumber.Cmp(s.signer.ID.Serial) != 0 || !bytes.Equal(c.RawIssuer, s.signer.ID.Issuer.FullBytes) {
			continue
		}
		for _, t := range trusted {
			if key, ok := t.PublicKey.(*rsa.PublicKey); ok && t.Equal(c) {
				return key, nil
			}
		}
		return nil, fmt.Errorf("signed by %q, which is not trusted", c.Subject)
	}
	return nil, errors.New("the signer's certificate is missing")
}
