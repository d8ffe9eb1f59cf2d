package daemon

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"quantavirt/appliance/api"
	"quantavirt/appliance/api/spec"
	"quantavirt/appliance/auth"
	"quantavirt/appliance/backup"
	"quantavirt/appliance/crypto"
	"quantavirt/appliance/event"
	"quantavirt/appliance/firstboot"
	"quantavirt/appliance/hostpci"
	"quantavirt/appliance/install"
	"quantavirt/appliance/listen"
	"quantavirt/appliance/network"
	"quantavirt/appliance/storage"
	"quantavirt/appliance/store"
	"quantavirt/appliance/system"
	"quantavirt/appliance/task"
	"quantavirt/appliance/trust"
	"quantavirt/appliance/update"
	"quantavirt/appliance/vm"
	"quantavirt/internal/initapi"
	"quantavirt/internal/qverr"
	"quantavirt/internal/qvlog"
	"quantavirt/internal/secret"
)

const (
	logSize = 16 << 20
	// endTime bounds what the daemon does after its VMs are stopped.
	endTime = 5 * time.Second
	// kvmTime is how long a start waits for PID 1 to have looked for KVM.
	kvmTime = 20 * time.Second
)

// Main runs the daemon with the arguments after "quantavirt daemon" and
// returns its exit status.
func Main(args []string) int {
	o, err := parse(args, os.Stderr)
	if err != nil {
		return report(os.Stderr, err)
	}
	// Before anything secret is read.
	o.memory, o.memoryErr = secret.Harden()
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGINT)
	if err := Run(o, os.Stderr, signals); err != nil {
		return report(os.Stderr, err)
	}
	return 0
}

func report(w io.Writer, err error) int {
	_, _ = fmt.Fprintln(w, qverr.Line(err))
	return qverr.ExitCode(err)
}

// daemon is everything that runs.
type daemon struct {
	o       options
	base    *slog.Logger
	log     *slog.Logger // the daemon's own
	ring    *qvlog.Ring
	db      *store.DB
	bus     *event.Bus
	tasks   *task.Manager
	tokens  *auth.Tokens
	ca      *auth.Authority
	storage *storage.Service
	net     *network.Service
	vms     *vm.Service
	pci     *hostpci.Service
	crypto  *crypto.Service
	sys     *system.Service
	update  *update.Service
	backup  *backup.Service
	trust   *trust.Service
	init    *initapi.Client // nil on an ordinary host
	config  *firstboot.Service
	install *install.Service
	console *console
	server  *api.Server

	policy atomic.Pointer[auth.Policy]
	tls    atomic.Pointer[tls.Config]

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	failed chan error    // a listener that ended by itself
	again  chan struct{} // closed when PID 1 is to start the daemon anew

	booted     chan struct{} // closed when PID 1's boot steps are known
	configured chan struct{} // closed when it is known whether the node has a configuration
}

// Run runs the daemon until a signal comes or it cannot go on.
func Run(o options, logTo io.Writer, signals <-chan os.Signal) error {
	d := &daemon{
		o: o, bus: &event.Bus{}, failed: make(chan error, 4), again: make(chan struct{}), booted: make(chan struct{}),
		configured: make(chan struct{}),
	}
	d.ctx, d.cancel = context.WithCancel(context.Background())
	defer d.cancel()
	boot, err := d.dataVolume(signals)
	if err != nil {
		return err
	}
	if err := d.openLog(logTo); err != nil {
		return err
	}
	defer func() { _ = d.ring.Close() }()
	if err := d.finishRestore(); err != nil {
		d.log.Error("start", "err", err)
		return err
	}
	networks, token, err := d.open(boot)
	if err != nil {
		d.log.Error("start", "err", err)
		return err
	}
	if err := d.serve(boot); err != nil {
		d.log.Error("start", "err", err)
		return errors.Join(err, d.close())
	}
	d.spawn(func() { d.bringUp(boot, networks, token) })
	var end error
	select {
	case sig := <-signals:
		d.log.Info("the daemon ends", "signal", sig.String())
		if sig == syscall.SIGTERM {
			d.stopGuests(signals)
		}
	case <-d.again:
		d.log.Info("the daemon ends to be started again")
	case end = <-d.failed:
		d.log.Error("the daemon ends", "err", end)
	}
	return errors.Join(end, d.close())
}

