package image

import (
	"bytes"
	"context"
	"crypto/sha256"
	"debug/buildinfo"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"quantavirt/image/grub"
	"quantavirt/image/sbom"
	"quantavirt/image/tools"
)

// SBOMFile is the bill of materials beside an image.
const SBOMFile = "sbom.cdx.json"

// item is a regular file of the archive.
type item struct {
	name string
	size int64
	sum  [sha256.Size]byte
}

// bill makes the bill of materials. Debian's files are found by their content,
// so that none is forgotten; of what is unpacked, joined or made from Debian's
// files it is said here where it comes from.
func (b *build) bill(ctx context.Context, a *archive) ([]byte, error) {
	var all []sbom.Component
	var firmware, others []item
	for _, i := range a.items {
		if strings.HasPrefix(i.name, firmwareDir+"/") {
			firmware = append(firmware, i)
		} else {
			others = append(others, i)
		}
	}
	for _, of := range []struct {
		root  tools.Root
		kind  sbom.Kind
		items []item
		more  []string // files that the image is made from, beside those in it
	}{
		{b.root, sbom.DebianPackage, others, b.debianFiles()},
		{b.firmwareRoot, sbom.DebianFirmware, firmware, b.microcodeFiles},
	} {
		if of.root == (tools.Root{}) {
			continue
		}
		found, err := debianComponents(of.root, of.kind, of.items, of.more)
		if err != nil {
			return nil, fmt.Errorf("image: bill of materials: %w", err)
		}
		all = append(all, found...)
	}
	modules, err := b.goComponents(ctx)
	if err != nil {
		return nil, fmt.Errorf("image: bill of materials: %w", err)
	}
	all = append(all, modules...)
	if b.Options.Kernel != "" {
		all = append(all, sbom.Component{Name: "linux", Version: b.kernel.Release, Kind: sbom.Kernel})
	}
	var out bytes.Buffer
	m := a.meta
	err = sbom.Write(&out, sbom.Image{ID: m.ID, Version: m.Version, Build: m.Build, Kernel: m.Kernel}, all)
	return out.Bytes(), err
}

// ExtendBill adds the Debian packages of more files to the bill of materials of an
// image, for a medium that holds them beside it.
func ExtendBill(root tools.Root, bill []byte, files ...string) ([]byte, error) {
	found, err := debianComponents(root, sbom.DebianPackage, nil, files)
	if err != nil {
		return nil, fmt.Errorf("image: bill of materials: %w", err)
	}
	var out bytes.Buffer
	err = sbom.Extend(&out, bytes.NewReader(bill), found)
	return out.Bytes(), err
}

// debianFiles are those of the root that are in the image in another form.
func (b *build) debianFiles() []string {
	files := []string{
		efiProgram(b.root, "linuxx64.efi.stub"), efiProgram(b.root, LoaderFile),
		b.root.Path("usr", "lib", "grub", grub.Platform, "boot.img"),
	}
	if b.Options.Kernel == "" {
		files = append(files, b.kernel.Image, filepath.Join(b.kernel.Modules, "modules.builtin"))
	}
	certificates, _ := filepath.Glob(b.root.Path("usr", "share", "ca-certificates", "mozilla", "*.crt")) // a pattern that is right
	return append(files, certificates[:min(1, len(certificates))]...)
}

// debianComponents are the packages of a root with a file among the items, or
// among the files given by their paths.
func debianComponents(root tools.Root, kind sbom.Kind, items []item, more []string) ([]sbom.Component, error) {
	owners, err := root.Owners()
	if err != nil {
		return nil, err
	}
	files, err := sameFiles(root, owners, items)
	if err != nil {
		return nil, err
	}
	perPackage := map[tools.Package][]string{}
	for _, file := range append(files, more...) {
		p, err := owners.Of(file)
		if err != nil {
			return nil, err
		}
		perPackage[p] = append(perPackage[p], file)
	}
	var found []sbom.Component
	for p, files := range perPackage {
		var sources []string // as the licences of firmware name the files
		if kind == sbom.DebianFirmware {
			for _, f := range files {
				below, err := filepath.Rel(root.Path("usr", firmwareDir), root.Path(strings.TrimPrefix(f, root.Dir)))
				if err != nil {
					return nil, err
				}
				sources = append(sources, below)
			}
		}
		licences, err := owners.Licences(p, sources...)
		if err != nil {
			return nil, err
		}
		var listed []sbom.Licence
		for _, l := range licences {
			if kind != sbom.DebianFirmware {
				l.Text = "" // free, and known by its name
			}
			listed = append(listed, sbom.Licence(l))
		}
		found = append(found, sbom.Component{
			Name: p.Name, Version: p.Version, Kind: kind, Arch: p.Architecture, Suite: tools.Suite,
			SHA256: p.SHA256, Licences: listed,
		})
	}
	return found, nil
}

