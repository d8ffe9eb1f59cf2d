package regs

import "bytes"

// HealthState sums up the card's health.
type HealthState uint32

// Health states.
const (
	HealthOK       HealthState = 0
	HealthDegraded HealthState = 1
	HealthWarning  HealthState = 2
	HealthCritical HealthState = 3
	HealthFailed   HealthState = 4
)

func (s HealthState) String() string {
	names := [...]string{"ok", "degraded", "warning", "critical", "failed"}
	if int(s) < len(names) {
		return names[s]
	}
	return "unknown"
}

// HealthFlags say what the state consists of; one bit of each group is set.
type HealthFlags uint32

// Health flags.
const (
	HealthTempOK        HealthFlags = 1 << 0
	HealthTempWarm      HealthFlags = 1 << 1
	HealthTempHot       HealthFlags = 1 << 2
	HealthTempCritical  HealthFlags = 1 << 3
	HealthTempThrottled HealthFlags = 1 << 4

	HealthPowerOK       HealthFlags = 1 << 8
	HealthPowerLow      HealthFlags = 1 << 9
	HealthPowerHigh     HealthFlags = 1 << 10
	HealthPowerUnstable HealthFlags = 1 << 11

	HealthMemoryOK          HealthFlags = 1 << 12
	HealthMemoryCorrected   HealthFlags = 1 << 13
	HealthMemoryUncorrected HealthFlags = 1 << 14
	HealthMemoryLow         HealthFlags = 1 << 15

	HealthEntropyOK     HealthFlags = 1 << 16
	HealthEntropyLow    HealthFlags = 1 << 17
	HealthEntropyFailed HealthFlags = 1 << 18

	HealthSecurityOK       HealthFlags = 1 << 20
	HealthSecurityTamper   HealthFlags = 1 << 21
	HealthSecuritySelfTest HealthFlags = 1 << 22
	HealthSecurityFIPS     HealthFlags = 1 << 23

	HealthPCIeOK       HealthFlags = 1 << 24
	HealthPCIeDegraded HealthFlags = 1 << 25
	HealthPCIeError    HealthFlags = 1 << 26

	HealthFWOK       HealthFlags = 1 << 28
	HealthFWUpdate   HealthFlags = 1 << 29
	HealthFWMismatch HealthFlags = 1 << 30
)

// Sizes of the records.
const (
	HealthSize     = 64
	CardInfoSize   = 128
	AttributesSize = 128
	KeyInfoSize    = 160
)

// Health is the record of opcode HEALTH. Temperatures are in milli-degrees Celsius.
type Health struct {
	State      HealthState
	Flags      HealthFlags
	TempCore   int32
	TempMem    int32
	TempBoard  int32
	TempVRM    int32
	CoreMV     uint32
	AuxMV      uint32
	PowerMW    uint32
	ClockMHz   uint32
	PoolBits   uint32
	SlotsUsed  uint32
	SlotsTotal uint32
	Uptime     uint64 // seconds
}

// Append appends the record to b.
func (h *Health) Append(b []byte) []byte {
	for _, v := range []uint32{
		HealthSize, uint32(h.State), uint32(h.Flags), uint32(h.TempCore), uint32(h.TempMem), uint32(h.TempBoard),
		uint32(h.TempVRM), h.CoreMV, h.AuxMV, h.PowerMW, h.ClockMHz, h.PoolBits, h.SlotsUsed, h.SlotsTotal,
	} {
		b = le.AppendUint32(b, v)
	}
	return le.AppendUint64(b, h.Uptime)
}

// ParseHealth reads the record from b.
func ParseHealth(b []byte) (Health, error) {
	if len(b) < HealthSize {
		return Health{}, short("health record", len(b), HealthSize)
	}
	u := func(i int) uint32 { return le.Uint32(b[4*i:]) }
	if u(0) != HealthSize {
		return Health{}, short("health record", int(u(0)), HealthSize)
	}
	return Health{
		State: HealthState(u(1)), Flags: HealthFlags(u(2)),
		TempCore: int32(u(3)), TempMem: int32(u(4)), TempBoard: int32(u(5)), TempVRM: int32(u(6)),
		CoreMV: u(7), AuxMV: u(8), PowerMW: u(9), ClockMHz: u(10), PoolBits: u(11), SlotsUsed: u(12), SlotsTotal: u(13),
		Uptime: le.Uint64(b[56:]),
	}, nil
}

// CardInfo is the record of opcode INFO.
type CardInfo struct {
	ID         uint32
	Rev        uint32
	Caps       Caps
	Caps2      Caps2
	Limits     Limits
	FWVersion  uint32
	FWBuild    uint32
	FWSecVer   uint32
	MaxXfer    uint32
	Serial     uint64
	Model      string // at most 32 bytes
	SerialText string // at most 32 bytes
}

