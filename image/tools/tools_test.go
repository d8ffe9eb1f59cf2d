package tools

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
)

func TestMirrorLines(t *testing.T) {
	for _, c := range []struct{ name, targets, want string }{
		{"usual", "Debian\thttp://m.example/debian/\tbookworm\nDebian\thttp://m.example/debian/\tbookworm-updates\n" +
			"Debian-Security\thttp://s.example/debian-security/\tbookworm-security\n",
			"deb http://m.example/debian trixie main\ndeb http://m.example/debian trixie-updates main\n" +
				"deb http://m.example/debian trixie-backports main\ndeb http://s.example/debian-security trixie-security main"},
		{"backports first", "Debian Backports\thttp://b.example/debian/\ttrixie-backports\nDebian\tmirror+file:///etc/m.list\ttrixie\n",
			"deb mirror+file:///etc/m.list trixie main\ndeb mirror+file:///etc/m.list trixie-updates main\n" +
				"deb mirror+file:///etc/m.list trixie-backports main"},
		{"no security", "Debian\thttps://m.example/d\ttrixie\n",
			"deb https://m.example/d trixie main\ndeb https://m.example/d trixie-updates main\ndeb https://m.example/d trixie-backports main"},
		{"lists not fetched", "", ""},
		{"only an installation disk", "Debian\tcdrom:[Debian 13]/\ttrixie\n", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := strings.Join(mirrorLines([]byte(c.targets), "main"), "\n")
			if got != c.want {
				t.Errorf("got\n%s\nwant\n%s", got, c.want)
			}
		})
	}
}

func TestPackageList(t *testing.T) {
	got, err := packageList("bb  zlib1g_1%3a1.3_amd64.deb\naa  acl_2.3_amd64.deb\n")
	if want := "acl 2.3 amd64 aa\nzlib1g 1:1.3 amd64 bb\n"; err != nil || got != want {
		t.Errorf("got %q, %v", got, err)
	}
	for _, bad := range []string{"x\n", "aa  name.deb\n", "aa  a_%zz_b.deb\n"} {
		if _, err := packageList(bad); err == nil {
			t.Errorf("took %q", bad)
		}
	}
}

func TestMissingProgram(t *testing.T) {
	cmd := Root{Dir: t.TempDir()}.Command("nosuch", "x")
	if err := cmd.Run(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func TestWatchPassesLinesOn(t *testing.T) {
	var out strings.Builder
	w := newWatch(&out, t.TempDir())
	for _, part := range []string{"I: one\nI: t", "wo\r\nW: running chrootless mode as root might damage the host system\nE: three\n"} {
		if _, err := w.Write([]byte(part)); err != nil {
			t.Fatal(err)
		}
	}
	w.stop()
	if got := w.tail(); got != "I: one\nI: two\nE: three" {
		t.Errorf("kept %q", got)
	}
	if got := out.String(); !strings.HasPrefix(got, "  one (") || strings.Contains(got, "chrootless") {
		t.Errorf("said %q", got)
	}
}

// TestRoot runs what the project needs of a root that is already there.
func TestRoot(t *testing.T) {
	root, ok := Cached()
	if !ok {
		t.Skip("the root of Debian packages is not there: make setup makes it")
	}
	for _, args := range [][]string{
		{"qemu-img", "--version"}, {"mkfs.ext4", "-V"}, {"zstd", "--version"}, {"depmod", "--version"},
		{"busybox", "true"}, {"swtpm", "--version"}, {"grub-mkimage", "--version"},
	} {
		if out, err := root.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Errorf("%v: %v: %s", args, err, out)
		}
	}
	for _, flavour := range []string{"cloud", "full"} {
		k, err := root.Kernel(flavour)
		if err != nil {
			t.Error(err)
			continue
		}
		if _, err := k.Resolve([]string{"kvm_amd", "virtio_net"}); err != nil {
			t.Error(err)
		}
	}
	if _, err := root.Kernel("other"); err == nil {
		t.Error("found a kernel of no flavour")
	}
	pem, err := root.Certificates()
	if err != nil || !strings.HasPrefix(string(pem), "-----BEGIN CERTIFICATE-----") {
		t.Errorf("certificates: %v", err)
	}
}

func TestLicences(t *testing.T) {
	text := "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\nUpstream-Name: x\n\n" +
		"Files: *\nCopyright: A\nLicense: GPL-2\n\nFiles: net/*.bin net/??\n doc/*\nCopyright: B\nLicense: B-1 or MIT\n text\n\n" +
		"Files: net/c.bin\nCopyright: C\nLicense: C-1\n\nLicense: GPL-2\n The text.\n"
	for _, c := range []struct {
		files []string
		want  string
	}{
		{nil, "GPL-2"},
		{[]string{"other"}, "GPL-2"},
		{[]string{"net/deep/a.bin", "net/ab", "net/c.bin"}, "B-1 or MIT, C-1"},
		{[]string{"net/abc", "doc/x/y"}, "B-1 or MIT, GPL-2"},
	} {
		if got := names(licences(text, c.files)); got != c.want {
			t.Errorf("%v: %q, want %q", c.files, got, c.want)
		}
	}
	parts := strings.Replace(text, "Files: *", "Files: a/*", 1)
	if got := names(licences(parts, nil)); got != "B-1 or MIT, C-1, GPL-2" {
		t.Errorf("without a paragraph for all files: %q", got)
	}
	if got := licences(text, []string{"net/ab"})[0].Text; got != "text\n" {
		t.Errorf("text within a paragraph about files: %q", got)
	}
	if got := licences(text, nil)[0].Text; got != "The text.\n" {
		t.Errorf("text in a paragraph of its own: %q", got)
	}
}

func TestProseLicences(t *testing.T) {
	p := Package{Name: "x"}
	for text, want := range map[string]string{
		"It is free.": "x copyright",
		"See /usr/share/common-licenses/LGPL-3 file.\nOr /usr/share/common-licenses/GPL-2. Or\n/usr/share/common-licenses/LGPL-3.": "LGPL-3, GPL-2",
	} {
		if got := names(proseLicences(p, text)); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

func names(list []Licence) string {
	var names []string
	for _, l := range list {
		names = append(names, l.Name)
	}
	return strings.Join(names, ", ")
}

func TestOwners(t *testing.T) {
	root, ok := Cached()
	if !ok {
		t.Skip("the root of Debian packages is not there: make setup makes it")
	}
	owners, err := root.Owners()
	if err != nil {
		t.Fatal(err)
	}
	k, err := root.Kernel("full")
	if err != nil {
		t.Fatal(err)
	}
	p, err := owners.Of(k.Image)
	if err != nil || p.Name != "linux-image-"+k.Release || p.Version == "" || len(p.SHA256) != 64 {
		t.Errorf("%s is of %+v, %v", k.Image, p, err)
	}
	grub, err := owners.Of("usr/lib/grub/i386-pc/boot.img")
	if err != nil || grub.Name != "grub-pc-bin" {
		t.Errorf("boot.img is of %+v, %v", grub, err)
	}
	if found, err := owners.Licences(grub); err != nil || !slices.ContainsFunc(found, func(l Licence) bool { return l.Name == "GPL-3+" }) {
		t.Errorf("licences of GRUB: %v, %v", found, err)
	}
	if _, err := owners.Of("etc/nothing"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file of no package: %v", err)
	}
}
