package qemutests

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"quantavirt/appliance/api/spec"
	"quantavirt/image"
)

const updatePath = "/api/v1/system/update"

// standing is what an update that was refused must leave as it was.
type standing struct {
	slots string
	free  int64 // bytes of the data volume
	tasks int   // that are not final
}

// slack is what the node's own log and state may take meanwhile, in bytes.
const slack = 4 << 20

func (m *machine) standing(t *testing.T) (s standing) {
	t.Helper()
	l := slotsOf(t, m.Node)
	l.LastBundle = spec.UpdateBundle{}
	s.slots = fmt.Sprintf("%+v", l)
	s.free = systemState(t, m.Node).DataVolume.FreeBytes
	var tasks spec.TaskList
	if err := m.Call(t.Context(), http.MethodGet, "/api/v1/tasks", nil, &tasks); err != nil {
		t.Fatal(err)
	}
	for _, one := range tasks.Items {
		if one.State == spec.TaskStatePending || one.State == spec.TaskStateRunning {
			s.tasks++
		}
	}
	return s
}

// unchanged wants the node to be as before, and to take a good update.
func (m *machine) unchanged(t *testing.T, before standing, good []byte) {
	t.Helper()
	after := m.standing(t)
	if after.slots != before.slots || after.tasks != 0 || after.free < before.free-slack {
		t.Errorf("before %+v\nafter  %+v", before, after)
	}
	if task := m.updateTask(t, "?check=true&wait=60", good); task.State != spec.TaskStateSucceeded {
		t.Errorf("a good update is not taken any more: %+v", task)
	}
}

// updateTask uploads a bundle and waits for its task.
func (m *machine) updateTask(t *testing.T, query string, data []byte) (task spec.Task) {
	t.Helper()
	if err := m.Call(t.Context(), http.MethodPost, updatePath+query, io.Reader(bytes.NewReader(data)), &task); err != nil {
		t.Fatal(err)
	}
	return task
}

// refuseBundles gives a running node bundles of all bad kinds.
func (m *machine) refuseBundles(t *testing.T) {
	t.Helper()
	before := m.standing(t)
	good := release{version: "9.3", counter: 2}
	data := good.bundle(t)
	flip := func(at int) []byte {
		bad := bytes.Clone(data)
		bad[at] ^= 0x10
		return bad
	}
	foreign := good
	foreign.keys = t.TempDir()
	if _, err := image.NewUpdateKey(foreign.keys); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	m.refuses(t, flip(signed(data)/2), "PQC_ERR_VERIFY")
	m.refuses(t, flip(len(data)-len(data)/4), "PQC_ERR_VERIFY")
	m.refuses(t, foreign.bundle(t), "PQC_ERR_VERIFY")
	m.refuses(t, bundleOf(t, "9.3", 1, ""), "QV_ERR_VERSION")
	m.refuses(t, release{version: "9.3", counter: 2, build: "hardware"}.bundle(t), "QV_ERR_UNSUPPORTED")
	m.refuses(t, []byte(strings.Repeat("no bundle ", 1000)), "QV_ERR_INVAL")
	m.cutUpload(t, data)
	z := &endless{}
	m.refusesStream(t, io.LimitReader(z, 10<<30), 10<<30, "QV_ERR_INVAL")
	if z.n > 64<<20 {
		t.Errorf("%d MiB of zeroes were taken in", z.n>>20)
	}
	m.unchanged(t, before, data)
	t.Logf("%.1f s: bad bundles", time.Since(begin).Seconds())
}

// refuses wants a bundle to be refused with a code.
func (m *machine) refuses(t *testing.T, data []byte, name string) {
	t.Helper()
	m.refusesStream(t, bytes.NewReader(data), int64(len(data)), name)
}

func (m *machine) refusesStream(t *testing.T, r io.Reader, size int64, name string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, m.URL+updatePath, r)
	if err != nil {
		t.Fatal(err)
	}
	req.ContentLength = size
	req.Header.Set("Content-Type", "application/octet-stream")
	req.Header.Set("Authorization", "Bearer "+m.Token)
	client := m.Client()
	defer client.CloseIdleConnections()
	resp, err := client.Do(req)
	if err != nil {
		t.Errorf("%v; want %s", err, name)
		return
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || !strings.Contains(string(body), fmt.Sprintf("%q", name)) {
		t.Errorf("%s, %s, %v; want %s", resp.Status, body, err, name)
	}
}

// cutUpload closes the connection half way through, and waits until the node has
// given the update up.
func (m *machine) cutUpload(t *testing.T, data []byte) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	raw, err := m.Dial(ctx, "tcp", strings.TrimPrefix(m.URL, "https://"))
	if err != nil {
		t.Fatal(err)
	}
	conn := tls.Client(raw, m.TLS())
	_, err = fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: node\r\nAuthorization: Bearer %s\r\nContent-Type: application/octet-stream\r\nContent-Length: %d\r\n\r\n",
		updatePath, m.Token, len(data))
	if err == nil {
		_, err = conn.Write(data[:len(data)/2])
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Close(); err != nil { // without a farewell of TLS
		t.Fatal(err)
	}
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		var tasks spec.TaskList
		if err := m.Call(ctx, http.MethodGet, "/api/v1/tasks", nil, &tasks); err != nil {
			t.Fatal(err)
		}
		for _, one := range tasks.Items {
			if one.Kind == "system.update" && one.State == spec.TaskStateFailed && one.Error.Name == "QV_ERR_IO" {
				return
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("no task has failed with QV_ERR_IO: %+v", tasks.Items)
		}
	}
}

// endless are zeroes that are counted.
type endless struct{ n int64 }

func (z *endless) Read(p []byte) (int, error) {
	clear(p)
	z.n += int64(len(p))
	return len(p), nil
}

// fillPartition fills the EFI system partition: an update is refused, and leaves
// nothing there.
func (m *machine) fillPartition(t *testing.T) {
	t.Helper()
	before := m.standing(t)
	data := bundleOf(t, "9.4", 2, "")
	begin := time.Now()
	const mount = "mkdir /run/full; mount -t vfat /dev/nvme0n1p2 /run/full"
	const umount = "; sync; umount /run/full; rm -r /run/full"
	shell(t, m.Node, mount+"; cat /dev/zero > /run/full/filler"+umount)
	list := func() string {
		t.Helper()
		return shell(t, m.Node, mount+"; find /run/full"+umount)
	}
	files := list()
	if !strings.Contains(files, "/run/full/filler") {
		t.Fatalf("the partition is not full: %s", files)
	}
	task := m.updateTask(t, "?wait=60", data)
	if task.State != spec.TaskStateFailed || task.Error.Name != "QV_ERR_NOSPC" {
		t.Errorf("%+v", task)
	}
	if now := list(); now != files {
		t.Errorf("before:\n%s\nafter:\n%s", files, now)
	}
	shell(t, m.Node, mount+"; rm /run/full/filler"+umount)
	m.unchanged(t, before, data)
	t.Logf("%.1f s: full partition", time.Since(begin).Seconds())
}
