package keystore

import (
	"cmp"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"slices"

	"quantavirt/internal/durable"
	"quantavirt/internal/secret"
)

// change makes one change and writes it. What fails before the file is written leaves
// all as it was.
func (s *Store) change(do func() error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.condition != Open {
		return s.err
	}
	before := s.header
	if err := do(); err != nil {
		s.header = before
		return err
	}
	return s.commit()
}

// commit writes the next generation and counts along. When it fails, what counts is
// the file: the store is again what that says.
func (s *Store) commit() error {
	s.header.Generation++
	wanted := s.header.Generation
	err := s.write()
	if err == nil {
		err = s.count(wanted)
	}
	if err == nil {
		return nil
	}
	if again := s.reopen(); again != nil {
		return again
	}
	if s.header.Generation == wanted {
		return nil // it was written, and the counter has counted now
	}
	return err
}

// reopen reads the file anew with the master key at hand.
func (s *Store) reopen() error {
	master, err := secret.New(masterSize)
	if err != nil {
		return err
	}
	copy(master.Bytes(), s.master.Bytes())
	s.shut()
	f, err := s.read()
	if err != nil {
		master.Wipe()
		return s.refuse(err)
	}
	return s.open(f, master, false)
}

// write writes the file in place of the one before.
func (s *Store) write() error {
	records := make([]record, 0, len(s.keys))
	for _, k := range s.keys {
		records = append(records, record{k.Key, k.secret.Bytes()})
	}
	slices.SortFunc(records, func(a, b record) int { return cmp.Compare(a.key.ID, b.key.ID) })
	n, err := size(records)
	if err != nil {
		return err
	}
	plain, err := secret.New(n)
	if err != nil {
		return err
	}
	defer plain.Wipe()
	if _, err := appendRecords(plain.Bytes()[:0], records); err != nil {
		return err
	}
	salt := make([]byte, saltSize)
	_, _ = rand.Read(salt) // never fails
	clear, err := s.header.clear(salt)
	if err != nil {
		return err
	}
	data, err := seal(s.master.Bytes(), salt, clear, plain.Bytes())
	if err != nil {
		return err
	}
	if err := replace(filepath.Join(s.Dir, FileName), data); err != nil {
		return refused("write the keystore: %w", err)
	}
	s.unsaved = 0
	return nil
}

// replace leaves the whole new file or the whole old one.
func replace(path string, data []byte) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, "."+FileName+"-*") // has mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return durable.SyncDir(dir)
}
