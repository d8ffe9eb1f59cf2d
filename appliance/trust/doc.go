// Package trust says what the node booted and proves it: Secure Boot, the TPM's
// registers and event log, attestation, and the boots that the encrypted data
// volume opens for. A node without TPM or Secure Boot runs all the same; what it
// lacks is said with a code.
package trust
