package channel

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"path/filepath"
	"testing"
	"time"

	"quantavirt/internal/qverr"
	"quantavirt/pqc"
)

// world has identities that trust each other, and one that nobody trusts.
type world struct {
	t                *testing.T
	crypto           *pqc.Service
	trust            *Trust
	alice, bob, evil Identity
}

func newWorld(t *testing.T) *world {
	t.Helper()
	crypto, err := pqc.Open(t.Context(), pqc.Options{})
	if err != nil {
		t.Fatal(err)
	}
	trust, err := OpenTrust(filepath.Join(t.TempDir(), "peers.json"))
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, crypto: crypto, trust: trust}
	w.alice, w.bob, w.evil = w.identity(pqc.MLDSA87), w.identity(pqc.MLDSA65), w.identity(pqc.MLDSA87)
	for name, id := range map[string]Identity{"alice": w.alice, "bob": w.bob} {
		if err := trust.Add(Peer{Name: name, Fingerprint: Fingerprint(id.Public), Protocols: []string{"test"}}); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

func (w *world) identity(a pqc.Algorithm) Identity {
	w.t.Helper()
	p, err := a.Params()
	if err != nil {
		w.t.Fatal(err)
	}
	public, secret := make([]byte, p.PublicKey), make([]byte, p.SecretKey)
	if err := w.crypto.GenerateKey(w.t.Context(), a, nil, public, secret); err != nil {
		w.t.Fatal(err)
	}
	signer, err := w.crypto.Signer(w.t.Context(), a, secret)
	if err != nil {
		w.t.Fatal(err)
	}
	return Identity{a, public, func(ctx context.Context, message []byte, o *pqc.SignOptions) ([]byte, error) {
		signature := make([]byte, p.Output)
		return signature, signer.Sign(ctx, signature, message, o)
	}}
}

func (w *world) config(id Identity) Config {
	return Config{Protocol: "test", Policy: X25519MLKEM768, Identity: id, Trust: w.trust, Provider: w.crypto}
}

// pair is a connection by TCP.
func pair(t *testing.T) (client, server net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if client, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if server, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close(); _ = server.Close() })
	return client, server
}

type outcome struct {
	conn *Conn
	err  error
}

// connect makes a channel; the client's configuration is first.
func (w *world) connect(c, s Config) (client, server outcome) {
	w.t.Helper()
	a, b := pair(w.t)
	done := make(chan outcome, 1)
	go func() {
		conn, err := Server(w.t.Context(), b, s)
		done <- outcome{conn, err}
	}()
	client.conn, client.err = Client(w.t.Context(), a, c)
	return client, <-done
}

func TestChannel(t *testing.T) {
	w := newWorld(t)
	for _, policy := range []Policy{X25519MLKEM768, SecP384r1MLKEM1024} {
		c, s := w.config(w.alice), w.config(w.bob)
		c.Policy, s.Policy, c.Expect = policy, policy, "bob"
		client, server := w.connect(c, s)
		if client.err != nil || server.err != nil {
			t.Fatalf("%s: %v; %v", policy, client.err, server.err)
		}
		if client.conn.Peer.Name != "bob" || server.conn.Peer.Name != "alice" {
			t.Errorf("peers %s and %s", client.conn.Peer.Name, server.conn.Peer.Name)
		}
		if got := client.conn.ConnectionState().CurveID; got != tls.CurveID(policy) {
			t.Errorf("key exchange %s, want %s", got, policy)
		}
		for _, way := range [][2]*Conn{{client.conn, server.conn}, {server.conn, client.conn}} {
			if _, err := way[0].Write([]byte("hello")); err != nil {
				t.Fatal(err)
			}
			got := make([]byte, 5)
			if _, err := io.ReadFull(way[1], got); err != nil || string(got) != "hello" {
				t.Errorf("%q, %v", got, err)
			}
		}
	}
}

