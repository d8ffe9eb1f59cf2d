// Command run shows the demonstration; see package demo. With -check it ends
// by itself, with status 0 if everything went well.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"quantavirt/qemu-tests/demo"
)

func main() {
	check := flag.Bool("check", false, "check the outcome and end")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := demo.Run(ctx, demo.Options{Out: os.Stdout, Check: *check})
	if err != nil && (ctx.Err() == nil || *check) {
		fmt.Fprintln(os.Stderr, "run:", err)
		os.Exit(1)
	}
	if *check {
		fmt.Println("The demonstration passed.")
	}
}
