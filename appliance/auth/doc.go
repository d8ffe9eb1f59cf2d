// Package auth decides who may call the API, and proves to callers who the
// node is.
//
// Callers have a token ("qv_" and 43 characters of base64url, 256 random bits)
// of which only the SHA-256 is kept, or come over the UNIX socket with an
// accepted uid. The node has its own ECDSA authority, made at first boot; its
// server certificates are made in memory for the addresses of the moment. A
// client pins the authority: the SHA-256 of its DER certificate.
package auth
