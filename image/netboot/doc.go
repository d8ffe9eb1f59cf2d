// Package netboot boots machines from the network and hands each its
// configuration: DHCP (a ProxyDHCP service beside another DHCP server, or the
// whole of it), TFTP and HTTP, for one interface.
//
// What a machine is told depends on who asks: the firmware (PXE of BIOS and
// UEFI, UEFI HTTP boot), iPXE, or QuantaVirt itself. Firmware gets iPXE or the
// unified kernel image; iPXE gets a script with the kernel's command line, in
// which the address of the machine's configuration stands; a node that was
// booted without a script asks for that address by a DHCPINFORM.
//
// Sources: PXE 2.1 (Intel, 1999), RFC 2131, 2132 and 4578 for DHCP, UEFI 2.10
// section 24.7 for HTTP boot, RFC 1350, 2348 and 2349 for TFTP. Every packet and
// every request is hostile input. Nothing that is sent is secret: all of it can
// be read on the wire, and a configuration holds hashes of tokens only.
package netboot
