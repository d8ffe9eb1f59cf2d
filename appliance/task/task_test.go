package task

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"quantavirt/appliance/api/spec"
	"quantavirt/appliance/event"
	"quantavirt/appliance/store"
	"quantavirt/internal/qverr"
)

func testManager(t *testing.T, path string) (*Manager, *store.DB) {
	t.Helper()
	db, err := store.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	m, err := NewManager(db, &event.Bus{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close(context.Background()); _ = db.Close() })
	return m, db
}

func wait(t *testing.T, m *Manager, id string) spec.Task {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	task, err := m.Wait(ctx, id)
	if err != nil || !Final(task.State) {
		t.Fatalf("task %+v, %v", task, err)
	}
	return task
}

func TestOutcomes(t *testing.T) {
	m, db := testManager(t, filepath.Join(t.TempDir(), "state.db"))
	for _, c := range []struct {
		name  string
		fn    func(context.Context, *Progress) error
		state spec.TaskState
		code  qverr.Code
	}{
		{"good", func(_ context.Context, p *Progress) error {
			p.Phase("half")
			p.Phase("rest")
			p.Set(1, 2, "things")
			return nil
		}, spec.TaskStateSucceeded, 0},
		{"bad", func(context.Context, *Progress) error {
			return qverr.New(qverr.NoMem, "no").With("path", "memory.size")
		}, spec.TaskStateFailed, qverr.NoMem},
		{"panic", func(context.Context, *Progress) error { panic("bug") }, spec.TaskStateFailed, qverr.Generic},
		{"plain error", func(context.Context, *Progress) error { return errors.New("x") }, spec.TaskStateFailed, qverr.Generic},
	} {
		t.Run(c.name, func(t *testing.T) {
			first, err := m.Start(Spec{Kind: "test", Target: "x", RequestID: "req-1"}, c.fn)
			if err != nil || first.State != spec.TaskStatePending {
				t.Fatalf("Start = %+v, %v", first, err)
			}
			got := wait(t, m, first.ID)
			if got.State != c.state || got.Error.Code != c.code || got.EndedAt == nil || got.StartedAt == nil {
				t.Errorf("ended as %+v", got)
			}
			var stored spec.Task
			if err := db.Get(store.Tasks, first.ID, &stored); err != nil || stored.State != c.state {
				t.Errorf("stored %+v, %v", stored, err)
			}
			if phases := stored.Progress.Phases; c.code == 0 &&
				(len(phases) != 2 || phases[0].Name != "half" || phases[1].Name != "rest" || phases[0].StartedAt.Before(*got.StartedAt)) {
				t.Errorf("stored phases %+v", phases)
			}
			if _, err := m.Cancel(first.ID); !errors.Is(err, qverr.State) {
				t.Errorf("cancel of an ended task: %v", err)
			}
		})
	}
}

func TestCancel(t *testing.T) {
	m, _ := testManager(t, filepath.Join(t.TempDir(), "state.db"))
	block := func(ctx context.Context, _ *Progress) error { <-ctx.Done(); return ctx.Err() }
	can, err := m.Start(Spec{Kind: "test", Cancellable: true}, block)
	if err != nil {
		t.Fatal(err)
	}
	cannot, err := m.Start(Spec{Kind: "test"}, block)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Cancel(cannot.ID); !errors.Is(err, qverr.Unsupported) {
		t.Errorf("cancel of what cannot be: %v", err)
	}
	if _, err := m.Cancel("nothing"); !errors.Is(err, qverr.NoEnt) {
		t.Errorf("cancel of nothing: %v", err)
	}
	if _, err := m.Cancel(can.ID); err != nil {
		t.Fatal(err)
	}
	if got := wait(t, m, can.ID); got.State != spec.TaskStateCancelled {
		t.Errorf("state %s", got.State)
	}
}

func TestInterruptedTasksFailOnReopen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	db, err := store.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	running := spec.Task{ID: "a", Kind: "vm.start", Target: "vms/web", State: spec.TaskStateRunning, CreatedAt: time.Now()}
	good := spec.Task{ID: "b", Kind: "vm.start", State: spec.TaskStateSucceeded, CreatedAt: time.Now()}
	for _, task := range []spec.Task{running, good} {
		if err := db.Put(store.Tasks, task.ID, task); err != nil {
			t.Fatal(err)
		}
	}
	_ = db.Close()
	m, _ := testManager(t, path)
	got := wait(t, m, "a")
	if got.State != spec.TaskStateFailed || got.Error.Code != qverr.Again || !got.Error.Transient {
		t.Errorf("interrupted task: %+v", got)
	}
	if got, _ := m.Get("b"); got.State != spec.TaskStateSucceeded {
		t.Errorf("ended task: %+v", got)
	}
	if n := len(m.List(func(t spec.Task) bool { return t.Target == "vms/web" })); n != 1 {
		t.Errorf("List found %d", n)
	}
}

func TestPruneAndClose(t *testing.T) {
	m, db := testManager(t, filepath.Join(t.TempDir(), "state.db"))
	m.mu.Lock()
	for i := range keep + 3 {
		id := time.Unix(int64(i), 0).Format(time.RFC3339)
		m.tasks[id] = &entry{task: spec.Task{ID: id, State: spec.TaskStateFailed, CreatedAt: time.Unix(int64(i), 0)}, done: closedChan()}
	}
	m.mu.Unlock()
	m.prune()
	if n := len(m.List(nil)); n != keep {
		t.Errorf("%d tasks are kept, want %d", n, keep)
	}
	var left spec.Task
	if err := db.Get(store.Tasks, time.Unix(0, 0).Format(time.RFC3339), &left); !errors.Is(err, qverr.NoEnt) {
		t.Errorf("oldest task: %v", err)
	}
	m.Close(context.Background())
	if _, err := m.Start(Spec{Kind: "late"}, nil); !errors.Is(err, qverr.Again) {
		t.Errorf("start after Close: %v", err)
	}
}
