package cli

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"quantavirt/appliance/api/spec"
)

func (a *app) cryptoCmd() *cobra.Command {
	return group("crypto", "Post-quantum cryptography, keys and the QUAC 100",
		a.keyCmd(), a.keystoreCmd(), a.signCmd(), a.verifyCmd(), a.encapsCmd(), a.decapsCmd(), a.qrngCmd(), a.quac100Cmd(), a.benchCmd())
}

func (a *app) qrngCmd() *cobra.Command {
	status := &cobra.Command{
		Use: "status", Short: "Show where randomness comes from", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ans, err := call[spec.QRNG](a, func(c *client) (*http.Response, error) { return c.GetQRNG(cmd.Context()) })
			if err != nil {
				return err
			}
			return a.print(ans.raw, func(w io.Writer) {
				q := ans.value
				row(w, "Provider", q.Provider)
				row(w, "QRNG", available(q.Available))
				if q.Available {
					row(w, "Healthy", yes(q.Healthy))
					row(w, "Pool", size(int64(q.PoolBytes)))
					row(w, "Delivered", size(q.DeliveredBytes))
				}
				if q.Problem.Code != 0 {
					row(w, "Problem", problem(q.Problem))
					row(w, "Recovery", q.Problem.Recovery)
				}
			})
		},
	}
	return group("qrng", "Random numbers", status, a.qrngReadCmd())
}

func (a *app) qrngReadCmd() *cobra.Command {
	var n int
	var file string
	cmd := &cobra.Command{
		Use: "read [--bytes N] [--file FILE]", Short: "Read random bytes of the node, in hexadecimal", Args: noArgs,
		Example: "  quantavirt crypto qrng read --bytes 64\n  quantavirt crypto qrng read --bytes 4096 --file noise.bin",
		RunE: func(cmd *cobra.Command, _ []string) error {
			ans, err := call[spec.RandomBytes](a, func(c *client) (*http.Response, error) {
				return c.ReadRandom(cmd.Context(), &spec.ReadRandomParams{Bytes: n})
			})
			if err != nil {
				return err
			}
			if file != "" {
				return a.wrote(file, ans.value.Data, "random bytes of "+ans.value.Provider)
			}
			return a.print(ans.raw, func(w io.Writer) { fmt.Fprintf(w, "%x\n", ans.value.Data) })
		},
	}
	cmd.Flags().IntVar(&n, "bytes", 32, "how many, 1 to 65536")
	cmd.Flags().StringVar(&file, "file", "", "a file to make, with the bytes themselves")
	return cmd
}

func (a *app) quac100Cmd() *cobra.Command {
	get := func(cmd *cobra.Command) (answer[spec.QUAC100], error) {
		return call[spec.QUAC100](a, func(c *client) (*http.Response, error) { return c.GetQUAC100(cmd.Context()) })
	}
	list := &cobra.Command{
		Use: "list", Short: "List the QUAC 100 cards", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ans, err := get(cmd)
			if err != nil {
				return err
			}
			return a.print(ans.raw, func(w io.Writer) {
				row(w, "ADDRESS", "SERIAL", "FIRMWARE", "SELF-TEST", "HEALTH", "PROBLEM")
				for _, c := range ans.value.Cards {
					row(w, c.Address, c.Serial, c.Firmware, c.SelfTest, first(c.Health, yes(c.Healthy)), c.Problem.Name)
				}
			})
		},
	}
	status := &cobra.Command{
		Use: "status", Short: "Show the QUAC 100 cards", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ans, err := get(cmd)
			if err != nil {
				return err
			}
			return a.print(ans.raw, func(w io.Writer) {
				row(w, "Provider", ans.value.Provider)
				for _, c := range ans.value.Cards {
					cardTable(w, c)
				}
			})
		},
	}
	test := a.cardAction("self-test", "Run all self-tests of a card", func(cmd *cobra.Command, c *client, address string) (*http.Response, error) {
		return c.TestQUAC100(cmd.Context(), address)
	})
	reset := a.cardAction("reset", "Reset a card; its work is done elsewhere meanwhile", func(cmd *cobra.Command, c *client, address string) (*http.Response, error) {
		return c.ResetQUAC100(cmd.Context(), address)
	})
	return group("quac100", "QUAC 100 cards", list, status, test, reset, a.cardStatsCmd(), a.cardUpdateCmd())
}

func (a *app) cardStatsCmd() *cobra.Command {
	return &cobra.Command{
		Use: "stats [ADDRESS]", Short: "Show what the driver of a card counted", Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			address, err := a.cardAddress(cmd, args)
			if err != nil {
				return err
			}
			ans, err := call[map[string]any](a, func(c *client) (*http.Response, error) { return c.GetQUAC100Stats(cmd.Context(), address) })
			if err != nil {
				return err
			}
			return a.print(ans.raw, func(w io.Writer) { counterTable(w, "", ans.value) })
		},
	}
}

// counterTable prints counters by name, and those below a name behind it.
func counterTable(w io.Writer, prefix string, counters map[string]any) {
	for _, name := range slices.Sorted(maps.Keys(counters)) {
		switch v := counters[name].(type) {
		case map[string]any:
			counterTable(w, prefix+name+".", v)
		case float64:
			row(w, prefix+name, fmt.Sprintf("%.0f", v))
		default:
			row(w, prefix+name, v)
		}
	}
}

