package vmm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"quantavirt/hv/config"
	"quantavirt/internal/qverr"
)

// The test binary plays the VM process: what it does is in its name's first part.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && strings.HasPrefix(os.Args[1], "vm/") {
		os.Exit(playVM(strings.TrimPrefix(os.Args[1], "vm/")))
	}
	os.Exit(m.Run())
}

func playVM(name string) int {
	if name == "mute" {
		return 3
	}
	sock := os.NewFile(StartFD, "start")
	_, files, err := ReceiveFrame(sock)
	if err != nil {
		SendAnswer(sock, err)
		return ExitStart
	}
	switch name {
	case "refuses":
		SendAnswer(sock, qverr.New(qverr.Hugepage, "no huge pages"))
		return ExitStart
	case "hangs":
		<-time.After(time.Hour)
	case "dies":
		return 77
	}
	SendAnswer(sock, nil)
	l, err := net.FileListener(files[config.FileControl])
	if err != nil {
		return ExitInternal
	}
	return playControl(l, files[config.FileExit])
}

// playControl answers info until it is asked to quit.
func playControl(l net.Listener, report *os.File) int {
	for {
		conn, err := l.Accept()
		if err != nil {
			return ExitInternal
		}
		buf := make([]byte, 1000)
		n, _ := conn.Read(buf)
		body, _ := json.Marshal(Info{Name: "played", State: StateRunning})
		fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
		conn.Close()
		if strings.HasPrefix(string(buf[:n]), "POST /quit ") {
			data, _ := json.Marshal(ExitReport{Status: ExitQuit, Reason: ReasonQuit, Message: "I was asked"})
			_, _ = report.Write(data)
			return ExitQuit
		}
	}
}

func playedSpec(t *testing.T, name string) Spec {
	t.Helper()
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	m := testMachine()
	m.Name = ""
	return Spec{Binary: binary, Name: name, Machine: m, RunDir: t.TempDir(), NoJail: true, Log: os.Stderr,
		Files: map[string]*os.File{"kernel": tempFile(t, "k", ""), "disk": tempFile(t, "d", ""), config.FileKVM: tempFile(t, "kvm", "")}}
}

func TestSpawnAndQuit(t *testing.T) {
	before := countFDs(t)
	spec := playedSpec(t, "good")
	p, err := Spawn(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := p.Client().Info(t.Context()); err != nil || info.Name != "played" {
		t.Errorf("%+v, %v", info, err)
	}
	if _, err := Spawn(t.Context(), spec); !errors.Is(err, qverr.Exist) {
		t.Errorf("second VM of the name: %v", err)
	}
	short, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := p.Wait(short); !errors.Is(err, qverr.Timeout) {
		t.Errorf("wait for a VM that runs: %v", err)
	}
	if err := p.Client().Quit(t.Context()); err != nil {
		t.Error(err)
	}
	r, err := p.Wait(t.Context())
	if err != nil || r.Status != ExitQuit || r.Reason != ReasonQuit || r.Message != "I was asked" {
		t.Errorf("%+v, %v", r, err)
	}
	if err := errors.Join(p.Kill(), p.Terminate()); err != nil {
		t.Errorf("signal to a VM that is gone: %v", err)
	}
	if _, err := p.Client().Info(t.Context()); !errors.Is(err, qverr.NoEnt) {
		t.Errorf("info of a VM that is gone: %v", err)
	}
	if words, err := ReadExit(spec.RunDir, "good"); err != nil || words.Message != "I was asked" {
		t.Errorf("%+v, %v", words, err)
	}
	if after := countFDs(t) - len(spec.Files); after > before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

func TestKill(t *testing.T) {
	p, err := Spawn(t.Context(), playedSpec(t, "good"))
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	if r, err := p.Wait(t.Context()); err != nil || r.Signal != 9 || r.Reason != ReasonDied {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestSpawnFails(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(*Spec)
		want   qverr.Code
		text   string
	}{
		{"mute", nil, qverr.VMStart, "died with status 3"},
		{"dies", nil, qverr.VMStart, "died with status 77"},
		{"refuses", nil, qverr.Hugepage, "no huge pages"},
		{"hangs", nil, qverr.Timeout, "not started in time"},
		{"good", func(s *Spec) { s.Binary = "/no/such/hv" }, qverr.VMStart, "no such file"},
		{"good", func(s *Spec) { delete(s.Files, "disk") }, qverr.Inval, "missing"},
		{"good", func(s *Spec) { s.Machine.CPUs = 257 }, qverr.Config, "vCPUs"},
		{"good", func(s *Spec) { s.NoJail = false }, qverr.Inval, "root"},
		{"good", func(s *Spec) { s.CPUWeight = 10001 }, qverr.Config, "weight"},
		{"..", nil, qverr.Config, "name"},
		{"good", func(s *Spec) { s.RunDir += strings.Repeat("/long", 30) }, qverr.VMStart, "control socket"},
		{"good", func(s *Spec) { s.Cgroup = s.RunDir + "/no/cgroup" }, qverr.VMStart, "cgroup"},
	} {
		spec := playedSpec(t, tc.name)
		if tc.change != nil {
			tc.change(&spec)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		before := countFDs(t)
		_, err := Spawn(ctx, spec)
		cancel()
		if qverr.CodeOf(err) != tc.want || !strings.Contains(err.Error(), tc.text) {
			t.Errorf("%s: %v (%v), want %v with %q", tc.name, err, qverr.CodeOf(err), tc.want, tc.text)
		}
		if _, err := os.Stat(SocketPath(spec.RunDir, tc.name)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: the socket is left", tc.name)
		}
		if after := countFDs(t); after > before {
			t.Errorf("%s: %d descriptors before, %d after", tc.name, before, after)
		}
	}
}

func TestAdoptNothing(t *testing.T) {
	dir := t.TempDir()
	_, _, err := Adopt(t.Context(), AdoptSpec{Name: "gone", RunDir: dir, Cgroup: dir + "/cgroup"})
	if !errors.Is(err, qverr.NoEnt) {
		t.Errorf("%v", err)
	}
	if err := Cleanup(t.Context(), dir, "gone", dir+"/cgroup"); err != nil {
		t.Errorf("cleanup of nothing: %v", err)
	}
	if _, err := ReadExit(dir, "gone"); !errors.Is(err, qverr.NoEnt) {
		t.Errorf("%v", err)
	}
}

func TestMemoryLimit(t *testing.T) {
	for guest, want := range map[int64]int64{16 << 20: 16<<20 + 128<<10 + 64<<20, 1 << 30: 1<<30 + 8<<20 + 64<<20} {
		if got := MemoryLimit(guest); got != want {
			t.Errorf("%d: %d, want %d", guest, got, want)
		}
	}
}
