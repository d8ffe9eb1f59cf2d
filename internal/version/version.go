// Package version holds the version that the build writes into every binary.
package version

// Version is the output of git describe, set with -ldflags -X; "0.1-dev" in a
// binary that was built without it.
var Version = "0.1-dev"
