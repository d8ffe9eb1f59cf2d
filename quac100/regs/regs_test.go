package regs

import "testing"

func TestMapIsOrderedAndAligned(t *testing.T) {
	last := -1
	for _, r := range registers {
		if int(r.Reg) <= last {
			t.Errorf("%s at %#x is out of order or double", r.Name, uint32(r.Reg))
		}
		if r.Reg%4 != 0 || r.Reg >= 0x900 {
			t.Errorf("%s at %#x is unaligned or outside the nine regions", r.Name, uint32(r.Reg))
		}
		last = int(r.Reg)
	}
}

// Spot checks against the specification's text, one or two of each region.
func TestRegisterFacts(t *testing.T) {
	for _, want := range []Info{
		{0x0000, "DEV_ID", RO, 0x01001DB7},
		{0x0008, "DEV_STATUS", RO, 0xD1},
		{0x00B8, "KEY_ZEROIZE", WO, 0},
		{0x00F4, "RESET_CAUSE", RO, 0},
		{0x0108, "CMDQ_SIZE", RWL, 256},
		{0x0124, "CMDQ_TIMEOUT_MS", RW, 5000},
		{0x021C, "RSPQ_STATUS", RO, 0x102},
		{0x0300, "INT_CAUSE", W1C, 0},
		{0x0334, "INT_ROUTE1", RW, 0x05660551},
		{0x0468, "DMA_WIN_LIMIT_LO", RW, 0xFFFFFFFF},
		{0x0504, "NTT_STATUS", RO, 0x00080009},
		{0x0630, "QRNG_APT_CUTOFF", RO, 71},
		{0x0714, "PERF_KEM_KEYGEN_HI", RO, 0},
		{0x07FC, "PERF_HIST15", RO, 0},
		{0x0808, "FW_STATUS", RO, 0x3100},
		{0x088C, "FW_DIGEST15", RO, 0},
		{0x0890, "FW_MAX_IMAGE", RO, 0x01000000},
	} {
		got, ok := Lookup(want.Reg)
		if !ok || got != want {
			t.Errorf("Lookup(%#x) = %+v, %v; want %+v", uint32(want.Reg), got, ok, want)
		}
	}
	if _, ok := Lookup(0x002C); ok {
		t.Error("the reserved offset 0x2C is in the map")
	}
	if got := Reg(0x2C).String(); got != "BAR0+0x002C" {
		t.Errorf("name of a reserved offset = %q", got)
	}
}

func TestResetValuesAgreeWithBits(t *testing.T) {
	reset := func(r Reg) uint32 { i, _ := Lookup(r); return i.Reset }
	if got := StatusReady | StatusSelfTestOK | StatusQRNGReady | StatusCryptoReady; uint32(got) != reset(DevStatus) {
		t.Errorf("ready status = %#x, the map says %#x", uint32(got), reset(DevStatus))
	}
	full := CapMLKEM | CapMLDSA | CapSLHDSA | CapQRNG | CapKeyStore | CapAsync | CapBatch | CapDMA | CapFIPS | CapFLR |
		CapAESGCM | CapFWUpdate | CapPerf | CapSG | CapKeyWrap
	if full != CapsFull || uint32(CapsFull) != reset(DevCaps) {
		t.Errorf("all capabilities = %#x, want %#x", uint32(full), reset(DevCaps))
	}
	c := Caps2(reset(DevCaps2))
	if c != Caps2Default || c.MaxRing() != RingMax || c.MinRing() != RingMin || c.CommandSize() != CommandSize ||
		c.ResponseSize() != ResponseSize || c.QueuePairs() != 1 || c.Vectors() != MSIXVectors || c.MaxSG() != SGMax {
		t.Errorf("DEV_CAPS2 %#x does not decode to the limits", uint32(c))
	}
	l := Limits(reset(DevLimits))
	if l.MaxInFlight() != 4096 || l.KeySlots() != KeySlots {
		t.Errorf("DEV_LIMITS = %d in flight, %d slots", l.MaxInFlight(), l.KeySlots())
	}
	if ControlRun != 0x2F {
		t.Errorf("bring-up DEV_CONTROL = %#x", uint32(ControlRun))
	}
	if all := TestsStartup | TestMemory | TestNTT | TestDMA | TestPCIe | TestFirmware | TestIntegrity; all != TestsAll {
		t.Errorf("all self-tests = %#x", uint32(all))
	}
	if names := TestsAll.Names(); len(names) != 15 {
		t.Errorf("%d self-test names: %v", len(names), names)
	}
}

