// Package crypto shows where the node's cryptography and randomness come from,
// and feeds the kernel's entropy pool from the QUAC 100 while one serves.
package crypto
