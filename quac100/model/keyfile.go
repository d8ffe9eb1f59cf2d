package model

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"quantavirt/internal/durable"
	"quantavirt/quac100/regs"
)

// The key file: "QUACKEY1", the generations of all slots, the number of keys; each with its slot, its record, the count
// of nonces made and its halves; the SHA-256 of all that.
const keyMagic = "QUACKEY1"

// keyRecord is a key's head in the file: u32 slot, u32 zero, u64 nonces, the record of KEY_INFO.
const keyRecord = 16 + regs.KeyInfoSize

var errKeyFile = errors.New("the key file is damaged")

// encode writes the persistent keys.
func (s *keyStore) encode() []byte {
	b := []byte(keyMagic)
	n := 0
	for i := range s.slots {
		b = le.AppendUint16(b, s.slots[i].generation)
		if s.slots[i].used && s.slots[i].persistent() {
			n++
		}
	}
	b = le.AppendUint32(b, uint32(n))
	for i := range s.slots {
		k := &s.slots[i]
		if !k.used || !k.persistent() {
			continue
		}
		b = le.AppendUint64(b, uint64(i))
		b = le.AppendUint64(b, k.nonces)
		info := regs.KeyInfo{Attributes: k.attrs, Created: k.created, LastUsed: k.lastUsed,
			PublicLen: uint32(len(k.public)), SecretLen: uint32(len(k.secret)), Handle: handleOf(i, k)}
		b = info.Append(b)
		b = append(append(b, k.public...), k.secret...)
	}
	sum := sha256.Sum256(b)
	return append(b, sum[:]...)
}

// decode reads what encode wrote. The bytes are not trusted.
func (s *keyStore) decode(b []byte) error {
	head := len(keyMagic) + 2*regs.KeySlots + 4
	if len(b) < head+sha256.Size || !bytes.HasPrefix(b, []byte(keyMagic)) {
		return errKeyFile
	}
	sum := sha256.Sum256(b[:len(b)-sha256.Size])
	if !bytes.Equal(sum[:], b[len(b)-sha256.Size:]) {
		return errKeyFile
	}
	b = b[:len(b)-sha256.Size]
	for i := range s.slots {
		s.slots[i].generation = le.Uint16(b[len(keyMagic)+2*i:])
	}
	n := le.Uint32(b[head-4:])
	b = b[head:]
	for range n {
		if len(b) < keyRecord {
			return errKeyFile
		}
		slot, nonces := le.Uint64(b), le.Uint64(b[8:])
		info, err := regs.ParseKeyInfo(b[16:])
		b = b[keyRecord:]
		if err != nil || slot >= regs.KeySlots || uint64(info.PublicLen)+uint64(info.SecretLen) > uint64(len(b)) {
			return errKeyFile
		}
		k := &s.slots[slot]
		k.attrs, k.created, k.lastUsed, k.nonces, k.used = info.Attributes, info.Created, info.LastUsed, nonces, true
		k.public = bytes.Clone(b[:info.PublicLen])
		k.secret = bytes.Clone(b[info.PublicLen : info.PublicLen+info.SecretLen])
		b = b[info.PublicLen+info.SecretLen:]
	}
	if len(b) != 0 {
		return errKeyFile
	}
	return nil
}

func (c *Card) loadKeys() error {
	if c.cfg.KeyFile == "" {
		return nil
	}
	b, err := os.ReadFile(c.cfg.KeyFile)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("persistent keys: %w", err)
	}
	defer clear(b)
	if err := c.keys.decode(b); err != nil {
		return fmt.Errorf("%s: %w", c.cfg.KeyFile, err)
	}
	return nil
}

// keysChanged asks for the file to be written.
func (c *Card) keysChanged() {
	c.keys.changed++
	c.saveC.Signal()
}

// keysSaved waits until what has changed so far is in the file; false if it could not be written.
func (c *Card) keysSaved() bool {
	if c.cfg.KeyFile == "" {
		return true
	}
	c.lock()
	defer c.unlock()
	want := c.keys.changed
	for c.keys.saved < want && c.keys.failed < want && !c.stop {
		c.wait(c.progress)
	}
	return c.keys.saved >= want
}

// saveLoop writes the key file, without the card's lock.
func (c *Card) saveLoop() {
	c.lock()
	defer c.unlock()
	s := &c.keys
	for {
		if c.cfg.KeyFile == "" || s.changed == max(s.saved, s.failed) {
			if c.stop {
				return
			}
			c.wait(c.saveC)
			continue
		}
		version, b := s.changed, s.encode()
		c.unlock()
		err := writeKeys(c.cfg.KeyFile, b)
		clear(b)
		c.lock()
		if err != nil {
			s.failed = version
			c.fail(regs.ErrKeyStore, 0, 0, 0)
		} else {
			s.saved = version
		}
		c.progress.Broadcast()
	}
}

// writeKeys replaces the file in one step.
func writeKeys(path string, b []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".keys-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return durable.SyncDir(filepath.Dir(path))
}
