package model

import (
	"bytes"
	"crypto/mlkem"
	"crypto/mlkem/mlkemtest"
	"crypto/sha3"
	"testing"

	"github.com/cloudflare/circl/kem"

	"quantavirt/quac100/regs"
)

// kemRig is a rig with room for the largest set.
type kemRig struct {
	*rig
	alg                regs.Alg
	sizes              regs.Sizes
	ek, dk, ct, k, aux uint64
	ekB, dkB, ctB, kB  []byte
	auxB               []byte
}

func newKEMRig(t *testing.T, a regs.Alg) *kemRig {
	r := &kemRig{rig: running(t, Config{}), alg: a}
	r.sizes, _ = regs.SizesOf(a)
	r.ek, r.ekB = r.alloc(r.sizes.Public)
	r.dk, r.dkB = r.alloc(r.sizes.Secret)
	r.ct, r.ctB = r.alloc(r.sizes.Output)
	r.k, r.kB = r.alloc(32)
	r.aux, r.auxB = r.alloc(64)
	return r
}

func (r *kemRig) keygen(seed []byte) regs.Command {
	c := regs.Command{Opcode: regs.OpKEMKeygen, Param: r.alg, Dst0: r.ek, Dst0Len: uint32(r.sizes.Public), Dst1: r.dk, Dst1Len: uint32(r.sizes.Secret)}
	if seed != nil {
		copy(r.auxB, seed)
		c.Flags, c.Src0, c.Src0Len = regs.FlagSeed, r.aux, 64
	}
	return c
}

func (r *kemRig) encaps(m []byte) regs.Command {
	c := regs.Command{Opcode: regs.OpKEMEncaps, Flags: regs.FlagKeyInline, Param: r.alg, Src0: r.ek, Src0Len: uint32(r.sizes.Public), Dst0: r.ct, Dst0Len: uint32(r.sizes.Output), Dst1: r.k, Dst1Len: 32}
	if m != nil {
		copy(r.auxB, m)
		c.Flags |= regs.FlagSeed
		c.Src1, c.Src1Len = r.aux, 32
	}
	return c
}

func (r *kemRig) decaps() regs.Command {
	return regs.Command{Opcode: regs.OpKEMDecaps, Flags: regs.FlagKeyInline, Param: r.alg, Src0: r.ct, Src0Len: uint32(r.sizes.Output), Src1: r.dk, Src1Len: uint32(r.sizes.Secret), Dst0: r.k, Dst0Len: 32}
}

// Against the standard library, where it has the set: with the same seeds every output must be the same.
func TestKEMAgainstTheLibrary(t *testing.T) {
	seed, m := katSeed(64, 0x11), katSeed(32, 0x77)
	t.Run("768", func(t *testing.T) {
		r := newKEMRig(t, regs.MLKEM768)
		want, _ := mlkem.NewDecapsulationKey768(seed)
		r.want(r.keygen(seed), 0, 0)
		if !bytes.Equal(r.ekB, want.EncapsulationKey().Bytes()) {
			t.Error("encapsulation keys differ")
		}
		k, ct, err := mlkemtest.Encapsulate768(want.EncapsulationKey(), m)
		if err != nil {
			t.Fatal(err)
		}
		r.want(r.encaps(m), 0, 0)
		if !bytes.Equal(r.ctB, ct) || !bytes.Equal(r.kB, k) {
			t.Error("encapsulation differs")
		}
	})
	t.Run("1024", func(t *testing.T) {
		r := newKEMRig(t, regs.MLKEM1024)
		want, _ := mlkem.NewDecapsulationKey1024(seed)
		r.want(r.keygen(seed), 0, 0)
		if !bytes.Equal(r.ekB, want.EncapsulationKey().Bytes()) {
			t.Error("encapsulation keys differ")
		}
		k, ct, err := mlkemtest.Encapsulate1024(want.EncapsulationKey(), m)
		if err != nil {
			t.Fatal(err)
		}
		r.want(r.encaps(m), 0, 0)
		if !bytes.Equal(r.ctB, ct) || !bytes.Equal(r.kB, k) {
			t.Error("encapsulation differs")
		}
	})
}

