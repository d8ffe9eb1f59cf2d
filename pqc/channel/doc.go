// Package channel connects two nodes that know each other by ML-DSA identities (FIPS 204).
//
// The transport is TLS 1.3 (RFC 8446) with one hybrid key exchange: X25519MLKEM768 or
// SecP384r1MLKEM1024, as the policy says. Go's TLS has no ML-DSA certificates, so the server's
// is a classical one for the moment that proves nothing. Both sides then sign, by their
// identities, the connection's exporter value (section 7.5) together with the protocol, the role
// and the identities seen so far, before any other byte: the client first, so that a server
// shows itself to known peers only. Whoever sits between has another exporter value on each side.
//
// A signature is good for one connection, one protocol and one direction. Each message of the
// handshake is bounded and all of it has a deadline.
package channel