func TestRoutesLeadToTheVectors(t *testing.T) {
	for c, vector := range map[Cause]uint32{
		0: 1, 1: 2, 2: 3, 3: 4, CauseDMAError: 0, CauseCMDQHalt: 0, CauseRSPQFull: 0, CauseRspAvail: VectorResponses,
		CauseCryptoError: VectorCrypto, CauseCMDQEmpty: VectorCrypto, CauseEntropyLow: VectorQRNG, CauseEntropyReady: VectorQRNG,
		CauseSelfTestDone: VectorCrypto, CauseTemp: VectorThermal, CausePower: VectorThermal, CauseThrottle: VectorThermal,
		CauseTamper: VectorKeys, CauseKeyEvent: VectorKeys, CauseFWEvent: VectorFirmware, CauseError: VectorErrors,
		CauseQRNGHealth: VectorQRNG, CauseFatal: VectorErrors,
	} {
		reg, shift := c.Route()
		i, ok := Lookup(reg)
		if !ok || i.Reset>>shift&0xF != vector {
			t.Errorf("cause %d is routed to %d by %s, want %d", c, i.Reset>>shift&0xF, reg, vector)
		}
		if Causes&c.Mask() == 0 {
			t.Errorf("cause %d is missing in Causes", c)
		}
	}
}

func TestSizes(t *testing.T) {
	for _, s := range Algorithms() {
		got, ok := SizesOf(s.Alg)
		if !ok || got != s || s.Alg.String() != s.Name {
			t.Errorf("SizesOf(%s) = %+v, %v", s.Name, got, ok)
		}
	}
	if _, ok := SizesOf(0x1103); ok {
		t.Error("0x1103 has sizes")
	}
	s, _ := SizesOf(MLKEM768)
	if s.Public != 1184 || s.Secret != 2400 || s.Output != 1088 || s.Seed != 64 {
		t.Errorf("ML-KEM-768 = %+v", s)
	}
	if len(Algorithms()) != 19 {
		t.Errorf("%d algorithms", len(Algorithms()))
	}
}

func TestNames(t *testing.T) {
	for _, c := range []struct{ got, want string }{
		{OpKEMDecaps.String(), "KEM_DECAPS"}, {Opcode(0x0400).String(), "opcode 0x0400"},
		{RespOverTemp.String(), "over-temperature"}, {RespStatus(0x77).String(), "response code 0x0077"},
		{DetailBadAux.String(), "BAD_AUX"}, {DetailSelfTestRequired.String(), "SELFTEST_REQUIRED"}, {Detail(32).String(), "detail 32"},
		{HealthFailed.String(), "failed"}, {HealthState(9).String(), "unknown"}, {W1C.String(), "W1C"}, {DevID.String(), "DEV_ID"},
	} {
		if c.got != c.want {
			t.Errorf("name %q, want %q", c.got, c.want)
		}
	}
	for op := range opcodeNames {
		if op.String() == "" {
			t.Errorf("opcode %#x has no name", uint16(op))
		}
	}
}

func TestSplits(t *testing.T) {
	if s, mi, ma := Rev(0x00010001); s != Revision || mi != InterfaceMinor || ma != InterfaceMajor {
		t.Errorf("DEV_REV = %d %d %d", s, mi, ma)
	}
	if ma, mi, p := Version(0x01020304); ma != 1 || mi != 2 || p != 0x304 {
		t.Errorf("version = %d.%d.%d", ma, mi, p)
	}
	if r, n := SplitCMDQStatus(0x00070208); r != HaltWrite || n != 7 {
		t.Errorf("CMDQ_STATUS = %d, %d", r, n)
	}
	if c, n := SplitResetCause(0x0305); c != CauseFLR || n != 3 {
		t.Errorf("RESET_CAUSE = %d, %d", c, n)
	}
	if c := NewCoalesce(50, 16); c != CoalesceEnable|0x00100032 || c.Micros() != 50 || c.Count() != 16 {
		t.Errorf("coalesce = %#x", uint32(c))
	}
	if s, g := Handle(0x00030007); s != 7 || g != 3 {
		t.Errorf("handle = slot %d generation %d", s, g)
	}
}
