package model

import (
	"bytes"
	"crypto/sha3"
	"encoding/hex"

	"github.com/cloudflare/circl/sign/mldsa/mldsa65"

	"quantavirt/quac100/regs"
)

// Known answers: SHA3-256 of what ML-KEM-768 and ML-DSA-65 make of fixed seeds. The tests of this package make those of
// the KEM again with the standard library's implementation.
const (
	katKeys       = "d34ad99a9ca279b51a0b6e1ab3b1fcbcb8c2390d0d141975db319630de32f241"
	katCiphertext = "dda34e18f27bfe538e10ae2195a053d638696906c0499c3eae805c166d3db35f"
	katShared     = "59f00e212b9762916e12e557ffaf7ee959e7eba74e51fc0e5dbcb142e15bbb1e"
	katSigKeys    = "2f69387c5b3a827f5245ff18353200745320c3981cb8fc54d7810abfbe51e543"
	katSignature  = "0d3ccd03c4c54db4e81f812e71eaf502ed464746444ff120a3b40c2af6d0f5fc"
)

func katSeed(n int, first byte) []byte {
	out := make([]byte, n)
	for i := range out {
		out[i] = first + byte(i)
	}
	return out
}

func digest(parts ...[]byte) string {
	h := sha3.New256()
	for _, p := range parts {
		h.Write(p)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// runSelfTests runs the tests of mask, without the card's lock, and returns those that failed. At start-up the entropy
// tests are those of the sources that begin to fill the pool; on demand they take samples of their own.
func (c *Card) runSelfTests(mask regs.SelfTest, startup bool) (failed regs.SelfTest) {
	run := func(bits regs.SelfTest, f func() regs.SelfTest) {
		if mask&bits != 0 {
			failed |= f() & mask
		}
	}
	run(regs.TestKEMKeygen|regs.TestEncaps|regs.TestDecaps, testKEM)
	run(regs.TestSigKeygen|regs.TestSign|regs.TestVerify, testSignature)
	one := func(bit regs.SelfTest, f func() bool) {
		run(bit, func() regs.SelfTest {
			if f() {
				return 0
			}
			return bit
		})
	}
	one(regs.TestMemory, testMemory)
	one(regs.TestNTT, nttSelfTest)
	one(regs.TestDMA, testDMA)
	one(regs.TestPCIe, c.testPCIe)
	one(regs.TestEntropyCont, testAlarms)
	one(regs.TestFirmware, c.testFirmware)
	one(regs.TestIntegrity, c.testIntegrity)
	if startup {
		one(regs.TestEntropyStart, c.awaitEntropy)
	} else {
		one(regs.TestEntropyStart, func() bool { return c.testSources(regs.QRNGStartupLenVal) })
		one(regs.TestEntropyNow, func() bool { return c.testSources(regs.QRNGAPTWindowVal) })
	}
	return failed
}

func testKEM() (failed regs.SelfTest) {
	scheme := kemScheme(regs.MLKEM768)
	pk, sk := scheme.DeriveKeyPair(katSeed(scheme.SeedSize(), 1))
	ek, err1 := pk.MarshalBinary()
	dk, err2 := sk.MarshalBinary()
	if err1 != nil || err2 != nil || digest(ek, dk) != katKeys {
		failed |= regs.TestKEMKeygen
	}
	ct, k, err := scheme.EncapsulateDeterministically(pk, katSeed(scheme.EncapsulationSeedSize(), 0x80))
	if err != nil || digest(ct) != katCiphertext || digest(k) != katShared {
		failed |= regs.TestEncaps
	}
	got, err := scheme.Decapsulate(sk, ct)
	if err != nil || !bytes.Equal(got, k) {
		failed |= regs.TestDecaps
	}
	ct[0] ^= 1 // implicit rejection: another secret, and no error
	other, err := scheme.Decapsulate(sk, ct)
	if err != nil || bytes.Equal(other, k) {
		failed |= regs.TestDecaps
	}
	return failed
}

func testSignature() (failed regs.SelfTest) {
	var seed [mldsa65.SeedSize]byte
	copy(seed[:], katSeed(len(seed), 1))
	pk, sk := mldsa65.NewKeyFromSeed(&seed)
	if digest(pk.Bytes(), sk.Bytes()) != katSigKeys {
		failed |= regs.TestSigKeygen
	}
	msg, ctx := []byte("QUAC 100 self-test"), []byte("kat")
	sig := make([]byte, mldsa65.SignatureSize)
	if err := mldsa65.SignTo(sk, msg, ctx, false, sig); err != nil || digest(sig) != katSignature {
		failed |= regs.TestSign
	}
	good := mldsa65.Verify(pk, msg, ctx, sig)
	sig[7] ^= 1
	if !good || mldsa65.Verify(pk, msg, ctx, sig) {
		failed |= regs.TestVerify
	}
	return failed
}

// testMemory writes and reads address and checkerboard patterns over working memory.
func testMemory() bool {
	mem := make([]byte, 64<<10)
	for _, pattern := range []byte{0x00, 0xFF, 0x55, 0xAA} {
		for i := range mem {
			mem[i] = pattern ^ byte(i) ^ byte(i>>8)
		}
		for i, x := range mem {
			if x != pattern^byte(i)^byte(i>>8) {
				return false
			}
		}
	}
	return true
}

// testDMA sends a block through the card's own memory interface and back, across a page boundary.
func testDMA() bool {
	loop := NewMemory(nil)
	for i := range uint64(2) {
		if err := loop.Map(i*PageSize, make([]byte, PageSize), true, true); err != nil {
			return false
		}
	}
	want := katSeed(1000, 3)
	got := make([]byte, len(want))
	at := uint64(PageSize - 500)
	return loop.WriteDMA(at, want) == nil && loop.ReadDMA(at, got) == nil && bytes.Equal(got, want) &&
		loop.ReadDMA(2*PageSize-1, got) != nil
}

// testPCIe reads back what the configuration space must say of the link and the function.
func (c *Card) testPCIe() bool {
	var id, link [4]byte
	c.ReadConfig(regs.CfgID, id[:])
	c.ReadConfig(regs.CfgLinkStatus, link[:2])
	return le.Uint32(id[:]) == regs.IDWord && le.Uint16(link[:2])&0xF == 4 && le.Uint16(link[:2])>>4&0x3F == 8
}

// testAlarms shows the continuous tests samples that must trip them, and some that must not.
func testAlarms() bool {
	var s source
	if s.check(make([]byte, regs.QRNGRCTCutoffVal)) != regs.QRNGAlarmRCT {
		return false
	}
	often := make([]byte, regs.QRNGAPTWindowVal)
	for i := range often {
		if i%4 != 0 {
			often[i] = byte(i)
		}
	}
	if s.check(often) != regs.QRNGAlarmAPT {
		return false
	}
	return s.check(katSeed(4*regs.QRNGAPTWindowVal, 0)) == 0
}

// testFirmware checks that the opcodes of the running firmware are those that its capabilities promise.
func (c *Card) testFirmware() bool {
	for code, o := range c.ops {
		if o.caps != 0 && o.caps&modelCaps == 0 || code >= 0x1000 {
			return false
		}
	}
	return len(c.ops) > 0
}

// testIntegrity checks the registers that nothing may ever change.
func (c *Card) testIntegrity() bool {
	c.lock()
	defer c.unlock()
	for _, r := range []regs.Reg{regs.DevID, regs.DevRev, regs.DevCaps2, regs.DevLimits, regs.QRNGRCTCutoff, regs.QRNGAPTCutoff} {
		if info, ok := regs.Lookup(r); !ok || c.get(r) != info.Reset {
			return false
		}
	}
	return regs.Caps(c.get(regs.DevCaps)) == modelCaps
}

// testSources takes n fresh samples of every source in use through its tests.
func (c *Card) testSources(n int) bool {
	c.lock()
	mask := c.get(regs.QRNGSrcMask)
	c.unlock()
	b := c.qrng.draw(mask, n, true, true)
	clear(b.raw)
	return b.err == nil && b.alarms == [regs.QRNGSources]alarm{}
}

// awaitEntropy waits for the start-up test of the sources and the first filling of the pool.
func (c *Card) awaitEntropy() bool {
	c.lock()
	defer c.unlock()
	for c.manager.todo&resetWork == 0 && !c.stop && !c.qrngFailed() && (c.qrng.starting || c.wantsFill()) {
		c.wait(c.progress)
	}
	return !c.qrngFailed()
}
