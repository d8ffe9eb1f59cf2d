package main

import (
	"context"
	"flag"
	"os"

	"quantavirt/image"
)

// unified makes the unified kernel image of an image that is built.
func unified(ctx context.Context, args []string) error {
	o := image.UKIOptions{Progress: os.Stdout}
	flags := flag.NewFlagSet("mkimage uki", flag.ContinueOnError)
	flags.StringVar(&o.Out, "out", "build/image", "where images are")
	flags.StringVar(&o.Build, "build", "virtual", "virtual or hardware")
	flags.StringVar(&o.Cmdline, "cmdline", image.Cmdline, "kernel command line")
	flags.StringVar(&o.Keys, "keys", keysDir, "the builder's keys; without keys there, nothing is signed")
	if err := flags.Parse(args); err != nil {
		return err
	}
	return image.UKI(ctx, o)
}
