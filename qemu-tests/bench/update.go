package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"quantavirt/appliance/api/spec"
	"quantavirt/image"
	"quantavirt/image/media"
	"quantavirt/qemu-tests/lab"
)

// update measures the cycle of an update, from the beginning of the upload to
// the blessing, with the usual health window.
func (r *run) update(ctx context.Context) error {
	built := filepath.Join(r.root, "build", "image", "virtual")
	disk := filepath.Join(r.root, "build", "bench", "update.img")
	if err := copyFile(disk, filepath.Join(built, media.DiskFile)); err != nil {
		return fmt.Errorf("the virtual build's disk (make media makes it): %w", err)
	}
	n, err := lab.Up(ctx, lab.Options{
		Name: "bench-update", DataDisk: 512, Firmware: lab.FirmwareUEFI, Medium: lab.Medium{File: disk, As: lab.MediumVirtio, Keep: true},
	})
	if err != nil {
		return err
	}
	defer func() { _ = n.Down() }()
	var took []float64
	for i := range r.opts.Runs {
		version := fmt.Sprintf("99.%d", i)
		bundle := filepath.Join(r.root, "build", "bench", "update.qvu")
		if _, err := image.Bundle(image.BundleOptions{
			Out: bundle, Keys: filepath.Join(r.root, "build", "keys"), UKIs: map[string]string{"virtual": filepath.Join(built, image.UKIFile)},
			Version: version, Counter: 1, Created: time.Now(),
		}); err != nil {
			return err
		}
		d, err := cycle(ctx, n, bundle, version)
		if err != nil {
			return err
		}
		took = append(took, d.Seconds())
	}
	r.rep.UpdateSeconds = median(took)
	fmt.Fprintf(r.opts.Out, "update: upload to blessed %.1f s, of which 30 are the health window (aim: 60)\n", r.rep.UpdateSeconds)
	return nil
}

func copyFile(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// cycle updates a node and waits until it is blessed.
func cycle(ctx context.Context, n *lab.Node, bundle, version string) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, 6*time.Minute)
	defer cancel()
	data, err := os.ReadFile(bundle)
	if err != nil {
		return 0, err
	}
	begin, mark := time.Now(), n.ConsoleMark()
	if err := n.Call(ctx, http.MethodPost, "/api/v1/system/update", io.Reader(bytes.NewReader(data)), nil); err != nil {
		return 0, err
	}
	if err := n.WaitReadyAfter(ctx, mark); err != nil {
		return 0, err
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		var l spec.SlotList
		if err := n.Call(ctx, http.MethodGet, "/api/v1/system/slots", nil, &l); err != nil {
			return 0, err
		}
		for _, s := range l.Items {
			switch {
			case s.Version != version || s.State == spec.SlotStateTry:
			case s.State == spec.SlotStateGood && s.Running:
				return time.Since(begin), nil
			default:
				return 0, fmt.Errorf("the update was not blessed: %+v", s)
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return 0, fmt.Errorf("the update was not blessed: %w", ctx.Err())
		}
	}
}
