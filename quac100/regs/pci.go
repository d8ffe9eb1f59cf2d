package regs

// PCI identity. The vendor number may also be in use elsewhere: match on all of it.
const (
	VendorID    = 0x1DB7
	DeviceID    = 0x0100
	SubVendorID = 0x1DB7
	SubDeviceID = 0x0100
	Class       = 0x108000 // encryption controller, other
	Revision    = 0x01

	// IDWord is DEV_ID, and the dwords at 0x00 and 0x2C of the configuration space.
	IDWord uint32 = DeviceID<<16 | VendorID
	// GoneWord in DEV_ID means that the card is gone or in reset: no register may be touched any more.
	GoneWord uint32 = 0xFFFFFFFF

	// InterfaceMajor is the only DEV_REV major that this package describes.
	InterfaceMajor = 1
	InterfaceMinor = 0
)

// BAR0 and the MSI-X structures in it.
const (
	BARIndex     = 0
	BARSize      = 0x10000
	MSIXTable    = 0xFE00
	MSIXPBA      = 0xFF00
	MSIXVectors  = 16
	MSIXEntry    = 16
	DriverMapEnd = 0xF000 // a driver maps [0, DriverMapEnd); the MSI-X page is the kernel's
)

// Configuration space, offsets in bytes.
const (
	CfgID         = 0x00
	CfgCommand    = 0x04
	CfgStatus     = 0x06
	CfgClassRev   = 0x08
	CfgHeader     = 0x0C
	CfgBAR0       = 0x10
	CfgBAR1       = 0x14
	CfgBAR5       = 0x24
	CfgSubsystem  = 0x2C
	CfgROM        = 0x30
	CfgCapPtr     = 0x34
	CfgIntLine    = 0x3C
	CfgMSIX       = 0x40
	CfgPM         = 0x50
	CfgPCIe       = 0x60
	CfgSize       = 4096
	CfgLegacySize = 256

	CfgMSIXControl = CfgMSIX + 2
	CfgMSIXTable   = CfgMSIX + 4
	CfgMSIXPBA     = CfgMSIX + 8
	CfgPMCap       = CfgPM + 2
	CfgPMCSR       = CfgPM + 4
	CfgDevCap      = CfgPCIe + 0x04
	CfgDevControl  = CfgPCIe + 0x08
	CfgDevStatus   = CfgPCIe + 0x0A
	CfgLinkCap     = CfgPCIe + 0x0C
	CfgLinkControl = CfgPCIe + 0x10
	CfgLinkStatus  = CfgPCIe + 0x12

	CapIDPM   = 0x01
	CapIDPCIe = 0x10
	CapIDMSIX = 0x11
)

// Bits of the configuration space.
const (
	CommandMemory      uint16 = 1 << 1
	CommandBusMaster   uint16 = 1 << 2
	CommandINTxDisable uint16 = 1 << 10

	MSIXControlMask   uint16 = 1 << 14
	MSIXControlEnable uint16 = 1 << 15
	// MSIXEntryMasked is bit 0 of a table entry's vector control, the dword at 12.
	MSIXEntryMasked uint32 = 1

	PMStateMask uint16 = 3
	PMD0        uint16 = 0
	PMD3hot     uint16 = 3
	// PMNoSoftReset: D3hot to D0 keeps all state.
	PMNoSoftReset uint16 = 1 << 3

	DevCapFLR     uint32 = 1 << 28
	DevControlFLR uint16 = 1 << 15

	// BARFlags are the low bits of BAR0: 64-bit, prefetchable.
	BARFlags uint32 = 0xC
)
