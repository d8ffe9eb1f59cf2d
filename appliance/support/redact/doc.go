// Package redact takes secrets out of what is given away: passphrases, tokens and their
// hashes, private and recovery keys, user data of cloud-init, and options of kernel
// command lines that carry such.
//
// JSON redacts by structure: the value under a key that names a secret is replaced
// whole, and every other string goes through Text. Text knows forms: assignments to names
// of secrets in any of the usual notations, API tokens (qv_…), PEM private keys, SHA-256
// hashes of tokens, recovery keys, and credentials in URLs. Where it is in doubt it takes
// out too much: a bundle that lacks a word is better than one that has a secret.
package redact

// Mark is what stands in place of a secret.
const Mark = "[redacted]"