func (a *app) cardUpdateCmd() *cobra.Command {
	var address string
	cmd := a.addNoWait(&cobra.Command{
		Use: "fw-update IMAGE [--card ADDRESS]", Short: "Give a card new firmware", Args: exactArgs(1),
		Long: `Writes the image beside the firmware that runs, resets the card, runs its self-tests and keeps the image. A card whose
new firmware does not start or fails a test goes back to the old one. Software serves meanwhile.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			var list []string
			if address != "" {
				list = []string{address}
			}
			card, err := a.cardAddress(cmd, list)
			if err != nil {
				return err
			}
			up, err := a.openUpload(args[0], "firmware")
			if err != nil {
				return err
			}
			defer up.close()
			return a.act(cmd.Context(), "firmware of card "+card, func(c *client) (*http.Response, error) {
				resp, err := c.UpdateQUAC100WithBody(cmd.Context(), card, &spec.UpdateQUAC100Params{}, "application/octet-stream", up.body, up.edit)
				up.bar.end()
				return resp, err
			})
		},
	})
	cmd.Flags().StringVar(&address, "card", "", "address of the card, if the node has several")
	return cmd
}

// cardAction is a verb for the card at an address, or the only one of the node.
func (a *app) cardAction(verb, short string, do func(*cobra.Command, *client, string) (*http.Response, error)) *cobra.Command {
	return &cobra.Command{
		Use: verb + " [ADDRESS]", Short: short, Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			address, err := a.cardAddress(cmd, args)
			if err != nil {
				return err
			}
			ans, err := call[spec.Card](a, func(c *client) (*http.Response, error) { return do(cmd, c, address) })
			if err != nil {
				return err
			}
			return a.print(ans.raw, func(w io.Writer) { cardTable(w, ans.value) })
		},
	}
}

func (a *app) cardAddress(cmd *cobra.Command, args []string) (string, error) {
	if len(args) > 0 {
		return args[0], nil
	}
	ans, err := call[spec.QUAC100](a, func(c *client) (*http.Response, error) { return c.GetQUAC100(cmd.Context()) })
	if err != nil {
		return "", err
	}
	if n := len(ans.value.Cards); n != 1 {
		return "", usage(cmd, fmt.Errorf("the node has %d cards: say which by its address", n))
	}
	return ans.value.Cards[0].Address, nil
}

func (a *app) benchCmd() *cobra.Command {
	var in spec.BenchRequest
	var each time.Duration
	cmd := &cobra.Command{
		Use: "bench [ALGORITHM...]", Short: "Measure how fast the node does post-quantum cryptography",
		Long: `Measures operations per second on the node, one at a time, by the provider that serves now. Without
algorithms those of ML-KEM and ML-DSA are measured.`,
		Example: "  quantavirt crypto bench\n  quantavirt crypto bench ML-KEM-768 SLH-DSA-SHA2-128f --duration 500ms",
		RunE: func(cmd *cobra.Command, args []string) error {
			in.DurationMs = int(each.Milliseconds())
			for _, name := range args {
				in.Algorithms = append(in.Algorithms, named(name))
			}
			ans, err := call[spec.BenchResult](a, func(c *client) (*http.Response, error) { return c.BenchCrypto(cmd.Context(), in) })
			if err != nil {
				return err
			}
			return a.print(ans.raw, func(w io.Writer) {
				row(w, "ALGORITHM", "OPERATION", "PER SECOND", "TIME EACH")
				for _, i := range ans.value.Items {
					each := time.Duration(i.Nanoseconds / max(i.Operations, 1))
					row(w, i.Algorithm, i.Operation, fmt.Sprintf("%.0f", float64(i.Operations)/(float64(i.Nanoseconds)/1e9)), threeDigits(each))
				}
				row(w, "Provider: "+ans.value.Provider)
			})
		},
	}
	cmd.Flags().DurationVar(&each, "duration", 100*time.Millisecond, "how long each operation is repeated, 1ms to 1s")
	return cmd
}

// threeDigits is a time as exact as it was measured.
func threeDigits(d time.Duration) time.Duration {
	unit := time.Duration(1)
	for d/unit >= 1000 {
		unit *= 10
	}
	return d.Round(unit)
}

func cardTable(w io.Writer, c spec.Card) {
	row(w, "Card", c.Address)
	row(w, "  IOMMU group", c.IOMMUGroup)
	row(w, "  Bound to vfio-pci", yes(c.Bound))
	if c.VM != "" {
		row(w, "  Given to VM", c.VM)
	}
	if c.Serial != "" {
		row(w, "  Serial", c.Serial)
		row(w, "  Hardware", c.Hardware)
		row(w, "  Firmware", c.Firmware)
		row(w, "  Self-test", c.SelfTest)
		row(w, "  Health", first(c.Health, yes(c.Healthy)))
	}
	if c.TemperatureC != nil {
		row(w, "  Temperature", fmt.Sprintf("%.1f °C", *c.TemperatureC))
	}
	if c.Problem.Code != 0 {
		row(w, "  Problem", problem(c.Problem))
		row(w, "  Recovery", c.Problem.Recovery)
	}
}

func available(b bool) string {
	if b {
		return "available"
	}
	return "not available"
}
