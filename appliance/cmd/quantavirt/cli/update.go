package cli

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"quantavirt/appliance/api/spec"
)

func (a *app) updateCmd() *cobra.Command {
	var p spec.UpdateSystemParams
	var blessed bool
	cmd := &cobra.Command{
		Use: "update BUNDLE|URL", Short: "Install an update bundle and reboot into it", Args: exactArgs(1),
		Long: `Install an update bundle (*.qvu): a file, which is uploaded, or an address that the node
fetches itself. Nothing is written before the signature is verified. The new system is
tried once; unless it is blessed within its health window, the one before comes back by
itself and says why: quantavirt system slots. With --until-blessed the command ends when that is
decided, with an error if the system before is back.`,
		Example: "  quantavirt system update quantavirt-0.2.qvu\n" +
			"  for host in $NODES; do quantavirt --host $host system update --until-blessed quantavirt-0.2.qvu || break; done\n" +
			"  quantavirt system update --check https://example.org/quantavirt-0.2.qvu",
		RunE: func(cmd *cobra.Command, args []string) error {
			if blessed && (p.Check || p.NoReboot || a.noWait) {
				return usage(cmd, errors.New("--until-blessed waits for what the reboot brings"))
			}
			before := ""
			if blessed {
				var err error
				if before, err = a.bootID(cmd.Context()); err != nil {
					return err
				}
			}
			err := a.update(cmd, args[0], &p)
			if err == nil && blessed {
				err = a.awaitBlessed(cmd.Context(), before, max(usualLimit, time.Duration(p.Limit)*time.Second))
			}
			if err != nil || a.noWait {
				return err
			}
			said := "armed; the next reboot tries it"
			switch {
			case p.Check:
				said = "verified; it can be installed here"
			case blessed:
				said = "the node runs it, and keeps it"
			case p.Kexec:
				said = "the node starts it directly, without its firmware. See how it went with: quantavirt system slots"
			case !p.NoReboot:
				said = "armed; the node goes down and tries it. See how it went with: quantavirt system slots"
			}
			return a.show(map[string]string{"bundle": args[0], "outcome": said}, func(w io.Writer) { fmt.Fprintf(w, "%s: %s\n", args[0], said) })
		},
	}
	f := cmd.Flags()
	f.BoolVar(&p.Check, "check", false, "only receive and verify")
	f.BoolVar(&p.Force, "force", false, "also a version that failed on this node before")
	f.BoolVar(&p.NoReboot, "no-reboot", false, "only arm it; the next reboot tries it")
	f.BoolVar(&p.Kexec, "kexec", false, "start the new kernel directly instead of going through the firmware")
	f.IntVar(&p.Good, "good", 0, "seconds that all must be well before the system is blessed (30)")
	f.IntVar(&p.Limit, "limit", 0, "seconds from its kernel's start in which that must have been (300)")
	f.BoolVar(&blessed, "until-blessed", false, "wait until the new system is blessed; an error if the one before is back")
	return a.addNoWait(cmd)
}

func isURL(s string) bool { return strings.HasPrefix(s, "http://") || strings.HasPrefix(s, "https://") }

// update brings the bundle to the node and waits for the task. That the node
// goes down while it is waited for is how the task should end.
func (a *app) update(cmd *cobra.Command, from string, p *spec.UpdateSystemParams) error {
	ctx := cmd.Context()
	var ans answer[spec.Task]
	var err error
	if isURL(from) {
		ans, err = call[spec.Task](a, func(c *client) (*http.Response, error) {
			return c.UpdateSystem(ctx, p, spec.UpdateSource{URL: from})
		})
	} else {
		var up *upload
		if up, err = a.openUpload(from, "update"); err != nil {
			return err
		}
		defer up.close()
		ans, err = call[spec.Task](a, func(c *client) (*http.Response, error) {
			return c.UpdateSystemWithBody(ctx, p, "application/octet-stream", up.body, up.edit)
		})
		up.bar.end()
	}
	if err != nil {
		return err
	}
	if a.noWait {
		return a.print(ans.raw, func(w io.Writer) { taskTable(w, ans.value) })
	}
	_, err = a.awaitOr(ctx, "update", ans, goesDown)
	return err
}

// goesDown tells the phases in which the node ends its API.
func goesDown(phase string) bool { return phase == "reboot" || phase == "start" }

func (a *app) slotsCmd() *cobra.Command {
	return &cobra.Command{
		Use: "slots", Short: "List the installed systems and how updates went", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ans, err := call[spec.SlotList](a, func(c *client) (*http.Response, error) { return c.ListSlots(cmd.Context()) })
			if err != nil {
				return err
			}
			return a.print(ans.raw, func(w io.Writer) { slotTable(w, ans.value) })
		},
	}
}

func slotTable(w io.Writer, l spec.SlotList) {
	if l.Message != "" {
		fmt.Fprintln(w, plain(l.Message))
	} else {
		row(w, "SLOT", "VERSION", "COUNTER", "STATE", "NOW", "NEXT", "WRITTEN", "REASON")
	}
	for _, s := range l.Items {
		state := string(s.State)
		if s.TriesLeft != nil {
			state = fmt.Sprintf("%s, %d left", state, *s.TriesLeft)
		}
		row(w, s.Slot, s.Version, s.Counter, state, mark(s.Running), mark(s.Next), when(s.WrittenAt), s.Reason)
	}
	for _, s := range l.Items {
		if s.Panic != "" {
			fmt.Fprintf(w, "\nLast words of the kernel in slot %s:\n", plain(s.Slot))
			for line := range strings.Lines(s.Panic) {
				fmt.Fprintf(w, "  %s\n", plain(strings.TrimSuffix(line, "\n")))
			}
		}
	}
	if len(l.Failures) > 0 {
		io.WriteString(w, "\n")
		row(w, "FAILED VERSION", "WHEN", "REASON")
	}
	for _, f := range l.Failures {
		row(w, f.Version, when(f.Time), f.Reason)
	}
}

func mark(b bool) string {
	if b {
		return "*"
	}
	return ""
}
