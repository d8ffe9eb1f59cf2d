package regs

// WrappedSize is the size of a wrapped blob's header; ciphertext and a 16-byte tag follow.
const (
	WrappedSize           = 128
	WrappedMagic   uint32 = 0x51574B59
	WrappedVersion uint16 = 2
)

// Wrapped is the header of a wrapped key, and the additional data of its AES-256-GCM.
type Wrapped struct {
	Magic     uint32
	Version   uint16
	HeaderLen uint16
	Alg       Alg
	Type      KeyType
	Usage     Usage
	Flags     uint32
	PublicLen uint32
	SecretLen uint32
	WrapAlg   uint32
	KeyDigest [32]byte
	WrapKey   [32]byte
	Nonce     [GCMNonceSize]byte
	MaxUses   uint32
	Expiry    uint64
	Reserved  [8]byte
}

// Append appends the header to b.
func (w *Wrapped) Append(b []byte) []byte {
	b = le.AppendUint32(b, w.Magic)
	b = le.AppendUint16(b, w.Version)
	b = le.AppendUint16(b, w.HeaderLen)
	b = le.AppendUint16(b, uint16(w.Alg))
	b = le.AppendUint16(b, uint16(w.Type))
	for _, v := range []uint32{uint32(w.Usage), w.Flags, w.PublicLen, w.SecretLen, w.WrapAlg} {
		b = le.AppendUint32(b, v)
	}
	b = append(b, w.KeyDigest[:]...)
	b = append(b, w.WrapKey[:]...)
	b = append(b, w.Nonce[:]...)
	b = le.AppendUint32(b, w.MaxUses)
	b = le.AppendUint64(b, w.Expiry)
	return append(b, w.Reserved[:]...)
}

// ParseWrapped reads the header from b.
func ParseWrapped(b []byte) (Wrapped, error) {
	if len(b) < WrappedSize {
		return Wrapped{}, short("wrapped key header", len(b), WrappedSize)
	}
	w := Wrapped{
		Magic: le.Uint32(b[0:]), Version: le.Uint16(b[4:]), HeaderLen: le.Uint16(b[6:]),
		Alg: Alg(le.Uint16(b[8:])), Type: KeyType(le.Uint16(b[0xA:])), Usage: Usage(le.Uint32(b[0xC:])),
		Flags: le.Uint32(b[0x10:]), PublicLen: le.Uint32(b[0x14:]), SecretLen: le.Uint32(b[0x18:]),
		WrapAlg: le.Uint32(b[0x1C:]), MaxUses: le.Uint32(b[0x6C:]), Expiry: le.Uint64(b[0x70:]),
	}
	copy(w.KeyDigest[:], b[0x20:])
	copy(w.WrapKey[:], b[0x40:])
	copy(w.Nonce[:], b[0x60:])
	copy(w.Reserved[:], b[0x78:])
	return w, nil
}

// FWMagic opens a firmware image.
const (
	FWMagic         = "QUACFW01"
	FWHeaderVersion = 1
	FWHashSHA3512   = uint16(HashSHA3512)
)

// FWHeader is the signed header of a firmware image; payload and signature follow.
type FWHeader struct {
	Magic        [8]byte
	Version      uint16
	HeaderLen    uint16
	Flags        uint32
	Product      uint32
	HWLow        uint8
	HWHigh       uint8
	Reserved0    uint16
	FWVersion    uint32
	Build        uint32
	SecVer       uint32
	PayloadLen   uint32
	BuildTime    uint64 // Unix seconds
	SigAlg       Alg
	HashID       uint16
	SignatureLen uint32
	Reserved1    [8]byte
	Digest       [64]byte
	Signer       [FWSignerIDSize]byte
	Name         string // at most 32 bytes of UTF-8
	Reserved2    [64]byte
}

// Append appends the header to b; a longer name is cut.
func (h *FWHeader) Append(b []byte) []byte {
	b = append(b, h.Magic[:]...)
	b = le.AppendUint16(b, h.Version)
	b = le.AppendUint16(b, h.HeaderLen)
	b = le.AppendUint32(b, h.Flags)
	b = le.AppendUint32(b, h.Product)
	b = append(b, h.HWLow, h.HWHigh)
	b = le.AppendUint16(b, h.Reserved0)
	b = le.AppendUint32(b, h.FWVersion)
	b = le.AppendUint32(b, h.Build)
	b = le.AppendUint32(b, h.SecVer)
	b = le.AppendUint32(b, h.PayloadLen)
	b = le.AppendUint64(b, h.BuildTime)
	b = le.AppendUint16(b, uint16(h.SigAlg))
	b = le.AppendUint16(b, h.HashID)
	b = le.AppendUint32(b, h.SignatureLen)
	b = append(b, h.Reserved1[:]...)
	b = append(b, h.Digest[:]...)
	b = append(b, h.Signer[:]...)
	b = appendText(b, h.Name, 32)
	return append(b, h.Reserved2[:]...)
}

// ParseFWHeader reads the header from b.
func ParseFWHeader(b []byte) (FWHeader, error) {
	if len(b) < FWHeaderSize {
		return FWHeader{}, short("firmware header", len(b), FWHeaderSize)
	}
	h := FWHeader{
		Version: le.Uint16(b[8:]), HeaderLen: le.Uint16(b[0xA:]), Flags: le.Uint32(b[0xC:]), Product: le.Uint32(b[0x10:]),
		HWLow: b[0x14], HWHigh: b[0x15], Reserved0: le.Uint16(b[0x16:]), FWVersion: le.Uint32(b[0x18:]),
		Build: le.Uint32(b[0x1C:]), SecVer: le.Uint32(b[0x20:]), PayloadLen: le.Uint32(b[0x24:]), BuildTime: le.Uint64(b[0x28:]),
		SigAlg: Alg(le.Uint16(b[0x30:])), HashID: le.Uint16(b[0x32:]), SignatureLen: le.Uint32(b[0x34:]), Name: text(b[0xA0:0xC0]),
	}
	copy(h.Magic[:], b)
	copy(h.Reserved1[:], b[0x38:])
	copy(h.Digest[:], b[0x40:])
	copy(h.Signer[:], b[0x80:])
	copy(h.Reserved2[:], b[0xC0:])
	return h, nil
}
