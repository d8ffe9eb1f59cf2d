package image

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"quantavirt/image/kernel"
	"quantavirt/image/tools"
)

// Options of a build.
type Options struct {
	Source   string // the source tree
	Out      string // where images go: Out/BUILD/vmlinuz and so on
	Keys     string // folder of the builder's keys; those that are missing are made
	Build    string // virtual or hardware
	Kernel   string // bzImage to use instead of Debian's; needs Modules
	Modules  string // directory of that kernel's modules
	Version  string
	Level    int       // of zstd, 1 to 19
	Programs []Program // those of the product if nil
	Separate bool      // a file for each program instead of one for all

	NoFirmware bool // leave firmware and microcode out of the hardware build

	Progress io.Writer
}

// hardware is the build for machines, as opposed to virtual ones.
const hardware = "hardware"

// Program is a Go command of the image.
type Program struct {
	Package string // import path, or ./directory of the source tree
	Path    string // in the image, without the leading slash
}

// Programs are the commands of the product.
func Programs() []Program {
	return []Program{
		{Package: "quantavirt/init", Path: "init"},
		{Package: "quantavirt/hv/cmd/hv", Path: "bin/hv"},
		{Package: "quantavirt/appliance/cmd/quantavirt", Path: "bin/quantavirt"},
	}
}

// Meta is what an image says about itself in /etc/quantavirt/image.json.
type Meta struct {
	ID      string `json:"id"` // hash of the archive's other entries
	Version string `json:"version"`
	Build   string `json:"build"`
	Kernel  string `json:"kernel"` // release
}

// Image is a built image.
type Image struct {
	Meta
	Dir       string
	Sizes     Sizes
	Unchanged bool // nothing had to be written
}

// Build builds the image that o describes. A part is built again only if what
// it is made from has changed.
func Build(ctx context.Context, o Options) (Image, error) {
	if o.Programs == nil {
		o.Programs = Programs()
	}
	if (o.Kernel == "") != (o.Modules == "") {
		return Image{}, fmt.Errorf("image: KERNEL and MODULES belong together: set both or none")
	}
	if o.Level < 1 || o.Level > 19 {
		return Image{}, fmt.Errorf("image: zstd level %d: want 1 to 19", o.Level)
	}
	list, err := readModuleList(o.Build)
	if err != nil {
		return Image{}, err
	}
	dir := filepath.Join(o.Out, o.Build)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return Image{}, fmt.Errorf("image: %w", err)
	}
	unlock, err := lock(filepath.Join(dir, ".lock"))
	if err != nil {
		return Image{}, err
	}
	defer unlock()
	root, err := tools.Ensure(ctx, o.Progress)
	if err != nil {
		return Image{}, err
	}
	k, err := o.pickKernel(root)
	if err != nil {
		return Image{}, err
	}
	b := &build{Options: o, dir: dir, root: root, kernel: k, steps: steps{out: o.Progress}}
	if o.Build == hardware && !o.NoFirmware {
		if b.firmwareRoot, err = tools.Firmware(ctx, o.Progress); err != nil {
			return Image{}, fmt.Errorf("%w (a build without firmware needs none of this: --no-firmware)", err)
		}
		if err := b.packMicrocode(); err != nil {
			return Image{}, err
		}
	}
	return b.run(ctx, list)
}

// pickKernel takes the user's kernel, or Debian's for the kind of build.
func (o Options) pickKernel(root tools.Root) (kernel.Kernel, error) {
	if o.Kernel != "" {
		return kernel.Custom(o.Kernel, o.Modules)
	}
	if o.Build == "virtual" {
		return root.Kernel("cloud")
	}
	return root.Kernel("full")
}

// build is a build under way.
type build struct {
	Options
	dir    string
	root   tools.Root
	kernel kernel.Kernel
	steps  steps

	firmwareRoot tools.Root        // of the hardware build
	firmware     map[string]string // files that modules may ask for, and the group of one that does
	microcode    []byte            // archive for the processors, nil without one

	microcodeFiles []string // that it is made from
}

func (b *build) run(ctx context.Context, list moduleList) (Image, error) {
	started := time.Now()
	archive := newArchive(Meta{Version: b.Version, Build: b.Build, Kernel: b.kernel.Release})
	if err := b.fill(ctx, archive, list); err != nil {
		return Image{}, err
	}
	image := Image{Meta: archive.meta, Dir: b.dir, Sizes: archive.sizes()}
	same, err := b.publish(ctx, archive, &image)
	if err != nil {
		return Image{}, err
	}
	image.Unchanged = same
	state := "built"
	if same {
		state = "unchanged"
	}
	fmt.Fprintf(b.Progress, "Image %s, version %s, kernel %s: %s in %.1f s\n",
		b.Build, b.Version, b.kernel.Release, state, time.Since(started).Seconds())
	return image, nil
}

// lock keeps two runs from building the same image; it waits for the other.
func lock(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("image: %w", err)
	}
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
		if err != unix.EINTR {
			break
		}
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("image: lock %s: %w", path, err)
	}
	return func() { _ = f.Close() }, nil
}
