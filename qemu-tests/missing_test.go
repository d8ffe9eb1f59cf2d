package qemutests

import (
	"net/http"
	"strings"
	"testing"

	"quantavirt/qemu-tests/lab"
)

// What the machine lacks is said with its code, and the rest works.
func TestMissingHardware(t *testing.T) {
	for _, c := range []struct {
		name    string
		options lab.Options
		problem string
		check   func(t *testing.T, n *lab.Node, s systemInfo)
	}{
		{"no card", lab.Options{Name: "nocard", DataDisk: 256}, "", func(t *testing.T, n *lab.Node, s systemInfo) {
			if len(s.Cards) != 0 || s.CryptoProvider != "software" {
				t.Errorf("cards %+v, provider %s", s.Cards, s.CryptoProvider)
			}
			_, stderr, exit := cli(t, n, "crypto", "quac100", "status")
			if exit != 6 || !strings.HasPrefix(stderr, "Error: QUAC100_ERR_NOT_FOUND (-200): ") {
				t.Errorf("exit %d: %s", exit, stderr)
			}
			runsVM(t, n)
		}},
		{"no IOMMU", lab.Options{Name: "noiommu", IOMMU: lab.IOMMUNone, Card: true}, "QV_ERR_NOIOMMU", func(t *testing.T, n *lab.Node, s systemInfo) {
			if s.IOMMU.Available || len(s.Cards) != 1 || s.Cards[0].Bound {
				t.Errorf("IOMMU %+v, cards %+v", s.IOMMU, s.Cards)
			}
			runsVM(t, n)
		}},
		{"no KVM", lab.Options{Name: "nokvm", NoKVM: true, Card: true}, "QV_ERR_NOVMX", func(t *testing.T, n *lab.Node, s systemInfo) {
			if s.KVM.Available || s.CryptoProvider != "quac100" {
				t.Errorf("KVM %+v, provider %s", s.KVM, s.CryptoProvider)
			}
			defineVM(t, n, "cannot", nil)
			_, stderr, exit := cli(t, n, "vm", "start", "cannot")
			if exit != 6 || !strings.HasPrefix(stderr, "Error: QV_ERR_NOVMX (-3): ") {
				t.Errorf("start without KVM: exit %d: %s", exit, stderr)
			}
			if v := getVM(t, n, "cannot"); v.State != "CREATED" {
				t.Errorf("state %s after a start that was refused", v.State)
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := boot(t, c.options)
			settled(t, n)
			s := info(t, n)
			if c.problem != "" {
				if p := s.has(c.problem); p == nil || p.Recovery == "" {
					t.Errorf("want %s with its recovery among %+v", c.problem, s.Problems)
				}
			}
			c.check(t, n, s)
		})
	}
}

// runsVM starts a guest and lets it reach the outside.
func runsVM(t *testing.T, n *lab.Node) {
	t.Helper()
	defineVM(t, n, "works", nil)
	act(t, n, "works", "start")
	console := attach(t, n, "works")
	ready(t, console)
	ask(t, console, "dhcp")
	if page := ask(t, console, "get "+shared.outside.URL); page != "200 "+outsidePage {
		t.Errorf("page: %q", page)
	}
	if err := n.Call(t.Context(), http.MethodPost, "/api/v1/vms/works/stop?wait=60", map[string]any{"force": true}, nil); err != nil {
		t.Error(err)
	}
}
