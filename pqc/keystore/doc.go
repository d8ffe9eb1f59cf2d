// Package keystore keeps the node's keys.
//
// At rest all of them are one file, which is replaced as a whole: a header in clear, and the
// keys under AES-256-GCM, whose additional data is the header. The key for that comes by
// HKDF over SHA3-256 from the master key and a salt that each writing chooses anew. The master
// key is random; the header has it sealed by the TPM for measured boots, or by a key that lives on a
// card, or encrypted under a key from a passphrase (argon2id, RFC 9106), or by one of the
// hardware's and the passphrase.
//
// The file has a generation, one more with each change, and a counter outside the file counts
// along: of the TPM, which cannot go back, or else in the node's state file. A file of
// an older generation is refused. With the TPM's counter that finds every older file.
// With the one in the state file it finds an older keystore beside a newer state, but not a
// data volume that was put back as a whole. Numbers of uses are written without a new generation:
// an older file of the same generation can take those back, nothing else.
//
// What is refused (PQC_ERR_KEYSTORE) is left as it is: nothing is written until a keystore
// has been opened, recovered by its passphrase or, on demand, put aside.
//
// In memory secret keys are the short form of their standard, in pages that are locked,
// left out of dumps and wiped when a key is destroyed or the keystore closed (package
// internal/secret).
package keystore
