// Package pqc offers post-quantum cryptography, and the classical ciphers and
// hashes that go with it, through one interface, Provider. It is served by the
// QUAC 100 card or by software. The policy, Service, picks the provider of each
// call: the card while it is healthy, software otherwise; every switch is
// logged and counted. With RequireHardware a call that a card is made for and
// cannot serve fails instead.
//
// ML-KEM is FIPS 203, ML-DSA FIPS 204, SLH-DSA FIPS 205 (the SHA2 sets), SHA-3
// and SHAKE FIPS 202, AES-256-GCM SP 800-38D, ChaCha20-Poly1305 RFC 8439,
// HKDF-SHA3-256 RFC 5869 over SHA3-256.
//
// Known answers are tested before an algorithm is used, and new key pairs
// before they are handed out. What fails closes the provider: PQC_ERR_SELF_TEST
// from then on.
package pqc
