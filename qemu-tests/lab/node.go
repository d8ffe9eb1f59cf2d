package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Node is a running appliance, as `lab up` prints it.
type Node struct {
	Name         string         `json:"name"`
	PID          int            `json:"pid"`
	URL          string         `json:"url"`
	Token        string         `json:"token"`
	CA           string         `json:"ca"` // pin of the node's authority, sha256:HEX
	ConsoleLog   string         `json:"console_log"`
	Monitor      string         `json:"monitor"`       // QMP socket
	SerialSocket string         `json:"serial_socket"` // ttyS0
	Ports        map[string]int `json:"ports"`         // name to port on 127.0.0.1
	Dir          string         `json:"dir"`
	DataDisk     string         `json:"data_disk,omitempty"`
	ModelPID     int            `json:"model_pid,omitempty"`
	TPMPID       int            `json:"tpm_pid,omitempty"`
	Namespace    string         `json:"namespace,omitempty"`
	FromInside   bool           `json:"from_inside,omitempty"` // URL is an address in Namespace

	// Started is when QEMU was started; BootTime is from there to the API's
	// readiness.
	Started  time.Time     `json:"started"`
	BootTime time.Duration `json:"boot_ns"`
}

// Root returns the directory of the module that the working directory lies in.
func Root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("lab: not inside the source tree: no go.mod above the working directory")
		}
		dir = parent
	}
}

// Dir is where nodes live in a tree.
func Dir(root string) string { return filepath.Join(root, "build", "lab") }

// Load reads the node that was started under a name.
func Load(root, name string) (*Node, error) {
	data, err := os.ReadFile(filepath.Join(Dir(root), name, "node.json"))
	if err != nil {
		return nil, fmt.Errorf("lab: no node %q: %w", name, err)
	}
	var n Node
	if err := json.Unmarshal(data, &n); err != nil {
		return nil, fmt.Errorf("lab: node %q: %w", name, err)
	}
	return &n, nil
}

// List returns every node whose QEMU still runs.
func List(root string) ([]*Node, error) {
	entries, err := os.ReadDir(Dir(root))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var nodes []*Node
	for _, e := range entries {
		n, err := Load(root, e.Name())
		if err == nil && n.Running() {
			nodes = append(nodes, n)
		}
	}
	return nodes, nil
}

// Running reports whether the node's QEMU is alive. The process is recognised
// by its command line, which names the node's directory: a pid may be reused.
func (n *Node) Running() bool { return owns(n.PID, n.Dir) }

func owns(pid int, dir string) bool {
	if pid <= 0 {
		return false
	}
	cmdline, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
	return err == nil && strings.Contains(string(cmdline), dir+"/")
}

// Kill ends QEMU at once, as a power cut does. The files stay.
func (n *Node) Kill() error { return n.end(n.PID) }

// Down ends the node and its model; the console log and the disks stay for
// whoever looks at a failed test.
func (n *Node) Down() error {
	err := errors.Join(n.end(n.PID), n.end(n.ModelPID), n.end(n.TPMPID))
	if n.Namespace != "" {
		err = errors.Join(err, deleteNamespace(n.Namespace))
	}
	return errors.Join(err, removeIfThere(filepath.Join(n.Dir, "node.json")))
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// end kills a process of this node and waits until it is gone.
func (n *Node) end(pid int) error {
	if !owns(pid, n.Dir) {
		return nil
	}
	fd, err := pidfdOpen(pid)
	if err != nil {
		if errors.Is(err, syscall.ESRCH) {
			return nil
		}
		return fmt.Errorf("lab: end %s: %w", n.Name, err)
	}
	defer syscall.Close(fd)
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("lab: end %s: %w", n.Name, err)
	}
	if err := pollReadable(fd, 10*time.Second); err != nil {
		return err
	}
	// Our own children stay zombies until somebody waits for them.
	var status syscall.WaitStatus
	_, _ = syscall.Wait4(pid, &status, syscall.WNOHANG, nil)
	return nil
}

func (n *Node) save() error {
	data, err := json.MarshalIndent(n, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(n.Dir, "node.json"), append(data, '\n'), 0o600)
}
