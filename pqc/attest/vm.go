package attest

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"time"

	"quantavirt/internal/qverr"
	"quantavirt/internal/tpm"
)

// vmContext is the context string of a VM report's signature, and is in the nonce of the
// node's report that comes with it.
const vmContext = "quantavirt-vm-attestation-1"

// kindVM tells a VM's report from a node's, which has no kind.
const kindVM = "vm"

// Measures is what a VM was started with. Digests are SHA-256 in lower-case hexadecimal.
type Measures struct {
	Name     string `json:"name"`
	UUID     string `json:"uuid"`
	Machine  string `json:"machine"` // which devices are where: a type of hv/config
	CPUs     int    `json:"cpus"`
	Memory   int64  `json:"memory_bytes"`
	Firmware string `json:"firmware"` // "direct": the kernel is started without any; "seabios"
	Kernel   string `json:"kernel"`   // with firmware, the digest of that
	Initrd   string `json:"initrd"`   // "" without one
	Cmdline  string `json:"cmdline"`
	Disks    []Disk `json:"disks"`
	Card     string `json:"card"`   // "none", or "passthrough" of a QUAC 100
	Config   string `json:"config"` // ConfigDigest of the whole configuration
}

// Disk is a disk at the start of a VM. What a writable one holds is the guest's own doing,
// so it is known by what it was made from; a read-only one by what it holds.
type Disk struct {
	Name     string `json:"name"` // of the disk, or the path of a file
	Serial   string `json:"serial"`
	Size     int64  `json:"size_bytes"`
	ReadOnly bool   `json:"readonly"`
	// Content is the digest of all bytes of a read-only disk, "" of a writable one.
	Content string `json:"content"`
	// Origin is the digest of what was uploaded as a writable disk, "" if nothing was.
	Origin string `json:"origin"`
}

// Started is a VM that runs.
type Started struct {
	Measures Measures  `json:"measures"`
	At       time.Time `json:"at"` // when it was measured, by the node's clock
}

// Statement is what the node's identity signs, in the bytes that Encode gives.
type Statement struct {
	Nonce    string    `json:"nonce"` // hexadecimal
	Time     time.Time `json:"time"`  // of the report, by the node's clock
	NodeID   string    `json:"node_id"`
	Hostname string    `json:"hostname"`
	Version  string    `json:"version"`
	TPM      bool      `json:"tpm"`     // Host is in the report
	Started  time.Time `json:"started"` // when the VM was measured
	Measures Measures  `json:"measures"`
}

// VMReport is what a node answers about one of its VMs. Everything in it is to be checked.
type VMReport struct {
	Format    int       `json:"format"` // 1
	Kind      string    `json:"kind"`   // "vm"
	Statement Statement `json:"statement"`
	// Host is the node's own report, whose nonce is made of the statement; nil on a node
	// without TPM.
	Host      *Report `json:"host,omitempty"`
	Identity  []byte  `json:"identity"`  // ML-DSA-87 public key
	Signature []byte  `json:"signature"` // over Statement.Encode, with the context string
}

// NewVM makes a report about a VM. d is nil on a machine without TPM; log is the firmware's
// event log.
func NewVM(node Node, vm Started, nonce []byte, d *tpm.Device, log []byte, id *Identity, now time.Time) (VMReport, error) {
	r := VMReport{Format: format, Kind: kindVM, Identity: id.Public(), Statement: Statement{
		Nonce: hex.EncodeToString(nonce), Time: now.UTC().Truncate(time.Second), NodeID: node.ID, Hostname: node.Hostname, Version: node.Version,
		TPM: d != nil, Started: vm.At.UTC().Truncate(time.Second), Measures: vm.Measures,
	}}
	statement, err := r.Statement.Encode()
	if err != nil {
		return VMReport{}, err
	}
	if d != nil {
		host, err := New(node, hostNonce(statement), d, log, id, now)
		if err != nil {
			return VMReport{}, err
		}
		r.Host = &host
	}
	r.Signature, err = id.sign(statement, vmContext)
	return r, err
}

// Encode gives the one encoding of a statement: JSON as encoding/json writes it, its fields in
// the order above, without white space, <, > and & as \u003c, \u003e and \u0026.
func (s Statement) Encode() ([]byte, error) {
	data, err := json.Marshal(s)
	if err != nil {
		return nil, qverr.New(qverr.Inval, "encode a statement about a VM: %w", err)
	}
	return data, nil
}

// hostNonce ties the TPM's quote to what is said about the VM.
func hostNonce(statement []byte) []byte {
	sum := sha256.Sum256(joined([]byte(vmContext), statement))
	return sum[:]
}

// ConfigDigest is the SHA-256 of a configuration, a JSON document, with its members sorted and
// without white space. QV_ERR_CONFIG: it is no JSON object.
func ConfigDigest(document []byte) (string, error) {
	tree, err := parseTree(document)
	if err != nil {
		return "", qverr.New(qverr.Config, "not the configuration of a VM: %w", err)
	}
	data, err := json.Marshal(tree)
	if err != nil {
		return "", qverr.New(qverr.Config, "encode a configuration: %w", err)
	}
	return sumOf(data), nil
}

func sumOf(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}
