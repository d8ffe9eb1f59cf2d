package cli

import (
	"fmt"
	"io"
	"log/slog"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"quantavirt/internal/qverr"
	"quantavirt/internal/qvlog"
)

// nodeLog is the daemon's log on the node's data volume.
const nodeLog = "/var/lib/quantavirt/logs/quantavirt.log"

// logCmd reads the ring file itself, so it also works when the daemon does not,
// and on a data volume that was carried to another machine.
func (a *app) logCmd() *cobra.Command {
	var level, grep, file string
	var f qvlog.Filter
	var last time.Duration
	tail := &cobra.Command{
		Use: "tail", Short: "Show the node's log, oldest first", Args: noArgs,
		Long:    "Show the log of the node that this command runs on, or of the ring file that --file names.",
		Example: "  quantavirt log tail --level error --last 1h\n  quantavirt log tail --grep 'PQC_ERR' --last 24h",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if file == "" {
				t, err := a.target()
				if err != nil {
					return err
				}
				if !strings.HasPrefix(t.name, "unix://") {
					return qverr.New(qverr.Unsupported, "the log of %s can only be read on the node itself", t.name)
				}
				file = nodeLog
			}
			if err := logFilter(&f, level, grep, last); err != nil {
				return usage(cmd, err)
			}
			return a.printLog(file, f)
		},
	}
	tail.Flags().StringVar(&level, "level", "", "lowest level: debug, info, warn or error")
	tail.Flags().DurationVar(&last, "last", 0, "only this much time back, for example 1h")
	tail.Flags().StringVar(&grep, "grep", "", "only lines that this regular expression matches")
	tail.Flags().StringVar(&f.Subsystem, "subsystem", "", "only lines of one subsystem")
	tail.Flags().IntVarP(&f.Limit, "lines", "n", 0, "only the newest so many lines")
	tail.Flags().StringVar(&file, "file", "", "a log file instead of the node's")
	return group("log", "The node's log", tail)
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
	return a.show(records, func(w io.Writer) {
		for _, r := range records {
			io.WriteString(w, r.Text()+"\n")
		}
	})
}
