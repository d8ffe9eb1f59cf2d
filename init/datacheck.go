package main

import (
	"context"
	"errors"
	"io"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"quantavirt/init/guard"
	"quantavirt/init/seq"
	"quantavirt/init/volume"
	"quantavirt/internal/qverr"
)

// checkLimit is how long a check of the data volume may take: an hour or more
// for many terabytes of a damaged one.
const checkLimit = 3 * time.Hour

// maxOutput is how much of a program's output is kept.
const maxOutput = 16 << 10

// checkData has the file system checked if it asks for it. The check is a boot
// step of its own then, so that its time is seen; its failure is that of
// data-volume.
func (n *node) checkData(ctx context.Context, b *volume.Block) error {
	wanted := b.FS.CheckWanted(time.Now())
	if wanted == "" {
		return nil
	}
	n.show("quantavirt: checking the data volume " + b.String() + ", as " + wanted)
	r := seq.Result{Name: "data-check", Start: sinceStart()}
	_, err := b.Check(ctx, time.Now(), n.runProgram)
	r.Took = sinceStart() - r.Start
	n.add(r)
	return err
}

// runProgram runs one program to its end; volume.Run.
func (n *node) runProgram(ctx context.Context, argv ...string) (status int, output string, err error) {
	r, w, err := os.Pipe()
	if err != nil {
		return -1, "", qverr.New(qverr.CodeOf(err), "run %s: %w", argv[0], err)
	}
	text := make(chan string, 1)
	guard.Go(n.log, "output of "+argv[0], func() {
		data, _ := io.ReadAll(io.LimitReader(r, maxOutput))
		_, _ = io.Copy(io.Discard, r)
		_ = r.Close()
		text <- string(data)
	})
	null, err := os.Open(os.DevNull)
	if err != nil {
		_ = w.Close()
		return -1, "", qverr.New(qverr.CodeOf(err), "run %s: %w", argv[0], err)
	}
	pid, done, err := n.reaper.Start(argv[0], argv, &syscall.ProcAttr{
		Dir: "/", Env: environment, Files: []uintptr{null.Fd(), w.Fd(), w.Fd()},
	})
	err = errors.Join(err, null.Close(), w.Close())
	if err != nil {
		return -1, "", err
	}
	select {
	case e := <-done:
		output = <-text
		n.log.Info(argv[0], "status", e.Status, "output", output)
		return e.Status, output, nil
	case <-ctx.Done():
		_ = unix.Kill(pid, unix.SIGTERM)
		return -1, "", qverr.New(qverr.Timeout, "%s does not end: %w", argv[0], ctx.Err())
	}
}
