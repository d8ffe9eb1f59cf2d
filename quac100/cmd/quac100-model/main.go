// Command quac100-model shows one model of the QUAC 100 to QEMU:
//
//	quac100-model --socket /tmp/card.sock --serial 7
//	qemu-system-x86_64 … -device '{"driver":"vfio-user-pci","socket":{"path":"/tmp/card.sock","type":"unix"}}'
//
// It prints "listening on PATH" when QEMU may start, serves one QEMU after the other, and ends on SIGTERM or SIGINT.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"quantavirt/internal/version"
	"quantavirt/quac100/faults"
	"quantavirt/quac100/model"
	"quantavirt/quac100/regs"
	"quantavirt/quac100/vfiouser"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		os.Exit(0)
	case errors.Is(err, errUsage):
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "quac100-model:", err)
		os.Exit(1)
	}
}

var errUsage = errors.New("wrong usage")

// options are the command line.
type options struct {
	socket  string
	control string
	verbose bool
	card    model.Config
	faults  faults.Faults
}

func parse(args []string, stderr io.Writer) (options, error) {
	var o options
	f := flag.NewFlagSet("quac100-model", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.StringVar(&o.socket, "socket", "", "`path` of the UNIX socket that QEMU connects to (required)")
	f.StringVar(&o.control, "control", "", "`path` of a UNIX socket that takes faults while the card runs, as JSON by HTTP PUT /faults")
	f.BoolVar(&o.verbose, "verbose", false, "log refused requests too")
	f.Uint64Var(&o.card.Serial, "serial", 0, "serial `number` (0: the default)")
	temp := f.Float64("temp", 45, "core temperature in `degrees` Celsius")
	f.StringVar(&o.card.KeyFile, "keys", "", "`file` that keeps persistent keys")
	f.Func("firmware-key", "`file` with the public ML-DSA-87 key that firmware images must be signed with", func(path string) (err error) {
		o.card.FWKey, err = os.ReadFile(path)
		return err
	})
	fw := f.String("firmware", "1.0.0", "firmware `version`")
	tests := f.Uint("fail-self-test", 0, "`mask` of self-tests that fail, e.g. 0x1 for KEM key generation")
	f.Func("fault", "a fault from the start, as `JSON` of the control socket", func(s string) error { return o.faults.Decode(strings.NewReader(s)) })
	show := f.Bool("version", false, "print the version and end")
	if err := f.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return o, err
		}
		return o, errUsage
	}
	if *show {
		fmt.Fprintln(stderr, "quac100-model", version.Version)
		return o, flag.ErrHelp
	}
	var major, minor uint8
	var patch uint16
	if _, err := fmt.Sscanf(*fw, "%d.%d.%d", &major, &minor, &patch); err != nil || o.socket == "" || f.NArg() > 0 {
		fmt.Fprintln(stderr, "quac100-model: --socket is required, --firmware is three numbers, and there are no arguments")
		f.Usage()
		return o, errUsage
	}
	o.card.FWVersion = uint32(major)<<24 | uint32(minor)<<16 | uint32(patch)
	o.card.TempCore = int32(*temp * 1000)
	o.card.FailSelfTest = regs.SelfTest(*tests)
	o.card.HostMSIX = true
	return o, nil
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	o, err := parse(args, stderr)
	if err != nil {
		return err
	}
	level := slog.LevelInfo
	if o.verbose {
		level = slog.LevelDebug
	}
	log := slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: level}))
	card, err := model.New(o.card)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, card.Close()) }()
	o.faults.Apply(card)
	if o.control != "" {
		end, err := faults.Serve(o.control, card)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, end()) }()
	}
	l, err := vfiouser.Listen(o.socket)
	if err != nil {
		return fmt.Errorf("listen on %s: %w", o.socket, err)
	}
	fmt.Fprintf(stdout, "listening on %s\n", o.socket)
	return vfiouser.Serve(ctx, l, card, log)
}
