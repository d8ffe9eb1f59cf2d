// Package hosttool runs programs of the build machine in tests: what we make is
// read by tools that are not ours. `make setup` installs them and `make unit`
// demands them; a test that somebody runs by hand without one is skipped.
package hosttool

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// demand is the environment variable by which a missing tool fails the test.
const demand = "QV_DEMAND_TOOLS"

// Path is where a tool lies; the test is skipped, or fails if tools are
// demanded, when it is nowhere.
func Path(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	// Who is not root often has no sbin in the path.
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		if err != nil {
			path, err = exec.LookPath(filepath.Join(dir, name))
		}
	}
	switch {
	case err == nil:
		return path
	case os.Getenv(demand) != "":
		t.Fatalf("%v: make setup installs it", err)
	default:
		t.Skipf("%v: make setup installs it", err)
	}
	return ""
}

// Run runs a tool, in English and UTC, and returns what it says. A status other
// than 0 fails the test.
func Run(t testing.TB, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(Path(t, name), args...)
	cmd.Env = append(os.Environ(), "TZ=UTC", "LC_ALL=C", "MTOOLS_SKIP_CHECK=0")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}
