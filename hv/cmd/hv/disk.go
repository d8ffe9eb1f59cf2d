package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"quantavirt/hv/block"
	"quantavirt/hv/config"
	"quantavirt/hv/vmm"
	"quantavirt/internal/qverr"
)

// addDisk adds disk i, which arg of --disk describes.
func addDisk(spec *vmm.Spec, i int, arg string) error {
	path, rest, _ := strings.Cut(arg, ",")
	d := config.Disk{ID: fmt.Sprintf("disk%d", i), File: fmt.Sprintf("disk%d", i), Format: "raw"}
	for opt := range strings.SplitSeq(rest, ",") {
		if err := setDiskOption(&d, opt); err != nil {
			return qverr.New(qverr.Inval, "disk %s: %w", path, err)
		}
	}
	flags := os.O_RDWR
	if d.ReadOnly {
		flags = os.O_RDONLY
	}
	f, err := os.OpenFile(path, flags, 0)
	if err != nil {
		return qverr.New(qverr.StrOpen, "disk: %w", err)
	}
	spec.Files[d.File] = f
	spec.Machine.Disks = append(spec.Machine.Disks, d)
	return block.Lock(f, !d.ReadOnly)
}

// setDiskOption takes one option of --disk, or none.
func setDiskOption(d *config.Disk, opt string) (err error) {
	key, value, _ := strings.Cut(opt, "=")
	switch key {
	case "":
	case "ro":
		d.ReadOnly = true
	case "discard":
		d.Discard = true
	case "serial":
		d.Serial = value
	case "cache":
		d.Cache = value
	case "queues":
		d.Queues, err = strconv.Atoi(value)
	case "iops":
		d.Limits.Operations.PerSecond, err = strconv.ParseUint(value, 10, 64)
	case "bandwidth":
		var n int64
		n, err = parseSize(value)
		d.Limits.Bytes.PerSecond = uint64(n)
	default:
		return fmt.Errorf("option %q is unknown", opt)
	}
	if err != nil {
		return fmt.Errorf("option %q: %w", opt, err)
	}
	return nil
}
