// Package backup writes a node's state into one encrypted file, and brings it back.
//
// What is in it: the state file as it was at one moment, the keystore, the VM
// configurations and the uplink's configuration; and a manifest with the SHA-256 of
// each, and of the images and disks, whose contents are not in it.
//
// The file (see header.go) is a header and chunks of AES-256-GCM, whose key Argon2id
// (RFC 9106) makes from a passphrase; symmetric throughout, so a quantum computer
// gains nothing but Grover's square root. A chunk is bound to the header, to its place
// and to whether it is the last, as in STREAM (Hoang, Reyhanitabar, Rogaway, Vizár,
// "Online Authenticated-Encryption and its Nonce-Reuse Misuse-Resistance", 2015).
//
// A restore unpacks beside the state and checks all of it, to the last chunk, before
// one rename makes it wanted. The next daemon puts the parts in place before it opens
// any of them; a crash in between changes nothing, as that goes on where it was.
package backup
