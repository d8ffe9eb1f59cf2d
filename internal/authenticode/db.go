package authenticode

import (
	"crypto/x509"
	"encoding/binary"
	"io"

	"github.com/google/uuid"

	"quantavirt/internal/qverr"
)

// Database is the vendor of the variable db (EFI_IMAGE_SECURITY_DATABASE_GUID).
var Database = uuid.MustParse("d719b2cb-3d3a-4596-a3bc-dad00e67656f")

// Sizes of an EFI_SIGNATURE_LIST: of its header and of the owner before each entry.
const (
	listHeader = 28
	ownerSize  = 16
)

// typeX509 is EFI_CERT_X509_GUID as it lies in memory.
var typeX509 = [16]byte{0xa1, 0x59, 0xc0, 0xa5, 0xe4, 0x94, 0xa7, 0x4a, 0x87, 0xb5, 0xab, 0x15, 0x5c, 0x2b, 0xf0, 0x72}

// DB is what firmware trusts to be started.
type DB struct {
	Certificates []*x509.Certificate
	More         bool // also what this package does not judge: hashes of programs above all
}

// ParseDB reads the value of the variable db: signature lists, one after the other.
// QV_ERR_INVAL: it is none.
func ParseDB(data []byte) (DB, error) {
	var db DB
	for len(data) > 0 {
		if len(data) < listHeader {
			return DB{}, qverr.New(qverr.Inval, "a signature list of %d bytes is cut off", len(data))
		}
		le := binary.LittleEndian
		size, header, entry := uint64(le.Uint32(data[16:])), uint64(le.Uint32(data[20:])), uint64(le.Uint32(data[24:]))
		if size > uint64(len(data)) || listHeader+header > size || entry <= ownerSize || (size-listHeader-header)%entry != 0 {
			return DB{}, qverr.New(qverr.Inval, "a signature list of %d bytes in %d, with a header of %d and entries of %d", size, len(data), header, entry)
		}
		entries := data[listHeader+header : size]
		for ; len(entries) > 0; entries = entries[entry:] {
			c, err := x509.ParseCertificate(entries[ownerSize:entry])
			if [16]byte(data[:16]) != typeX509 || err != nil {
				db.More = true
				continue
			}
			db.Certificates = append(db.Certificates, c)
		}
		data = data[size:]
	}
	return db, nil
}

// Check says why firmware that trusts db does not start a program. It looks at who
// has signed it, not at the signature, nor at what the firmware forbids. What it cannot
// judge it lets pass. QV_ERR_PERM: the firmware refuses it.
func (db DB) Check(image io.ReaderAt, size int64) error {
	signatures, err := of(image, size)
	if err != nil {
		return qverr.New(qverr.Perm, "its signatures cannot be read: %w", err)
	}
	if db.More {
		return nil
	}
	why := qverr.New(qverr.Perm, "it is not signed")
	for _, der := range signatures {
		s, err := Parse(der)
		if err != nil {
			return nil
		}
		c := s.Certificate()
		if c == nil || db.trusts(c) {
			return nil
		}
		why = qverr.New(qverr.Perm, "it is signed by %q, whose key the firmware does not have", c.Subject.String())
	}
	return why
}

// trusts tells whether a certificate is in db, or issued by one that is.
func (db DB) trusts(c *x509.Certificate) bool {
	for _, t := range db.Certificates {
		if t.Equal(c) || t.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature) == nil {
			return true
		}
	}
	return false
}
