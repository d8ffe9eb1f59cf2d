package tools

import (
	"bytes"
	"errors"
	"fmt"
	"os/exec"
	"strings"
)

// Suite is the Debian release that the root is made from.
const Suite = "trixie"

// Sources returns what mmdebstrap takes as mirrors: lines of sources.list for
// Debian 13, its updates, security updates and backports, on the mirrors that
// this machine's own apt uses. It is empty when apt names none; mmdebstrap then
// takes its default.
func Sources() ([]string, error) { return sourcesOf("main") }

// sourcesOf is Sources with components of Debian's archive.
func sourcesOf(components string) ([]string, error) {
	// The repositories are told by what their signed Release files say.
	out, err := exec.Command("apt-get", "indextargets",
		"--format", "$(LABEL)\t$(REPO_URI)\t$(RELEASE)", "Created-By: Packages", "Origin: Debian", "Component: main").Output()
	if errors.Is(err, exec.ErrNotFound) {
		return nil, fmt.Errorf("tools: this machine has no apt-get: the build needs Debian 12 or 13: %w", err)
	}
	if err != nil {
		return nil, fmt.Errorf("tools: apt-get indextargets: %w: %s", err, stderr(err))
	}
	return mirrorLines(out, components), nil
}

// mirrorLines makes lines of sources.list from the answer of indextargets.
func mirrorLines(targets []byte, components string) []string {
	var archive, security string
	for line := range bytes.Lines(targets) {
		f := strings.Split(strings.TrimSpace(string(line)), "\t")
		if len(f) != 3 || !strings.Contains(f[1], "://") || strings.HasPrefix(f[1], "cdrom:") {
			continue
		}
		uri := strings.TrimSuffix(f[1], "/")
		switch {
		case f[0] == "Debian" && archive == "":
			archive = uri
		case f[0] == "Debian-Security" && security == "":
			security = uri
		}
	}
	if archive == "" {
		return nil
	}
	var lines []string
	for _, release := range []string{Suite, Suite + "-updates", Suite + "-backports"} {
		lines = append(lines, fmt.Sprintf("deb %s %s %s", archive, release, components))
	}
	if security != "" {
		lines = append(lines, fmt.Sprintf("deb %s %s-security %s", security, Suite, components))
	}
	return lines
}

// aptOptions hands this machine's proxy, certificate and retry settings on.
func aptOptions() []string {
	var options []string
	for _, tree := range []string{"Acquire::http", "Acquire::https", "Acquire::Retries"} {
		out, err := exec.Command("apt-config", "dump", "--no-empty", "--format", `%F "%v";%n`, tree).Output()
		if err != nil {
			continue // apt without such settings
		}
		for line := range strings.Lines(string(out)) {
			if line = strings.TrimSpace(line); line != "" {
				options = append(options, line)
			}
		}
	}
	return options
}

func stderr(err error) string {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return strings.TrimSpace(string(exit.Stderr))
	}
	return ""
}
