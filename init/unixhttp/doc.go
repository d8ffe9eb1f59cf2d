// Package unixhttp serves HTTP/1.1 on a UNIX socket with what PID 1 needs of it
// and no more: one request a connection, bodies with a Content-Length, answers
// with one. PID 1 depends on little: net/http would bring TLS, DNS and HTTP/2
// along and more than double it.
//
// It follows RFC 9112. What a client may send and this does not understand
// (chunked bodies, HTTP/2) is refused in words; clients such as Go's and curl
// send nothing of the kind.
package unixhttp
