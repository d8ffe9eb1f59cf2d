package cli

import (
	"fmt"
	"io"
	"net/http"

	"github.com/spf13/cobra"

	"quantavirt/appliance/api/spec"
)

func (a *app) cryptoCmd() *cobra.Command {
	qrng := &cobra.Command{
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
	card := &cobra.Command{
		Use: "status", Short: "Show the QUAC 100 cards", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ans, err := call[spec.QUAC100](a, func(c *client) (*http.Response, error) { return c.GetQUAC100(cmd.Context()) })
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
	return group("crypto", "Post-quantum cryptography and the QUAC 100",
		group("qrng", "Random numbers", qrng), group("quac100", "QUAC 100 cards", card))
}

func cardTable(w io.Writer, c spec.Card) {
	row(w, "Card", c.Address)
	row(w, "  IOMMU group", c.IOMMUGroup)
	row(w, "  Bound to vfio-pci", yes(c.Bound))
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