func TestKEMRoundTrip(t *testing.T) {
	for _, a := range []regs.Alg{regs.MLKEM512, regs.MLKEM768, regs.MLKEM1024} {
		t.Run(a.String(), func(t *testing.T) {
			r := newKEMRig(t, a)
			resp := r.want(r.keygen(nil), 0, 0)
			if int(resp.Out0Len) != r.sizes.Public || int(resp.Out1Len) != r.sizes.Secret {
				t.Errorf("keygen wrote %d and %d", resp.Out0Len, resp.Out1Len)
			}
			first := bytes.Clone(r.ekB)
			r.want(r.keygen(nil), 0, 0)
			if bytes.Equal(first, r.ekB) {
				t.Error("two keys are the same")
			}
			resp = r.want(r.encaps(nil), 0, 0)
			if int(resp.Out0Len) != r.sizes.Output || resp.Out1Len != 32 {
				t.Errorf("encaps wrote %d and %d", resp.Out0Len, resp.Out1Len)
			}
			k := bytes.Clone(r.kB)
			r.want(r.decaps(), 0, 0)
			if !bytes.Equal(k, r.kB) {
				t.Error("the secrets differ")
			}

			// Implicit rejection: success, and J(z‖ct) = SHAKE256 as the secret.
			r.ctB[3] ^= 0x10
			r.want(r.decaps(), 0, 0)
			h := sha3.NewSHAKE256()
			h.Write(r.dkB[len(r.dkB)-32:])
			h.Write(r.ctB)
			want := make([]byte, 32)
			h.Read(want)
			if !bytes.Equal(want, r.kB) {
				t.Error("a wrong ciphertext does not give the implicit secret")
			}

			// Key checks of FIPS 203.
			r.dkB[len(r.dkB)-64] ^= 1
			r.want(r.decaps(), regs.RespCryptoFail, regs.DetailKeyCheck)
			r.ekB[0], r.ekB[1] = 0xFF, 0xFF // 0xFFF is no residue
			r.want(r.encaps(nil), regs.RespCryptoFail, regs.DetailKeyCheck)
			r.expect(regs.IntCause, r.Read32(regs.IntCause)&^regs.CauseCryptoError.Mask())
		})
	}
}

func TestPairwiseTest(t *testing.T) {
	r := newRig(t, Config{}).ready()
	r.Write32(regs.DevControl, uint32(regs.ControlFIPS))
	r.ready()
	k := &kemRig{rig: r, alg: regs.MLKEM512}
	k.sizes, _ = regs.SizesOf(k.alg)
	k.ek, k.ekB = r.alloc(k.sizes.Public)
	k.dk, k.dkB = r.alloc(k.sizes.Secret)
	k.aux, k.auxB = r.alloc(64)
	r.startWith(regs.ControlRun | regs.ControlFIPS)
	if resp := r.want(k.keygen(nil), 0, 0); resp.Flags&regs.RespFIPSApproved == 0 {
		t.Error("not FIPS_APPROVED")
	}
	r.want(k.keygen(katSeed(64, 1)), regs.RespInvalidParam, regs.DetailFIPSDenied)
	clear(k.dkB)
	r.FailPairwise(true)
	r.want(k.keygen(nil), regs.RespSelfTestFail, 0)
	if !bytes.Equal(k.dkB, make([]byte, len(k.dkB))) {
		t.Error("the key was written")
	}
	s := regs.Status(r.Read32(regs.DevStatus))
	if s&regs.StatusError == 0 || s&(regs.StatusReady|regs.StatusFIPSOK) != 0 {
		t.Errorf("status %#x", s)
	}
	r.expect(regs.FIPSStatus, regs.FIPSOn|regs.FIPSError)
	if r.Read32(regs.IntCause)&regs.CauseFatal.Mask() == 0 {
		t.Error("no FATAL")
	}
	r.want(regs.Command{Opcode: regs.OpNOP}, regs.RespSelfTestFail, regs.DetailSelfTestRequired)
}

func TestFaultCheck(t *testing.T) {
	r := newKEMRig(t, regs.MLKEM768)
	r.FailCrypto(1)
	r.want(r.keygen(nil), regs.RespCryptoFail, 0)
	r.want(r.keygen(nil), 0, 0)
	r.expect(regs.ErrStatus, regs.ErrCryptoInternal.Mask())
	r.FailCrypto(2)
	r.want(r.keygen(nil), regs.RespCryptoFail, 0)
	r.want(r.keygen(nil), regs.RespCryptoFail, 0)
	if s := regs.Status(r.Read32(regs.DevStatus)); s&regs.StatusError == 0 {
		t.Errorf("two in a row: status %#x", s)
	}
	r.want(r.keygen(nil), regs.RespSelfTestFail, regs.DetailSelfTestRequired)
}

func FuzzKeys(f *testing.F) {
	var schemes = map[byte]kem.Scheme{0: kemScheme(regs.MLKEM512), 1: kemScheme(regs.MLKEM768), 2: kemScheme(regs.MLKEM1024)}
	card, err := New(Config{})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { card.Close() })
	f.Add(byte(1), []byte{1, 2, 3})
	f.Fuzz(func(t *testing.T, set byte, data []byte) {
		s := schemes[set%3]
		alg := regs.MLKEM512 + regs.Alg(set%3)
		ek := make([]byte, s.PublicKeySize())
		copy(ek, data)
		dk := make([]byte, s.PrivateKeySize())
		copy(dk, data)
		ct := make([]byte, s.CiphertextSize())
		copy(ct, data)
		m := &command{Command: regs.Command{Param: alg}}
		runKEMEncaps(card, &job{command: m, in: [2][]byte{ek, make([]byte, 32)}})
		end := len(dk) - 64
		h := sha3.Sum256(dk[end-s.PublicKeySize() : end])
		copy(dk[end:], h[:]) // a key that passes the hash check
		if v := runKEMDecaps(card, &job{command: m, in: [2][]byte{ct, dk}}); v.status == regs.RespUnknown {
			t.Fatalf("decapsulation with a consistent key: %v", v.status)
		}
	})
}
