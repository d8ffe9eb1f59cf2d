package lab

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"time"
)

// dumpLimit is how long QEMU may take to write a node's memory to a file.
const dumpLimit = 5 * time.Minute

// Dump writes the node's memory to a file, as ELF with physical addresses. The node
// stands still meanwhile.
func (n *Node) Dump(path string) error {
	conn, err := net.Dial("unix", n.Monitor)
	if err != nil {
		return fmt.Errorf("lab: dump of %s: %w", n.Name, err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(dumpLimit)); err != nil {
		return fmt.Errorf("lab: dump of %s: %w", n.Name, err)
	}
	r := json.NewDecoder(bufio.NewReader(conn))
	if err := r.Decode(new(any)); err != nil { // the greeting
		return fmt.Errorf("lab: dump of %s: %w", n.Name, err)
	}
	w := json.NewEncoder(conn)
	for _, command := range []map[string]any{
		{"execute": "qmp_capabilities"},
		{"execute": "dump-guest-memory", "arguments": map[string]any{"paging": false, "protocol": "file:" + path}},
	} {
		if err := w.Encode(command); err != nil {
			return fmt.Errorf("lab: dump of %s: %w", n.Name, err)
		}
		if err := returned(r); err != nil {
			return fmt.Errorf("lab: dump of %s: %w", n.Name, err)
		}
	}
	return nil
}

// returned waits for a command's answer; events come between.
func returned(r *json.Decoder) error {
	for {
		var m struct {
			Event  string          `json:"event"`
			Error  json.RawMessage `json:"error"`
			Return json.RawMessage `json:"return"`
		}
		switch err := r.Decode(&m); {
		case err != nil:
			return err
		case m.Error != nil:
			return fmt.Errorf("QEMU says %s", m.Error)
		case m.Return != nil:
			return nil
		}
	}
}
