package support

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"quantavirt/appliance/api/spec"
	"quantavirt/appliance/support/archive"
	"quantavirt/hv/vmm"
	"quantavirt/internal/qverr"
	"quantavirt/internal/qvlog"
)

func service(parts ...Part) *Service {
	return New(Deps{Version: "1", Node: func() (string, string) { return "n1", "node7" }, Parts: parts})
}

// made makes a bundle and reads it.
func made(t *testing.T, s *Service) archive.Manifest {
	t.Helper()
	b, err := s.Begin()
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	var out bytes.Buffer
	if err := b.Write(t.Context(), &out); err != nil {
		t.Fatal(err)
	}
	m, err := archive.Read(&out, func(archive.Entry) {})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// names of files and errors, by part.
func names(m archive.Manifest) []string {
	var out []string
	for _, p := range m.Parts {
		out = append(out, p.Name)
		for _, f := range p.Files {
			out = append(out, f.Name)
		}
		for _, e := range p.Errors {
			out = append(out, e.Name+" "+e.Message)
		}
	}
	return out
}

// What fails, hangs or crashes costs only itself.
func TestItems(t *testing.T) {
	hold := make(chan struct{})
	hangs := Item{Name: "hangs", Time: time.Millisecond, Collect: func(ctx context.Context, add func(File) error) error {
		<-hold
		return add(File{Name: "late"})
	}}
	s := service(
		Part{PartSystem, Items(
			Value("info", func() int { return 7 }),
			JSON("fails", func(context.Context) (int, error) { return 0, qverr.New(qverr.IO, "a disk") }),
			Missing("missing", qverr.New(qverr.Unsupported, "none")),
			Item{Name: "crashes", Collect: func(_ context.Context, add func(File) error) error {
				_ = add(File{Name: "first", Text: []byte("x")})
				panic("bug")
			}},
		)},
		Part{PartLogs, Items(hangs)},
		Part{PartVMs, Items()},
	)
	m := made(t, s)
	want := []string{"system", "system/info.json", "system/first", "system/errors.txt",
		"QV_ERR_IO system/fails: a disk", "QV_ERR_UNSUPPORTED system/missing: none", "QV_ERR_GENERIC system/crashes: it hit a bug: bug",
		"logs", "logs/errors.txt", "QV_ERR_TIMEOUT logs/hangs: it has not answered within 1ms", "vms"}
	if got := names(m); !slices.Equal(got, want) {
		t.Errorf("%q\nwant\n%q", got, want)
	}
	if m.NodeID != "n1" || m.Hostname != "node7" || m.Version != "1" {
		t.Errorf("%+v", m)
	}
	// While it hangs, another one does not join it.
	if got := names(made(t, s)); !slices.Contains(got, "QV_ERR_BUSY logs/hangs: that of an earlier bundle has not ended yet") {
		t.Errorf("%q", got)
	}
	close(hold)
}

// An item's time is not what sending takes, and a part's time is that of its items.
func TestTime(t *testing.T) {
	c := &collection{limit: time.Minute, add: func(File) error { return nil }}
	s := service()
	slow := Item{Name: "a", Collect: func(_ context.Context, add func(File) error) error { return add(File{}) }}
	if failed, err := s.collect(t.Context(), "p", slow, c); failed != nil || err != nil || c.took >= time.Minute {
		t.Errorf("%v, %v after %s", failed, err, c.took)
	}
	c = &collection{limit: 0}
	if failed, err := s.collect(t.Context(), "p", slow, c); !errors.Is(failed, qverr.Timeout) || err != nil {
		t.Errorf("when the time is over: %v, %v", failed, err)
	}
	ended := qverr.New(qverr.IO, "the client is gone")
	c = &collection{limit: time.Minute, add: func(File) error { return ended }}
	if failed, err := s.collect(t.Context(), "p", slow, c); failed != nil || !errors.Is(err, ended) {
		t.Errorf("without a client: %v, %v", failed, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	waits := Item{Name: "b", Collect: func(ctx context.Context, _ func(File) error) error {
		cancel()
		<-ctx.Done()
		return ctx.Err()
	}}
	if failed, err := s.collect(ctx, "p", waits, &collection{limit: time.Minute}); failed != nil || err == nil {
		t.Errorf("cancelled: %v, %v", failed, err)
	}
}

func TestOneAtATime(t *testing.T) {
	s := service()
	b, err := s.Begin()
	if err != nil || !strings.HasPrefix(b.Name(), "quantavirt-support-node7-") || !strings.HasSuffix(b.Name(), "Z.tar.gz") {
		t.Fatalf("%+v, %v", b, err)
	}
	if _, err := s.Begin(); !errors.Is(err, qverr.Busy) {
		t.Errorf("a second one: %v", err)
	}
	b.Close()
	made(t, s)
}

// gather runs all items of a part.
func gather(t *testing.T, p Part) (files map[string]File, err error) {
	t.Helper()
	files = make(map[string]File)
	for _, it := range p.Items() {
		err = errors.Join(err, it.Collect(t.Context(), func(f File) error { files[f.Name] = f; return nil }))
	}
	return files, err
}

func TestLogs(t *testing.T) {
	path := filepath.Join(t.TempDir(), "logs", "quantavirt.log")
	boot := func(context.Context) ([]byte, error) { return []byte("from PID 1\n"), nil }
	if files, err := gather(t, Logs(path, nil)); err != nil || len(files) != 0 {
		t.Errorf("no log: %v, %v", files, err)
	}
	ring, err := qvlog.OpenRing(path, qvlog.MinRing)
	if err != nil {
		t.Fatal(err)
	}
	log := qvlog.New(&bytes.Buffer{}, qvlog.Options{Ring: ring})
	for i := range 30 {
		log.Error("start", "n", i, "err", qverr.New(qverr.IO, "broken"), slog.String("why", "because"))
	}
	if err := ring.Close(); err != nil {
		t.Fatal(err)
	}
	files, err := gather(t, Logs(path, boot))
	newest, older := string(files["node.log"].Text), string(files["node.log.1"].Text)
	if err != nil || string(files["boot.log"].Text) != "from PID 1\n" || !strings.Contains(newest, "QV_ERR_IO (-11): ") ||
		!strings.Contains(newest, " n=29 why=because\n") || strings.Contains(older, "n=29") || !strings.Contains(older, "QV_ERR_IO") {
		t.Errorf("%v\n%s---\n%s", err, older, newest)
	}
	if err := errors.Join(os.Remove(path+".1"), os.Mkdir(path+".1", 0o700)); err != nil {
		t.Fatal(err)
	}
	if files, err := gather(t, Logs(path, nil)); err == nil || len(files["node.log"].Text) == 0 {
		t.Errorf("half of it is damaged: %v, %v", err, files)
	}
}

// vms are some virtual machines.
type vms struct{ console []byte }

func (vms) List() []spec.VM {
	return []spec.VM{{Name: "db", State: spec.VMStateSTOPPED}, {Name: "web", State: spec.VMStateRUNNING}, {Name: "bad"}}
}

func (vms) Stats(_ context.Context, name string) (spec.VMStats, error) {
	switch name {
	case "db":
		return spec.VMStats{}, qverr.New(qverr.State, "it does not run")
	case "bad":
		return spec.VMStats{}, qverr.New(qverr.IO, "it does not answer")
	}
	return spec.VMStats{UptimeSeconds: 7}, nil
}

func (v vms) ConsoleLog(name, device string) ([]byte, error) {
	if name == "web" && device == "serial" {
		return v.console, nil
	}
	return nil, nil
}

func (vms) Crash(name string) (vmm.CrashReport, error) {
	if name == "db" {
		return vmm.CrashReport{Message: "triple fault"}, nil
	}
	return vmm.CrashReport{}, qverr.New(qverr.NoEnt, "it has not crashed")
}

func TestMachines(t *testing.T) {
	console := []byte(strings.Repeat("0123456789\n", 10_000))
	files, err := gather(t, Machines(vms{console}))
	var got []string
	for name := range files {
		got = append(got, name)
	}
	slices.Sort(got)
	if want := []string{"bad/vm.json", "db/crash.json", "db/vm.json", "web/serial.log", "web/stats.json", "web/vm.json"}; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	if !errors.Is(err, qverr.IO) || errors.Is(err, qverr.State) {
		t.Errorf("%v", err)
	}
	f := files["web/serial.log"]
	if len(f.Text) > maxConsole || len(f.Text) < maxConsole-11 || f.Cut != int64(len(console)-len(f.Text)) || !bytes.HasPrefix(f.Text, []byte("0123456789\n")) {
		t.Errorf("%d bytes, %d cut", len(f.Text), f.Cut)
	}
}

func TestMessage(t *testing.T) {
	for record, want := range map[string]string{
		"6,339,5140900,-;NET: Registered protocol\n":              "<6>[    5.140900] NET: Registered protocol\n",
		"30,340,5690716,c;udevd[80]: starting\n SUBSYSTEM=acpi\n": "<6>[    5.690716] udevd[80]: starting\n",
		"3,1,12345678901234,-,caller=T1;a;b\\x0ac\n":              "<3>[12345678.901234] a;b\\x0ac\n",
		"nothing of the kind\n":                                   "nothing of the kind\n",
		"x,y,z;text\n":                                            "text\n",
		"1;text\n":                                                "1;text\n",
		"":                                                        "\n",
	} {
		if got := message(record); got != want {
			t.Errorf("%q: %q, want %q", record, got, want)
		}
	}
}

func TestKernel(t *testing.T) {
	p := Kernel(func(context.Context) (map[string]string, error) {
		return map[string]string{"slot-00000002": "BUG\n"}, qverr.New(qverr.IO, "no disk")
	})
	files := make(map[string]File)
	for _, it := range p.Items() {
		err := it.Collect(t.Context(), func(f File) error { files[f.Name] = f; return nil })
		switch {
		case it.Name == "panics" && !errors.Is(err, qverr.IO), it.Name == "proc" && err != nil:
			t.Errorf("%s: %v", it.Name, err)
		case it.Name == "messages" && err != nil: // not everybody may read them
			if f, openErr := os.Open(kmsg); openErr == nil {
				f.Close()
				t.Errorf("%s: %v", it.Name, err)
			}
		}
	}
	if string(files["panic-slot-00000002.log"].Text) != "BUG\n" || !bytes.Contains(files["meminfo"].Text, []byte("MemTotal:")) {
		t.Errorf("%v", files)
	}
}

func TestTail(t *testing.T) {
	keep := tail{limit: 20}
	for i := range 10 {
		fmt.Fprintf(&keep, "line %d\n", i)
	}
	if f := keep.file("x"); string(f.Text) != "line 8\nline 9\n" || f.Cut != 56 {
		t.Errorf("%q, %d", f.Text, f.Cut)
	}
	if f := lastOf("x", []byte(strings.Repeat("a", 30)), 20); len(f.Text) != 20 || f.Cut != 10 {
		t.Errorf("one long line: %q, %d", f.Text, f.Cut)
	}
	if f := lastOf("x", []byte("a"), 20); string(f.Text) != "a" || f.Cut != 0 {
		t.Errorf("%q, %d", f.Text, f.Cut)
	}
}
