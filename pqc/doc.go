// Package pqc offers post-quantum cryptography through one interface, served
// by the QUAC 100 card or by software. The policy picks the provider of each
// call: the card while it is healthy, software otherwise; every switch is
// logged and counted. With RequireHardware a call that the card cannot serve
// fails instead.
//
// Today: ML-KEM-768 (FIPS 203) and randomness.
package pqc
