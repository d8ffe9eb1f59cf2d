// Command lab starts, lists and ends appliances under QEMU.
//
//	lab up --name a [--cpus 2] [--memory 2048] [--data-disk MiB] [--iommu intel|amd|none] [--card] …
//	lab list
//	lab down --name a
//
// up prints one JSON object; the node keeps running after the command.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"quantavirt/qemu-tests/lab"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "lab:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return fmt.Errorf("usage: lab up|down|list [flags]; lab up -h lists them")
	}
	root, err := lab.Root()
	if err != nil {
		return err
	}
	switch args[0] {
	case "up":
		return up(ctx, args[1:])
	case "down":
		return down(root, args[1:])
	case "list":
		nodes, err := lab.List(root)
		if err != nil {
			return err
		}
		if nodes == nil {
			nodes = []*lab.Node{}
		}
		return print(nodes)
	}
	return fmt.Errorf("unknown command %q: want up, down or list", args[0])
}

func up(ctx context.Context, args []string) error {
	var o lab.Options
	f := flag.NewFlagSet("lab up", flag.ContinueOnError)
	f.StringVar(&o.Name, "name", "a", "node's name")
	f.IntVar(&o.CPUs, "cpus", 2, "number of CPUs")
	f.IntVar(&o.Memory, "memory", 2048, "memory in MiB")
	f.StringVar(&o.Build, "build", "virtual", "image build: virtual or hardware")
	f.IntVar(&o.DataDisk, "data-disk", 0, "size of the data disk in MiB, 0 for none")
	f.BoolVar(&o.KeepData, "keep-data", false, "use the node's earlier data disk again")
	f.StringVar(&o.IOMMU, "iommu", lab.IOMMUIntel, "intel, amd or none")
	f.BoolVar(&o.Card, "card", false, "plug a QUAC 100 (its model)")
	f.BoolVar(&o.NoKVM, "no-kvm", false, "hide SVM from the appliance")
	f.BoolVar(&o.FirstToken, "first-token", false, "let the node make its first token")
	f.BoolVar(&o.Outside, "outside", false, "second network card in a namespace of its own (root)")
	f.BoolVar(&o.NoWait, "no-wait", false, "return before the node is ready")
	f.StringVar(&o.Archive, "archive", "", "cpio archive to unpack beside the image")
	f.StringVar(&o.Cmdline, "cmdline", "", "words to add to the kernel command line")
	if err := f.Parse(args); err != nil {
		return err
	}
	n, err := lab.Up(ctx, o)
	if err != nil {
		return err
	}
	return print(n)
}

func down(root string, args []string) error {
	f := flag.NewFlagSet("lab down", flag.ContinueOnError)
	name := f.String("name", "a", "node's name")
	if err := f.Parse(args); err != nil {
		return err
	}
	n, err := lab.Load(root, *name)
	if err != nil {
		return err
	}
	return n.Down()
}

func print(v any) error {
	out := json.NewEncoder(os.Stdout)
	out.SetIndent("", "  ")
	return out.Encode(v)
}
