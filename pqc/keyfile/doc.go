// Package keyfile reads and writes keys in the formats that other programs
// have: SubjectPublicKeyInfo for public keys, and PKCS #8 (RFC 5958) for secret
// ones, in DER or in PEM, for ML-KEM (RFC 9935), ML-DSA (RFC 9881) and SLH-DSA
// (RFC 9909).
//
// A secret key of ML-KEM and ML-DSA comes as its seed, in expanded form, or as
// both. Who imports a key asks Private.Public for its public half, which also
// finds halves that do not belong together.
package keyfile
