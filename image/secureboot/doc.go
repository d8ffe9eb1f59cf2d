// Package secureboot makes the builder's keys for UEFI Secure Boot, their
// enrolment files, and Authenticode signatures of EFI programs.
//
// It follows Microsoft's "Windows Authenticode Portable Executable Signature
// Format" for images, PKCS #7 1.5 (RFC 2315) for both kinds of signature, and
// the UEFI specification 2.10, section 8.2 for authenticated variables and 32.4.1
// for signature lists.
//
// Signatures carry no time and RSA with PKCS #1 v1.5 has no random part: the
// same image and key give the same bytes, as every other part of a build does.
package secureboot
