package task

import (
	"context"
	"errors"
	"log/slog"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"quantavirt/appliance/api/spec"
	"quantavirt/appliance/event"
	"quantavirt/appliance/store"
	"quantavirt/internal/initapi"
	"quantavirt/internal/qverr"
)

// keep is the number of ended tasks that are remembered.
const keep = 500

// Spec describes a task to start.
type Spec struct {
	Kind        string // e.g. "vm.start"
	Target      string // e.g. "vms/web"
	RequestID   string
	Cancellable bool
}

// Manager runs tasks and keeps their records.
type Manager struct {
	db  *store.DB
	bus *event.Bus
	log *slog.Logger

	ctx  context.Context
	stop context.CancelFunc
	wg   sync.WaitGroup

	mu     sync.Mutex
	tasks  map[string]*entry
	closed bool
}

type entry struct {
	task   spec.Task
	cancel context.CancelCauseFunc // nil when it cannot be cancelled
	done   chan struct{}
}

var errCancelled = errors.New("the task was cancelled")

// NewManager reads the stored tasks and fails those that were interrupted.
func NewManager(db *store.DB, bus *event.Bus, log *slog.Logger) (*Manager, error) {
	stored, err := store.All[spec.Task](db, store.Tasks)
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	m := &Manager{db: db, bus: bus, log: log, ctx: ctx, stop: stop, tasks: make(map[string]*entry)}
	for _, t := range stored {
		if !Final(t.State) {
			finish(&t, qverr.New(qverr.Again, "%s was interrupted by a restart of the daemon", t.Kind))
			if err := db.Put(store.Tasks, t.ID, t); err != nil {
				stop()
				return nil, err
			}
		}
		m.tasks[t.ID] = &entry{task: t, done: closedChan()}
	}
	return m, nil
}

func closedChan() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}

// Final says whether a task in this state has ended.
func Final(s spec.TaskState) bool {
	return s == spec.TaskStateSucceeded || s == spec.TaskStateFailed || s == spec.TaskStateCancelled
}

// Start runs fn as a task and returns its first record. The context ends when
// the task is cancelled or the daemon goes; fn reports through p.
func (m *Manager) Start(s Spec, fn func(ctx context.Context, p *Progress) error) (spec.Task, error) {
	ctx, cancel := context.WithCancelCause(m.ctx)
	e := &entry{done: make(chan struct{})}
	if s.Cancellable {
		e.cancel = cancel
	}
	e.task = spec.Task{
		ID:        uuid.NewString(),
		Kind:      s.Kind,
		Target:    s.Target,
		State:     spec.TaskStatePending,
		CreatedAt: now(),
		RequestID: s.RequestID,
	}
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		cancel(nil)
		return spec.Task{}, qverr.New(qverr.Again, "%s: the node goes down", s.Kind)
	}
	m.tasks[e.task.ID] = e
	first := e.task
	m.wg.Add(1)
	m.mu.Unlock()
	if err := m.db.Put(store.Tasks, first.ID, first); err != nil {
		m.mu.Lock()
		delete(m.tasks, first.ID)
		m.mu.Unlock()
		m.wg.Done()
		cancel(nil)
		return spec.Task{}, err
	}
	go m.run(ctx, cancel, e, fn)
	return first, nil
}

func (m *Manager) run(ctx context.Context, cancel context.CancelCauseFunc, e *entry, fn func(context.Context, *Progress) error) {
	defer m.wg.Done()
	defer cancel(nil)
	m.change(e, true, func(t *spec.Task) {
		start := now()
		t.State, t.StartedAt = spec.TaskStateRunning, &start
	})
	err := m.guard(e, func() error { return fn(ctx, &Progress{m: m, e: e}) })
	if err != nil && errors.Is(context.Cause(ctx), errCancelled) {
		err = errors.Join(errCancelled, err)
	}
	m.change(e, true, func(t *spec.Task) { finish(t, err) })
	m.mu.Lock()
	final := e.task
	m.mu.Unlock()
	if err != nil && final.State == spec.TaskStateFailed {
		m.log.Error(final.Kind+" of "+final.Target+" failed", "err", err, "task", final.ID, "request_id", final.RequestID)
	}
	close(e.done)
	m.bus.Publish(event.Event{Kind: "task.ended", Object: "tasks/" + final.ID, Data: final})
	m.prune()
}

// guard makes a panic of a task its failure.
func (m *Manager) guard(e *entry, fn func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = qverr.New(qverr.Generic, "the task hit a bug; the log has it under %s", e.task.ID)
			m.log.Error("panic in task "+e.task.ID, "err", qverr.New(qverr.Generic, "%v", p), "stack", string(debug.Stack()))
		}
	}()
	return fn()
}

func finish(t *spec.Task, err error) {
	end := now()
	t.EndedAt = &end
	switch {
	case err == nil:
		t.State = spec.TaskStateSucceeded
	case errors.Is(err, errCancelled):
		t.State = spec.TaskStateCancelled
		t.Error = qverr.NewPayload(qverr.New(qverr.Again, "%w", errCancelled), t.RequestID)
	default:
		t.State = spec.TaskStateFailed
		t.Error = qverr.NewPayload(err, t.RequestID)
	}
}

