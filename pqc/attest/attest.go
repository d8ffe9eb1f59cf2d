// Package attest lets a node prove what it booted, and what its virtual machines were
// started with, to who asks with a nonce.
//
// The proof has two halves that vouch for each other. The TPM signs its registers
// (classical cryptography: TPMs have no other), and the node's identity signs the TPM's
// statement and key by ML-DSA-87. The quote in turn is about a nonce that the identity's
// public key is part of, so that neither half can be taken from elsewhere.
//
// That the key of the TPM is one of a genuine TPM is not proven by a certificate of
// its maker: who has seen the identity once, when the node was set up, asks for that.
//
// A report about a VM says what the node measured when it started the VM, signed by the
// same identity. The node's own report is in it, and its nonce is made of what is said
// about the VM: who does not trust the node to measure can tell what measured.
package attest

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"time"

	"quantavirt/internal/qverr"
	"quantavirt/internal/tpm"
)

// context of signatures and hashes of a node's report.
const context = "quantavirt-attestation-1"

// Sizes of a nonce, in bytes.
const (
	MinNonce = 16
	MaxNonce = 64
)

// registers are those that a quote is about.
var registers = []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}

// Report is what a node answers. Everything in it is to be checked.
type Report struct {
	Format   int        `json:"format"` // 1
	NodeID   string     `json:"node_id"`
	Hostname string     `json:"hostname"`
	Version  string     `json:"version"` // of the system, as it says itself
	Time     time.Time  `json:"time"`    // by the node's clock
	Nonce    string     `json:"nonce"`   // hexadecimal
	PCRs     tpm.Values `json:"pcrs"`
	EventLog []byte     `json:"event_log"`
	Quote    tpm.Quote  `json:"quote"`

	Identity  []byte `json:"identity"`  // ML-DSA-87 public key
	Signature []byte `json:"signature"` // over Statement, with the context string
}

const format = 1

// ParseNonce reads a nonce. QV_ERR_INVAL: it is none of MinNonce to MaxNonce bytes.
func ParseNonce(digits string) ([]byte, error) {
	nonce, err := hex.DecodeString(digits)
	if err != nil || len(nonce) < MinNonce || len(nonce) > MaxNonce {
		return nil, qverr.New(qverr.Inval, "a nonce is %d to %d bytes in hexadecimal", MinNonce, MaxNonce).
			WithHint("make one: openssl rand -hex 32")
	}
	return nonce, nil
}

// Node is who a report is about.
type Node struct{ ID, Hostname, Version string }

// New makes a report with the machine's TPM. log is the firmware's event log.
func New(node Node, nonce []byte, d *tpm.Device, log []byte, id *Identity, now time.Time) (Report, error) {
	r := Report{
		Format: format, NodeID: node.ID, Hostname: node.Hostname, Version: node.Version, Time: now.UTC().Truncate(time.Second),
		Nonce: hex.EncodeToString(nonce), EventLog: log, Identity: id.Public(),
	}
	var err error
	if r.PCRs, err = d.Read(registers...); err != nil {
		return Report{}, err
	}
	if r.Quote, err = d.Quote(quoteNonce(nonce, r.Identity), registers...); err != nil {
		return Report{}, err
	}
	r.Signature, err = id.sign(r.statement(), context)
	return r, err
}

// quoteNonce is what the TPM signs beside the registers.
func quoteNonce(nonce, identity []byte) []byte {
	h := sha256.New()
	h.Write(joined([]byte(context), nonce, identity))
	return h.Sum(nil)
}

// statement is what the identity signs: every field but the event log, which
// the registers vouch for, and itself.
func (r Report) statement() []byte {
	return joined([]byte(r.NodeID), []byte(r.Hostname), []byte(r.Version), []byte(r.Time.UTC().Format(time.RFC3339)), []byte(r.Nonce),
		r.Quote.Key, r.Quote.Attest, r.Quote.Signature, r.Identity)
}

// joined puts each part behind its length, so that no two lists of parts look
// alike.
func joined(parts ...[]byte) []byte {
	var b []byte
	for _, p := range parts {
		b = binary.BigEndian.AppendUint32(b, uint32(len(p)))
		b = append(b, p...)
	}
	return b
}

// Fingerprint names an identity: sha256: and the SHA-256 of its public key.
func Fingerprint(public []byte) string {
	sum := sha256.Sum256(public)
	return "sha256:" + hex.EncodeToString(sum[:])
}

func refused(text string, args ...any) error {
	return qverr.New(qverr.PQCAttestation, text, args...)
}