// Both sides' configurations and what each of them says: success says that a side was
// through before the other refused it.
func TestRefused(t *testing.T) {
	w := newWorld(t)
	stranger, err := OpenTrust(filepath.Join(t.TempDir(), "peers.json"))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		change         func(c, s *Config)
		client, server qverr.Code
	}{
		"a client that nobody knows":   {func(c, _ *Config) { c.Identity = w.evil }, qverr.IO, qverr.PQCVerify},
		"a server that nobody knows":   {func(_, s *Config) { s.Identity = w.evil }, qverr.PQCVerify, qverr.Success},
		"a server that trusts nobody":  {func(_, s *Config) { s.Trust = stranger }, qverr.IO, qverr.PQCVerify},
		"another than is expected":     {func(c, _ *Config) { c.Expect = "carol" }, qverr.PQCVerify, qverr.Success},
		"for another protocol":         {func(c, s *Config) { c.Protocol, s.Protocol = "other", "other" }, qverr.IO, qverr.PQCVerify},
		"two protocols":                {func(c, _ *Config) { c.Protocol = "other" }, qverr.IO, qverr.PQCVerify},
		"two key exchanges":            {func(c, _ *Config) { c.Policy = SecP384r1MLKEM1024 }, qverr.IO, qverr.IO},
		"a client that signs by other": {func(c, _ *Config) { c.Identity.Sign = w.evil.Sign }, qverr.IO, qverr.PQCVerify},
		"a server that signs by other": {func(_, s *Config) { s.Identity = Identity{w.evil.Algorithm, w.alice.Public, w.evil.Sign} }, qverr.PQCVerify, qverr.Success},
		"another context string": {func(c, _ *Config) {
			sign := c.Identity.Sign
			c.Identity.Sign = func(ctx context.Context, m []byte, _ *pqc.SignOptions) ([]byte, error) {
				return sign(ctx, m, &pqc.SignOptions{Context: []byte("quantavirt-attestation-1")})
			}
		}, qverr.IO, qverr.PQCVerify},
		"a key exchange too weak": {func(c, _ *Config) { c.Policy = Policy(tls.X25519) }, qverr.PQCParamSet, qverr.IO},
		"an identity too weak":    {func(c, _ *Config) { c.Identity.Algorithm = pqc.MLDSA44 }, qverr.PQCParamSet, qverr.IO},
		"no protocol":             {func(c, _ *Config) { c.Protocol = "" }, qverr.Inval, qverr.IO},
	} {
		t.Run(name, func(t *testing.T) {
			cc, sc := w.config(w.alice), w.config(w.bob)
			c.change(&cc, &sc)
			client, server := w.connect(cc, sc)
			if got := qverr.CodeOf(client.err); got != c.client {
				t.Errorf("client: %v, want %v", client.err, c.client)
			}
			if got := qverr.CodeOf(server.err); got != c.server {
				t.Errorf("server: %v, want %v", server.err, c.server)
			}
			for _, o := range []outcome{client, server} {
				if (o.conn == nil) != (o.err != nil) {
					t.Error("a connection with an error, or neither")
				}
			}
		})
	}
}

