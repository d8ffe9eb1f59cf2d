// Package tftp sends files to machines that boot from a network (RFC 1350, with the
// options of RFC 2347 to 2349), and takes none. The transfers that run are bounded, in
// all and for each client.
package tftp
