// Package cli is the quantavirt command line: NOUN VERB [NAME] [--flags] over
// the node's API, on the node's UNIX socket, over vsock or over the network.
//
// It prints results on stdout and everything else on stderr. A failure is one
// line, "Error: NAME (CODE): message — hint", and the exit code of the error
// catalogue (internal/qverr); no answer from the API is exit code 12.
package cli
