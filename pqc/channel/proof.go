package channel

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"io"

	"quantavirt/internal/qverr"
	"quantavirt/pqc"
)

// A proof on the wire: 4 bytes of magic, the size of the rest (32 bits, little-endian), a byte
// that names the ML-DSA set, the public key and the signature.
const (
	proofMagic = "QVC1"
	proofHead  = len(proofMagic) + 4
	maxProof   = 1 + 2592 + 4627 // ML-DSA-87
)

// signContext is the context string of all signatures here.
const signContext = "quantavirt-channel-1"

// Roles of those who sign.
const (
	roleClient = "client"
	roleServer = "server"
)

// proof is an identity and its signature over a statement.
type proof struct {
	algorithm         pqc.Algorithm
	public, signature []byte
}

func (p proof) marshal() ([]byte, error) {
	set, err := identityByte(p.algorithm)
	if err != nil {
		return nil, err
	}
	b := append(make([]byte, 0, proofHead+maxProof), proofMagic...)
	b = binary.LittleEndian.AppendUint32(b, uint32(1+len(p.public)+len(p.signature)))
	b = append(b, set)
	return append(append(b, p.public...), p.signature...), nil
}

// proofSize reads the head. PQC_ERR_VERIFY: it is none, or of a size that no proof has.
func proofSize(head []byte) (int, error) {
	if len(head) != proofHead || string(head[:len(proofMagic)]) != proofMagic {
		return 0, refused("the peer does not prove who it is: it sends something else")
	}
	n := binary.LittleEndian.Uint32(head[len(proofMagic):])
	if n < 1 || n > uint32(maxProof) {
		return 0, refused("the peer's proof has %d bytes, at most %d are taken", n, maxProof)
	}
	return int(n), nil
}

// parseProof reads what follows the head.
func parseProof(b []byte) (proof, error) {
	if len(b) == 0 {
		return proof{}, refused("the peer's proof is empty")
	}
	algorithm, ok := identities[b[0]]
	if !ok {
		return proof{}, qverr.New(qverr.PQCParamSet, "the peer's identity is of the set %d: ML-DSA-65 and ML-DSA-87 are taken", b[0])
	}
	params, err := algorithm.Params()
	if err != nil {
		return proof{}, err
	}
	if len(b) != 1+params.PublicKey+params.Output {
		return proof{}, refused("the peer's proof has %d bytes, one of %s has %d", len(b), algorithm, 1+params.PublicKey+params.Output)
	}
	at := 1 + params.PublicKey
	return proof{algorithm, b[1:at:at], b[at:]}, nil
}

func readProof(r io.Reader) (proof, error) {
	var head [proofHead]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return proof{}, failed("read the peer's proof", err)
	}
	n, err := proofSize(head[:])
	if err != nil {
		return proof{}, err
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(r, body); err != nil {
		return proof{}, failed("read the peer's proof", err)
	}
	return parseProof(body)
}

// statement is what a side signs: which connection it is, for what, who signs in which role,
// and for the server to whom. Each part is behind its size.
func statement(state tls.ConnectionState, protocol, role string, identities ...[]byte) ([]byte, error) {
	exporter, err := state.ExportKeyingMaterial("EXPORTER-quantavirt-channel-1", []byte(protocol), 64)
	if err != nil {
		return nil, qverr.New(qverr.PQCKDF, "the connection's exporter value: %w", err)
	}
	var b []byte
	for _, part := range append([][]byte{[]byte(protocol), []byte(role), exporter}, identities...) {
		b = binary.LittleEndian.AppendUint32(b, uint32(len(part)))
		b = append(b, part...)
	}
	return b, nil
}

// verify checks a proof and finds out whose it is.
func (c *Config) verify(ctx context.Context, p proof, said []byte) (Peer, error) {
	peer, err := c.Trust.find(p.public, c.Protocol)
	if err != nil {
		return Peer{}, err
	}
	if c.Expect != "" && peer.Name != c.Expect {
		return Peer{}, refused("%s answers in the place of %s", peer.Name, c.Expect)
	}
	v, err := c.Provider.Verifier(ctx, p.algorithm, p.public)
	if err == nil {
		err = v.Verify(ctx, said, p.signature, &pqc.SignOptions{Context: []byte(signContext)})
	}
	if err != nil {
		return Peer{}, refused("%s did not sign this connection: %w", peer.Name, err)
	}
	return peer, nil
}

func refused(text string, args ...any) error { return qverr.New(qverr.PQCVerify, text, args...) }

// failed is a failure of the transport.
func failed(what string, err error) error {
	code := qverr.CodeOf(err)
	if code != qverr.Timeout {
		code = qverr.IO
	}
	return qverr.New(code, "channel: %s: %w", what, err)
}
