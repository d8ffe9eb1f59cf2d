package daemon

import (
	"cmp"
	"crypto/tls"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"quantavirt/appliance/api/spec"
	"quantavirt/appliance/auth"
	"quantavirt/appliance/firstboot"
	"quantavirt/appliance/medium"
	"quantavirt/appliance/network"
	"quantavirt/internal/initapi"
	"quantavirt/internal/nodeconfig"
	"quantavirt/internal/qverr"
	"quantavirt/netstack"
)

// openConfiguration finds the node's configuration as far as that needs no
// network. It comes before all services, which are made as it says.
func (d *daemon) openConfiguration(boot initapi.Boot) error {
	o := firstboot.Options{Log: d.logger("configuration"), Medium: d.configurationFile}
	if nodeconfig.CheckURL(d.o.config) == nil {
		o.URL = d.o.config
	}
	if d.init != nil {
		var err error
		if boot, err = d.init.BootStep(d.ctx, "boot-medium"); err != nil {
			return err
		}
		o.URL = cmp.Or(boot.Options["config"], o.URL)
		o.Machine = nodeconfig.Machine{Sys: "/sys"}
		if boot.Medium == mediumPXE {
			o.Ask = d.net.AskConfiguration
		}
		if boot.ESPDevice != "" {
			o.Medium = func() (*nodeconfig.Found, error) { return onMedium(boot.ESPDevice) }
		}
	}
	var err error
	if d.config, err = firstboot.Open(d.db, o); err != nil {
		return err
	}
	if !d.config.Pending() {
		close(d.configured)
	}
	d.useHostname(boot.Options)
	return nil
}

// mediumPXE is PXE and HTTP boot, as PID 1 calls it.
const mediumPXE = "pxe"

// configurationFile is the document on an ordinary host, or where the node has
// no boot medium.
func (d *daemon) configurationFile() (*nodeconfig.Found, error) {
	if d.o.config == "" || nodeconfig.CheckURL(d.o.config) == nil {
		return nil, nil
	}
	data, err := os.ReadFile(d.o.config)
	if err != nil {
		return nil, qverr.New(qverr.CodeOf(err), "read the configuration: %w", err)
	}
	return &nodeconfig.Found{Source: nodeconfig.FromMedium, Place: d.o.config, Data: data}, nil
}

func onMedium(device string) (found *nodeconfig.Found, err error) {
	err = medium.With(device, false, func(dir string) error {
		found, err = nodeconfig.Medium(dir)
		return err
	})
	if found != nil {
		found.Place = device + ":/" + nodeconfig.FileName
	}
	return found, err
}

// useHostname gives the node the name of its configuration, unless the command
// line names it.
func (d *daemon) useHostname(options map[string]string) {
	name := d.config.Document().Hostname
	if name == "" || options["hostname"] != "" || d.init == nil {
		return
	}
	if err := unix.Sethostname([]byte(name)); err != nil {
		d.log.Error("set the host name", "err", err)
	}
}

// bootCard is the network card that the node was booted from, zero for none.
func (d *daemon) bootCard() netstack.MAC {
	if d.init == nil {
		return netstack.MAC{}
	}
	boot, err := d.init.BootStep(d.ctx, "boot-loader")
	if err != nil {
		d.log.Warn("PID 1 does not say what the node was booted from", "err", err)
	}
	return network.Card(boot)
}

// startNetwork brings the network up as configuration and command line say. The
// networks wait until PID 1 has loaded their modules, so that the kernel does not
// look for them by itself.
func (d *daemon) startNetwork(options map[string]string) {
	doc := d.config.Document()
	d.config.Report(d.net.Configure(doc.Management, doc.Networks)...)
	d.net.Connect(options)
	if d.init != nil {
		if _, err := d.init.BootStep(d.ctx, "network"); err != nil && d.ctx.Err() == nil {
			d.log.Warn("PID 1's modules for the network", "err", err)
		}
	}
	if err := d.net.Start(d.ctx, d.db, options); err != nil {
		d.log.Error("the network is not as wanted", "err", err)
	}
}

// fetchConfiguration asks a server for the configuration, if there is one to
// ask, and applies what it gives. A node that had none makes its first token
// only then.
func (d *daemon) fetchConfiguration(options map[string]string) {
	pending := d.config.Pending()
	changed, err := d.config.Fetch(d.ctx)
	if d.ctx.Err() != nil {
		return
	}
	if err != nil {
		d.log.Error("configuration", "err", err)
	}
	if changed {
		d.useHostname(options)
		d.setPolicy(options)
		d.config.Tokens(d.tokens)
		d.startNetwork(options)
		d.nameNode()
	}
	token := ""
	if pending {
		if token, err = d.firstToken(); err != nil {
			d.log.Error("make the first token", "err", err)
		}
		close(d.configured)
	}
	if changed || token != "" {
		d.showBanner(token)
	}
	if changed && !pending {
		d.makeConfigured()
	}
}

// makeConfigured makes images, disks and VMs of a configuration that was taken.
func (d *daemon) makeConfigured() {
	if err := d.config.Make(d.ctx, d.tasks, d.storage, d.vms); err != nil && d.ctx.Err() == nil {
		d.log.Error("configuration", "err", err)
	}
}

// timeServers are those of the kernel command line, of the configuration, or a
// public pool.
func (d *daemon) timeServers(options map[string]string) []string {
	switch v := options["ntp"]; v {
	case "off":
		return nil
	case "":
	default:
		return strings.Split(v, ",")
	}
	if servers := d.config.Document().NTP; servers != nil {
		return *servers
	}
	return []string{"pool.ntp.org"}
}

// setPolicy makes the TLS policy that of the flag, the command line or the
// configuration, for connections from now on.
func (d *daemon) setPolicy(options map[string]string) {
	policy, err := d.o.policy(options, d.config.Document().TLSPolicy)
	if err != nil {
		d.log.Error("TLS policy", "err", err)
	}
	d.policy.Store(&policy)
	d.tls.Store(d.ca.TLSConfig(policy))
}

// tlsConfig takes the policy of the moment for each connection.
func (d *daemon) tlsConfig() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS13, GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return d.tls.Load(), nil }}
}

func (d *daemon) tlsInfo() spec.TLSInfo {
	policy := *d.policy.Load()
	info := spec.TLSInfo{Policy: policy, CaFingerprint: d.ca.Fingerprint()}
	for _, c := range auth.Curves(policy) {
		info.KeyExchanges = append(info.KeyExchanges, c.String())
	}
	return info
}

// maxShown bounds the problems that stand on the consoles.
const maxShown = 4

// wrongLines say on the consoles what is wrong with the configuration.
func wrongLines(problems []initapi.Problem) []string {
	var lines []string
	for i, p := range problems {
		if i == maxShown {
			lines = append(lines, fmt.Sprintf("quantavirt: and %d problems more of the configuration: quantavirt system info", len(problems)-i))
			break
		}
		lines = append(lines, fmt.Sprintf("quantavirt: %s (%d): configuration: %s", p.Name, p.Code, p.Message))
	}
	return lines
}
