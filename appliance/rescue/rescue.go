package rescue

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"quantavirt/appliance/api"
	"quantavirt/appliance/api/spec"
	"quantavirt/appliance/auth"
	"quantavirt/appliance/event"
	"quantavirt/appliance/listen"
	"quantavirt/appliance/logs"
	"quantavirt/appliance/store"
	"quantavirt/appliance/task"
	"quantavirt/appliance/update"
	"quantavirt/internal/initapi"
	"quantavirt/internal/qverr"
	"quantavirt/internal/qvlog"
	"quantavirt/internal/version"
)

const (
	// patience is how long anything is waited for that may be what broke.
	patience = 10 * time.Second
	// bootTime is how long PID 1 may still look for the data volume.
	bootTime = time.Minute
	// endTime is for answers to leave before the listener ends.
	endTime = 5 * time.Second
	// usualRetry is the time without use after which the daemon is tried again, if
	// PID 1 does not say.
	usualRetry = 5 * time.Minute
)

// Main runs the listener with the arguments after "quantavirt rescue" and returns
// its exit status: 0 to make way for the daemon.
func Main(args []string) int {
	if len(args) == 2 && args[0] == readState {
		return report(writeState(args[1], os.Stdout))
	}
	o, err := parse(args, os.Stderr)
	if err != nil {
		return report(err)
	}
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGINT)
	return report(Run(o, os.Stderr, signals))
}

func report(err error) int {
	if err == nil {
		return 0
	}
	_, _ = fmt.Fprintln(os.Stderr, qverr.Line(err))
	return qverr.ExitCode(err)
}

// rescue is everything that runs.
type rescue struct {
	o       options
	base    *slog.Logger
	log     *slog.Logger
	init    *initapi.Client
	started time.Time
	boot    initapi.Boot // as it was first heard
	policy  spec.TLSInfoPolicy
	saved   saved
	ca      *auth.Authority
	tokens  *auth.Tokens
	secret  string // of a token that was made, as none is known
	db      *store.DB
	tasks   *task.Manager
	update  *update.Service
	net     connection
	server  *api.Server

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	failed chan error
	again  chan struct{} // closed when somebody asks for the daemon
	used   chan struct{} // somebody uses the listener
	lazy
}

// Run serves until a signal comes, or it is time for the daemon.
func Run(o options, logTo io.Writer, signals <-chan os.Signal) error {
	r := &rescue{
		o: o, init: initapi.NewClient(o.initSock), started: time.Now().UTC(), base: qvlog.New(logTo, qvlog.Options{}),
		failed: make(chan error, 4), again: make(chan struct{}), used: make(chan struct{}, 1),
	}
	r.log = r.logger("rescue")
	r.ctx, r.cancel = context.WithCancel(context.Background())
	defer r.cancel()
	if err := r.open(); err != nil {
		return err
	}
	if err := r.serve(); err != nil {
		return errors.Join(err, r.close())
	}
	r.wg.Go(r.announce)
	r.wg.Go(r.startUpdate)
	return errors.Join(r.wait(signals), r.close())
}

func (r *rescue) logger(subsystem string) *slog.Logger {
	return r.base.With(qvlog.KeySubsystem, subsystem)
}

// wait returns when the listener is to end.
func (r *rescue) wait(signals <-chan os.Signal) error {
	retry := usualRetry
	if b := r.boot.Rescue; b != nil && b.RetrySeconds > 0 {
		retry = time.Duration(b.RetrySeconds) * time.Second
	}
	idle := time.NewTimer(retry)
	defer idle.Stop()
	for {
		select {
		case s := <-signals:
			r.log.Info("the rescue listener ends", "signal", s.String())
			return nil
		case err := <-r.failed:
			return err
		case <-r.again:
			r.log.Info("the rescue listener makes way for the daemon: somebody asks for it")
			return nil
		case <-r.used:
			idle.Reset(retry)
		case <-idle.C:
			if r.busy() {
				idle.Reset(retry)
				continue
			}
			r.log.Info("the rescue listener makes way for the daemon: nobody has used it", "for", retry)
			return nil
		}
	}
}

// busy says that a task runs.
func (r *rescue) busy() bool {
	return len(r.tasks.List(func(t spec.Task) bool { return !task.Final(t.State) })) > 0
}

// open gets what there is, each part in its own time.
func (r *rescue) open() error {
	ctx, cancel := context.WithTimeout(r.ctx, bootTime)
	defer cancel()
	var err error
	if r.boot, err = r.init.BootStep(ctx, "data-volume"); err != nil {
		r.log.Error("what PID 1 found", "err", err)
	}
	r.policy = spec.TLSInfoPolicy(r.boot.Options["tls.policy"])
	if !r.policy.Valid() {
		r.policy = spec.TLSInfoPolicyPQOnly
	}
	if err := os.MkdirAll(r.o.scratch(), 0o700); err != nil {
		return qverr.New(qverr.CodeOf(err), "rescue: %w", err)
	}
	var wg sync.WaitGroup
	wg.Go(r.readSaved)
	var caErr error
	wg.Go(func() { caErr = r.openAuthority() })
	wg.Go(func() { r.net.start(r) })
	wg.Wait()
	if caErr != nil {
		return caErr
	}
	if err := r.openTokens(); err != nil {
		return err
	}
	return r.openUpdate()
}

func (r *rescue) readSaved() {
	ctx, cancel := context.WithTimeout(r.ctx, r.o.patience)
	defer cancel()
	var err error
	if r.saved, err = r.o.state(ctx); err != nil {
		r.log.Error("the state file cannot be read", "err", err)
	}
}