func (d *daemon) spawn(fn func()) {
	d.wg.Go(fn)
}

func (d *daemon) openLog(to io.Writer) error {
	level, err := qvlog.ParseLevel(d.o.logLevel)
	if err != nil {
		return err
	}
	d.ring, err = qvlog.OpenRing(d.logPath(), logSize)
	if err != nil {
		return err
	}
	d.base = qvlog.New(to, qvlog.Options{Level: level, Ring: d.ring})
	d.log = d.logger("daemon")
	if d.o.memoryErr != nil {
		d.log.Warn("secrets in memory are not fully protected", "err", d.o.memoryErr)
	}
	return nil
}

func (d *daemon) logger(subsystem string) *slog.Logger {
	return d.base.With(qvlog.KeySubsystem, subsystem)
}

// dataVolume waits until the data directory is what it will be. A signal ends the
// daemon meanwhile.
func (d *daemon) dataVolume(signals <-chan os.Signal) (boot initapi.Boot, err error) {
	if d.o.noInit {
		return system.Started(d.ctx, nil, d.o.dataDir)
	}
	d.init = initapi.NewClient(d.o.initSock)
	done := make(chan struct{})
	go func() {
		defer close(done)
		boot, err = system.Started(d.ctx, d.init, d.o.dataDir)
	}()
	select {
	case <-done:
	case sig := <-signals:
		d.cancel()
		<-done
		err = qverr.New(qverr.Again, "%s while the data volume was waited for", sig)
	}
	return boot, err
}

// open makes all services. The uplink, the authority and all else do not depend
// on each other.
func (d *daemon) open(boot initapi.Boot) (networks <-chan struct{}, token string, err error) {
	d.console = &console{init: d.init, out: d.o.out}
	d.openNetwork(boot)
	var authority sync.WaitGroup
	var authorityErr error
	authority.Go(func() { d.ca, authorityErr = auth.OpenAuthority(filepath.Join(d.o.dataDir, "keystore")) })
	networks, token, err = d.openStore(boot)
	authority.Wait()
	return networks, token, errors.Join(err, authorityErr)
}

// openStore opens the store and what stands on it. The networks are brought up as
// soon as their leases are there; the channel is closed when they are.
func (d *daemon) openStore(boot initapi.Boot) (networks <-chan struct{}, token string, err error) {
	if d.db, err = store.Open(d.statePath(), system.First); err != nil {
		return nil, "", err
	}
	if err := d.openConfiguration(boot); err != nil {
		return nil, "", err
	}
	done := make(chan struct{})
	d.spawn(func() { defer close(done); d.startNetwork(boot.Options) })
	if err := d.services(boot); err != nil {
		return nil, "", err
	}
	token, err = d.openTokens(boot.Options)
	return done, token, err
}

// openTokens returns the secret of the first token when it makes one.
func (d *daemon) openTokens(options map[string]string) (string, error) {
	var err error
	if d.tokens, err = auth.OpenTokens(d.db); err != nil {
		return "", err
	}
	if hash := options["token-hash"]; hash != "" {
		if err := d.tokens.Trust(hash); err != nil {
			d.log.Error("quantavirt.token-hash is ignored", "err", err)
		}
	}
	d.config.Tokens(d.tokens)
	if d.config.Pending() {
		return "", nil
	}
	return d.firstToken()
}

// firstToken makes one if the node has none.
func (d *daemon) firstToken() (string, error) {
	if !d.tokens.Empty() {
		return "", nil
	}
	first, err := d.tokens.Create("made at first boot", spec.TokenRoleAdmin, 0, spec.TokenOriginFirstBoot)
	return first.Token, err
}

