// Package tpm reads what a TPM 2.0 knows about a boot: the registers (PCRs) of
// its SHA-256 bank, and the log of the events that firmware, boot loader and stub extended
// them by. It seals secrets to values of registers, and has the TPM sign them.
//
// Commands follow the TPM 2.0 Library Specification, parts 2 and 3; the log is
// that of the TCG PC Client Platform Firmware Profile Specification 1.06, chapter 10. A log
// is whatever the firmware or a node under suspicion hands over: no memory is taken
// for what it claims, and what breaks its form is qverr.Inval.
package tpm
