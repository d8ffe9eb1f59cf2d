package tpmtest

import (
	"encoding/binary"

	"quantavirt/internal/tpm"
)

// Log writes a log as firmware does, with digests of SHA-1, which are zeroes, and
// of SHA-256.
func Log(events ...tpm.Event) []byte {
	const sha1, sha256, noAction = 0x4, 0xB, 3
	le := binary.LittleEndian
	head := append([]byte("Spec ID Event03\x00"), make([]byte, 8)...)
	head = le.AppendUint32(head, 2)
	for _, field := range []uint16{sha1, 20, sha256, 32} {
		head = le.AppendUint16(head, field)
	}
	head = append(head, 0) // no information of the vendor
	log := le.AppendUint32(nil, 0)
	log = le.AppendUint32(log, noAction)
	log = append(log, make([]byte, 20)...)
	log = le.AppendUint32(log, uint32(len(head)))
	log = append(log, head...)
	for _, e := range events {
		log = le.AppendUint32(log, uint32(e.PCR))
		log = le.AppendUint32(log, uint32(e.Type))
		log = le.AppendUint32(log, 2)
		log = le.AppendUint16(log, sha1)
		log = append(log, make([]byte, 20)...)
		log = le.AppendUint16(log, sha256)
		log = append(log, e.SHA256[:]...)
		log = le.AppendUint32(log, uint32(len(e.Data)))
		log = append(log, e.Data...)
	}
	return log
}
