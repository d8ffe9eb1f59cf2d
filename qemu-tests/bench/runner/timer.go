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

	"quantavirt/qemu-tests/bench/figure"
)

// latency is how late a guest's timer was: how many times less than so many
// microseconds, which are powers of two.
type latency struct {
	Monitor string         `json:"timer"`
	Late    map[uint32]int `json:"late"`
	Worst   uint32         `json:"worst_us"`
}

// measureTimers runs the measuring kernel, for so many periods of 1 ms, in both monitors while the daemon is loaded,
// and ours is made to allocate: each answer of its statistics is garbage afterwards.
func measureTimers(periods int) error {
	if err := upload("kernel", "testkernel", dir+"/testkernel"); err != nil {
		return err
	}
	out := json.NewEncoder(os.Stdout)
	for _, m := range []struct {
		name    string
		measure func(cmdline string) (latency, error)
	}{{figure.HV, timerOfVM}, {figure.MicroVM, timerOfMicroVM}} {
		l, err := m.measure(fmt.Sprintf("latency=%d", periods))
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

func timerOfVM(cmdline string) (l latency, err error) {
	config, err := json.Marshal(map[string]any{
		"name": "timer", "cpu": map[string]any{"count": 1}, "memory": map[string]any{"size": memory}, "console": "serial",
		"boot": map[string]any{"firmware": "direct", "kernel": "testkernel", "cmdline": cmdline},
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

func timerOfMicroVM(cmdline string) (l latency, err error) {
	stop := make(chan struct{})
	wait := load("/system/info", stop)
	defer func() {
		close(stop)
		wait()
	}()
	command := qemu(figure.MicroVM, 1, "-kernel", dir+"/testkernel", "-append", cmdline)
	err = attendTo(command, guestTime, kill, func(console io.ReadWriter, _ int) (err error) {
		l, err = readLatency(console)
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
