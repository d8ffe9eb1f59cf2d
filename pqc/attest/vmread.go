package attest

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"time"

	"github.com/cloudflare/circl/sign/mldsa/mldsa87"

	"quantavirt/internal/qverr"
)

// Bounds of what a report says about a VM, in bytes unless said otherwise.
const (
	maxName  = 4096 // names, paths and versions
	maxLine  = 4096 // a command line
	maxDisks = 64   // disks
	maxCPUs  = 1 << 10
	maxBytes = 1 << 60
)

// Load reads a report of either kind. QV_ERR_INVAL: it is too large to be one.
func Load(in io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(in, maxReport+1))
	if err != nil {
		return nil, qverr.New(qverr.IO, "read the report: %w", err)
	}
	if len(data) > maxReport {
		return nil, qverr.New(qverr.Inval, "a report of more than %d bytes", maxReport)
	}
	return data, nil
}

// IsVM tells a VM's report from a node's.
func IsVM(report []byte) bool {
	var r struct {
		Kind string `json:"kind"`
	}
	return json.Unmarshal(report, &r) == nil && r.Kind == kindVM
}

// ParseVM parses a VM's report. It must be in its one encoding but for white space and
// escapes, so that nothing in it can be read in two ways. QV_ERR_INVAL: it is not.
func ParseVM(data []byte) (VMReport, error) {
	var r VMReport
	if len(data) > maxReport {
		return r, qverr.New(qverr.Inval, "a report of more than %d bytes", maxReport)
	}
	if err := decodeStrict(data, &r); err != nil {
		return r, qverr.New(qverr.Inval, "not a report about a VM: %w", err)
	}
	if r.Format != format || r.Kind != kindVM {
		return r, qverr.New(qverr.Inval, "a report of kind %.32q and format %d, want %q and %d", r.Kind, r.Format, kindVM, format)
	}
	if err := r.checkForm(); err != nil {
		return r, qverr.New(qverr.Inval, "a report about a VM: %w", err)
	}
	want, err := json.Marshal(r)
	if err != nil {
		return r, qverr.New(qverr.Inval, "a report about a VM: %w", err)
	}
	if !bytes.Equal(normal(data), want) {
		return r, qverr.New(qverr.Inval, "a report about a VM that is not in the form in which nodes write it")
	}
	return r, nil
}

// decodeStrict decodes one JSON value without unknown members and without anything behind it.
func decodeStrict(data []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("there is something behind it")
	}
	return nil
}

// normal is JSON without white space and with the escapes of encoding/json.
func normal(data []byte) []byte {
	var compact, out bytes.Buffer
	if json.Compact(&compact, data) != nil {
		return nil
	}
	json.HTMLEscape(&out, compact.Bytes())
	return out.Bytes()
}

func (r *VMReport) checkForm() error {
	s := &r.Statement
	if _, err := ParseNonce(s.Nonce); err != nil {
		return err
	}
	switch {
	case len(s.NodeID) > maxName || len(s.Hostname) > maxName || len(s.Version) > maxName:
		return errors.New("the node's names are too long")
	case !plainTime(s.Time) || !plainTime(s.Started):
		return errors.New("its times are not whole seconds in UTC")
	case s.TPM != (r.Host != nil):
		return errors.New("it should and does not have the node's measurements, or the other way round")
	case len(r.Identity) != mldsa87.PublicKeySize:
		return errors.New("its identity is no ML-DSA-87 public key")
	case len(r.Signature) != mldsa87.SignatureSize:
		return errors.New("its signature is none of ML-DSA-87")
	}
	return s.Measures.check()
}

func plainTime(t time.Time) bool { return t.Equal(t.Truncate(time.Second)) && t.Location() == time.UTC }

// check holds measures against what a node can have measured.
func (m *Measures) check() error {
	switch {
	case m.Name == "" || len(m.Name) > maxName || m.UUID == "" || len(m.UUID) > maxName:
		return errors.New("the VM has no name and uuid, or too long ones")
	case m.Machine == "" || len(m.Machine) > maxName || m.Firmware == "" || len(m.Firmware) > maxName || m.Card == "" || len(m.Card) > maxName:
		return errors.New("machine, firmware or card is missing, or too long")
	case m.CPUs < 1 || m.CPUs > maxCPUs || m.Memory < 1 || m.Memory > maxBytes:
		return errors.New("vCPUs or memory are out of range")
	case len(m.Cmdline) > maxLine:
		return errors.New("the command line is too long")
	case !isDigest(m.Kernel) || !isDigest(m.Config) || m.Initrd != "" && !isDigest(m.Initrd):
		return errors.New("kernel, initrd or config is no SHA-256")
	case m.Disks == nil || len(m.Disks) > maxDisks:
		return errors.New("the disks are missing, or too many")
	}
	for _, d := range m.Disks {
		switch {
		case d.Name == "" || len(d.Name) > maxName || len(d.Serial) > maxName || d.Size < 0 || d.Size > maxBytes:
			return errors.New("a disk's name, serial or size is out of range")
		case d.ReadOnly != isDigest(d.Content) || !d.ReadOnly && d.Content != "":
			return errors.New("a read-only disk has no digest of its content, or another has one")
		case d.Origin != "" && (d.ReadOnly || !isDigest(d.Origin)):
			return errors.New("a disk's origin is no SHA-256, or one too many")
		}
	}
	return nil
}

// isDigest accepts a SHA-256 in lower-case hexadecimal.
func isDigest(s string) bool {
	b, err := hex.DecodeString(s)
	return err == nil && len(b) == 32 && hex.EncodeToString(b) == s
}
