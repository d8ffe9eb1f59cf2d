package tools

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Package is a Debian package of a root.
type Package struct {
	Name, Version, Architecture string
	SHA256                      string // of the package's file
}

// Owners tells which package a file of the root is of.
type Owners struct {
	root     Root
	file     map[string]string // path below the root to package
	packages map[string]Package
}

// Owners reads what the root knows about its packages.
func (r Root) Owners() (*Owners, error) {
	o := &Owners{root: r, file: map[string]string{}, packages: map[string]Package{}}
	f, err := os.Open(r.Path(ownersFile))
	if err != nil {
		return nil, fmt.Errorf("tools: %w", err)
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	for s.Scan() {
		name, path, _ := strings.Cut(s.Text(), " ")
		o.file[path] = name
	}
	if err := s.Err(); err != nil {
		return nil, fmt.Errorf("tools: %s: %w", ownersFile, err)
	}
	list, err := r.Packages()
	if err != nil {
		return nil, fmt.Errorf("tools: %w", err)
	}
	for line := range strings.Lines(list) {
		f := strings.Fields(line)
		if len(f) != 4 {
			return nil, fmt.Errorf("tools: %s: %q", packagesFile, line)
		}
		o.packages[f[0]] = Package{Name: f[0], Version: f[1], Architecture: f[2], SHA256: f[3]}
	}
	return o, nil
}

// Of returns the package of a file, given by its path or by that below the root.
// fs.ErrNotExist: no package has it.
func (o *Owners) Of(path string) (Package, error) {
	below, ok := strings.CutPrefix(path, o.root.Dir+string(filepath.Separator))
	if !ok {
		below = path
	}
	name, ok := o.file[below]
	if !ok {
		return Package{}, fmt.Errorf("tools: %s is of no package of %s: %w", below, o.root.Dir, fs.ErrNotExist)
	}
	p, ok := o.packages[name]
	if !ok {
		return Package{}, fmt.Errorf("tools: %s is not in %s: %w", name, packagesFile, fs.ErrNotExist)
	}
	return p, nil
}

// Files are the paths of all files, below the root, in the order of their names.
func (o *Owners) Files() []string { return slices.Sorted(maps.Keys(o.file)) }

// Licence of a package.
type Licence struct {
	Name string // Debian's short name
	Text string
}

// Licences returns the licences that the package's debian/copyright gives for
// files, or for the package as a whole without any, in the order of their names.
// Names of files are those of the source. Where that file has not the
// machine-readable form, they are the common licences that it refers to, or else it is one
// licence as a whole, named after the package.
func (o *Owners) Licences(p Package, files ...string) ([]Licence, error) {
	text, err := os.ReadFile(o.root.Path("usr", "share", "doc", p.Name, "copyright"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("tools: %w", err)
	}
	if !strings.HasPrefix(string(text), "Format:") {
		return proseLicences(p, string(text)), nil
	}
	return licences(string(text), files), nil
}

// commonLicence is how debian/copyright refers to a licence that many packages have.
var commonLicence = regexp.MustCompile(`/usr/share/common-licenses/([A-Za-z0-9.+-]*[A-Za-z0-9+])`)

// proseLicences are those that a debian/copyright for people refers to; if to none, it
// is itself the licence.
func proseLicences(p Package, text string) []Licence {
	var list []Licence
	for _, m := range commonLicence.FindAllStringSubmatch(text, -1) {
		l := Licence{Name: m[1], Text: text}
		if !slices.Contains(list, l) {
			list = append(list, l)
		}
	}
	if list == nil {
		return []Licence{{Name: p.Name + " copyright", Text: text}}
	}
	return list
}

// stanza is a paragraph of debian/copyright: about files, or with the text of a
// licence.
type stanza struct {
	patterns []string
	licence  Licence
}

// licences reads the machine-readable debian/copyright (DEP 5). The last
// paragraph that matches a file counts.
func licences(text string, files []string) []Licence {
	stanzas := parseStanzas(text)
	found := map[string]string{}
	forAll := func(s stanza) bool { return slices.Contains(s.patterns, "*") }
	if len(files) == 0 {
		files = []string{"*"}
		if !slices.ContainsFunc(stanzas, forAll) {
			for _, s := range stanzas {
				if s.patterns != nil {
					found[s.licence.Name] = ""
				}
			}
		}
	}
	for _, file := range files {
		for _, s := range slices.Backward(stanzas) {
			if slices.ContainsFunc(s.patterns, func(p string) bool { return matches(p, file) }) {
				found[s.licence.Name] = ""
				break
			}
		}
	}
	for _, s := range stanzas {
		if have, ok := found[s.licence.Name]; ok && have == "" {
			found[s.licence.Name] = s.licence.Text
		}
	}
	delete(found, "")
	var list []Licence
	for _, name := range slices.Sorted(maps.Keys(found)) {
		list = append(list, Licence{Name: name, Text: found[name]})
	}
	return list
}

func parseStanzas(text string) []stanza {
	var list []stanza
	for paragraph := range strings.SplitSeq(text, "\n\n") {
		var s stanza
		field := ""
		for line := range strings.Lines(paragraph) {
			value := strings.TrimSpace(line)
			if !strings.HasPrefix(line, " ") && !strings.HasPrefix(line, "\t") {
				name, rest, _ := strings.Cut(line, ":")
				field, value = strings.ToLower(name), strings.TrimSpace(rest)
				if field == "license" {
					s.licence.Name = value
					continue
				}
			}
			switch field {
			case "files":
				s.patterns = append(s.patterns, strings.Fields(value)...)
			case "license":
				if value == "." { // an empty line
					value = ""
				}
				s.licence.Text += value + "\n"
			}
		}
		list = append(list, s)
	}
	return list
}

// matches compares as DEP 5 says: '*' stands for any text, slashes included,
// '?' for one character.
func matches(pattern, name string) bool {
	if pattern == "" {
		return name == ""
	}
	switch {
	case pattern[0] == '*':
		for i := range len(name) + 1 {
			if matches(pattern[1:], name[i:]) {
				return true
			}
		}
		return false
	case name == "":
		return false
	case pattern[0] == '?' || pattern[0] == name[0]:
		return matches(pattern[1:], name[1:])
	}
	return false
}
