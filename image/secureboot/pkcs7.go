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

	"quantavirt/internal/authenticode"
)

// Object identifiers of PKCS #1, #7 and #9 and of NIST.
var (
	oidData          = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 1}
	oidContentType   = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 3}
	oidMessageDigest = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 4}
	oidRSA           = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 1}
	oidSHA256        = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1}
)

type attribute struct {
	Type   asn1.ObjectIdentifier
	Values asn1.RawValue `asn1:"set"`
}

func algorithm(oid asn1.ObjectIdentifier) pkix.AlgorithmIdentifier {
	return pkix.AlgorithmIdentifier{Algorithm: oid, Parameters: asn1.NullRawValue}
}

// signDetached signs data that the signature does not carry, without attributes,
// and returns a SignedData.
func (k Key) signDetached(data []byte) ([]byte, error) {
	return k.signedData(authenticode.ContentInfo{Type: oidData}, nil, data)
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
	signed, err := k.signedData(authenticode.ContentInfo{Type: kind, Content: explicit(content)}, attributes, attributes)
	if err != nil {
		return nil, err
	}
	return asn1.Marshal(authenticode.ContentInfo{Type: authenticode.OIDSignedData, Content: explicit(signed)})
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
func (k Key) signedData(content authenticode.ContentInfo, attributes, tbs []byte) ([]byte, error) {
	digest := sha256.Sum256(tbs)
	signature, err := rsa.SignPKCS1v15(nil, k.Private, crypto.SHA256, digest[:])
	if err != nil {
		return nil, err
	}
	signer := authenticode.SignerInfo{
		Version:   1,
		ID:        authenticode.IssuerAndSerial{Issuer: asn1.RawValue{FullBytes: k.Certificate.RawIssuer}, Serial: k.Certificate.SerialNumber},
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
	return asn1.Marshal(authenticode.SignedData{
		Version:      1,
		Digests:      []pkix.AlgorithmIdentifier{algorithm(oidSHA256)},
		Content:      content,
		Certificates: explicit(k.Certificate.Raw),
		Signers:      []authenticode.SignerInfo{signer},
	})
}

// signedContent returns the signed content if one of the trusted certificates has
// signed it: the attributes name its digest, and the signature covers them.
func signedContent(s *authenticode.Signed, kind asn1.ObjectIdentifier, trusted []*x509.Certificate) ([]byte, error) {
	if !s.Data.Content.Type.Equal(kind) {
		return nil, fmt.Errorf("signed content of type %v, want %v", s.Data.Content.Type, kind)
	}
	if !s.Signer.Digest.Algorithm.Equal(oidSHA256) || !s.Signer.Algorithm.Algorithm.Equal(oidRSA) {
		return nil, fmt.Errorf("signed with %v and %v, want SHA-256 and RSA", s.Signer.Digest.Algorithm, s.Signer.Algorithm.Algorithm)
	}
	content := s.Data.Content.Content.Bytes
	var value asn1.RawValue
	if _, err := asn1.Unmarshal(content, &value); err != nil {
		return nil, fmt.Errorf("signed content: %w", err)
	}
	digest := sha256.Sum256(value.Bytes)
	want, err := marshalAttributes(kind, digest[:])
	if err != nil {
		return nil, err
	}
	attributes, err := asn1.Marshal(asn1.RawValue{Class: asn1.ClassUniversal, Tag: asn1.TagSet, IsCompound: true, Bytes: s.Signer.Attributes.Bytes})
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(attributes, want) {
		return nil, errors.New("the signature is not of this content")
	}
	key, err := trustedKey(s, trusted)
	if err != nil {
		return nil, err
	}
	digest = sha256.Sum256(attributes)
	if err := rsa.VerifyPKCS1v15(key, crypto.SHA256, digest[:], s.Signer.Signature); err != nil {
		return nil, fmt.Errorf("signature: %w", err)
	}
	return content, nil
}

// trustedKey is the signer's key if its certificate is trusted.
func trustedKey(s *authenticode.Signed, trusted []*x509.Certificate) (*rsa.PublicKey, error) {
	c := s.Certificate()
	if c == nil {
		return nil, errors.New("the signer's certificate is missing")
	}
	for _, t := range trusted {
		if key, ok := t.PublicKey.(*rsa.PublicKey); ok && t.Equal(c) {
			return key, nil
		}
	}
	return nil, fmt.Errorf("signed by %q, which is not trusted", c.Subject)
}