// Append appends the record to b; longer texts are cut.
func (c *CardInfo) Append(b []byte) []byte {
	for _, v := range []uint32{
		CardInfoSize, c.ID, c.Rev, uint32(c.Caps), uint32(c.Caps2), uint32(c.Limits),
		c.FWVersion, c.FWBuild, c.FWSecVer, c.MaxXfer,
	} {
		b = le.AppendUint32(b, v)
	}
	b = le.AppendUint64(b, c.Serial)
	b = appendText(b, c.Model, 32)
	b = appendText(b, c.SerialText, 32)
	return append(b, make([]byte, 16)...)
}

// ParseCardInfo reads the record from b.
func ParseCardInfo(b []byte) (CardInfo, error) {
	if len(b) < CardInfoSize {
		return CardInfo{}, short("card record", len(b), CardInfoSize)
	}
	u := func(i int) uint32 { return le.Uint32(b[4*i:]) }
	if u(0) != CardInfoSize {
		return CardInfo{}, short("card record", int(u(0)), CardInfoSize)
	}
	return CardInfo{
		ID: u(1), Rev: u(2), Caps: Caps(u(3)), Caps2: Caps2(u(4)), Limits: Limits(u(5)),
		FWVersion: u(6), FWBuild: u(7), FWSecVer: u(8), MaxXfer: u(9),
		Serial: le.Uint64(b[40:]), Model: text(b[48:80]), SerialText: text(b[80:112]),
	}, nil
}

// Attributes is the attribute block of a key.
type Attributes struct {
	Version   uint16
	Alg       Alg
	Type      KeyType
	State     KeyState
	Usage     Usage
	Flags     uint32 // Attr* bits
	Expiry    uint64 // Unix seconds, 0 for none
	MaxUses   uint32 // 0 for unlimited
	UseCount  uint32
	KeyDigest [32]byte
	Label     string // at most 64 bytes of UTF-8
}

// AttributesVersion is the version of the block.
const AttributesVersion = 1

// Append appends the block to b; a longer label is cut.
func (a *Attributes) Append(b []byte) []byte {
	b = le.AppendUint16(b, a.Version)
	b = le.AppendUint16(b, uint16(a.Alg))
	b = le.AppendUint16(b, uint16(a.Type))
	b = le.AppendUint16(b, uint16(a.State))
	b = le.AppendUint32(b, uint32(a.Usage))
	b = le.AppendUint32(b, a.Flags)
	b = le.AppendUint64(b, a.Expiry)
	b = le.AppendUint32(b, a.MaxUses)
	b = le.AppendUint32(b, a.UseCount)
	b = append(b, a.KeyDigest[:]...)
	return appendText(b, a.Label, 64)
}

// ParseAttributes reads the block from b.
func ParseAttributes(b []byte) (Attributes, error) {
	if len(b) < AttributesSize {
		return Attributes{}, short("attribute block", len(b), AttributesSize)
	}
	a := Attributes{
		Version: le.Uint16(b[0:]), Alg: Alg(le.Uint16(b[2:])), Type: KeyType(le.Uint16(b[4:])), State: KeyState(le.Uint16(b[6:])),
		Usage: Usage(le.Uint32(b[8:])), Flags: le.Uint32(b[0xC:]), Expiry: le.Uint64(b[0x10:]),
		MaxUses: le.Uint32(b[0x18:]), UseCount: le.Uint32(b[0x1C:]), Label: text(b[0x40:0x80]),
	}
	copy(a.KeyDigest[:], b[0x20:0x40])
	return a, nil
}

// KeyInfo is the record of opcode KEY_INFO.
type KeyInfo struct {
	Attributes
	Created   uint64 // Unix seconds
	LastUsed  uint64 // Unix seconds
	PublicLen uint32
	SecretLen uint32
	Handle    uint32
}

// Append appends the record to b.
func (k *KeyInfo) Append(b []byte) []byte {
	b = k.Attributes.Append(b)
	b = le.AppendUint64(b, k.Created)
	b = le.AppendUint64(b, k.LastUsed)
	b = le.AppendUint32(b, k.PublicLen)
	b = le.AppendUint32(b, k.SecretLen)
	b = le.AppendUint32(b, k.Handle)
	return le.AppendUint32(b, 0)
}

// ParseKeyInfo reads the record from b.
func ParseKeyInfo(b []byte) (KeyInfo, error) {
	if len(b) < KeyInfoSize {
		return KeyInfo{}, short("key record", len(b), KeyInfoSize)
	}
	a, err := ParseAttributes(b)
	if err != nil {
		return KeyInfo{}, err
	}
	return KeyInfo{
		Attributes: a, Created: le.Uint64(b[0x80:]), LastUsed: le.Uint64(b[0x88:]),
		PublicLen: le.Uint32(b[0x90:]), SecretLen: le.Uint32(b[0x94:]), Handle: le.Uint32(b[0x98:]),
	}, nil
}

// Handle splits a key handle.
func Handle(h uint32) (slot, generation uint16) { return uint16(h), uint16(h >> KeyHandleGeneration) }

func appendText(b []byte, s string, n int) []byte {
	field := make([]byte, n)
	copy(field, s)
	return append(b, field...)
}

func text(b []byte) string {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	return string(b)
}
