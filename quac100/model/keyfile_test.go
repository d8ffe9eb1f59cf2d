package model

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"quantavirt/quac100/regs"
)

func someKeys() *keyStore {
	var s keyStore
	s.slots[7] = storedKey{used: true, generation: 3, nonces: 5, secret: []byte("secret"), public: []byte("public"), created: 1, lastUsed: 2,
		attrs: regs.Attributes{Version: 1, Alg: regs.MLDSA44, Type: regs.KeySignaturePair, State: regs.KeyActive, Flags: regs.AttrPersistent, Label: "x"}}
	s.slots[8] = storedKey{used: true, generation: 9, secret: []byte("volatile")}
	return &s
}

func TestKeyFile(t *testing.T) {
	b := someKeys().encode()
	if bytes.Contains(b, []byte("volatile")) {
		t.Error("a volatile key is in the file")
	}
	var got keyStore
	if err := got.decode(b); err != nil {
		t.Fatal(err)
	}
	k := &got.slots[7]
	if !k.used || k.generation != 3 || k.nonces != 5 || string(k.secret) != "secret" || string(k.public) != "public" || k.attrs.Label != "x" {
		t.Errorf("%+v", k)
	}
	if got.slots[8].used || got.slots[8].generation != 9 {
		t.Errorf("%+v", got.slots[8])
	}
}

// A file that is damaged anywhere stops the card from starting, and stays as it is.
func TestKeyFileDamaged(t *testing.T) {
	good := someKeys().encode()
	path := filepath.Join(t.TempDir(), "keys")
	for _, b := range [][]byte{{}, good[:len(good)-1], append(bytes.Clone(good), 0), flip(good, 0), flip(good, 600), flip(good, len(good)-1)} {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if c, err := New(Config{KeyFile: path}); err == nil {
			t.Errorf("a damaged file of %d bytes is accepted", len(b))
			c.Close()
		}
		if after, err := os.ReadFile(path); err != nil || !bytes.Equal(after, b) {
			t.Error("the damaged file was overwritten")
		}
	}
}

func flip(b []byte, at int) []byte {
	out := bytes.Clone(b)
	out[at] ^= 0x10
	return out
}

// Keys that can not be written are not kept.
func TestKeyFileFails(t *testing.T) {
	dir := t.TempDir()
	r := running(t, Config{KeyFile: filepath.Join(dir, "gone", "keys")})
	resp := r.do(regs.Command{Opcode: regs.OpKeyGenSym, Param: regs.AES256GCM, Flags: regs.FlagPersist})
	if resp.Status != regs.RespUnknown {
		t.Errorf("%v", resp.Status)
	}
	r.until(regs.ErrStatus, regs.ErrKeyStore.Mask(), regs.ErrKeyStore.Mask())
	r.expect(regs.KeyStatus, regs.KeySlots<<16)
}

func FuzzKeyFile(f *testing.F) {
	f.Add(someKeys().encode())
	f.Add([]byte(keyMagic))
	f.Fuzz(func(t *testing.T, b []byte) {
		var s keyStore
		if err := s.decode(b); err != nil {
			return
		}
		var again keyStore
		if err := again.decode(s.encode()); err != nil {
			t.Errorf("what was read can not be written: %v", err)
		}
	})
}

// FuzzFirmwareImage: no image without the maker's signature is accepted.
func FuzzFirmwareImage(f *testing.F) {
	f.Add(make([]byte, regs.FWHeaderSize+regs.FWSignatureSize+1))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) <= regs.FWHeaderSize+regs.FWSignatureSize {
			return
		}
		if verifyImage(b, make([]byte, 2592), 0) == 0 {
			t.Error("accepted")
		}
	})
}

// FuzzMLDSASignature: decoding and checking a signature never fails but by refusing it.
func FuzzMLDSASignature(f *testing.F) {
	f.Add(make([]byte, 4627), make([]byte, 2592))
	f.Fuzz(func(t *testing.T, sig, pk []byte) {
		for _, alg := range []regs.Alg{regs.MLDSA44, regs.MLDSA65, regs.MLDSA87} {
			s, _ := regs.SizesOf(alg)
			if len(sig) >= s.Output && len(pk) >= s.Public {
				dsaParamsOf(alg).verify(pk[:s.Public], []byte("m"), sig[:s.Output])
			}
		}
	})
}
