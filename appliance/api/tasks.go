package api

import (
	"context"
	"net/http"
	"time"

	"quantavirt/appliance/api/spec"
)

// ListTasks shows tasks, newest first.
func (s *Server) ListTasks(w http.ResponseWriter, _ *http.Request, params spec.ListTasksParams) {
	tasks := s.Tasks.List(func(t spec.Task) bool {
		return (params.State == "" || t.State == params.State) && (params.Target == "" || t.Target == params.Target)
	})
	reply(w, http.StatusOK, spec.TaskList{Items: tasks})
}

// GetTask shows one task, when it has ended if the client waits.
func (s *Server) GetTask(w http.ResponseWriter, r *http.Request, id string, params spec.GetTaskParams) {
	t, err := s.wait(r.Context(), id, params.Wait)
	s.answer(w, r, http.StatusOK, t, err)
}

// CancelTask asks a task to end.
func (s *Server) CancelTask(w http.ResponseWriter, r *http.Request, id string) {
	t, err := s.Tasks.Cancel(id)
	s.accepted(w, r, t, 0, err)
}

func (s *Server) wait(ctx context.Context, id string, seconds int) (spec.Task, error) {
	if seconds <= 0 {
		return s.Tasks.Get(id)
	}
	ctx, cancel := context.WithTimeout(ctx, time.Duration(seconds)*time.Second)
	defer cancel()
	return s.Tasks.Wait(ctx, id)
}

// accepted answers 202 with the task and where it is found, after waiting for
// its end if asked.
func (s *Server) accepted(w http.ResponseWriter, r *http.Request, t spec.Task, seconds int, err error) {
	if err == nil && seconds > 0 {
		t, err = s.wait(r.Context(), t.ID, seconds)
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	w.Header().Set("Location", "/api/v1/tasks/"+t.ID)
	reply(w, http.StatusAccepted, t)
}
