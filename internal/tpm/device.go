package tpm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"quantavirt/internal/digest"
	"quantavirt/internal/qverr"
)

// Where Linux has the TPM, through its resource manager, and the log that the
// firmware left.
const (
	DevicePath = "/dev/tpmrm0"
	LogPath    = "/sys/kernel/security/tpm0/binary_bios_measurements"
)

// Device is an open TPM. It is used by one goroutine at a time.
type Device struct {
	tpm    transport.TPM
	closer io.Closer
}

// Open opens the machine's TPM. QV_ERR_NODEV: it has none.
func Open(path string) (*Device, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, qverr.New(qverr.NoDev, "the machine shows no TPM 2.0").
			WithHint("switch it on in the firmware's settings (fTPM, PTT, or a module on the board), or do without: measured boot, a sealed data volume and attestation need it")
	}
	if err != nil {
		return nil, qverr.New(qverr.CodeOf(err), "open the TPM: %w", err)
	}
	return New(f), nil
}

// New uses a connection on which a command is written and its answer read.
func New(c io.ReadWriteCloser) *Device {
	return &Device{tpm: transport.FromReadWriter(c), closer: c}
}

// Close closes the connection.
func (d *Device) Close() error { return d.closer.Close() }

// Maker is the manufacturer's name and the version of its firmware, as the TPM
// tells them (part 2, section 6.13).
func (d *Device) Maker() (string, error) {
	var words [5]uint32
	for i, property := range []tpm2.TPMPT{
		tpm2.TPMPTManufacturer, tpm2.TPMPTVendorString1, tpm2.TPMPTVendorString2, tpm2.TPMPTFirmwareVersion1, tpm2.TPMPTFirmwareVersion2,
	} {
		got, err := tpm2.GetCapability{Capability: tpm2.TPMCapTPMProperties, Property: uint32(property), PropertyCount: 1}.Execute(d.tpm)
		if err != nil {
			return "", failed("ask the TPM for its maker", err)
		}
		list, err := got.CapabilityData.Data.TPMProperties()
		if err != nil || len(list.TPMProperty) != 1 {
			return "", qverr.New(qverr.IO, "the TPM does not tell its maker")
		}
		words[i] = list.TPMProperty[0].Value
	}
	name := strings.TrimSpace(ascii(words[0]) + " " + ascii(words[1], words[2]))
	return fmt.Sprintf("%s, firmware %d.%d.%d.%d", name, words[3]>>16, words[3]&0xFFFF, words[4]>>16, words[4]&0xFFFF), nil
}

// ascii is the text that words hold.
func ascii(words ...uint32) string {
	var b []byte
	for _, w := range words {
		b = binary.BigEndian.AppendUint32(b, w)
	}
	return printable(strings.Join(strings.Fields(strings.ReplaceAll(string(b), "\x00", "")), " "))
}

// Read returns registers of the SHA-256 bank. QV_ERR_UNSUPPORTED: the TPM has no
// such bank.
func (d *Device) Read(pcrs ...int) (Values, error) {
	v := make(Values, len(pcrs))
	for _, pcr := range pcrs { // the TPM answers eight at a time at most
		got, err := tpm2.PCRRead{PCRSelectionIn: selection(pcr)}.Execute(d.tpm)
		if err != nil {
			return nil, failed(fmt.Sprintf("read PCR %d", pcr), err)
		}
		if len(got.PCRValues.Digests) != 1 || len(got.PCRValues.Digests[0].Buffer) != len(digest.SHA256{}) {
			return nil, qverr.New(qverr.Unsupported, "the TPM has no PCR %d of SHA-256", pcr).
				WithHint("switch the SHA-256 bank on in the firmware's settings")
		}
		v[pcr] = digest.SHA256(got.PCRValues.Digests[0].Buffer)
	}
	return v, nil
}

func selection(pcrs ...int) tpm2.TPMLPCRSelection {
	list := make([]uint, len(pcrs))
	for i, pcr := range pcrs {
		list[i] = uint(pcr)
	}
	return tpm2.TPMLPCRSelection{PCRSelections: []tpm2.TPMSPCRSelection{{Hash: tpm2.TPMAlgSHA256, PCRSelect: tpm2.PCClientCompatible.PCRs(list...)}}}
}

func failed(what string, err error) error {
	return qverr.New(qverr.IO, "%s: %w", what, err)
}

// ReadLog reads the log that the firmware left. QV_ERR_NOENT: it left none.
func ReadLog(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, qverr.New(qverr.CodeOf(err), "event log of the firmware: %w", err)
	}
	defer func() { _ = f.Close() }()
	log, err := io.ReadAll(io.LimitReader(f, MaxLog+1))
	if err != nil {
		return nil, qverr.New(qverr.IO, "event log of the firmware: %w", err)
	}
	return log, nil
}

// Extend extends a register, which cannot be undone before the next boot.
func (d *Device) Extend(pcr int, event digest.SHA256) error {
	_, err := tpm2.PCRExtend{
		PCRHandle: tpm2.AuthHandle{Handle: tpm2.TPMHandle(pcr), Auth: tpm2.PasswordAuth(nil)},
		Digests:   tpm2.TPMLDigestValues{Digests: []tpm2.TPMTHA{{HashAlg: tpm2.TPMAlgSHA256, Digest: event[:]}}},
	}.Execute(d.tpm)
	if err != nil {
		return failed("extend a PCR", err)
	}
	return nil
}
