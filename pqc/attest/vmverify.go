package attest

import (
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/cloudflare/circl/sign/mldsa/mldsa87"

	"quantavirt/internal/qverr"
)

// ExpectedVM is what the verifier knows from elsewhere.
type ExpectedVM struct {
	Nonce    []byte
	Identity string // fingerprint; "" if the identity is not known yet
	// Host is what the node should have booted, of which System and Extended count; nil for
	// any host.
	Host   *Expected
	Policy Policy
}

// Verify looks at everything, so that all that is wrong is named at once. PQC_ERR_ATTESTATION:
// something is; the checks say what, and "measures" of the error's details names them.
func (r VMReport) Verify(want ExpectedVM) ([]Check, error) {
	statement, err := r.Statement.Encode()
	if err != nil {
		return nil, err
	}
	c := &checklist{}
	node := Report{Identity: r.Identity}
	known := Expected{Identity: want.Identity}
	c.add("identity", node.identityText(known), node.checkIdentity(known))
	c.add("signature", "ML-DSA-87, by that identity", verifySignature(r.Identity, statement, vmContext, r.Signature))
	c.add("nonce", "is the one that was asked with", checkNonce(r.Statement.Nonce, want.Nonce))
	r.checkHost(c, want.Host, statement)
	if err := want.Policy.compare(c, r.Statement.Measures); err != nil {
		return nil, err
	}
	if bad, names := c.wrong(); len(bad) > 0 {
		return c.checks, qverr.New(qverr.PQCAttestation, "the VM did not prove what it runs: %s", strings.Join(bad, "; ")).With("measures", names)
	}
	return c.checks, nil
}

// checkHost checks the node's own report, and that it is about this one.
func (r VMReport) checkHost(c *checklist, want *Expected, statement []byte) {
	switch {
	case want == nil && r.Host == nil:
		c.skip("host", "not looked at; the node has no TPM")
		return
	case want == nil:
		c.skip("host", "not looked at")
		return
	case r.Host == nil:
		c.add("host", "", refused("the node has no TPM: what it booted is not proven"))
		return
	}
	var nameErr error
	if h := r.Host; h.NodeID != r.Statement.NodeID || h.Hostname != r.Statement.Hostname || h.Version != r.Statement.Version {
		nameErr = refused("the node's report is about another node")
	}
	c.add("host", "node "+r.Statement.NodeID, nameErr)
	// The error only repeats the checks.
	checks, _ := r.Host.Verify(Expected{Nonce: hostNonce(statement), Identity: Fingerprint(r.Identity), System: want.System, Extended: want.Extended})
	for _, k := range checks {
		if k.Name == "nonce" && k.Good {
			k.Detail = "is made of what is said about the VM"
		}
		k.Name = "host " + k.Name
		c.checks = append(c.checks, k)
	}
}

// checklist collects checks.
type checklist struct{ checks []Check }

func (c *checklist) add(name, good string, err error) {
	k := Check{Name: name, Good: err == nil, Detail: good}
	if err != nil {
		k.Detail = err.Error()
	}
	c.checks = append(c.checks, k)
}

// skip notes what was not compared, which is not wrong.
func (c *checklist) skip(name, detail string) {
	c.checks = append(c.checks, Check{Name: name, Good: true, Skipped: true, Detail: detail})
}

// wrong describes the checks that failed, and names them.
func (c *checklist) wrong() (texts, names []string) {
	for _, k := range c.checks {
		if !k.Good {
			texts, names = append(texts, k.Name+": "+k.Detail), append(names, k.Name)
		}
	}
	return texts, names
}

func checkNonce(got string, want []byte) error {
	if got != hex.EncodeToString(want) {
		return refused("the report answers another nonce")
	}
	return nil
}

// verifySignature checks a signature of a node's identity.
func verifySignature(identity, message []byte, context string, signature []byte) error {
	var public mldsa87.PublicKey
	if err := public.UnmarshalBinary(identity); err != nil {
		return refused("the identity is no ML-DSA-87 public key")
	}
	if !mldsa87.Verify(&public, message, []byte(context), signature) {
		return refused("the node's identity did not sign this report")
	}
	return nil
}

// show is a JSON value in a message.
func show(v any) string {
	if s, ok := v.(string); ok {
		if s == "" {
			return "none"
		}
		return s
	}
	return fmt.Sprint(v)
}