// openAuthority takes that of the node, or one that lasts until the next boot.
func (r *rescue) openAuthority() error {
	type result struct {
		ca  *auth.Authority
		err error
	}
	got := make(chan result, 1)
	go func() { // a data volume that hangs must not keep the listener
		ca, err := auth.OpenAuthority(filepath.Join(r.o.dataDir, "keystore"))
		got <- result{ca, err}
	}()
	late := time.NewTimer(r.o.patience)
	defer late.Stop()
	select {
	case g := <-got:
		if g.err == nil {
			r.ca = g.ca
			return nil
		}
		r.log.Error("the node's authority cannot be had: another one is made", "err", g.err)
	case <-late.C:
		r.log.Error("the node's authority cannot be had: another one is made",
			"err", qverr.New(qverr.Timeout, "the data volume does not answer within %s", r.o.patience))
	}
	var err error
	r.ca, err = auth.OpenAuthority(r.o.scratch())
	return err
}

// openTokens takes the stored ones and that of the kernel command line, or makes one.
func (r *rescue) openTokens() error {
	var err error
	if r.tokens, err = auth.FixedTokens(r.saved.Tokens); err != nil {
		r.log.Error("the stored tokens are not used", "err", err)
		if r.tokens, err = auth.FixedTokens(nil); err != nil {
			return err
		}
	}
	if hash := r.boot.Options["token-hash"]; hash != "" {
		if err := r.tokens.Trust(hash); err != nil {
			r.log.Error("quantavirt.token-hash is ignored", "err", err)
		}
	}
	if !r.tokens.Empty() {
		return nil
	}
	made, err := r.tokens.Create("made for this rescue", spec.TokenRoleAdmin, 0, spec.TokenOriginFirstBoot)
	r.secret = made.Token
	return err
}

// openUpdate gives the update service a state file of its own, in memory, with
// what it knew before.
func (r *rescue) openUpdate() error {
	path := filepath.Join(r.o.scratch(), "state.db")
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return qverr.New(qverr.CodeOf(err), "rescue: %w", err)
	}
	var err error
	if r.db, err = store.Open(path); err != nil {
		return err
	}
	if len(r.saved.Update) > 0 {
		if err := r.db.Put(store.Settings, update.RecordKey, r.saved.Update); err != nil {
			return err
		}
	}
	if r.tasks, err = task.NewManager(r.db, &event.Bus{}, r.logger("task")); err != nil {
		return err
	}
	r.update = update.New(update.Deps{
		Log: r.logger("update"), DB: r.db, Tasks: r.tasks, Init: r.init, VMs: noVMs{}, Uplink: r.net.info,
		Cards: func(context.Context) []spec.Card { return nil }, Ready: func(context.Context) error { return errRescue() },
		Broken: r.reason(), RAM: r.ram, DataDir: r.spool(), Version: version.Version, Etc: r.o.etc, PStore: "/sys/fs/pstore",
	})
	return nil
}

// reason is why the daemon cannot start.
func (r *rescue) reason() string {
	if b := r.boot.Rescue; b != nil && b.Reason != "" {
		return b.Reason
	}
	return "the daemon cannot start"
}

// startUpdate lets the update service begin when PID 1 knows what the node booted
// from, or does not say.
func (r *rescue) startUpdate() {
	ctx, cancel := context.WithTimeout(r.ctx, bootTime)
	defer cancel()
	boot, err := r.init.Boot(ctx, true)
	if err != nil {
		boot = r.boot
	}
	r.update.Start(r.ctx, boot)
}

// serve opens the listeners; one must be heard.
func (r *rescue) serve() error {
	source := logs.Source{Path: filepath.Join(r.o.dataDir, "logs", "quantavirt.log"), Boot: r.init.Log}
	r.server = api.New(api.Deps{
		Log: r.logger("api"), Schema: api.LazySchema(), Tokens: r.tokens, Tasks: r.tasks, Update: r.update, System: node{r}, Gate: r.gate,
		Logs: source, Support: r.supportBundles(source),
	})
	var errs []error
	heard := false
	add := func(l net.Listener, err error) {
		if err != nil {
			r.log.Error("not heard", "err", err)
			errs = append(errs, err)
			return
		}
		heard = true
		r.log.Info("the rescue listener is heard", "on", l.Addr().Network()+" "+l.Addr().String())
		r.wg.Go(func() {
			if err := r.server.Serve(l); err != nil {
				r.failed <- err
			}
		})
	}
	add(listen.Unix(r.o.runDir))
	if r.o.listen != "" {
		l, err := listen.TLS(r.o.listen, r.ca.TLSConfig(r.policy))
		if err == nil {
			r.o.listen = l.Addr().String() // port 0 becomes a real one
		}
		add(l, err)
	}
	if r.o.vsockPort != 0 {
		add(listen.Vsock(uint32(r.o.vsockPort)))
	}
	if !heard {
		return errors.Join(errs...)
	}
	return nil
}

// close ends everything; VMs are not the listener's.
func (r *rescue) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), endTime)
	defer cancel()
	if r.server != nil {
		r.server.Shutdown(ctx)
	}
	r.cancel()
	r.tasks.Close(ctx)
	idle := make(chan struct{})
	go func() { r.wg.Wait(); close(idle) }()
	select {
	case <-idle:
	case <-ctx.Done():
		r.log.Warn("something does not end and is left behind")
	}
	return r.db.Close()
}