// openNetwork begins with the uplink: its server may take its time.
func (d *daemon) openNetwork(boot initapi.Boot) {
	hostname, _ := os.Hostname()
	resolv := "/etc/resolv.conf"
	if d.o.noInit {
		resolv = ""
	}
	d.net = network.New(network.Options{
		Log: d.logger("network"), Off: d.o.noNetwork, RunDir: d.o.runDir, ResolvConf: resolv, Hostname: hostname, DataDir: d.o.dataDir,
		BootCard: d.bootCard(), BootFile: d.bootFile,
	})
	// A node that has no state yet has no configuration that says otherwise.
	if _, err := os.Stat(d.statePath()); errors.Is(err, fs.ErrNotExist) {
		d.net.Connect(boot.Options)
	}
}

func (d *daemon) statePath() string { return filepath.Join(d.o.dataDir, "state.db") }

// serve opens the listeners. On the network and on the local socket the daemon
// must be heard; vsock may come later, with its module.
func (d *daemon) serve(boot initapi.Boot) error {
	d.setPolicy(boot.Options)
	d.nameNode()
	d.server = api.New(api.Deps{
		Log: d.logger("api"), Schema: d.vms.Schema, Tokens: d.tokens, Tasks: d.tasks, VMs: d.vms,
		Storage: d.storage, Networks: d.net, Crypto: d.crypto, PCI: d.pci, System: d.sys, Install: d.install, Update: d.update, Trust: d.trust,
		Logs: d.logs(), Backup: d.backup, Support: d.supportBundles(),
	})
	local, err := listen.Unix(d.o.runDir)
	if err != nil {
		return err
	}
	d.listen(local)
	if d.o.listen == "" {
		return nil
	}
	remote, err := d.listenTLS(d.tlsConfig())
	if err != nil {
		return err
	}
	d.listen(remote)
	return nil
}

func (d *daemon) listenTLS(config *tls.Config) (net.Listener, error) {
	l, err := listen.TLS(d.o.listen, config)
	if err == nil {
		d.o.listen = l.Addr().String() // port 0 becomes a real one
	}
	return l, err
}

func (d *daemon) listen(l net.Listener) {
	d.log.Info("the API is served", "on", l.Addr().Network()+" "+l.Addr().String())
	d.spawn(func() {
		if err := d.server.Serve(l); err != nil {
			d.failed <- err
		}
	})
}

func (d *daemon) listenVsock() bool {
	l, err := listen.Vsock(uint32(d.o.vsockPort))
	if err != nil {
		d.log.Warn("no API over vsock", "err", err)
		return false
	}
	d.listen(l)
	return true
}

// nameNode gives the server certificate the names and addresses of the moment.
func (d *daemon) nameNode() { d.ca.SetNames(d.sys.Names()) }

// stopGuests lets the VMs end because the node goes down. A second SIGTERM
// ends the patience.
func (d *daemon) stopGuests(signals <-chan os.Signal) {
	d.sys.SetReady(qverr.New(qverr.Again, "the node goes down"))
	ctx, cancel := context.WithTimeout(d.ctx, d.o.stopTime)
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		d.vms.Shutdown(ctx)
	}()
	for {
		select {
		case <-done:
			return
		case sig := <-signals:
			if sig == syscall.SIGTERM {
				cancel()
			}
		}
	}
}

// close ends everything but the VMs.
func (d *daemon) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), endTime)
	defer cancel()
	d.cancel()
	if d.server != nil {
		d.server.Shutdown(ctx)
	}
	d.vms.Close()
	d.tasks.Close(ctx)
	d.pci.Close()
	err := d.net.Close()
	// The card is given back when nobody asks it any more. What hangs does not
	// keep the daemon: the state file is sound after every update.
	idle := make(chan struct{})
	go func() { d.wg.Wait(); close(idle) }()
	select {
	case <-idle:
	case <-ctx.Done():
		d.log.Warn("something does not end and is left behind")
	}
	return errors.Join(err, d.crypto.Close(), d.db.Close())
}
