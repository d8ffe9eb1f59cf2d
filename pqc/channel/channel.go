package channel

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math/big"
	"net"
	"strings"
	"time"

	"quantavirt/internal/qverr"
	"quantavirt/pqc"
)

// alpn keeps other TLS services from being taken for a channel.
const alpn = "quantavirt-channel-1"

// handshakeTime is how long a peer has to prove who it is, if nobody says.
const handshakeTime = 10 * time.Second

// Identity is a node's long-term signing key, ML-DSA-65 or ML-DSA-87.
type Identity struct {
	Algorithm pqc.Algorithm
	Public    []byte
	// Sign signs a message as o says.
	Sign func(ctx context.Context, message []byte, o *pqc.SignOptions) ([]byte, error)
}

// Config is what both sides of a channel need.
type Config struct {
	Protocol string // what the channel is for, such as "migration"; both sides name the same
	Policy   Policy
	Identity Identity
	Trust    *Trust
	Provider pqc.Provider  // verifies
	Expect   string        // name of the one peer that is taken; empty: whoever is trusted
	Timeout  time.Duration // of the handshake; 10 s if zero
}

// Conn is a channel. Its deadlines are its user's.
type Conn struct {
	*tls.Conn
	Peer Peer
}

func checkProtocol(name string) error {
	if name == "" || len(name) > 32 || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
		return qverr.New(qverr.Inval, "protocol %.64q is not 1 to 32 small letters, digits and dashes", name)
	}
	return nil
}

// check completes the configuration. PQC_ERR_PARAM_SET: a policy or identity that is
// too weak.
func (c *Config) check() error {
	if err := checkProtocol(c.Protocol); err != nil {
		return err
	}
	if err := c.Policy.check(); err != nil {
		return err
	}
	if _, err := identityByte(c.Identity.Algorithm); err != nil {
		return err
	}
	if c.Timeout == 0 {
		c.Timeout = handshakeTime
	}
	return nil
}

func (c *Config) tls() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, CurvePreferences: []tls.CurveID{tls.CurveID(c.Policy)}, NextProtos: []string{alpn},
		SessionTicketsDisabled: true, // each connection is proven anew
	}
}

// Client makes a channel of a connection to a server, and owns it. PQC_ERR_VERIFY: the server
// is not who is trusted, or did not prove it.
func Client(ctx context.Context, conn net.Conn, c Config) (*Conn, error) {
	if err := c.check(); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	config := c.tls()
	config.InsecureSkipVerify = true // the proof over the exporter is what counts
	return c.run(ctx, conn, tls.Client(conn, config), func(ctx context.Context, t *tls.Conn) (Peer, error) {
		state := t.ConnectionState()
		said, err := statement(state, c.Protocol, roleClient, c.Identity.Public)
		if err != nil {
			return Peer{}, err
		}
		if err := c.prove(ctx, t, said); err != nil {
			return Peer{}, err
		}
		p, err := readProof(t)
		if err != nil {
			return Peer{}, err
		}
		if said, err = statement(state, c.Protocol, roleServer, p.public, c.Identity.Public); err != nil {
			return Peer{}, err
		}
		return c.verify(ctx, p, said)
	})
}

// Server makes a channel of a connection from a client, and owns it. PQC_ERR_VERIFY: the
// client is not one that is trusted, or did not prove it; it learns nothing of the server then.
func Server(ctx context.Context, conn net.Conn, c Config) (*Conn, error) {
	if err := c.check(); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	config := c.tls()
	cert, err := momentary()
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	config.Certificates = []tls.Certificate{cert}
	return c.run(ctx, conn, tls.Server(conn, config), func(ctx context.Context, t *tls.Conn) (Peer, error) {
		state := t.ConnectionState()
		p, err := readProof(t)
		if err != nil {
			return Peer{}, err
		}
		said, err := statement(state, c.Protocol, roleClient, p.public)
		if err != nil {
			return Peer{}, err
		}
		peer, err := c.verify(ctx, p, said)
		if err != nil {
			return Peer{}, err
		}
		if said, err = statement(state, c.Protocol, roleServer, c.Identity.Public, p.public); err != nil {
			return Peer{}, err
		}
		return peer, c.prove(ctx, t, said)
	})
}

// run does the handshakes within their time, and closes what does not get through.
func (c *Config) run(ctx context.Context, conn net.Conn, t *tls.Conn, proofs func(context.Context, *tls.Conn) (Peer, error)) (*Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	peer, err := c.handshake(ctx, t, proofs)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		if ctx.Err() != nil {
			err = qverr.New(qverr.Timeout, "channel: the peer took too long: %w", err)
		}
		return nil, errors.Join(err, conn.Close())
	}
	return &Conn{t, peer}, nil
}

func (c *Config) handshake(ctx context.Context, t *tls.Conn, proofs func(context.Context, *tls.Conn) (Peer, error)) (Peer, error) {
	if err := t.HandshakeContext(ctx); err != nil {
		return Peer{}, failed("handshake with "+c.Policy.String(), err)
	}
	state := t.ConnectionState()
	if state.Version != tls.VersionTLS13 || state.CurveID != tls.CurveID(c.Policy) || state.NegotiatedProtocol != alpn || state.DidResume {
		return Peer{}, refused("the peer agreed on something else than %s", c.Policy)
	}
	return proofs(ctx, t)
}

// prove signs and sends a statement.
func (c *Config) prove(ctx context.Context, t *tls.Conn, said []byte) error {
	signature, err := c.Identity.Sign(ctx, said, &pqc.SignOptions{Context: []byte(signContext)})
	if err != nil {
		return err
	}
	b, err := proof{c.Identity.Algorithm, c.Identity.Public, signature}.marshal()
	if err != nil {
		return err
	}
	if _, err := t.Write(b); err != nil {
		return failed("send our proof", err)
	}
	return nil
}

// momentary is a certificate that TLS wants and nobody looks at.
func momentary() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, qverr.New(qverr.Generic, "key of a channel's certificate: %w", err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, qverr.New(qverr.Generic, "a channel's certificate: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}
