package update

import (
	"cmp"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// maxPanic is how much of a panic's text is kept, in bytes.
const maxPanic = 32 << 10

// pstoreFile is a piece of a kernel's last words (Documentation/ABI/testing/pstore):
// dmesg-efi_pstore-ID. Its text begins with "Panic#1 Part1"; part 1 is the last.
var pstoreFile = regexp.MustCompile(`^dmesg-[a-z_]+-[0-9]+$`)

var pstorePart = regexp.MustCompile(`^(Panic|Oops|Emergency)#[0-9]+ Part([0-9]+)\n`)

// lastWords is the text of a panic that the firmware's variables or other
// persistent memory kept, and the files that hold it. There is none after an orderly
// end.
func lastWords(dir string) (text string, files []string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", nil
	}
	type piece struct {
		part int
		text string
	}
	var pieces []piece
	for _, e := range entries {
		if !pstoreFile.MatchString(e.Name()) {
			continue
		}
		path := filepath.Join(dir, e.Name())
		data, err := os.ReadFile(path)
		m := pstorePart.FindSubmatch(data)
		if err != nil || m == nil {
			continue
		}
		n, _ := strconv.Atoi(string(m[2]))
		pieces = append(pieces, piece{n, string(data[len(m[0]):])})
		files = append(files, path)
	}
	slices.SortStableFunc(pieces, func(a, b piece) int { return cmp.Compare(b.part, a.part) })
	var b strings.Builder
	for _, p := range pieces {
		b.WriteString(p.text)
	}
	text = b.String()
	if len(text) > maxPanic {
		text = text[len(text)-maxPanic:]
	}
	return strings.ToValidUTF8(text, "?"), files
}