// sameFiles finds the files of the root that are among the items as they are.
func sameFiles(root tools.Root, owners *tools.Owners, items []item) ([]string, error) {
	wanted := map[int64]map[[sha256.Size]byte]bool{}
	for _, i := range items {
		if i.size == 0 {
			continue
		}
		if wanted[i.size] == nil {
			wanted[i.size] = map[[sha256.Size]byte]bool{}
		}
		wanted[i.size][i.sum] = true
	}
	var found []string
	for _, name := range owners.Files() {
		info, err := os.Lstat(root.Path(name))
		if errors.Is(err, fs.ErrNotExist) {
			continue // a name below a directory that is a link now
		}
		if err != nil {
			return nil, err
		}
		if !info.Mode().IsRegular() || wanted[info.Size()] == nil {
			continue
		}
		data, err := os.ReadFile(root.Path(name))
		if err != nil {
			return nil, err
		}
		if wanted[info.Size()][sha256.Sum256(data)] {
			found = append(found, name)
		}
	}
	return found, nil
}

// goComponents are Go itself and the modules of the programs. The rescue
// commands are built without modules, from the versions of go.mod.
func (b *build) goComponents(ctx context.Context) ([]sbom.Component, error) {
	versions := map[string]string{}
	release := ""
	for _, name := range b.programFiles() {
		info, err := buildinfo.ReadFile(name)
		if err != nil {
			return nil, err
		}
		release, _, _ = strings.Cut(info.GoVersion, " ") // experiments follow
		for _, d := range info.Deps {
			if d.Replace != nil {
				d = d.Replace
			}
			versions[d.Path] = d.Version
		}
	}
	const format = `{{with .Module}}{{if .Version}}{{.Path}} {{.Version}}{{end}}{{end}}`
	args := []string{"list", "-deps", "-tags", rescueTag, "-f", format}
	for _, name := range rescue {
		args = append(args, rescuePackages+name)
	}
	if err := b.goLines(ctx, args, func(f []string) { versions[f[0]] = f[1] }); err != nil {
		return nil, err
	}
	list := []sbom.Component{{Name: "stdlib", Version: release, Kind: sbom.GoModule, Licences: []sbom.Licence{{Name: "BSD-3-Clause"}}}}
	var names []string
	for name := range versions {
		names = append(names, name)
	}
	slices.Sort(names)
	err := b.goLines(ctx, append([]string{"list", "-m", "-f", "{{.Path}} {{.Dir}}"}, names...), func(f []string) {
		list = append(list, sbom.Component{Name: f[0], Version: versions[f[0]], Kind: sbom.GoModule, Licences: moduleLicences(f[1])})
	})
	if err == nil && len(list) != len(names)+1 {
		err = fmt.Errorf("%d modules of %d are in the module cache", len(list)-1, len(names))
	}
	return list, err
}

// goLines runs go in the source tree and hands out the lines of two words that
// it prints.
func (b *build) goLines(ctx context.Context, args []string, line func(fields []string)) error {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = b.Source
	cmd.Env = append(os.Environ(), programEnv...)
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("go %s: %w", args[0], err)
	}
	for l := range strings.Lines(string(out)) {
		if f := strings.Fields(l); len(f) == 2 {
			line(f)
		}
	}
	return nil
}

// programFiles are the compiled programs of the product.
func (b *build) programFiles() []string {
	dir := filepath.Join(b.dir, "programs")
	if !b.Separate {
		return []string{filepath.Join(dir, "multicall")}
	}
	var files []string
	for _, p := range b.Programs {
		files = append(files, filepath.Join(dir, path.Base(p.Path)))
	}
	return files
}

// moduleLicences reads the licence in a module's directory.
func moduleLicences(dir string) (list []sbom.Licence) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	for _, e := range entries {
		name, _, _ := strings.Cut(strings.ToLower(e.Name()), ".")
		if name != "license" && name != "licence" && name != "copying" {
			continue
		}
		if text, err := os.ReadFile(filepath.Join(dir, e.Name())); err == nil {
			for _, id := range sbom.Recognise(string(text)) {
				list = append(list, sbom.Licence{Name: id})
			}
			return list
		}
	}
	return nil
}
