// Package control answers on PID 1's socket, whose contract is
// internal/initapi/wire.
package control

import (
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"strconv"

	"quantavirt/init/unixhttp"
	"quantavirt/internal/initapi/wire"
	"quantavirt/internal/qverr"
)

// Node is what the socket shows and commands.
type Node interface {
	Boot() wire.Boot
	// WaitBoot waits until a step has ended; with "" until all have.
	// QV_ERR_NOENT: there is no such step.
	WaitBoot(ctx context.Context, step string) error
	// WaitCards waits until there was a look for cards after the numbered one.
	WaitCards(ctx context.Context, after int) (wire.Cards, error)
	Exit(pid int) (wire.Exit, bool)
	WaitExit(ctx context.Context, pid int) (wire.Exit, error)
	Banner(lines []string)
	Ready()
	Reboot()
	PowerOff()
	// Kexec ends in order and starts the kernel that was loaded.
	Kexec()
	// Blessed says that this boot is no trial of an update, or no more.
	Blessed()
	// Unlock opens the data volume and has the daemon use it.
	Unlock(ctx context.Context, recoveryKey string) error
	Log() []byte
}

// Listen makes the socket at path, usually wire.Socket.
func Listen(path string, n Node, log *slog.Logger) (*unixhttp.Server, error) {
	self := uint32(os.Geteuid())
	routes := routes(n)
	return unixhttp.Listen(path, func(ctx context.Context, r unixhttp.Request) unixhttp.Response {
		if r.UID != self { // root is who we are
			log.Warn("refused on the socket of PID 1", "uid", r.UID, "path", r.Path)
			return fail(qverr.New(qverr.Perm, "only root may talk to PID 1"))
		}
		route, ok := routes[r.Method+" "+r.Path]
		if !ok {
			return fail(qverr.New(qverr.NoEnt, "PID 1 has no %.20s %.80s", r.Method, r.Path))
		}
		return route(ctx, r)
	}, refused, log)
}

func refused(status int, text string) unixhttp.Response {
	code := qverr.Inval
	if status >= 500 {
		code = qverr.Generic
	}
	r := fail(qverr.New(code, "%s", text))
	r.Status = status
	return r
}

func routes(n Node) map[string]unixhttp.Handler {
	act := func(fn func(), status int) unixhttp.Handler {
		return func(context.Context, unixhttp.Request) unixhttp.Response {
			fn()
			return unixhttp.Response{Status: status}
		}
	}
	return map[string]unixhttp.Handler{
		"GET /boot":  func(ctx context.Context, r unixhttp.Request) unixhttp.Response { return boot(ctx, n, r) },
		"GET /cards": func(ctx context.Context, r unixhttp.Request) unixhttp.Response { return cards(ctx, n, r) },
		"GET /exits": func(ctx context.Context, r unixhttp.Request) unixhttp.Response { return exits(ctx, n, r) },
		"GET /log": func(context.Context, unixhttp.Request) unixhttp.Response {
			return unixhttp.Response{Status: 200, Type: "text/plain; charset=utf-8", Body: n.Log()}
		},
		"POST /console": func(_ context.Context, r unixhttp.Request) unixhttp.Response {
			var b wire.Banner
			if err := json.Unmarshal(r.Body, &b); err != nil {
				return fail(qverr.New(qverr.Config, "banner: %w", err))
			}
			n.Banner(b.Lines)
			return unixhttp.Response{Status: 204}
		},
		"POST /unlock": func(ctx context.Context, r unixhttp.Request) unixhttp.Response {
			var u wire.Unlock
			if err := json.Unmarshal(r.Body, &u); err != nil {
				return fail(qverr.New(qverr.Config, "unlock: %w", err))
			}
			if err := n.Unlock(ctx, u.RecoveryKey); err != nil {
				return fail(err)
			}
			return unixhttp.Response{Status: 202}
		},
		"POST /ready":    act(n.Ready, 204),
		"POST /reboot":   act(n.Reboot, 202),
		"POST /poweroff": act(n.PowerOff, 202),
		"POST /kexec":    act(n.Kexec, 202),
		"POST /blessed":  act(n.Blessed, 204),
	}
}

func boot(ctx context.Context, n Node, r unixhttp.Request) unixhttp.Response {
	step := r.Query["step"]
	if step != "" || wait(r) {
		if err := n.WaitBoot(ctx, step); err != nil {
			return fail(err)
		}
	}
	return answer(n.Boot())
}

func cards(ctx context.Context, n Node, r unixhttp.Request) unixhttp.Response {
	after, err := strconv.Atoi(r.Query["after"])
	if err != nil || after < 0 {
		return fail(qverr.New(qverr.Inval, "after=%.20q is no number of a look for cards", r.Query["after"]))
	}
	c, err := n.WaitCards(ctx, after)
	if err != nil {
		return fail(err)
	}
	return answer(c)
}

func exits(ctx context.Context, n Node, r unixhttp.Request) unixhttp.Response {
	pid, err := strconv.Atoi(r.Query["pid"])
	if err != nil || pid <= 0 {
		return fail(qverr.New(qverr.Inval, "pid=%.20q is no number of a process", r.Query["pid"]))
	}
	if wait(r) {
		e, err := n.WaitExit(ctx, pid)
		if err != nil {
			return fail(err)
		}
		return answer(e)
	}
	e, ok := n.Exit(pid)
	if !ok {
		return fail(qverr.New(qverr.NoEnt, "no exit of process %d is known", pid))
	}
	return answer(e)
}

func wait(r unixhttp.Request) bool {
	v := r.Query["wait"]
	return v != "" && v != "0"
}

func answer(v any) unixhttp.Response {
	data, err := json.Marshal(v)
	if err != nil {
		return fail(qverr.New(qverr.Generic, "answer: %w", err))
	}
	return unixhttp.Response{Status: 200, Type: "application/json", Body: append(data, '\n')}
}

func fail(err error) unixhttp.Response {
	status := 500
	if row, ok := qverr.Lookup(qverr.CodeOf(err)); ok {
		status = row.HTTPStatus
	}
	data, jsonErr := json.Marshal(qverr.NewBody(err, ""))
	if jsonErr != nil {
		return unixhttp.Response{Status: 500}
	}
	return unixhttp.Response{Status: status, Type: "application/json", Body: append(data, '\n')}
}