// hostile plays a client whose TLS is right: send gets the connection after that.
func (w *world) hostile(send func(c *tls.Conn)) error {
	w.t.Helper()
	a, b := pair(w.t)
	done := make(chan error, 1)
	config := w.config(w.bob)
	go func() {
		_, err := Server(w.t.Context(), b, config)
		done <- err
	}()
	c := w.config(w.alice)
	tc := c.tls()
	tc.InsecureSkipVerify = true
	conn := tls.Client(a, tc)
	if err := conn.HandshakeContext(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	send(conn)
	return <-done
}

// good is a proof that the server would take on this connection.
func (w *world) good(c *tls.Conn) []byte {
	w.t.Helper()
	said, err := statement(c.ConnectionState(), "test", roleClient, w.alice.Public)
	if err != nil {
		w.t.Fatal(err)
	}
	signature, err := w.alice.Sign(w.t.Context(), said, &pqc.SignOptions{Context: []byte(signContext)})
	if err != nil {
		w.t.Fatal(err)
	}
	b, err := proof{w.alice.Algorithm, w.alice.Public, signature}.marshal()
	if err != nil {
		w.t.Fatal(err)
	}
	return b
}

func TestHostileClient(t *testing.T) {
	w := newWorld(t)
	var recorded []byte
	if err := w.hostile(func(c *tls.Conn) { recorded = w.good(c); _, _ = c.Write(recorded) }); err != nil {
		t.Fatalf("the good proof, without which this shows nothing: %v", err)
	}
	write := func(b []byte) func(*tls.Conn) {
		return func(c *tls.Conn) { _, _ = c.Write(b); _ = c.Close() }
	}
	flipped := func(at int) func(*tls.Conn) {
		return func(c *tls.Conn) {
			b := w.good(c)
			b[at] ^= 1
			_, _ = c.Write(b)
			_ = c.Close()
		}
	}
	sized := func(n uint32) []byte { return binary.LittleEndian.AppendUint32([]byte(proofMagic), n) }
	for name, c := range map[string]struct {
		send func(*tls.Conn)
		want qverr.Code
	}{
		"replayed":               {write(recorded), qverr.PQCVerify},
		"nothing":                {write(nil), qverr.IO},
		"half a head":            {write(recorded[:3]), qverr.IO},
		"cut in the key":         {write(recorded[:100]), qverr.IO},
		"cut before its end":     {write(recorded[:len(recorded)-1]), qverr.IO},
		"another protocol":       {write([]byte("GET / HTTP/1.1\r\n\r\n")), qverr.PQCVerify},
		"4 GiB":                  {write(sized(1<<32 - 1)), qverr.PQCVerify},
		"a byte too large":       {write(sized(uint32(maxProof) + 1)), qverr.PQCVerify},
		"empty":                  {write(sized(0)), qverr.PQCVerify},
		"a set too weak":         {write(append(sized(1), 44)), qverr.PQCParamSet},
		"a set that is not":      {write(append(sized(1), 0)), qverr.PQCParamSet},
		"a set alone":            {write(append(sized(1), 87)), qverr.PQCVerify},
		"a bit of the key":       {flipped(proofHead + 50), qverr.PQCVerify},
		"a bit of the signature": {flipped(proofHead + 1 + 2592 + 9), qverr.PQCVerify},
		"the server's role": {func(conn *tls.Conn) {
			said, _ := statement(conn.ConnectionState(), "test", roleServer, w.alice.Public)
			signature, _ := w.alice.Sign(t.Context(), said, &pqc.SignOptions{Context: []byte(signContext)})
			b, _ := proof{w.alice.Algorithm, w.alice.Public, signature}.marshal()
			_, _ = conn.Write(b)
			_ = conn.Close()
		}, qverr.PQCVerify},
	} {
		t.Run(name, func(t *testing.T) {
			if err := w.hostile(c.send); qverr.CodeOf(err) != c.want {
				t.Errorf("%v, want %v", err, c.want)
			}
		})
	}
}

// A server that sends the client's own proof back is none.
func TestReflection(t *testing.T) {
	w := newWorld(t)
	a, b := pair(t)
	go func() {
		cert, _ := momentary()
		c := w.config(w.bob)
		tc := c.tls()
		tc.Certificates = []tls.Certificate{cert}
		s := tls.Server(b, tc)
		got := make([]byte, 4096)
		for {
			n, err := s.Read(got)
			if err != nil {
				return
			}
			_, _ = s.Write(got[:n])
		}
	}()
	if _, err := Client(t.Context(), a, w.config(w.alice)); !errors.Is(err, qverr.PQCVerify) {
		t.Errorf("%v", err)
	}
}

// Who sits between and passes all on has two connections with two exporter values.
func TestBetween(t *testing.T) {
	w := newWorld(t)
	client, inner := pair(t)
	outer, server := pair(t)
	done := make(chan error, 1)
	go func() {
		_, err := Server(t.Context(), server, w.config(w.bob))
		done <- err
	}()
	go func() {
		cert, _ := momentary()
		c := w.config(w.alice)
		in := c.tls()
		in.Certificates = []tls.Certificate{cert}
		out := c.tls()
		out.InsecureSkipVerify = true
		a, b := tls.Server(inner, in), tls.Client(outer, out)
		go func() { _, _ = io.Copy(a, b); _ = a.Close() }()
		_, _ = io.Copy(b, a)
		_ = b.Close()
	}()
	_, err := Client(t.Context(), client, w.config(w.alice))
	if qverr.CodeOf(err) != qverr.IO {
		t.Errorf("client: %v", err)
	}
	if err := <-done; !errors.Is(err, qverr.PQCVerify) {
		t.Errorf("server: %v", err)
	}
}

// A peer that says nothing has no more time than it is given.
func TestSilence(t *testing.T) {
	w := newWorld(t)
	_, b := pair(t)
	c := w.config(w.bob)
	c.Timeout = 50 * time.Millisecond
	if _, err := Server(t.Context(), b, c); !errors.Is(err, qverr.Timeout) {
		t.Errorf("before TLS: %v", err)
	}
	a, b := pair(t)
	go func() {
		tc := c.tls()
		tc.InsecureSkipVerify = true
		_ = tls.Client(a, tc).Handshake()
	}()
	c.Timeout = 500 * time.Millisecond
	if _, err := Server(t.Context(), b, c); !errors.Is(err, qverr.Timeout) {
		t.Errorf("after TLS: %v", err)
	}
}

func TestParsePolicy(t *testing.T) {
	for name, want := range map[string]Policy{"X25519MLKEM768": X25519MLKEM768, "ml-kem-768": X25519MLKEM768, "SecP384r1MLKEM1024": SecP384r1MLKEM1024} {
		if got, err := ParsePolicy(name); err != nil || got != want {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	if _, err := ParsePolicy("ML-KEM-512"); !errors.Is(err, qverr.PQCParamSet) {
		t.Errorf("%v", err)
	}
	if _, err := ParsePolicy("X25519"); !errors.Is(err, qverr.PQCAlgorithm) {
		t.Errorf("%v", err)
	}
}

// FuzzProof: no bytes make the parser fall over, and what it takes is what is written.
func FuzzProof(f *testing.F) {
	for _, a := range identities {
		p, err := a.Params()
		if err != nil {
			f.Fatal(err)
		}
		b, err := proof{a, make([]byte, p.PublicKey), make([]byte, p.Output)}.marshal()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
		f.Add(b[:len(b)-1])
	}
	f.Add([]byte(proofMagic))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := readProof(bytes.NewReader(b))
		if err != nil {
			return
		}
		again, err := p.marshal()
		if err != nil || !bytes.HasPrefix(b, again) {
			t.Errorf("%v", err)
		}
	})
}