// change applies fn to the record and, if asked, stores it. A record that
// cannot be stored is logged: the task itself goes on.
func (m *Manager) change(e *entry, persist bool, fn func(*spec.Task)) {
	m.mu.Lock()
	fn(&e.task)
	t := e.task
	m.mu.Unlock()
	if !persist {
		return
	}
	if err := m.db.Put(store.Tasks, t.ID, t); err != nil {
		m.log.Error("store task "+t.ID, "err", err)
	}
}

func now() time.Time { return time.Now().UTC() }

// Get returns a task; QV_ERR_NOENT when there is none.
func (m *Manager) Get(id string) (spec.Task, error) {
	e, err := m.find(id)
	if err != nil {
		return spec.Task{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return e.task, nil
}

func (m *Manager) find(id string) (*entry, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if e, ok := m.tasks[id]; ok {
		return e, nil
	}
	return nil, qverr.New(qverr.NoEnt, "there is no task %.64q", id)
}

// Wait returns the task when it has ended or ctx is over, whichever is first.
func (m *Manager) Wait(ctx context.Context, id string) (spec.Task, error) {
	e, err := m.find(id)
	if err != nil {
		return spec.Task{}, err
	}
	select {
	case <-e.done:
	case <-ctx.Done():
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return e.task, nil
}

// List returns the tasks that match (nil: all), newest first.
func (m *Manager) List(match func(spec.Task) bool) []spec.Task {
	m.mu.Lock()
	out := make([]spec.Task, 0, len(m.tasks))
	for _, e := range m.tasks {
		if match == nil || match(e.task) {
			out = append(out, e.task)
		}
	}
	m.mu.Unlock()
	slices.SortFunc(out, func(a, b spec.Task) int { return b.CreatedAt.Compare(a.CreatedAt) })
	return out
}

// Cancel asks a task to end. QV_ERR_STATE when it has ended,
// QV_ERR_UNSUPPORTED when it cannot be cancelled.
func (m *Manager) Cancel(id string) (spec.Task, error) {
	e, err := m.find(id)
	if err != nil {
		return spec.Task{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case Final(e.task.State):
		return spec.Task{}, qverr.New(qverr.State, "task %s has already %s", id, e.task.State)
	case e.cancel == nil:
		return spec.Task{}, qverr.New(qverr.Unsupported, "a task of kind %s cannot be cancelled", e.task.Kind)
	}
	e.cancel(errCancelled)
	return e.task, nil
}

// prune forgets the oldest ended tasks beyond the limit.
func (m *Manager) prune() {
	ended := m.List(func(t spec.Task) bool { return Final(t.State) })
	if len(ended) <= keep {
		return
	}
	old := ended[keep:]
	m.mu.Lock()
	for _, t := range old {
		delete(m.tasks, t.ID)
	}
	m.mu.Unlock()
	err := m.db.Update(func(tx *store.Tx) error {
		for _, t := range old {
			if err := tx.Delete(store.Tasks, t.ID); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		m.log.Error("forget old tasks", "err", err)
	}
}

// Close refuses new tasks, ends the contexts of those that run and waits for
// them until ctx is over.
func (m *Manager) Close(ctx context.Context) {
	m.mu.Lock()
	m.closed = true
	m.mu.Unlock()
	m.stop()
	done := make(chan struct{})
	go func() { m.wg.Wait(); close(done) }()
	select {
	case <-done:
	case <-ctx.Done():
	}
}

// Progress is how a task reports. The zero value reports to nobody.
type Progress struct {
	m *Manager
	e *entry
}

// Phase names what the task does now; it is stored, with the time.
func (p *Progress) Phase(name string) {
	if p.m == nil {
		return
	}
	p.m.change(p.e, true, func(t *spec.Task) {
		t.Progress.Phase = name
		// A copy: records that were given out share the list.
		t.Progress.Phases = append(slices.Clip(t.Progress.Phases), spec.TaskPhase{Name: name, StartedAt: now()})
	})
}

// Warn notes what goes wrong without making the task fail; it is stored and logged.
func (p *Progress) Warn(err error) {
	if p.m == nil {
		return
	}
	p.m.change(p.e, true, func(t *spec.Task) { t.Warnings = append(slices.Clone(t.Warnings), *initapi.NewProblem(err)) })
	p.m.log.Warn(p.e.task.Kind+" of "+p.e.task.Target, "err", err, "task", p.e.task.ID)
}

// Set tells how far the task is; it is not stored.
func (p *Progress) Set(done, total int64, unit string) {
	if p.m == nil {
		return
	}
	p.m.change(p.e, false, func(t *spec.Task) {
		t.Progress.Done, t.Progress.Total, t.Progress.Unit = done, total, unit
	})
}
