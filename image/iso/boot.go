package iso

import "encoding/binary"

// bootRecord points to the boot catalog (El Torito, figure 7).
func bootRecord() []byte {
	b := make([]byte, SectorSize)
	copy(b, "\x00CD001\x01EL TORITO SPECIFICATION")
	binary.LittleEndian.PutUint32(b[71:], sectorCatalog)
	return b
}

// Values of the boot catalog (El Torito, figures 2 to 5; UEFI 13.3.2.1).
const (
	platformBIOS = 0x00
	platformEFI  = 0xef
	bootable     = 0x88
	lastSection  = 0x91
	// biosSectors, of 512 bytes, are loaded by the BIOS; the image loads the
	// rest.
	biosSectors = 4
	// efiSectors of 0 or 1 mean: to the end of the disc. 1 is what Microsoft's
	// discs have, so that every firmware knows it; the true number often does
	// not fit into 16 bits.
	efiSectors = 1
)

// catalog is the boot catalog: BIOS first, then UEFI.
func (d Disc) catalog(image uint32) []byte {
	b := make([]byte, 4*32)
	le := binary.LittleEndian
	b[0], b[1], b[30], b[31] = 1, platformBIOS, 0x55, 0xaa
	var sum uint16
	for i := 0; i < 32; i += 2 {
		sum += le.Uint16(b[i:])
	}
	le.PutUint16(b[28:], -sum)
	b[32] = bootable
	le.PutUint16(b[32+6:], biosSectors)
	le.PutUint32(b[32+8:], image)
	b[64], b[65] = lastSection, platformEFI
	le.PutUint16(b[64+2:], 1)
	b[96] = bootable
	le.PutUint16(b[96+6:], efiSectors)
	le.PutUint32(b[96+8:], uint32(d.EFI/SectorSize))
	return b
}

// bootImage is the image for BIOS with the boot information table by which it
// finds the rest of itself (mkisofs(8), "EL TORITO BOOT INFORMATION TABLE").
func (d Disc) bootImage(at uint32) []byte {
	b := append([]byte(nil), d.BIOS...)
	le := binary.LittleEndian
	clear(b[8:64])
	le.PutUint32(b[8:], sectorPrimary)
	le.PutUint32(b[12:], at)
	le.PutUint32(b[16:], uint32(len(b)))
	var sum uint32
	padded := append(b[64:len(b):len(b)], 0, 0, 0)
	for i := 0; i+4 <= len(padded); i += 4 {
		sum += le.Uint32(padded[i:])
	}
	le.PutUint32(b[20:], sum)
	return b
}
