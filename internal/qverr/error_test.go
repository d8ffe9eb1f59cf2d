package qverr

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"testing"
)

func TestErrorChain(t *testing.T) {
	cause := &os.PathError{Op: "open", Path: "/d/web.img", Err: syscall.ENOENT}
	sentinel := errors.New("sentinel")
	inner := New(StrOpen, "open disk web: %w, %w", cause, sentinel)
	outer := New(VMStart, "start vm web: %w", inner)
	wrapped := fmt.Errorf("task 7: %w", outer)
	for _, target := range []error{StrOpen, VMStart, syscall.ENOENT, fs.ErrNotExist, sentinel} {
		if !errors.Is(wrapped, target) {
			t.Errorf("errors.Is does not find %v", target)
		}
	}
	if errors.Is(wrapped, NoEnt) {
		t.Error("a code that nobody set is found")
	}
	if got := CodeOf(wrapped); got != VMStart {
		t.Errorf("CodeOf = %v, want the outermost", got)
	}
	if want := "task 7: start vm web: open disk web: open /d/web.img: no such file or directory, sentinel"; wrapped.Error() != want {
		t.Errorf("text %q", wrapped)
	}
}

func TestFromForeign(t *testing.T) {
	for _, c := range []struct {
		err  error
		want Code
	}{
		{nil, Success},
		{errors.New("x"), Generic},
		{syscall.ENOSPC, NoSpc},
		{fmt.Errorf("x: %w", Busy), Busy},
		{fs.ErrNotExist, NoEnt},
		{context.DeadlineExceeded, Timeout},
		{fmt.Errorf("x: %w", os.ErrDeadlineExceeded), Timeout},
		{context.Canceled, Generic},
	} {
		if got := CodeOf(c.err); got != c.want {
			t.Errorf("CodeOf(%v) = %v, want %v", c.err, got, c.want)
		}
		if c.err != nil && !errors.Is(From(c.err), c.err) {
			t.Errorf("From(%v) lost its cause", c.err)
		}
	}
}

func TestLine(t *testing.T) {
	for _, c := range []struct {
		err  error
		want string
	}{
		{NoVMX, "Error: QV_ERR_NOVMX (-3): Intel VMX / AMD SVM hardware virtualization is not available — enable VT-x/AMD-V in the BIOS/UEFI firmware settings"},
		{New(NoEnt, "no VM named %q", "web"), `Error: QV_ERR_NOENT (-6): no VM named "web" — check the spelling against the list: quantavirt vm list (network list, image list, disk list)`},
		{fmt.Errorf("start vm web: %w", New(StrLock, "disk a is locked").WithHint("stop vm b")), "Error: QV_STR_ERR_LOCK (-402): start vm web: disk a is locked — stop vm b"},
		{New(IO, "two\nlines").WithHint("a\x1b[31mb"), "Error: QV_ERR_IO (-11): two lines — a [31mb"},
		{&Error{Code: -77, Message: "from a newer node"}, "Error: QV_ERR_UNKNOWN (-77): from a newer node — look at the log around the failure: quantavirt log tail --level error --last 1h"},
	} {
		if got := Line(c.err); got != c.want {
			t.Errorf("Line:\n%s\nwant\n%s", got, c.want)
		}
	}
}

func TestPayloadRoundTrip(t *testing.T) {
	sent := fmt.Errorf("validate: %w", New(Config, "cpu.count is 0, want 1 to 256").With("path", "cpu.count").WithHint("give the VM a vCPU"))
	raw, err := json.Marshal(NewBody(sent, "req-7a3b4c5d"))
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"error":{"code":-17,"name":"QV_ERR_CONFIG","message":"The configuration is not valid",` +
		`"detail":"validate: cpu.count is 0, want 1 to 256","subsystem":"hypervisor","request_id":"req-7a3b4c5d","transient":false,` +
		`"details":{"hint":"give the VM a vCPU","path":"cpu.count"}}}`
	if string(raw) != want {
		t.Errorf("body\n%s\nwant\n%s", raw, want)
	}
	var body Body
	if err := json.Unmarshal(raw, &body); err != nil {
		t.Fatal(err)
	}
	got := body.Error.Err()
	if Line(got) != Line(sent) || !errors.Is(got, Config) || got.Details["path"] != "cpu.count" || got.Details["request_id"] != "req-7a3b4c5d" {
		t.Errorf("received %+v", got)
	}
	raw, err = json.Marshal(NewBody(Malformed("unexpected end of JSON input"), ""))
	if err != nil {
		t.Fatal(err)
	}
	body = Body{}
	if err := json.Unmarshal(raw, &body); err != nil || HTTPStatus(body.Error.Err()) != 400 {
		t.Errorf("malformed does not survive: %s", raw)
	}
}

func TestExplainErrors(t *testing.T) {
	for what, want := range map[string]Code{
		"-9999": NoEnt, "": NoEnt, "QV_ERR_NOSUCH": NoEnt, "0x1234": NoEnt, "0xzz": Inval,
		"0x12345": Inval, "exit 13": NoEnt, "exit x": Inval, "77": NoEnt,
	} {
		if _, err := Explain(what); CodeOf(err) != want {
			t.Errorf("Explain(%q): %v, want %v", what, err, want)
		}
	}
	for _, what := range []string{"12", "exit 12", "EXIT:12"} {
		if got, err := Explain(what); err != nil || !strings.HasPrefix(got, "Exit code 12\n") {
			t.Errorf("Explain(%q) = %q, %v", what, got, err)
		}
	}
	got, err := Explain("6")
	if err != nil || got != "Exit code 6\n  Description: Hardware is not available\n  Codes:\n    - QV_ERR_NOVMX (-3)\n    - QV_ERR_NODEV (-10)\n    - QUAC100_ERR_NOT_FOUND (-200)\n" {
		t.Errorf("exit 6: %q, %v", got, err)
	}
}
