package image

import (
	"errors"
	"fmt"
	"io/fs"

	"quantavirt/image/secureboot"
)

// Signer signs what firmware starts with the builder's key for Secure Boot. The
// same program gets the same bytes each time. The zero value signs nothing.
type Signer struct{ key *secureboot.Key }

// LoadSigner takes the key in the folder of the builder's keys; without one
// there, or without a folder, nothing is signed.
func LoadSigner(keys string) (Signer, error) {
	if keys == "" {
		return Signer{}, nil
	}
	key, err := secureboot.Load(keys, secureboot.DB)
	if errors.Is(err, fs.ErrNotExist) {
		return Signer{}, nil
	}
	if err != nil {
		return Signer{}, fmt.Errorf("image: %w", err)
	}
	return Signer{&key}, nil
}

// Name is that of the key's certificate, "" if there is none.
func (s Signer) Name() string {
	if s.key == nil {
		return ""
	}
	return s.key.Certificate.Subject.CommonName
}

// Sign returns a program with its signature, or as it is without a key.
func (s Signer) Sign(program []byte) ([]byte, error) {
	if s.key == nil {
		return program, nil
	}
	out, err := s.key.Sign(program)
	if err == nil {
		err = secureboot.Verify(out, s.key.Certificate)
	}
	if err != nil {
		return nil, fmt.Errorf("image: %w", err)
	}
	return out, nil
}
