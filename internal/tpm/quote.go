package tpm

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/sha256"
	"math/big"

	"github.com/google/go-tpm/tpm2"

	"quantavirt/internal/qverr"
)

// Quote is a TPM's signed statement about its registers. Its parts have the
// forms of the TPM 2.0 Library Specification, part 2.
type Quote struct {
	Key       []byte `json:"key"`       // TPMT_PUBLIC of the attestation key
	Attest    []byte `json:"attest"`    // TPMS_ATTEST
	Signature []byte `json:"signature"` // TPMT_SIGNATURE
}

// Largest parts of a Quote, in bytes.
const maxPart = 1 << 10

// attestationKey is a restricted signing key: it signs nothing but what the TPM
// made itself. It is derived from the endorsement seed, so always the same in one TPM.
var attestationKey = tpm2.TPMTPublic{
	Type: tpm2.TPMAlgECC, NameAlg: tpm2.TPMAlgSHA256,
	ObjectAttributes: tpm2.TPMAObject{
		FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true, NoDA: true, Restricted: true, SignEncrypt: true,
	},
	Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{
		Scheme: tpm2.TPMTECCScheme{
			Scheme:  tpm2.TPMAlgECDSA,
			Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSigSchemeECDSA{HashAlg: tpm2.TPMAlgSHA256}),
		},
		CurveID: tpm2.TPMECCNistP256,
	}),
}

// Quote has the TPM sign the values of registers together with a nonce of at most
// 32 bytes.
func (d *Device) Quote(nonce []byte, pcrs ...int) (Quote, error) {
	if len(nonce) > sha256.Size {
		return Quote{}, qverr.New(qverr.Inval, "a nonce of %d bytes, want at most %d", len(nonce), sha256.Size)
	}
	k, err := d.primary(tpm2.TPMRHEndorsement, attestationKey, "make the TPM's attestation key")
	if err != nil {
		return Quote{}, err
	}
	defer k.flush()
	got, err := tpm2.Quote{
		SignHandle:     tpm2.AuthHandle{Handle: k.handle, Name: k.name, Auth: tpm2.PasswordAuth(nil)},
		QualifyingData: tpm2.TPM2BData{Buffer: nonce},
		InScheme:       tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgNull},
		PCRSelect:      selection(pcrs...),
	}.Execute(d.tpm)
	if err != nil {
		return Quote{}, failed("quote by the TPM", err)
	}
	return Quote{Key: tpm2.Marshal(k.public), Attest: got.Quoted.Bytes(), Signature: tpm2.Marshal(got.Signature)}, nil
}

// Verify checks that the key of the quote has signed these values and this
// nonce; whose key it is, the caller must know. PQC_ERR_ATTESTATION: it has not.
func (q Quote) Verify(nonce []byte, values Values) error {
	if err := q.verifySignature(); err != nil {
		return err
	}
	attest, err := tpm2.Unmarshal[tpm2.TPMSAttest](q.Attest)
	if err != nil {
		return refused("the quote cannot be read: %w", err)
	}
	quote, err := attest.Attested.Quote()
	if attest.Magic != tpm2.TPMGeneratedValue || attest.Type != tpm2.TPMSTAttestQuote || err != nil {
		return refused("what was signed is no quote of a TPM")
	}
	if !bytes.Equal(attest.ExtraData.Buffer, nonce) {
		return refused("the quote answers another nonce")
	}
	if !bytes.Equal(tpm2.Marshal(quote.PCRSelect), tpm2.Marshal(selection(values.pcrs()...))) {
		return refused("the quote is about other registers")
	}
	digest := values.sum()
	if !bytes.Equal(quote.PCRDigest.Buffer, digest[:]) {
		return refused("the values of the registers are not those that the TPM signed")
	}
	return nil
}

// verifySignature also wants a key that signs nothing else.
func (q Quote) verifySignature() error {
	if len(q.Key) > maxPart || len(q.Attest) > maxPart || len(q.Signature) > maxPart {
		return refused("the quote has parts of %d, %d and %d bytes, want at most %d", len(q.Key), len(q.Attest), len(q.Signature), maxPart)
	}
	public, err := tpm2.Unmarshal[tpm2.TPMTPublic](q.Key)
	if err != nil {
		return refused("the attestation key cannot be read: %w", err)
	}
	if a := public.ObjectAttributes; !a.Restricted || !a.SignEncrypt || a.Decrypt || !a.FixedTPM || !a.SensitiveDataOrigin {
		return refused("the attestation key is not one that signs only what its TPM made")
	}
	any, err := tpm2.Pub(*public)
	key, ok := any.(*ecdsa.PublicKey)
	if err != nil || !ok {
		return refused("the attestation key is none of ECDSA")
	}
	if _, err := key.ECDH(); err != nil { // is it on the curve?
		return refused("the attestation key: %w", err)
	}
	signature, err := tpm2.Unmarshal[tpm2.TPMTSignature](q.Signature)
	if err != nil {
		return refused("the signature of the quote cannot be read: %w", err)
	}
	s, err := signature.Signature.ECDSA()
	if err != nil || s.Hash != tpm2.TPMAlgSHA256 {
		return refused("the signature of the quote is none of ECDSA with SHA-256")
	}
	sum := sha256.Sum256(q.Attest)
	if !ecdsa.Verify(key, sum[:], new(big.Int).SetBytes(s.SignatureR.Buffer), new(big.Int).SetBytes(s.SignatureS.Buffer)) {
		return refused("the attestation key did not sign this quote")
	}
	return nil
}

func refused(format string, args ...any) error {
	return qverr.New(qverr.PQCAttestation, format, args...)
}
