package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"quantavirt/internal/qverr"
	"quantavirt/internal/version"
)

// Env is what a command sees of the world.
type Env struct {
	In       io.Reader
	Out, Err io.Writer
	Getenv   func(string) string
}

// OS is the process's own environment.
func OS() Env {
	return Env{In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Getenv: os.Getenv}
}

// Main runs one command and returns its exit code. SIGINT and SIGTERM end it in
// order.
func Main(args []string, env Env) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return Run(ctx, args, env)
}

// Run is Main without signals.
func Run(ctx context.Context, args []string, env Env) int {
	a := &app{Env: env}
	root := a.root()
	root.SetArgs(negativeNumbers(args))
	root.SetIn(env.In)
	root.SetOut(env.Out)
	root.SetErr(env.Err)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	fmt.Fprintln(env.Err, qverr.Line(err))
	return qverr.ExitCode(err)
}

// app is one run of the command line.
type app struct {
	Env
	host, token, pin string
	output           string
	quiet, noWait    bool

	api *client // made by the first command that needs it
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:                        "quantavirt",
		Short:                      "Manage a QuantaVirt node and its virtual machines",
		Long:                       rootHelp,
		SilenceErrors:              true,
		SilenceUsage:               true,
		Args:                       cobra.ArbitraryArgs,
		RunE:                       showHelp,
		SuggestionsMinimumDistance: 2,
		CompletionOptions:          cobra.CompletionOptions{HiddenDefaultCmd: false},
		PersistentPreRunE:          func(*cobra.Command, []string) error { return a.checkOutput() },
	}
	f := root.PersistentFlags()
	f.StringVar(&a.host, "host", "", "node: https://HOST[:PORT], vsock://CID[:PORT] or unix://PATH (env QUANTAVIRT_HOST)")
	f.StringVar(&a.token, "token", "", "API token (better: env QUANTAVIRT_TOKEN or the settings file)")
	f.StringVar(&a.pin, "ca-pin", "", "trust the node's authority with this fingerprint, sha256:HEX, or in this PEM file (env QUANTAVIRT_CA)")
	f.StringVarP(&a.output, "output", "o", "table", "form of the output: table, json or yaml")
	f.BoolVarP(&a.quiet, "quiet", "q", false, "no progress on stderr")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return usage(cmd, err) })
	root.AddCommand(a.vmCmd(), a.networkCmd(), a.imageCmd(), a.diskCmd(), a.cryptoCmd(),
		a.systemCmd(), a.taskCmd(), a.logCmd(), a.attestCmd(), a.apiCmd(), a.versionCmd())
	_ = root.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"table", "json", "yaml"}, cobra.ShellCompDirectiveNoFileComp))
	return root
}

const rootHelp = `quantavirt manages a QuantaVirt node and its virtual machines.

Which node: --host, else QUANTAVIRT_HOST, else "host" of the settings file, else the
node it runs on (unix:///var/run/quantavirt/api.sock). A node on the network is reached
with TLS and must be known by the fingerprint of its authority, which it shows on its
console: --ca-pin, QUANTAVIRT_CA or the settings file.

The settings file is QUANTAVIRT_CONFIG or ~/.config/quantavirt/config.json:
  {"host": "https://10.0.0.7", "hosts": {"https://10.0.0.7": {"ca": "sha256:…", "token": "qv_…"}}}`

func (a *app) versionCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Show the version of this command",
		Args:  noArgs,
		RunE: func(*cobra.Command, []string) error {
			return a.show(map[string]string{"version": version.Version}, func(w io.Writer) { fmt.Fprintln(w, "quantavirt", version.Version) })
		},
	}
}

// group makes a noun: a command that only has verbs.
func group(use, short string, verbs ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short, Args: cobra.ArbitraryArgs, RunE: showHelp, SuggestionsMinimumDistance: 2}
	c.AddCommand(verbs...)
	return c
}

// showHelp is what a noun without a verb does; an unknown verb is an error.
func showHelp(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return cmd.Help()
	}
	err := qverr.New(qverr.Inval, "unknown command %q for %q", args[0], cmd.CommandPath())
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		return err.WithHint("did you mean %s?", strings.Join(near, " or "))
	}
	return err.WithHint("see %s --help", cmd.CommandPath())
}

// usage reports wrong arguments.
func usage(cmd *cobra.Command, err error) error {
	return qverr.New(qverr.Inval, "%w", err).WithHint("usage: %s", cmd.UseLine())
}

func noArgs(cmd *cobra.Command, args []string) error { return exactArgs(0)(cmd, args) }

func exactArgs(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != n {
			return usage(cmd, fmt.Errorf("%d arguments instead of %d", len(args), n))
		}
		return nil
	}
}

func minArgs(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < n {
			return usage(cmd, fmt.Errorf("%d arguments, at least %d are needed", len(args), n))
		}
		return nil
	}
}

var negative = lazyregexp(`^-[0-9]+$`)

// negativeNumbers keeps the flag parser from reading the -3 of "error-lookup -3"
// as a flag: it goes behind "--".
func negativeNumbers(args []string) []string {
	at := slices.Index(args, "error-lookup")
	if at < 0 || slices.Contains(args, "--") {
		return args
	}
	var rest, numbers []string
	for _, s := range args[at+1:] {
		if negative().MatchString(s) {
			numbers = append(numbers, s)
		} else {
			rest = append(rest, s)
		}
	}
	if len(numbers) == 0 {
		return args
	}
	out := append(slices.Clone(args[:at+1]), rest...)
	return append(append(out, "--"), numbers...)
}

// interrupted says that the user ended the wait for a task, not the task.
func interrupted(ctx context.Context) bool { return errors.Is(ctx.Err(), context.Canceled) }
