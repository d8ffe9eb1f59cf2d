package redact

import "strings"

// within are pieces of names whose values are secret, separators left out.
var within = []string{
	"token", "passphrase", "password", "passwd", "secret", "credential", "authorization", "cookie",
	"privatekey", "recoverykey", "userdata", "cloudinit", "apikey",
}

// words are words of names, between separators, whose values are secret. They are too
// short to be looked for within others.
var words = map[string]bool{"pass": true, "pwd": true, "psk": true, "creds": true}

// Secret says whether what a field, an option or a variable of this name holds is secret.
func Secret(name string) bool {
	name = strings.ToLower(name)
	for w := range strings.FieldsFuncSeq(name, separator) {
		if words[w] {
			return true
		}
	}
	joined := strings.Map(func(r rune) rune {
		if separator(r) {
			return -1
		}
		return r
	}, name)
	for _, w := range within {
		if strings.Contains(joined, w) {
			return true
		}
	}
	return false
}

func separator(r rune) bool { return r == '-' || r == '_' || r == '.' || r == ' ' }
