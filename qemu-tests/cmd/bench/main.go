// Command bench measures what SPECIFICATION.md promises; see package bench.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"quantavirt/qemu-tests/bench"
)

func main() {
	runs := flag.Int("runs", 3, "runs of each measurement")
	part := flag.String("part", "", "measure only this and store nothing: image, boot, vmm, usb, update or crypto")
	short := flag.Bool("short", false, "leave out what takes minutes")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := bench.Run(ctx, bench.Options{Out: os.Stdout, Runs: *runs, Part: *part, Short: *short}); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}
