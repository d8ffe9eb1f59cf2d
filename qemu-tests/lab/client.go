package lab

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"
)

// TLS returns a client configuration that trusts the node's authority alone,
// by its pin: the address of a node behind QEMU's user network is not the one
// in its certificate, so names are not compared.
func (n *Node) TLS() *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		InsecureSkipVerify: true, // VerifyConnection does it
		VerifyConnection: func(cs tls.ConnectionState) error {
			roots := x509.NewCertPool()
			for _, cert := range cs.PeerCertificates {
				sum := sha256.Sum256(cert.Raw)
				if "sha256:"+hex.EncodeToString(sum[:]) == n.CA {
					roots.AddCert(cert)
					_, err := cs.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: roots})
					return err
				}
			}
			return errors.New("lab: the node's authority is not the one of the console")
		},
	}
}

// Client returns an HTTP client for the node.
func (n *Node) Client() *http.Client {
	return &http.Client{Transport: &http.Transport{TLSClientConfig: n.TLS(), ForceAttemptHTTP2: false, DialContext: n.Dial}}
}

// Answer is what a request got.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte
}

// Decode reads the body as JSON into v.
func (a Answer) Decode(v any) error {
	if err := json.Unmarshal(a.Body, v); err != nil {
		return fmt.Errorf("%w in: %s", err, a.Body)
	}
	return nil
}

// Do sends a request with the node's token. An io.Reader is sent as it is, bytes
// as JSON text, anything else as its JSON; nil sends no body.
func (n *Node) Do(ctx context.Context, method, path string, body any) (Answer, error) {
	var r io.Reader
	kind := ""
	switch b := body.(type) {
	case nil:
	case io.Reader:
		r, kind = b, "application/octet-stream"
	case []byte:
		r, kind = bytes.NewReader(b), "application/json"
	default:
		data, err := json.Marshal(b)
		if err != nil {
			return Answer{}, err
		}
		r, kind = bytes.NewReader(data), "application/json"
	}
	req, err := http.NewRequestWithContext(ctx, method, n.URL+path, r)
	if err != nil {
		return Answer{}, err
	}
	if kind != "" {
		req.Header.Set("Content-Type", kind)
	}
	if strings.HasPrefix(path, "/api/") {
		req.Header.Set("Authorization", "Bearer "+n.Token)
	}
	return send(n.Client(), req)
}

func send(client *http.Client, req *http.Request) (Answer, error) {
	defer client.CloseIdleConnections()
	resp, err := client.Do(req)
	if err != nil {
		return Answer{}, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	return Answer{Status: resp.StatusCode, Header: resp.Header, Body: data}, err
}

// Call is Do that wants a status of the 2xx class and decodes the answer into
// out, unless that is nil.
func (n *Node) Call(ctx context.Context, method, path string, body, out any) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	a, err := n.Do(ctx, method, path, body)
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	if a.Status < 200 || a.Status > 299 {
		return fmt.Errorf("%s %s: %d %s", method, path, a.Status, a.Body)
	}
	if out == nil {
		return nil
	}
	return a.Decode(out)
}

// Upload sends a file as the raw body of a POST, its length first, and wants
// 201.
func (n *Node) Upload(ctx context.Context, path string, f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, n.URL+path, f)
	if err != nil {
		return err
	}
	req.ContentLength = info.Size()
	req.Header.Set("Content-Type", "application/octet-stream")
	req.Header.Set("Authorization", "Bearer "+n.Token)
	a, err := send(n.Client(), req)
	if err != nil {
		return fmt.Errorf("upload to %s: %w", path, err)
	}
	if a.Status != http.StatusCreated {
		return fmt.Errorf("upload to %s: %d %s", path, a.Status, a.Body)
	}
	return nil
}
