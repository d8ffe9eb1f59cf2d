// Package cmdline reads the kernel command line as PID 1 needs it. The options
// are described in docs/kernel-command-line.md, which a test holds against
// this package.
package cmdline

import (
	"slices"
	"strings"

	"quantavirt/internal/qverr"
)

// Prefix is that of every option of ours.
const Prefix = "quantavirt."

// Options of ours, without the prefix.
const (
	OptConfig    = "config"
	OptData      = "data"
	OptDebug     = "debug"
	OptDisc      = "disc"
	OptHostname  = "hostname"
	OptESP       = "esp"
	OptIP        = "ip"
	OptNTP       = "ntp"
	OptRescue    = "rescue"
	OptSlot      = "slot"
	OptTLSPolicy = "tls.policy"
	OptTokenHash = "token-hash"
	OptTry       = "try"
	OptWatchdog  = "watchdog"
)

// Known are all options; true for those without a value.
var known = map[string]bool{
	OptConfig: false, OptData: false, OptDebug: true, OptDisc: true, OptESP: false, OptHostname: false, OptIP: false, OptNTP: false,
	OptRescue: true, OptSlot: false, OptTLSPolicy: false, OptTokenHash: false, OptTry: true, OptWatchdog: false,
}

// hidden is what stands for a value that must not be shown.
const hidden = "..."

// Line is a parsed command line.
type Line struct {
	words   []string
	options map[string]string
	unknown []string
}

// Parse splits a command line as the kernel does: at white space outside double
// quotes. The last of several equal options counts. What follows a word "--" is
// for /init and not looked at.
func Parse(text string) Line {
	l := Line{words: split(text), options: make(map[string]string)}
	if i := slices.Index(l.words, "--"); i >= 0 {
		l.words = l.words[:i]
	}
	for _, w := range l.words {
		option, ok := strings.CutPrefix(w, Prefix)
		if !ok {
			continue
		}
		name, value, _ := strings.Cut(option, "=")
		if _, ok := known[name]; !ok && !slices.Contains(l.unknown, name) {
			l.unknown = append(l.unknown, name)
		}
		l.options[name] = value
	}
	return l
}

func split(text string) []string {
	var words []string
	var word strings.Builder
	quoted, inside := false, false
	for _, c := range text {
		switch {
		case c == '"':
			quoted, inside = !quoted, true
		case !quoted && strings.ContainsRune(" \t\n\x00", c):
			if inside {
				words = append(words, word.String())
				word.Reset()
			}
			inside = false
		default:
			word.WriteRune(c)
			inside = true
		}
	}
	if inside {
		words = append(words, word.String())
	}
	return words
}

// Options are the quantavirt.* options without their prefix; an option without
// a value has "".
func (l Line) Options() map[string]string {
	m := make(map[string]string, len(l.options))
	for k, v := range l.options {
		m[k] = v
	}
	return m
}

// Option is the value of one of our options, and whether it is there.
func (l Line) Option(name string) (string, bool) {
	v, ok := l.options[name]
	return v, ok
}

// Flag tells whether an option without a value is set. NAME=0, =no, =off and
// =false mean that it is not.
func (l Line) Flag(name string) bool {
	v, ok := l.options[name]
	return ok && !slices.Contains([]string{"0", "no", "off", "false"}, v)
}

// Problem is QV_ERR_CONFIG if there are options that nobody knows.
func (l Line) Problem() error {
	if len(l.unknown) == 0 {
		return nil
	}
	names := make([]string, len(l.unknown))
	for i, n := range l.unknown {
		names[i] = Prefix + n
	}
	return qverr.New(qverr.Config, "unknown on the kernel command line and ignored: %s", strings.Join(names, ", ")).
		WithHint("correct the boot entry; docs/kernel-command-line.md lists the options")
}

// Shown is the command line without the hashes of tokens.
func (l Line) Shown() string {
	words := slices.Clone(l.words)
	for i, w := range words {
		if strings.HasPrefix(w, Prefix+OptTokenHash+"=") {
			words[i] = Prefix + OptTokenHash + "=" + hidden
		}
	}
	return strings.Join(words, " ")
}

// Word is the value of the last word NAME=VALUE, of any name.
func (l Line) Word(name string) (value string, ok bool) {
	for _, w := range slices.Backward(l.words) {
		if value, ok = strings.CutPrefix(w, name+"="); ok {
			return value, true
		}
	}
	return "", false
}

// Consoles are the devices of the console= options, each once, in their order;
// "console" (the kernel's choice) if there are none.
func (l Line) Consoles() []string {
	var names []string
	for _, w := range l.words {
		value, ok := strings.CutPrefix(w, "console=")
		if !ok {
			continue
		}
		name, _, _ := strings.Cut(value, ",")
		name = strings.TrimPrefix(name, "/dev/")
		// An early console that is addressed by its port, and none at all.
		if name == "" || name == "null" || name == "uart" || name == "uart8250" {
			continue
		}
		if !slices.Contains(names, name) && !strings.Contains(name, "/") {
			names = append(names, name)
		}
	}
	if names == nil {
		return []string{"console"}
	}
	return names
}

// ModuleParams are the parameters given to a module as module.name=value, as
// the kernel takes them: separated by blanks. '-' and '_' mean the same.
func (l Line) ModuleParams(module string) string {
	var params []string
	for _, w := range l.words {
		name, param, ok := strings.Cut(w, ".")
		if ok && param != "" && !strings.Contains(name, "=") && canonical(name) == canonical(module) {
			params = append(params, quote(param))
		}
	}
	return strings.Join(params, " ")
}

func quote(param string) string {
	name, value, ok := strings.Cut(param, "=")
	if ok && strings.ContainsAny(value, " \t") {
		return name + `="` + value + `"`
	}
	return param
}

// Blacklist names the modules that must not be loaded because of a device.
func (l Line) Blacklist() []string {
	var names []string
	for _, w := range l.words {
		for _, option := range []string{"modprobe.blacklist=", "module_blacklist="} {
			if value, ok := strings.CutPrefix(w, option); ok {
				for name := range strings.SplitSeq(value, ",") {
					names = append(names, canonical(name))
				}
			}
		}
	}
	return names
}

func canonical(name string) string { return strings.ReplaceAll(name, "-", "_") }
