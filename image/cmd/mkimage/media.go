package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"quantavirt/image/media"
	"quantavirt/image/tools"
)

// makeMedia makes disk, ISO and network boot files of an image that is built.
func makeMedia(ctx context.Context, args []string) error {
	o := media.Options{Progress: os.Stdout}
	flags := flag.NewFlagSet("mkimage media", flag.ContinueOnError)
	out := flags.String("out", "build/image", "where images are")
	build := flags.String("build", "virtual", "virtual or hardware")
	flags.StringVar(&o.Keys, "keys", keysDir, "the builder's keys; without keys there, iPXE is not signed")
	flags.StringVar(&o.Config, "config", "", "quantavirt.json to go onto disk and ISO, the configuration for the first boot")
	flags.Uint64Var(&o.Counter, "counter", 0, "of the system, against going back to older ones")
	if err := flags.Parse(args); err != nil {
		return err
	}
	o.Dir = filepath.Join(*out, *build)
	var err error
	if o.Time, err = sourceTime(ctx, "."); err != nil {
		return err
	}
	root, err := tools.Ensure(ctx, os.Stdout)
	if err != nil {
		return err
	}
	return media.Make(ctx, root, o)
}

// sourceTime is the time for files that must not have that of their making:
// $SOURCE_DATE_EPOCH, or when the tree's commit was made, or the beginning of
// 2026 outside of git.
func sourceTime(ctx context.Context, source string) (time.Time, error) {
	text := os.Getenv("SOURCE_DATE_EPOCH")
	if text == "" {
		out, err := exec.CommandContext(ctx, "git", "-C", source, "log", "-1", "--format=%ct").Output()
		if err != nil {
			return time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), nil
		}
		text = strings.TrimSpace(string(out))
	}
	seconds, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("time of the sources: %w", err)
	}
	return time.Unix(seconds, 0).UTC(), nil
}
