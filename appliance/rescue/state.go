package rescue

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os/exec"
	"path/filepath"
	"time"

	"quantavirt/appliance/auth"
	"quantavirt/appliance/store"
	"quantavirt/appliance/system"
	"quantavirt/appliance/update"
	"quantavirt/internal/qverr"
)

const (
	// readState is the argument by which the program reads the state file.
	readState = "read-state"
	// lockWait is how long that waits for another process to let go of it.
	lockWait = 2 * time.Second
	// maxState bounds what is taken of its output, in bytes.
	maxState = 8 << 20
)

// saved is what the listener uses of the state file.
type saved struct {
	Node   string          `json:"node"`
	Tokens []auth.Stored   `json:"tokens"`
	VMs    int             `json:"vms"`
	Update json.RawMessage `json:"update,omitempty"`
}

// writeState reads the state file at path and writes what there is of use to out.
func writeState(path string, out io.Writer) error {
	var s saved
	err := store.Peek(path, lockWait, func(tx *store.Tx) error {
		err := store.Each(tx, store.Tokens, func(_ string, t auth.Stored) error {
			s.Tokens = append(s.Tokens, t)
			return nil
		})
		if err != nil {
			return err
		}
		s.VMs = len(tx.Keys(store.VMs))
		if s.Node, err = system.NodeID(tx); err != nil {
			return err
		}
		err = tx.Get(store.Settings, update.RecordKey, &s.Update)
		if qverr.CodeOf(err) == qverr.NoEnt {
			err = nil
		}
		return err
	})
	if err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(s)
}

// state asks a process of its own for the state file, and leaves it behind when it
// hangs.
func (o options) state(ctx context.Context) (saved, error) {
	var out, words limited
	out.left, words.left = maxState, 1024
	args := append(o.self, readState, filepath.Join(o.dataDir, "state.db"))
	cmd := &exec.Cmd{Path: "/proc/self/exe", Args: args, Stdout: &out, Stderr: &words, WaitDelay: time.Second}
	if err := cmd.Start(); err != nil {
		return saved{}, qverr.New(qverr.CodeOf(err), "read the state file: %w", err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	var err error
	select {
	case err = <-done:
	case <-ctx.Done():
		_ = cmd.Process.Kill()
		return saved{}, qverr.New(qverr.Timeout, "read the state file: %w", ctx.Err())
	}
	if err != nil {
		line, _, _ := bytes.Cut(words.Bytes(), []byte{'\n'})
		return saved{}, qverr.New(qverr.IO, "read the state file: %w: %s", err, line)
	}
	var s saved
	if err := json.Unmarshal(out.Bytes(), &s); err != nil {
		return saved{}, qverr.New(qverr.IO, "read the state file: %w", err)
	}
	return s, nil
}

// limited is a buffer that drops what comes after its limit.
type limited struct {
	bytes.Buffer
	left int
}

func (l *limited) Write(p []byte) (int, error) {
	n, _ := l.Buffer.Write(p[:min(len(p), l.left)])
	l.left -= n
	return len(p), nil
}
