// Package qverr is the error catalogue of the product and the error type that
// carries its codes.
//
// One table (table_*.go, response.go, errno.go, exit.go) holds every code with
// its name, subsystem, severity, texts, HTTP status, exit code and errno. The
// API body, the command line's error line, log lines, error-lookup,
// docs/errors.md and the C headers in include/quantavirt are all made from it;
// run "go generate ./internal/qverr" after a change.
//
// A failure that leaves a package carries a code:
//
//	return qverr.New(qverr.StrLock, "disk %s is locked by VM %s", disk, vm)
//	return qverr.New(qverr.IO, "read %s: %w", path, err).With("offset", off)
//
// and is recognised by it: errors.Is(err, qverr.StrLock).
//
// Config is the one code with two HTTP statuses: a document that breaks the
// schema answers 422, one that cannot be parsed answers 400. The latter is made
// with Malformed, which sets Details["malformed"].
package qverr

//go:generate go run ./gen -root ../..
