package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"quantavirt/appliance/api/spec"
	"quantavirt/internal/qverr"
)

const (
	// taskPoll is how long the node holds one answer about a task, in seconds;
	// progress is as fresh as this.
	taskPoll = 1
	// daemonRestart is how long a node may be silent during a wait: its
	// daemon restarts, and tasks survive that.
	daemonRestart = 20 * time.Second
	retryDelay    = 250 * time.Millisecond
)

// act starts a task and, unless --no-wait, waits for its end.
func (a *app) act(ctx context.Context, label string, do func(*client) (*http.Response, error)) error {
	ans, err := call[spec.Task](a, do)
	if err != nil {
		return err
	}
	if !a.noWait {
		if ans, err = a.await(ctx, label, ans); err != nil {
			return err
		}
	}
	for _, p := range ans.value.Warnings {
		fmt.Fprintln(a.Err, "Warning: "+problem(p))
	}
	return a.print(ans.raw, func(w io.Writer) {
		if ans.value.State == spec.TaskStateSucceeded {
			fmt.Fprintf(w, "%s: done\n", label)
			return
		}
		fmt.Fprintf(w, "%s: task %s is %s\n", label, ans.value.ID, ans.value.State)
	})
}

// await waits until a task has ended; what a failed one reports is its error.
func (a *app) await(ctx context.Context, label string, ans answer[spec.Task]) (answer[spec.Task], error) {
	return a.awaitOr(ctx, label, ans, func(string) bool { return false })
}

// awaitOr is await, but does not wait for a node to come back that was last in a
// phase in which it goes down.
func (a *app) awaitOr(ctx context.Context, label string, ans answer[spec.Task], goesDown func(phase string) bool) (answer[spec.Task], error) {
	b := a.newBar(label, ans.value.Progress.Unit)
	defer b.end()
	id := ans.value.ID
	var silentSince time.Time
	for {
		t := ans.value
		switch t.State {
		case spec.TaskStateSucceeded:
			return ans, nil
		case spec.TaskStateCancelled:
			if t.Error.Code != qverr.Success {
				return ans, t.Error.Err()
			}
			return ans, qverr.New(qverr.State, "%s: task %s was cancelled", label, id).WithHint("start it again when it is wanted")
		case spec.TaskStateFailed:
			e := t.Error.Err()
			if e.Code == qverr.Success {
				e = qverr.New(qverr.Generic, "%s: task %s failed without saying why", label, id)
			}
			return ans, e
		}
		if b != nil && t.Progress.Total > 0 {
			b.unit = t.Progress.Unit
			b.set(t.Progress.Done, t.Progress.Total, t.Progress.Phase)
		}
		next, err := call[spec.Task](a, func(c *client) (*http.Response, error) {
			return c.GetTask(ctx, id, &spec.GetTaskParams{Wait: taskPoll})
		})
		if err == nil {
			ans, silentSince = next, time.Time{}
			continue
		}
		if interrupted(ctx) {
			return ans, qverr.New(qverr.Generic, "no longer waiting, task %s goes on at the node", id).
				WithHint("see quantavirt task show %s", id)
		}
		if errors.Is(err, qverr.ErrUnreachable) && goesDown(ans.value.Progress.Phase) {
			return ans, nil
		}
		if silentSince.IsZero() {
			silentSince = time.Now()
		}
		if !errors.Is(err, qverr.ErrUnreachable) && !qverr.IsTransient(err) || time.Since(silentSince) > daemonRestart {
			return ans, err
		}
		select {
		case <-ctx.Done():
		case <-time.After(retryDelay):
		}
	}
}

func (a *app) addNoWait(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().BoolVar(&a.noWait, "no-wait", false, "do not wait for the task to end, print it")
	return cmd
}

func (a *app) taskCmd() *cobra.Command {
	var state, of string
	list := &cobra.Command{
		Use: "list", Short: "List tasks, newest first", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ans, err := call[spec.TaskList](a, func(c *client) (*http.Response, error) {
				return c.ListTasks(cmd.Context(), &spec.ListTasksParams{State: spec.TaskState(state), Target: of})
			})
			if err != nil {
				return err
			}
			return a.print(ans.raw, func(w io.Writer) {
				row(w, "ID", "KIND", "TARGET", "STATE", "CREATED", "ERROR")
				for _, t := range ans.value.Items {
					row(w, t.ID, t.Kind, t.Target, t.State, when(t.CreatedAt), t.Error.Name)
				}
			})
		},
	}
	list.Flags().StringVar(&state, "state", "", "only tasks in this state: pending, running, succeeded, failed, cancelled")
	list.Flags().StringVar(&of, "target", "", "only tasks of one object, for example vms/web")
	show := &cobra.Command{
		Use: "show ID", Short: "Show a task", Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ans, err := call[spec.Task](a, func(c *client) (*http.Response, error) {
				return c.GetTask(cmd.Context(), args[0], &spec.GetTaskParams{})
			})
			if err != nil {
				return err
			}
			return a.print(ans.raw, func(w io.Writer) { taskTable(w, ans.value) })
		},
	}
	wait := &cobra.Command{
		Use: "wait ID", Short: "Wait for a task; its error becomes this command's", Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.act(cmd.Context(), "task "+args[0], func(c *client) (*http.Response, error) {
				return c.GetTask(cmd.Context(), args[0], &spec.GetTaskParams{})
			})
		},
	}
	cancel := &cobra.Command{
		Use: "cancel ID", Short: "Cancel a task", Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ans, err := call[spec.Task](a, func(c *client) (*http.Response, error) { return c.CancelTask(cmd.Context(), args[0]) })
			if err != nil {
				return err
			}
			return a.print(ans.raw, func(w io.Writer) { taskTable(w, ans.value) })
		},
	}
	return group("task", "Look at and wait for what the node is doing", list, show, wait, cancel)
}

func taskTable(w io.Writer, t spec.Task) {
	row(w, "ID", t.ID)
	row(w, "Kind", t.Kind)
	row(w, "Target", t.Target)
	row(w, "State", t.State)
	if p := t.Progress; p.Total > 0 {
		row(w, "Progress", fmt.Sprintf("%d of %d %s %s", p.Done, p.Total, p.Unit, p.Phase))
	}
	row(w, "Created", when(t.CreatedAt))
	row(w, "Started", whenPtr(t.StartedAt))
	row(w, "Ended", whenPtr(t.EndedAt))
	for _, p := range t.Warnings {
		row(w, "Warning", problem(p))
	}
	if t.Error.Code != qverr.Success {
		row(w, "Error", fmt.Sprintf("%s (%d): %s", t.Error.Name, int(t.Error.Code), t.Error.Detail))
	}
}
