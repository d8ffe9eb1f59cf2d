package main

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"slices"
	"strings"

	"quantavirt/image"
)

// listFlag is a flag that may be given several times.
type listFlag []string

// String implements flag.Value.
func (l *listFlag) String() string { return strings.Join(*l, ",") }

// Set implements flag.Value.
func (l *listFlag) Set(v string) error {
	*l = append(*l, v)
	return nil
}

// makeBundle makes an update bundle of the images that are built.
func makeBundle(ctx context.Context, args []string) error {
	var o image.BundleOptions
	var ukis, addKeys, dropKeys listFlag
	flags := flag.NewFlagSet("mkimage bundle", flag.ContinueOnError)
	flags.StringVar(&o.Out, "out", "", "the bundle to write, NAME.qvu")
	flags.StringVar(&o.Keys, "keys", keysDir, "folder of the builder's keys; all private update keys sign")
	flags.StringVar(&o.SBOM, "sbom", "", "CycloneDX file to take along")
	flags.StringVar(&o.Version, "version", "", "version of the bundle (default: git describe)")
	flags.StringVar(&o.Minimum, "minimum-version", "", "version that a node must run to take it")
	flags.Uint64Var(&o.Counter, "counter", 1, "anti-rollback counter: nodes refuse a lower one than they have had")
	flags.StringVar(&o.Notes, "notes", "", "what is new, for people")
	flags.Var(&ukis, "uki", "BUILD=FILE: unified kernel image of a build (default: those below build/image)")
	flags.Var(&addKeys, "add-key", "FILE.pub: nodes trust this key too, once the update is blessed")
	flags.Var(&dropKeys, "remove-key", "ID: nodes trust this key no more, once the update is blessed")
	images := flags.String("images", "build/image", "where images are")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if o.Out == "" {
		return fmt.Errorf("bundle: --out NAME.qvu is missing")
	}
	if o.Version == "" {
		o.Version = describe(ctx, ".")
	}
	o.AddKeys, o.DropKeys = addKeys, dropKeys
	var err error
	if o.Created, err = sourceTime(ctx, "."); err != nil {
		return err
	}
	if o.UKIs, err = image.BuiltUKIs(*images); err != nil {
		return err
	}
	if len(ukis) > 0 {
		o.UKIs = make(map[string]string)
	}
	for _, v := range ukis {
		build, file, ok := strings.Cut(v, "=")
		if !ok {
			return fmt.Errorf("bundle: --uki %s is not BUILD=FILE", v)
		}
		o.UKIs[build] = file
	}
	m, err := image.Bundle(o)
	if err != nil {
		return err
	}
	fmt.Printf("Bundle %s: version %s, counter %d, %d files of %.1f MiB, for %s\n", o.Out, m.Version, m.Counter, len(m.Files),
		float64(m.Size())/(1<<20), strings.Join(slices.Sorted(maps.Keys(o.UKIs)), " and "))
	return nil
}
