package rescue

import (
	"flag"
	"io"
	"os"
	"path/filepath"
	"time"

	"quantavirt/internal/initapi"
	"quantavirt/internal/qverr"
)

type options struct {
	dataDir   string
	runDir    string
	listen    string
	vsockPort uint
	noNetwork bool
	initSock  string
	cgroup    string
	etc       string
	self      []string // this program and its first arguments
	patience  time.Duration
}

func parse(args []string, out io.Writer) (options, error) {
	o := options{self: []string{os.Args[0], "rescue"}, patience: patience}
	f := flag.NewFlagSet("quantavirt rescue", flag.ContinueOnError)
	f.SetOutput(out)
	f.StringVar(&o.dataDir, "data-dir", "/var/lib/quantavirt", "where state is kept")
	f.StringVar(&o.runDir, "run-dir", "/run/quantavirt", "where sockets are")
	f.StringVar(&o.listen, "listen", "0.0.0.0:9400", "address of the API on the network, empty for none")
	f.UintVar(&o.vsockPort, "vsock-port", 9400, "port of the API on vsock, 0 for none")
	f.BoolVar(&o.noNetwork, "no-network", false, "leave the kernel's network alone")
	f.StringVar(&o.initSock, "init-socket", initapi.Socket, "where PID 1 listens")
	f.StringVar(&o.cgroup, "cgroup", "/sys/fs/cgroup/vm", "below which VMs have their cgroups")
	f.StringVar(&o.etc, "etc", "/etc/quantavirt", "what the image says about itself")
	if err := f.Parse(args); err != nil {
		return o, qverr.New(qverr.Inval, "rescue: %w", err)
	}
	if f.NArg() > 0 {
		return o, qverr.New(qverr.Inval, "rescue: unexpected argument %q", f.Arg(0))
	}
	return o, nil
}

// scratch is where the listener keeps what it may lose.
func (o options) scratch() string { return filepath.Join(o.runDir, "rescue") }
