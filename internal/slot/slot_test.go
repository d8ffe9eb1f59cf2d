package slot

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"quantavirt/image/tools"
	"quantavirt/internal/qverr"
)

func TestName(t *testing.T) {
	for file, want := range map[string]Name{
		"qv-00000001.efi":      {Sequence: 1},
		"qv-99999999.efi":      {Sequence: MaxSequence},
		"qv-00000012+1.efi":    {Sequence: 12, Counted: true, Left: 1},
		"qv-00000012+0-1.efi":  {Sequence: 12, Counted: true, Done: 1},
		"qv-00000012+0.efi":    {Sequence: 12, Counted: true},
		"qv-00000012+3-12.efi": {Sequence: 12, Counted: true, Left: 3, Done: 12},
	} {
		got, ok := ParseName(file)
		if !ok || got != want || got.String() != file {
			t.Errorf("%s: %+v %t, back %s", file, got, ok, got)
		}
	}
	for _, file := range []string{"", "qv-1.efi", "qv-00000000.efi", "qv-000000001.efi", "qv-00000001.EFI", "qv-00000001+.efi", "qv-00000001+1-.efi",
		"qv-00000001+-1.efi", "qv-00000001+12345.efi", "QV-00000001.efi", "qv-00000001.efi.part", "xqv-00000001.efi", "qv-0000000١.efi"} {
		if n, ok := ParseName(file); ok {
			t.Errorf("%q was taken as %+v", file, n)
		}
	}
}

func TestTried(t *testing.T) {
	for from, want := range map[string]string{
		"qv-00000002+1.efi": "qv-00000002+0-1.efi", "qv-00000002+3-1.efi": "qv-00000002+2-2.efi",
		"qv-00000002+0-1.efi": "qv-00000002+0-2.efi", "qv-00000002.efi": "qv-00000002.efi",
	} {
		n, _ := ParseName(from)
		if got := n.Tried().String(); got != want {
			t.Errorf("%s becomes %s, not %s", from, got, want)
		}
	}
}

// What systemd-boot boots first, as in its boot_entry_compare.
func TestFirst(t *testing.T) {
	for want, files := range map[string][]string{
		"qv-00000003.efi":     {"qv-00000001.efi", "qv-00000003.efi", "qv-00000002.efi"},
		"qv-00000002+1.efi":   {"qv-00000001.efi", "qv-00000002+1.efi"},
		"qv-00000001.efi":     {"qv-00000001.efi", "qv-00000002+0-1.efi", "other.efi", "qv-3.new"},
		"qv-00000002+0-1.efi": {"qv-00000001+0-2.efi", "qv-00000002+0-1.efi"}, // nothing else is there
		"qv-00000010.efi":     {"qv-00000009.efi", "qv-00000010.efi"},
		"qv-00000004.efi":     {"qv-00000004+0-1.efi", "qv-00000004.efi"},
		"qv-00000004+2-1.efi": {"qv-00000004+1.efi", "qv-00000004+2-1.efi"},
		"qv-00000004+1-1.efi": {"qv-00000004+1-2.efi", "qv-00000004+1-1.efi"},
	} {
		for range 2 {
			if got, ok := First(files); !ok || got.String() != want {
				t.Errorf("of %v it takes %s, not %s", files, got, want)
			}
			slices.Reverse(files)
		}
	}
	if _, ok := First([]string{"bootx64.efi"}); ok {
		t.Error("a slot out of nothing")
	}
}

func FuzzName(f *testing.F) {
	f.Add("qv-00000012+3-12.efi")
	f.Fuzz(func(t *testing.T, file string) {
		n, ok := ParseName(file)
		if !ok {
			return
		}
		again, ok := ParseName(n.String())
		if !ok || again != n || n.Sequence < 1 || n.Sequence > MaxSequence {
			t.Errorf("%q: %+v, then %+v", file, n, again)
		}
	})
}

func block(text string) []byte {
	text = envSignature + text
	return []byte(text + strings.Repeat("#", EnvSize-len(text)))
}

