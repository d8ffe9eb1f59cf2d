package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"quantavirt/image"
	"quantavirt/image/tools"
	"quantavirt/qemu-tests/lab"
)

// Options of a run.
type Options struct {
	Out  io.Writer
	Runs int // of each measurement
	// Part is the name of a part; "" measures all and stores the report.
	Part string
	// Short leaves out the parts that need media: a stick and an update.
	Short bool
}

// Report is what a run found; it is stored as JSON.
type Report struct {
	Image   json.RawMessage `json:"image"`
	Boot    Boot            `json:"boot"`
	USB     Boot            `json:"usb"`
	IdleMiB float64         `json:"idle_memory_mib"`
	Monitor Monitors        `json:"monitor"`
	// UpdateSeconds is an update from the upload to the blessing.
	UpdateSeconds float64 `json:"update_s"`
}

// run is one bench under way.
type run struct {
	opts Options
	root string
	tool tools.Root
	rep  Report
}

// Run measures, prints and stores the report in build/bench.json.
func Run(ctx context.Context, opts Options) error {
	root, err := lab.Root()
	if err != nil {
		return err
	}
	tool, err := tools.Ensure(ctx, opts.Out)
	if err != nil {
		return err
	}
	r := &run{opts: opts, root: root, tool: tool}
	for _, part := range []struct {
		name    string
		media   bool
		measure func(context.Context) error
	}{{"image", false, r.image}, {"boot", false, r.boot}, {"vmm", false, r.monitors}, {"usb", true, r.usb}, {"update", true, r.update}} {
		if opts.Part != "" && opts.Part != part.name || opts.Short && part.media {
			continue
		}
		if err := part.measure(ctx); err != nil {
			return err
		}
	}
	if opts.Part != "" {
		return nil
	}
	data, err := json.MarshalIndent(r.rep, "", "  ")
	if err != nil {
		return err
	}
	path := filepath.Join(root, "build", "bench.json")
	if err := os.WriteFile(path, append(data, '\n'), 0o644); err != nil {
		return err
	}
	fmt.Fprintf(opts.Out, "\nstored in %s\n", path)
	return nil
}

// image shows the sizes that the build wrote down.
func (r *run) image(context.Context) error {
	data, err := os.ReadFile(filepath.Join(r.root, "build", "image", "virtual", "sizes.json"))
	if err != nil {
		return err
	}
	r.rep.Image = data
	total := int64(0)
	for _, name := range []string{"vmlinuz", "initramfs.zst"} {
		info, err := os.Stat(filepath.Join(r.root, "build", "image", "virtual", name))
		if err != nil {
			return err
		}
		total += info.Size()
		fmt.Fprintf(r.opts.Out, "image: %-14s %6.2f MiB\n", name, float64(info.Size())/(1<<20))
	}
	fmt.Fprintf(r.opts.Out, "image: %-14s %6.2f MiB (aim: under 32)\n", "both", float64(total)/(1<<20))
	for _, u := range []struct {
		build string
		aim   int
	}{{"virtual", 32}, {"hardware", 64}} {
		info, err := os.Stat(filepath.Join(r.root, "build", "image", u.build, image.UKIFile))
		if errors.Is(err, fs.ErrNotExist) {
			continue // make bench builds one
		}
		if err != nil {
			return err
		}
		fmt.Fprintf(r.opts.Out, "image: %s UKI %*.2f MiB (aim: at most %d)\n", u.build, 17-len(u.build), float64(info.Size())/(1<<20), u.aim)
	}
	return nil
}

// median of some measurements.
func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	slices.Sort(values)
	return values[len(values)/2]
}
