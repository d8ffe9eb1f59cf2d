// Package digest is the SHA-256 digest as prediction, log and TPM have it: what was
// measured, and the value of a register.
package digest

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
)

// SHA256 is a digest, or the value of a platform configuration register; in JSON it is
// hexadecimal.
type SHA256 [sha256.Size]byte

func (d SHA256) String() string { return hex.EncodeToString(d[:]) }

// MarshalText implements encoding.TextMarshaler.
func (d SHA256) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *SHA256) UnmarshalText(text []byte) error {
	if len(text) != 2*len(d) {
		return fmt.Errorf("digest of %d digits, want %d", len(text), 2*len(d))
	}
	_, err := hex.Decode(d[:], text)
	return err
}

// Extend is TPM2_PCR_Extend (TPM 2.0 Library, part 3, section 22.2).
func (d *SHA256) Extend(event SHA256) { *d = sha256.Sum256(append(d[:], event[:]...)) }