func TestEnv(t *testing.T) {
	e, err := ParseEnv(block("# WARNING: Do not edit\nother=a\\\\b\\\nc\nqv_default=00000001\nqv_try=\nqv_tries=0\n"))
	if err != nil {
		t.Fatal(err)
	}
	if e.Get("other") != "a\\b\nc" || e.Default() != 1 {
		t.Errorf("%+v", e)
	}
	if seq, after := e.Boot(); seq != 1 || after.Get(EnvTries) != "0" {
		t.Errorf("boots %d", seq)
	}
	e.Arm(2, false)
	seq, after := e.Boot()
	if seq != 2 {
		t.Errorf("armed, it boots %d", seq)
	}
	if again, _ := after.Boot(); again != 1 {
		t.Errorf("after the try it boots %d", again)
	}
	if try, left := after.Try(); try != 2 || left != 0 {
		t.Errorf("after the try: slot %d, %d left", try, left)
	}
	after.Bless(2)
	if seq, _ := after.Boot(); seq != 2 {
		t.Errorf("blessed, it boots %d", seq)
	}
	if seq, _ := e.Boot(); seq != 2 {
		t.Error("a copy changed the original")
	}
	data, err := e.Encode()
	if err != nil {
		t.Fatal(err)
	}
	back, err := ParseEnv(data)
	if err != nil || back.Get("other") != e.Get("other") || back.Get(EnvTry) != "00000002" {
		t.Errorf("%v %+v", err, back)
	}
	if bytes.Index(data, []byte(EnvTries)) > sector {
		t.Error("our variables are not in the first sector")
	}
	kexec := e
	kexec.Arm(2, true)
	if seq, _ := kexec.Boot(); seq != 1 {
		t.Errorf("a kernel that was started without GRUB fails: it boots %d", seq)
	}
	e.Set("long", strings.Repeat("x", EnvSize))
	if _, err := e.Encode(); qverr.CodeOf(err) != qverr.NoSpc {
		t.Errorf("too long: %v", err)
	}
	for name, bad := range map[string][]byte{"empty": nil, "short": block("")[:1000], "zeroes": make([]byte, EnvSize)} {
		if _, err := ParseEnv(bad); qverr.CodeOf(err) != qverr.Inval {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Our block is GRUB's: grub-editenv reads and changes it.
func TestEnvWithGRUB(t *testing.T) {
	root, ok := tools.Cached()
	if !ok {
		t.Skip("the root of Debian packages is not there: make setup makes it")
	}
	var e Env
	e.Bless(3)
	e.Set("note", `back\slash`)
	data, err := e.Encode()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "grubenv")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := root.Command("grub-editenv", path, "list").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "qv_default=00000003") || !strings.Contains(string(out), `note=back\slash`) {
		t.Errorf("%v: %s", err, out)
	}
	if out, err := root.Command("grub-editenv", path, "set", "qv_try=00000004", "qv_tries=1").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	data, err = os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if e, err = ParseEnv(data); err != nil {
		t.Fatal(err)
	}
	if try, left := e.Try(); try != 4 || left != 1 || e.Get("note") != `back\slash` {
		t.Errorf("%+v", e)
	}
}

func FuzzEnv(f *testing.F) {
	f.Add(block("a=b\\\nc\nqv_try=00000001\nqv_tries=1\n"))
	f.Add(block("=\n\\\n#x=y\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := ParseEnv(data)
		if err != nil {
			return
		}
		e.Boot()
		out, err := e.Encode()
		if err != nil {
			return
		}
		back, err := ParseEnv(out)
		if err != nil {
			t.Fatalf("%v from %q", err, out)
		}
		for _, v := range e.vars {
			if !strings.HasPrefix(v.name, "#") && !strings.ContainsAny(v.name, "\\\n") && back.Get(v.name) != v.value {
				t.Errorf("%q: %q became %q", v.name, v.value, back.Get(v.name))
			}
		}
	})
}

func TestInfo(t *testing.T) {
	i := Info{Sequence: 2, Version: "0.2", Build: "virtual", Counter: 5, WrittenAt: time.Unix(1e9, 0).UTC(), State: StateFailed,
		Reason: "reset", Panic: strings.Repeat("x", 2*maxText), Trial: &Trial{From: 1, Before: Before{VMs: []string{"web"}}}}
	data, err := i.Encode()
	if err != nil {
		t.Fatal(err)
	}
	back, err := ParseInfo(data)
	if err != nil || back.Reason != "reset" || len(back.Panic) != maxText || back.Trial.Before.VMs[0] != "web" {
		t.Errorf("%v %+v", err, back)
	}
	for _, bad := range []string{"", "{}", `{"sequence":1}`, `{"sequence":100000000,"state":"good"}`, `{"sequence":-1,"state":"good"}`, `{"sequence":1,"state":"best"}`} {
		if _, err := ParseInfo([]byte(bad)); qverr.CodeOf(err) != qverr.Inval {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

func FuzzInfo(f *testing.F) {
	f.Add([]byte(`{"sequence":1,"state":"good","trial":{"before":{}}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if i, err := ParseInfo(data); err == nil {
			if _, err := i.Encode(); err != nil {
				t.Error(err)
			}
		}
	})
}
