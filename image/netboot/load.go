package netboot

import (
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"

	"quantavirt/internal/qverr"
)

// maxFile bounds a configuration file, in bytes.
const maxFile = 16 << 20

// Load reads the configuration of all machines: a file for Parse, or a
// directory in which each file is one machine's quantavirt.json, as JSON or
// YAML, and its name tells the machine:
//
//	mac-52-54-00-12-34-56.json   serial-ABC123.yaml   uuid-….json   default.json
//
// Errors carry QV_ERR_CONFIG and name the file.
func Load(path string) (*Set, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, qverr.New(qverr.Config, "configuration of the machines: %w", err)
	}
	if info.IsDir() {
		return loadDir(path)
	}
	data, err := readFile(path)
	if err != nil {
		return nil, err
	}
	set, err := Parse(data)
	if err != nil {
		return nil, qverr.New(qverr.Config, "%s: %w", path, err)
	}
	return set, nil
}

func loadDir(dir string) (*Set, error) {
	files, err := os.ReadDir(dir)
	if err != nil {
		return nil, qverr.New(qverr.Config, "configuration of the machines: %w", err)
	}
	set := &Set{byKey: make(map[string]*Entry)}
	for _, f := range files {
		if hidden(f.Name()) {
			continue
		}
		path := filepath.Join(dir, f.Name())
		if err := set.addFile(path); err != nil {
			return nil, qverr.New(qverr.Config, "%s: %w", path, err)
		}
	}
	return set, nil
}

// hidden tells the files that editors leave beside what they edit.
func hidden(name string) bool { return strings.HasPrefix(name, ".") || strings.HasSuffix(name, "~") }

func (s *Set) addFile(path string) error {
	name := filepath.Base(path)
	ext := filepath.Ext(name)
	if !slices.Contains([]string{".json", ".yaml", ".yml"}, ext) {
		return qverr.New(qverr.Config, "want a name that ends in .json or .yaml")
	}
	data, err := readFile(path)
	if err != nil {
		return err
	}
	config, err := yaml.YAMLToJSONStrict(data)
	if err != nil {
		return qverr.New(qverr.Config, "neither YAML nor JSON: %w", err)
	}
	d := documentEntry{Config: config}
	kind, value, _ := strings.Cut(strings.TrimSuffix(name, ext), "-")
	switch kind {
	case "default":
	case "mac":
		d.MAC = oneOrMore{value}
	case "serial":
		d.Serial = value
	case "uuid":
		d.UUID = value
	default:
		return qverr.New(qverr.Config, "the name tells no machine: want mac-…, serial-…, uuid-… or default")
	}
	e, err := d.entry()
	switch {
	case err != nil:
		return err
	case kind != "default":
		return s.add(e)
	case value != "" || s.rest != nil:
		return qverr.New(qverr.Config, "a second default")
	}
	return s.setDefault(e)
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, qverr.New(qverr.Config, "configuration of the machines: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, qverr.New(qverr.Config, "read %s: %w", path, err)
	}
	if len(data) > maxFile {
		return nil, qverr.New(qverr.Config, "%s is larger than %d bytes", path, maxFile)
	}
	return data, nil
}
