package cli

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"regexp"
	"time"

	"github.com/spf13/cobra"

	"quantavirt/appliance/api/spec"
	"quantavirt/internal/qvlog"
)

// nodeLog is the daemon's log on the node's data volume.
const nodeLog = "/var/lib/quantavirt/logs/quantavirt.log"

// logCmd reads the ring file itself where that is, so it also works when the
// daemon does not, and on a data volume that was carried to another machine.
func (a *app) logCmd() *cobra.Command {
	var level, grep, file, source string
	var f qvlog.Filter
	var last time.Duration
	tail := &cobra.Command{
		Use: "tail", Short: "Show the node's log, oldest first", Args: noArgs,
		Long: `Show the node's log: of the node that this command runs on from its file, of another one
over its API; or of the ring file that --file names. --source boot is what PID 1 and the
daemon wrote since the boot, kept in memory: also the last words of a daemon that could
not start.`,
		Example: "  quantavirt log tail --level error --last 1h\n  quantavirt log tail --grep 'PQC_ERR' --last 24h\n  quantavirt log tail --source boot",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := logFilter(&f, level, grep, last); err != nil {
				return usage(cmd, err)
			}
			if file != "" {
				return a.printLog(file, f)
			}
			t, err := a.target()
			if err != nil {
				return err
			}
			if source != string(spec.ListLogsParamsSourceBoot) && t.name == "unix://"+defaultSocket {
				return a.printLog(nodeLog, f)
			}
			return a.fetchLog(cmd.Context(), spec.ListLogsParams{
				Source: spec.ListLogsParamsSource(source), Level: spec.ListLogsParamsLevel(level), Since: f.Since,
				Grep: grep, Subsystem: f.Subsystem, Limit: f.Limit,
			})
		},
	}
	tail.Flags().StringVar(&level, "level", "", "lowest level: debug, info, warn or error")
	tail.Flags().DurationVar(&last, "last", 0, "only this much time back, for example 1h")
	tail.Flags().StringVar(&grep, "grep", "", "only lines that this regular expression matches")
	tail.Flags().StringVar(&f.Subsystem, "subsystem", "", "only lines of one subsystem")
	tail.Flags().IntVarP(&f.Limit, "lines", "n", 0, "only the newest so many lines (over the API 1000)")
	tail.Flags().StringVar(&source, "source", "", "node (the log on the data volume) or boot")
	tail.Flags().StringVar(&file, "file", "", "a log file instead of the node's")
	return group("log", "The node's log", tail)
}

func (a *app) fetchLog(ctx context.Context, p spec.ListLogsParams) error {
	ans, err := call[spec.LogList](a, func(c *client) (*http.Response, error) { return c.ListLogs(ctx, &p) })
	if err != nil {
		return err
	}
	return a.showLog(ans.value.Items)
}

func logFilter(f *qvlog.Filter, level, grep string, last time.Duration) error {
	if level != "" {
		l, err := qvlog.ParseLevel(level)
		if err != nil {
			return err
		}
		f.Level = slog.Leveler(l)
	}
	if last > 0 {
		f.Since = time.Now().Add(-last)
	}
	if grep != "" {
		re, err := regexp.Compile(grep)
		if err != nil {
			return fmt.Errorf("--grep: %w", err)
		}
		f.Grep = re
	}
	return nil
}

func (a *app) printLog(file string, f qvlog.Filter) error {
	records, err := qvlog.Read(file, f)
	if err != nil {
		return err
	}
	if records == nil {
		records = []qvlog.Record{}
	}
	return a.showLog(records)
}

func (a *app) showLog(records []qvlog.Record) error {
	return a.show(records, func(w io.Writer) {
		for _, r := range records {
			io.WriteString(w, r.Text()+"\n")
		}
	})
}
