// Package authenticode reads the signatures of EFI programs and tells whether
// firmware with Secure Boot starts them.
//
// It follows Microsoft's "Windows Authenticode Portable Executable Signature
// Format", PKCS #7 1.5 (RFC 2315), and the UEFI specification 2.10, section 32.4.1
// for the lists of what firmware trusts. Package image/secureboot makes signatures.
package authenticode
