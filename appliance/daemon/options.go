package daemon

import (
	"cmp"
	"flag"
	"io"
	"os"
	"path/filepath"
	"time"

	"quantavirt/appliance/api/spec"
	"quantavirt/internal/initapi"
	"quantavirt/internal/qverr"
	"quantavirt/internal/secret"
)

type options struct {
	dataDir   string
	runDir    string
	listen    string
	vsockPort uint
	noInit    bool
	noNetwork bool
	initSock  string
	hv        string
	firmware  string
	cgroup    string
	tlsPolicy string
	config    string
	logLevel  string
	stopTime  time.Duration
	out       io.Writer // where the banner goes without PID 1

	memory    secret.Protection // what holds for the memory of this process
	memoryErr error             // why that is not more
}

func parse(args []string, out io.Writer) (options, error) {
	o := options{out: os.Stdout}
	f := flag.NewFlagSet("quantavirt daemon", flag.ContinueOnError)
	f.SetOutput(out)
	f.StringVar(&o.dataDir, "data-dir", "/var/lib/quantavirt", "where state is kept")
	f.StringVar(&o.runDir, "run-dir", "/run/quantavirt", "where sockets are")
	f.StringVar(&o.listen, "listen", "0.0.0.0:9400", "address of the API on the network, empty for none")
	f.UintVar(&o.vsockPort, "vsock-port", 9400, "port of the API on vsock, 0 for none")
	f.BoolVar(&o.noInit, "no-init", false, "there is no PID 1 of QuantaVirt (an ordinary host)")
	f.BoolVar(&o.noNetwork, "no-network", false, "leave the kernel's network alone")
	f.StringVar(&o.initSock, "init-socket", initapi.Socket, "where PID 1 listens")
	f.StringVar(&o.hv, "hv", "/bin/hv", "the VM monitor")
	f.StringVar(&o.firmware, "firmware", "/lib/quantavirt/guest", "directory of the VMs' firmware")
	f.StringVar(&o.cgroup, "cgroup", "/sys/fs/cgroup/vm", "below which VMs have their cgroups; without it they have none")
	f.StringVar(&o.tlsPolicy, "tls-policy", "", "pq-only or compatible (adds X25519)")
	f.StringVar(&o.config, "config", "", "configuration for the first start (quantavirt.json), a file or a URL, where no boot medium holds it")
	f.StringVar(&o.logLevel, "log-level", "info", "debug, info, warn or error")
	f.DurationVar(&o.stopTime, "stop-time", time.Minute, "how long guests have to power off when the node goes down")
	if err := f.Parse(args); err != nil {
		return o, qverr.New(qverr.Inval, "daemon: %w", err)
	}
	if f.NArg() > 0 {
		return o, qverr.New(qverr.Inval, "daemon: unexpected argument %q", f.Arg(0))
	}
	if _, err := os.Stat(o.cgroup); err != nil {
		o.cgroup = ""
	}
	var err error
	if o.dataDir, err = filepath.Abs(o.dataDir); err == nil {
		o.runDir, err = filepath.Abs(o.runDir)
	}
	if err != nil {
		return o, qverr.New(qverr.Inval, "daemon: %w", err)
	}
	return o, nil
}

// policy picks the TLS policy: the flag, else the kernel option tls.policy,
// else that of the configuration, else the strict one.
func (o options) policy(kernel map[string]string, configured string) (spec.TLSInfoPolicy, error) {
	name := cmp.Or(o.tlsPolicy, kernel["tls.policy"], configured, string(spec.TLSInfoPolicyPQOnly))
	p := spec.TLSInfoPolicy(name)
	if !p.Valid() {
		return spec.TLSInfoPolicyPQOnly, qverr.New(qverr.Inval, "TLS policy %.32q is none of pq-only, compatible; pq-only is used", name)
	}
	return p, nil
}
