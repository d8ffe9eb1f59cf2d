package lab

import (
	"encoding/json"
	"fmt"
	"net"
	"time"
)

// Resets watches for resets of the machine: the channel has the time of each, as
// QEMU saw it. It ends with stop, or with QEMU. One at a time may watch.
func (n *Node) Resets() (times <-chan time.Time, stop func(), err error) {
	conn, err := net.Dial("unix", n.Monitor)
	if err != nil {
		return nil, nil, fmt.Errorf("lab: watch for resets of %s: %w", n.Name, err)
	}
	// QEMU greets, and tells events once it has been answered (QMP specification).
	if _, err := fmt.Fprintln(conn, `{"execute": "qmp_capabilities"}`); err != nil {
		_ = conn.Close()
		return nil, nil, fmt.Errorf("lab: watch for resets of %s: %w", n.Name, err)
	}
	found := make(chan time.Time, 16)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer close(found)
		in := json.NewDecoder(conn)
		for {
			var m struct {
				Event     string `json:"event"`
				Timestamp struct {
					Seconds      int64 `json:"seconds"`
					Microseconds int64 `json:"microseconds"`
				} `json:"timestamp"`
			}
			if in.Decode(&m) != nil {
				return
			}
			if m.Event != "RESET" {
				continue
			}
			select {
			case found <- time.Unix(m.Timestamp.Seconds, m.Timestamp.Microseconds*1000):
			default: // nobody looks
			}
		}
	}()
	return found, func() { _ = conn.Close(); <-ended }, nil
}
