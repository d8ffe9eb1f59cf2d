package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
)

// periods of 1 ms that the guest measures.
const periods = 5000

// latency is how late a guest's timer was: how many times less than so many
// microseconds, which are powers of two.
type latency struct {
	Monitor string         `json:"timer"`
	Late    map[uint32]int `json:"late"`
	Worst   uint32         `json:"worst_us"`
}

// measureTimers runs the measuring kernel in both monitors while the daemon is loaded,
// and ours is made to allocate: each answer of its statistics is garbage afterwards.
func measureTimers() error {
	f, err := os.Open(dir + "/testkernel")
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	if err := call(http.MethodPost, "/images?kind=kernel&id=testkernel", f, nil); err != nil {
		return err
	}
	out := json.NewEncoder(os.Stdout)
	for _, m := range []struct {
		name    string
		measure func() (latency, error)
	}{{"hv", timerOfVM}, {"microvm", timerOfMicroVM}} {
		l, err := m.measure()
		if err != nil {
			return fmt.Errorf("timer in %s: %w", m.name, err)
		}
		l.Monitor = m.name
		if err := out.Encode(l); err != nil {
			return err
		}
	}
	return nil
}

// load asks for path over and over until stop is closed.
func load(path string, stop <-chan struct{}) (wait func()) {
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				_ = call(http.MethodGet, path, nil, nil)
			}
		}
	})
	return wg.Wait
}

func timerCmdline() string { return fmt.Sprintf("latency=%d", periods) }

func timerOfVM() (l latency, err error) {
	config, err := json.Marshal(map[string]any{
		"name": "timer", "cpu": map[string]any{"count": 1}, "memory": map[string]any{"size": memory}, "console": "serial",
		"boot": map[string]any{"firmware": "direct", "kernel": "testkernel", "cmdline": timerCmdline()},
	})
	if err != nil {
		return l, err
	}
	if err := call(http.MethodPost, "/vms", bytes.NewReader(config), nil); err != nil {
		return l, err
	}
	if err := call(http.MethodPost, "/vms/timer/start?wait=60", nil, nil); err != nil {
		return l, err
	}
	stop := make(chan struct{})
	wait := load("/vms/timer/stats", stop)
	defer func() {
		close(stop)
		wait()
		_ = call(http.MethodDelete, "/vms/timer?force=true&wait=60", nil, nil)
	}()
	console, err := attach("/vms/timer")
	if err != nil {
		return l, err
	}
	defer func() { _ = console.Close() }()
	return readLatency(console)
}

func timerOfMicroVM() (l latency, err error) {
	stop := make(chan struct{})
	wait := load("/system/info", stop)
	defer func() {
		close(stop)
		wait()
	}()
	err = runMicroVM([]string{"-kernel", dir + "/testkernel", "-append", timerCmdline()}, func(stdout io.Reader, _ int) (err error) {
		l, err = readLatency(stdout)
		return err
	})
	return l, err
}

// readLatency reads what the kernel prints, up to its last line.
func readLatency(r io.Reader) (latency, error) {
	l := latency{Late: map[uint32]int{}}
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		var us uint32
		var n int
		line := strings.TrimSpace(lines.Text())
		switch {
		case scan(line, "late %d %d", &us, &n):
			l.Late[us] = n
		case scan(line, "worst %d", &l.Worst):
		case line == "done":
			return l, nil
		}
	}
	return l, fmt.Errorf("the guest ended before it had measured (%w)", io.ErrUnexpectedEOF)
}

func scan(line, format string, into ...any) bool {
	n, err := fmt.Sscanf(line, format, into...)
	return err == nil && n == len(into)
}
