package lab

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"time"
)

// Events notes what QEMU reports of a node, and when: RESET, WATCHDOG and so on
// (QEMU QMP Reference Manual).
type Events struct {
	conn net.Conn

	asking sync.Mutex // Execute, one at a time
	answer chan answer

	mu    sync.Mutex
	times map[string][]time.Time
}

// answer is what QEMU says to a command.
type answer struct {
	Return json.RawMessage `json:"return"`
	Error  *struct {
		Class string `json:"class"`
		Desc  string `json:"desc"`
	} `json:"error"`
}

// monitorLimit is how long QEMU may take to open its sockets.
const monitorLimit = 10 * time.Second

// Events begins to note them; Close ends it. One at a time can listen to a node.
func (n *Node) Events() (*Events, error) {
	var conn net.Conn
	var err error
	for end := time.Now().Add(monitorLimit); ; <-time.After(20 * time.Millisecond) {
		if conn, err = net.Dial("unix", n.Monitor); err == nil {
			break
		}
		if time.Now().After(end) {
			return nil, fmt.Errorf("lab: events of %s: %w", n.Name, err)
		}
	}
	e := &Events{conn: conn, times: make(map[string][]time.Time), answer: make(chan answer, 1)}
	r := json.NewDecoder(bufio.NewReader(conn))
	var greeting, answer map[string]any
	err = r.Decode(&greeting)
	if err == nil {
		_, err = io.WriteString(conn, `{"execute": "qmp_capabilities"}`)
	}
	if err == nil {
		err = r.Decode(&answer)
	}
	if _, ok := answer["return"]; !ok || err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("lab: events of %s: %w, answer %v", n.Name, err, answer)
	}
	go e.read(r)
	return e, nil
}

// Execute has QEMU do a command of its monitor.
func (e *Events) Execute(command string, arguments any) error {
	e.asking.Lock()
	defer e.asking.Unlock()
	text, err := json.Marshal(map[string]any{"execute": command, "arguments": arguments})
	if err == nil {
		_, err = e.conn.Write(append(text, '\n'))
	}
	if err != nil {
		return fmt.Errorf("lab: QEMU's %s: %w", command, err)
	}
	a, ok := <-e.answer
	switch {
	case !ok:
		return fmt.Errorf("lab: QEMU's %s: the monitor is closed", command)
	case a.Error != nil:
		return fmt.Errorf("lab: QEMU's %s: %s: %s", command, a.Error.Class, a.Error.Desc)
	}
	return nil
}

func (e *Events) read(r *json.Decoder) {
	defer close(e.answer)
	for {
		var m struct {
			answer
			Event     string `json:"event"`
			Timestamp struct {
				Seconds      int64 `json:"seconds"`
				Microseconds int64 `json:"microseconds"`
			} `json:"timestamp"`
		}
		if r.Decode(&m) != nil {
			return
		}
		if m.Event == "" {
			e.answer <- m.answer
			continue
		}
		e.mu.Lock()
		e.times[m.Event] = append(e.times[m.Event], time.Unix(m.Timestamp.Seconds, m.Timestamp.Microseconds*1000))
		e.mu.Unlock()
	}
}

// Count is how often something was reported so far.
func (e *Events) Count(name string) int { return len(e.Times(name)) }

// Times is when something was reported so far, by the clock of this machine.
func (e *Events) Times(name string) []time.Time {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.times[name])
}

// Close ends it.
func (e *Events) Close() error { return e.conn.Close() }
