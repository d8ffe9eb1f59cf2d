// Command mkimage builds the appliance image.
//
//	mkimage setup [--refresh]     the root of Debian packages: QEMU, kernels, tools
//	mkimage build [--build virtual|hardware] [--kernel FILE --modules DIR] [--out DIR]
//	mkimage uki [--build virtual|hardware] [--cmdline TEXT] [--keys DIR] [--out DIR]
//	mkimage media [--build virtual|hardware]    disk, ISO and network boot files of a built image
//	mkimage keys [--out DIR]      the builder's keys, unless they are there
//	mkimage bundle --out FILE.qvu [--version V] [--counter N] [--notes TEXT]
//	mkimage version               the version that programs of this tree get
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"quantavirt/image"
	"quantavirt/image/tools"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "mkimage:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) > 0 {
		switch args[0] {
		case "setup":
			return setup(ctx, args[1:])
		case "build":
			return build(ctx, args[1:])
		case "uki":
			return unified(ctx, args[1:])
		case "media":
			return makeMedia(ctx, args[1:])
		case "keys":
			return keys(args[1:])
		case "bundle":
			return makeBundle(ctx, args[1:])
		case "version":
			fmt.Println(describe(ctx, "."))
			return nil
		}
	}
	return fmt.Errorf("usage: mkimage setup|build|uki|media|keys|bundle|version [flags]; mkimage build -h lists them")
}

func setup(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("mkimage setup", flag.ContinueOnError)
	refresh := flags.Bool("refresh", false, "unpack anew, with the newest versions of the packages")
	record := flags.String("record", "build/packages.txt", "where to write the versions")
	if err := flags.Parse(args); err != nil {
		return err
	}
	ensure := tools.Ensure
	if *refresh {
		ensure = tools.Refresh
	}
	root, err := ensure(ctx, os.Stdout)
	if err != nil {
		return err
	}
	packages, err := root.Packages()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(*record), 0o755); err != nil {
		return err
	}
	fmt.Printf("Debian packages: %d in %s, versions in %s\n", strings.Count(packages, "\n"), root.Dir, *record)
	return os.WriteFile(*record, []byte(packages), 0o644)
}

func build(ctx context.Context, args []string) error {
	o := image.Options{Progress: os.Stdout}
	var programs programFlag
	flags := flag.NewFlagSet("mkimage build", flag.ContinueOnError)
	flags.StringVar(&o.Source, "source", ".", "the source tree")
	flags.StringVar(&o.Out, "out", "build/image", "where images go")
	flags.StringVar(&o.Keys, "keys", keysDir, "folder of the builder's keys, made if there are none")
	flags.StringVar(&o.Build, "build", "virtual", "virtual or hardware")
	flags.StringVar(&o.Kernel, "kernel", os.Getenv("KERNEL"), "bzImage to use instead of Debian's (default $KERNEL)")
	flags.StringVar(&o.Modules, "modules", os.Getenv("MODULES"), "modules of that kernel, after depmod (default $MODULES)")
	flags.StringVar(&o.Version, "version", "", "version to write into the programs (default: git describe)")
	flags.IntVar(&o.Level, "level", 19, "how hard zstd packs, 1 to 19")
	flags.BoolVar(&o.Separate, "separate", false, "a file for each program instead of one for all, to compare")
	flags.BoolVar(&o.NoFirmware, "no-firmware", false, "leave microcode and firmware, which are not free software, out of the hardware build")
	drivers := flags.Bool("drivers", false, "print every kernel module and firmware file with its size")
	flags.Var(&programs, "program", "PATH=PACKAGE: another Go package for a program of the image, such as init=./some/init")
	if err := flags.Parse(args); err != nil {
		return err
	}
	for _, name := range []*string{&o.Source, &o.Out, &o.Keys} {
		path, err := filepath.Abs(*name)
		if err != nil {
			return err
		}
		*name = path
	}
	if o.Version == "" {
		o.Version = describe(ctx, o.Source)
	}
	o.Programs = programs.apply(image.Programs())
	built, err := image.Build(ctx, o)
	if err != nil {
		return err
	}
	if *drivers {
		if err := built.PrintDrivers(os.Stdout); err != nil {
			return err
		}
	}
	built.Print(os.Stdout)
	return nil
}

// base is the version until there is a tag.
const base = "0.1"

// describe returns the version of the tree: what git describe says, or 0.1 and
// the commit while nothing is tagged.
func describe(ctx context.Context, source string) string {
	git := func(args ...string) (string, bool) {
		out, err := exec.CommandContext(ctx, "git", append([]string{"-C", source}, args...)...).Output()
		return strings.TrimSpace(string(out)), err == nil
	}
	if version, ok := git("describe", "--tags", "--match", "v[0-9]*", "--dirty"); ok {
		return strings.TrimPrefix(version, "v")
	}
	if commit, ok := git("describe", "--always", "--dirty", "--exclude", "*"); ok {
		return base + "-g" + commit
	}
	return base // not a git tree
}

// programFlag replaces programs of the image.
type programFlag map[string]string

// String implements flag.Value.
func (p *programFlag) String() string { return "" }

// Set implements flag.Value.
func (p *programFlag) Set(value string) error {
	path, pkg, ok := strings.Cut(value, "=")
	if !ok {
		return fmt.Errorf("want PATH=PACKAGE")
	}
	if *p == nil {
		*p = programFlag{}
	}
	(*p)[strings.TrimPrefix(path, "/")] = pkg
	return nil
}

func (p programFlag) apply(programs []image.Program) []image.Program {
	for i := range programs {
		if pkg, ok := p[programs[i].Path]; ok {
			programs[i].Package = pkg
		}
	}
	return programs
}
