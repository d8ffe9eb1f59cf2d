package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"quantavirt/appliance/api/spec"
	"quantavirt/internal/qverr"
)

const (
	consoleProtocol = "quantavirt-console"
	// leaveKey is Ctrl-].
	leaveKey = 0x1d
	// consoleSettle is how long after the end of its console a VM may still be
	// called running: the node hears of its end a moment later.
	consoleSettle = 3 * time.Second
)

func (a *app) vmConsoleCmd() *cobra.Command {
	var device string
	var log, readOnly bool
	cmd := &cobra.Command{
		Use: "console NAME", Short: "Attach to a VM's console; Ctrl-] leaves", Args: exactArgs(1), ValidArgsFunction: a.vmNames,
		Long: "Attach to a VM's console: what the node kept of it, then live. Ctrl-] leaves and the VM runs on; attach again at\n" +
			"any time. Ends when the VM ends. When stdin is no terminal its bytes go to the guest as they are.",
		RunE: func(cmd *cobra.Command, args []string) error {
			params := &spec.GetVMConsoleParams{Device: device}
			if log {
				return a.consoleLog(cmd.Context(), args[0], params)
			}
			return a.console(cmd.Context(), args[0], params, readOnly)
		},
	}
	cmd.Flags().StringVar(&device, "device", "", "virtio-console, serial or the name of a port (the VM's configuration decides when absent)")
	cmd.Flags().BoolVar(&log, "log", false, "only print what the node kept, also of a VM that does not run")
	cmd.Flags().BoolVar(&readOnly, "read-only", false, "send nothing to the guest")
	return cmd
}

func (a *app) consoleLog(ctx context.Context, name string, params *spec.GetVMConsoleParams) error {
	c, err := a.node()
	if err != nil {
		return err
	}
	resp, err := c.GetVMConsole(ctx, name, params)
	if err := c.check(resp, err); err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(a.Out, resp.Body); err != nil {
		return c.unreachable(err)
	}
	return nil
}

func (a *app) console(ctx context.Context, name string, params *spec.GetVMConsoleParams, readOnly bool) error {
	c, err := a.node()
	if err != nil {
		return err
	}
	resp, err := c.GetVMConsole(ctx, name, params, func(_ context.Context, r *http.Request) error {
		r.Header.Set("Connection", "Upgrade")
		r.Header.Set("Upgrade", consoleProtocol)
		return nil
	})
	if err != nil {
		return c.unreachable(err)
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		if err := c.check(resp, nil); err != nil {
			return err
		}
		resp.Body.Close()
		return qverr.New(qverr.Generic, "%s did not open a console: %s", c.target.name, resp.Status)
	}
	conn, ok := resp.Body.(io.ReadWriteCloser)
	if !ok {
		resp.Body.Close()
		return qverr.New(qverr.Generic, "%s opened a console that cannot be written", c.target.name)
	}
	defer conn.Close()
	restore, err := a.rawTerminal()
	if err != nil {
		return err
	}
	if terminal(a.In) {
		fmt.Fprintf(a.Err, "[console of %s, Ctrl-] leaves]\r\n", name)
	}
	in := a.In
	if readOnly && !terminal(in) {
		in = bytes.NewReader(nil)
	}
	left, err := relay(ctx, conn, in, a.Out, terminal(a.In), readOnly)
	restore()
	if left {
		fmt.Fprintf(a.Err, "\n[left the console, VM %s runs on]\n", name)
		return nil
	}
	return a.consoleEnded(ctx, c, name, err)
}

// consoleEnded finds out why the console ended without the user's doing.
func (a *app) consoleEnded(ctx context.Context, c *client, name string, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	for settled := time.After(consoleSettle); ; {
		vm, vmErr := a.getVM(ctx, name)
		if errors.Is(vmErr, qverr.NoEnt) {
			fmt.Fprintf(a.Err, "\n[VM %s is gone]\n", name)
			return nil
		}
		if vmErr != nil {
			break
		}
		if vm.value.State != spec.VMStateRUNNING && vm.value.State != spec.VMStatePAUSED {
			fmt.Fprintf(a.Err, "\n[VM %s is %s%s]\n", name, vm.value.State, reason(vm.value))
			return nil
		}
		select {
		case <-settled:
		case <-ctx.Done():
		case <-time.After(retryDelay):
			continue
		}
		break
	}
	if err == nil {
		err = io.ErrUnexpectedEOF
	}
	return qverr.New(qverr.IO, "the console connection to %s was lost: %w (%w)", c.target.name, err, qverr.ErrUnreachable).
		WithHint("the VM runs on: quantavirt vm console %s attaches again", name)
}

func reason(vm spec.VM) string {
	if vm.Reason == "" {
		return ""
	}
	return ": " + plain(vm.Reason)
}

// rawTerminal gives every key to the guest; the returned function undoes it.
func (a *app) rawTerminal() (func(), error) {
	f, ok := a.In.(*os.File)
	if !ok || !terminal(f) {
		return func() {}, nil
	}
	old, err := term.MakeRaw(int(f.Fd()))
	if err != nil {
		return nil, qverr.New(qverr.CodeOf(err), "set the terminal to raw mode: %w", err)
	}
	return func() { _ = term.Restore(int(f.Fd()), old) }, nil
}

// relay copies both ways until the console or the context ends, or the user
// leaves. The end of in alone ends nothing: the guest may still have to say
// something. The goroutine that reads in cannot be interrupted and ends with
// the process or its next byte.
func relay(ctx context.Context, conn io.ReadWriteCloser, in io.Reader, out io.Writer, keys, readOnly bool) (left bool, err error) {
	leave := make(chan struct{})
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := in.Read(buf)
			data := buf[:n]
			at := -1
			if keys {
				at = bytes.IndexByte(data, leaveKey)
			}
			if at >= 0 {
				data = data[:at]
			}
			if len(data) > 0 && !readOnly {
				if _, err := conn.Write(data); err != nil {
					return // the reading side reports the end
				}
			}
			if at >= 0 {
				close(leave)
				return
			}
			if err != nil {
				return
			}
		}
	}()
	done := make(chan error, 1)
	go func() {
		_, err := io.Copy(out, conn)
		done <- err
	}()
	select {
	case err = <-done:
		return false, err
	case <-leave:
		left = true
	case <-ctx.Done():
	}
	conn.Close()
	<-done
	return left, nil
}
