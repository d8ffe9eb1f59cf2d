package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"
)

const apiSocket = "/run/quantavirt/api.sock"

var api = http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
	return (&net.Dialer{}).DialContext(ctx, "unix", apiSocket)
}}}

// call makes a request of the node's API and decodes its answer into out, unless
// that is nil.
func call(method, path string, body io.Reader, out any) error {
	req, err := http.NewRequest(method, "http://node/api/v1"+path, body)
	if err != nil {
		return err
	}
	if f, ok := body.(*os.File); ok {
		st, err := f.Stat()
		if err != nil {
			return err
		}
		req.ContentLength = st.Size()
		req.Header.Set("Content-Type", "application/octet-stream")
	} else if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := api.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode >= http.StatusMultipleChoices {
		return fmt.Errorf("%s %s: %s %s", method, path, resp.Status, text)
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(text, out)
}

// prepareVMs uploads the initrd and the kernels of guests.
func prepareVMs(guests []string) error {
	if err := upload("initrd", "initrd", dir+"/initrd"); err != nil {
		return err
	}
	for _, guest := range guests {
		if err := upload("kernel", guest, kernels[guest]); err != nil {
			return err
		}
	}
	return nil
}

func upload(kind, id, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	return call(http.MethodPost, "/images?kind="+kind+"&id="+id, f, nil)
}

// createVM makes a VM of its own for one start: a console replays what it said
// before, of earlier starts as well.
func createVM(guest string) (path string, err error) {
	name := fmt.Sprintf("%s-%d", guest, monotonic())
	config, err := json.Marshal(map[string]any{
		"name": name, "cpu": map[string]any{"count": 1}, "memory": map[string]any{"size": memory}, "console": "serial",
		"boot": map[string]any{"firmware": "direct", "kernel": guest, "initrd": "initrd", "cmdline": cmdline},
	})
	if err != nil {
		return "", err
	}
	return "/vms/" + name, call(http.MethodPost, "/vms", bytes.NewReader(config), nil)
}

// startVM times the first instruction by what the VM process notes when it enters
// the guest, as attaching to a console takes a while by itself; that the guest then
// says text shows that it was so.
func startVM(guest, text string, seen func(ms float64, pid int) error) error {
	path, err := createVM(guest)
	if err != nil {
		return err
	}
	wall, started := time.Now(), monotonic()
	var task struct {
		State string          `json:"state"`
		Error json.RawMessage `json:"error"`
	}
	if err := call(http.MethodPost, path+"/start?wait=60", nil, &task); err != nil {
		return err
	}
	if task.State != "succeeded" {
		return fmt.Errorf("start of %s: %s %s", guest, task.State, task.Error)
	}
	defer func() {
		_ = call(http.MethodPost, path+"/stop?wait=60", bytes.NewReader([]byte(`{"force":true}`)), nil)
	}()
	if err := expect(path, text); err != nil {
		return err
	}
	ms := (monotonic() - started).Seconds() * 1000
	if guest == "first" {
		var stats struct {
			VMM struct {
				FirstEntry time.Time `json:"first_entry_at"`
			} `json:"vmm"`
		}
		if err := call(http.MethodGet, path+"/stats", nil, &stats); err != nil {
			return err
		}
		ms = stats.VMM.FirstEntry.Sub(wall.Round(0)).Seconds() * 1000
	}
	var vm struct {
		PID int `json:"pid"`
	}
	if err := call(http.MethodGet, path, nil, &vm); err != nil {
		return err
	}
	return seen(ms, vm.PID)
}

// expect attaches to a VM's console and waits for a text.
func expect(path, text string) error {
	console, err := attach(path)
	if err != nil {
		return err
	}
	defer func() { _ = console.Close() }()
	return await(console, text)
}

// attached is a console.
type attached struct {
	io.Reader
	io.Closer
}

func attach(path string) (_ io.ReadCloser, err error) {
	conn, err := net.Dial("unix", apiSocket)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = conn.Close()
		}
	}()
	fmt.Fprintf(conn, "GET /api/v1%s/console HTTP/1.1\r\nHost: node\r\nConnection: Upgrade\r\nUpgrade: quantavirt-console\r\n\r\n", path)
	r := bufio.NewReader(conn)
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		return nil, fmt.Errorf("console of %s: %s", path, resp.Status)
	}
	return attached{r, conn}, nil
}
