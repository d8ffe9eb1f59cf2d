package secureboot

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"path/filepath"
	"strings"
	"time"
	"unicode/utf16"

	"quantavirt/internal/authenticode"
)

// GUIDs of the UEFI specification, and the one that names us as the owner of
// the certificates.
const (
	guidGlobal   = "8be4df61-93ca-11d2-aa0d-00e098032b8c" // EFI_GLOBAL_VARIABLE: PK, KEK
	guidSecurity = "d719b2cb-3d3a-4596-a3bc-dad00e67656f" // EFI_IMAGE_SECURITY_DATABASE_GUID: db
	guidX509     = "a5c059a1-94e4-4aa7-87b5-ab155c2bf072" // EFI_CERT_X509_GUID
	guidPKCS7    = "4aafd29d-68df-49ee-8aa9-347d375665a7" // EFI_CERT_TYPE_PKCS7_GUID
	guidOwner    = "6d0c2a5e-3f0b-4f0e-9c53-51564b657973"
)

// attributes of the variables: non-volatile, boot service access, runtime
// access, time-based authenticated write access.
const attributes = 0x01 | 0x02 | 0x04 | 0x20

// certificateGUID is WIN_CERT_TYPE_EFI_GUID.
const certificateGUID = 0x0ef1

// writeEnrolment writes the enrolment files: the signature list of each
// certificate, and the same signed by the key that may change the variable. PK
// signs itself. They depend on the keys alone.
func (k Keys) writeEnrolment(dir string) error {
	for _, v := range []struct {
		name, vendor string
		key, by      Key
	}{{PK, guidGlobal, k.PK, k.PK}, {KEK, guidGlobal, k.KEK, k.PK}, {DB, guidSecurity, k.DB, k.KEK}} {
		list := signatureList(v.key.Certificate.Raw)
		update, err := v.by.signVariable(v.name, v.vendor, v.key.Certificate.NotBefore, list)
		if err != nil {
			return fmt.Errorf("secureboot: %s.auth: %w", v.name, err)
		}
		path := filepath.Join(dir, v.name)
		if err := write(path+".esl", list, 0o644); err != nil {
			return err
		}
		if err := write(path+".auth", update, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// signatureList is an EFI_SIGNATURE_LIST of one certificate.
func signatureList(certificate []byte) []byte {
	const header = 16 + 3*4
	size := uint32(16 + len(certificate)) // owner and certificate
	list := guid(guidX509)
	list = binary.LittleEndian.AppendUint32(list, header+size)
	list = binary.LittleEndian.AppendUint32(list, 0) // no header of signatures
	list = binary.LittleEndian.AppendUint32(list, size)
	return append(append(list, guid(guidOwner)...), certificate...)
}

// signVariable returns the update of a variable: EFI_VARIABLE_AUTHENTICATION_2
// and the data. The time must be later than that of the update before.
func (k Key) signVariable(name, vendor string, t time.Time, data []byte) ([]byte, error) {
	var tbs []byte
	for _, c := range utf16.Encode([]rune(name)) { // without a NUL
		tbs = binary.LittleEndian.AppendUint16(tbs, c)
	}
	tbs = append(tbs, guid(vendor)...)
	tbs = binary.LittleEndian.AppendUint32(tbs, attributes)
	stamp := efiTime(t)
	signature, err := k.signDetached(bytes.Join([][]byte{tbs, stamp, data}, nil))
	if err != nil {
		return nil, err
	}
	update := binary.LittleEndian.AppendUint32(stamp, uint32(authenticode.Header+16+len(signature)))
	update = binary.LittleEndian.AppendUint16(update, authenticode.Revision)
	update = binary.LittleEndian.AppendUint16(update, certificateGUID)
	return bytes.Join([][]byte{update, guid(guidPKCS7), signature, data}, nil), nil
}

// efiTime is an EFI_TIME in UTC; what an update must leave zero is zero.
func efiTime(t time.Time) []byte {
	t = t.UTC()
	b := binary.LittleEndian.AppendUint16(nil, uint16(t.Year()))
	b = append(b, byte(t.Month()), byte(t.Day()), byte(t.Hour()), byte(t.Minute()), byte(t.Second()))
	return append(b, make([]byte, 9)...) // padding, nanoseconds, zone, daylight
}

// guid is an EFI_GUID: the first three fields are little-endian.
func guid(text string) []byte {
	b, err := hex.DecodeString(strings.ReplaceAll(text, "-", ""))
	if err != nil || len(b) != 16 {
		panic("secureboot: bad GUID " + text) // a constant of this file
	}
	for _, field := range [][]byte{b[:4], b[4:6], b[6:8]} {
		for i, j := 0, len(field)-1; i < j; i, j = i+1, j-1 {
			field[i], field[j] = field[j], field[i]
		}
	}
	return b
}
