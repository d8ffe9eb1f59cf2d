package tpm

import (
	"bytes"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"unicode/utf16"

	"quantavirt/internal/digest"
	"quantavirt/internal/qverr"
)

// logOf writes a log with digests of SHA-1 and SHA-256, as firmware does. The
// digests are those of the data.
func logOf(events ...Event) []byte {
	le := binary.LittleEndian
	head := append(bytes.Clone(specID), make([]byte, 8)...)
	head = le.AppendUint32(head, 2)
	for _, a := range []struct{ alg, size uint16 }{{algSHA1, sha1.Size}, {algSHA256, sha256.Size}} {
		head = le.AppendUint16(head, a.alg)
		head = le.AppendUint16(head, a.size)
	}
	head = append(head, 0) // no information of the vendor
	log := le.AppendUint32(nil, 0)
	log = le.AppendUint32(log, uint32(evNoAction))
	log = append(log, make([]byte, sha1.Size)...)
	log = le.AppendUint32(log, uint32(len(head)))
	log = append(log, head...)
	for _, e := range events {
		log = le.AppendUint32(log, uint32(e.PCR))
		log = le.AppendUint32(log, uint32(e.Type))
		log = le.AppendUint32(log, 2)
		log = le.AppendUint16(log, algSHA1)
		log = append(log, make([]byte, sha1.Size)...)
		log = le.AppendUint16(log, algSHA256)
		sum := sha256.Sum256(e.Data)
		log = append(log, sum[:]...)
		log = le.AppendUint32(log, uint32(len(e.Data)))
		log = append(log, e.Data...)
	}
	return log
}

func utf16le(s string) []byte {
	var b []byte
	for _, u := range utf16.Encode([]rune(s)) {
		b = binary.LittleEndian.AppendUint16(b, u)
	}
	return b
}

func TestReplay(t *testing.T) {
	events, err := ParseLog(logOf(
		Event{PCR: 0, Type: evNoAction, Data: append(bytes.Clone(startupLocality), 3)},
		Event{PCR: 0, Type: evCRTMVersion, Data: []byte("x")},
		Event{PCR: 11, Type: evIPL, Data: []byte(".linux\x00")},
		Event{PCR: 11, Type: evIPL, Data: []byte("kernel")},
		Event{PCR: 0xFFFFFFFF, Type: evNoAction, Data: []byte("firmware's own")},
	))
	if err != nil || len(events) != 5 {
		t.Fatal(events, err)
	}
	v := Replay(events)
	// By hand: SHA-256 of the value before and the digest, from zeroes.
	value := sha256.Sum256(append(make([]byte, 32), hash(".linux\x00")...))
	value = sha256.Sum256(append(value[:], hash("kernel")...))
	first := make([]byte, 32)
	first[31] = 3
	zero := sha256.Sum256(append(first, hash("x")...))
	if v[11] != value || v[0] != zero || len(v) != 2 {
		t.Errorf("%v", v)
	}
	if differ := v.Differ(v); differ != nil {
		t.Error(differ)
	}
	v[PCRIMA], v[17] = digest.SHA256{1}, digest.SHA256{1} // not the firmware's
	if differ := v.Differ(Values{0: zero, 4: {1}}); len(differ) != 2 || differ[0] != 4 || differ[1] != 11 {
		t.Error(differ)
	}
}

func hash(s string) []byte {
	sum := sha256.Sum256([]byte(s))
	return sum[:]
}

func TestBadLogs(t *testing.T) {
	good := logOf(Event{PCR: 1, Type: evIPL, Data: []byte("abc")})
	at := len(logOf()) // where the event begins
	change := func(offset int, b ...byte) []byte {
		log := bytes.Clone(good)
		copy(log[offset:], b)
		return log
	}
	for name, log := range map[string][]byte{
		"nothing":           nil,
		"too large":         make([]byte, MaxLog+1),
		"SHA-1 only":        bytes.Replace(good, []byte{algSHA256, 0, 32, 0}, []byte{0xC, 0, 32, 0}, 1),
		"another header":    change(32, 'X'),
		"cut in the header": good[:40],
		"cut in an event":   good[:len(good)-1],
		"huge event":        change(len(good)-7, 0xFF, 0xFF, 0xFF, 0xFF),
		"register 24":       change(at, 24),
		"unknown digest":    change(at+12, 0xAA),
		"many digests":      change(at+8, 0xFF, 0xFF),
		"no SHA-256":        change(at+8, 1),
	} {
		if _, err := ParseLog(log); !errors.Is(err, qverr.Inval) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := ParseLog(logOf(make([]Event, maxEvents+1)...)); !errors.Is(err, qverr.Inval) {
		t.Errorf("many events: %v", err)
	}
}

func TestDescription(t *testing.T) {
	variable := func(name string, data ...byte) []byte {
		b := make([]byte, 16)
		b = binary.LittleEndian.AppendUint64(b, uint64(len(name)))
		b = binary.LittleEndian.AppendUint64(b, uint64(len(data)))
		return append(append(b, utf16le(name)...), data...)
	}
	image := func(nodes ...[]byte) []byte {
		path := bytes.Join(nodes, nil)
		b := make([]byte, 24)
		b = binary.LittleEndian.AppendUint64(b, uint64(len(path)))
		return append(b, path...)
	}
	node := func(kind, sub byte, data []byte) []byte {
		return append([]byte{kind, sub, byte(4 + len(data)), 0}, data...)
	}
	option := append(make([]byte, 6), utf16le("USB stick\x00")...)
	for _, c := range []struct {
		e    Event
		want string
	}{
		{Event{Type: evSeparator, Data: []byte{0, 0, 0, 0}}, "end of this register's part"},
		{Event{Type: evSeparator, Data: []byte{1, 0, 0, 0}}, "an error of the firmware"},
		{Event{Type: evCRTMVersion, Data: utf16le("2.1\x00")}, "firmware version 2.1"},
		{Event{Type: evEFIVariableDriver, Data: variable("SecureBoot", 1)}, "SecureBoot = 1"},
		{Event{Type: evEFIVariableDriver, Data: variable("db", 1, 2, 3)}, "db, 3 bytes"},
		{Event{Type: evEFIVariableBoot, Data: variable("Boot0001", option...)}, "Boot0001 USB stick"},
		{Event{Type: evEFIVariableBoot, Data: []byte{1, 2}}, "2 bytes"},
		{Event{Type: evEFIApplication, Data: image(node(1, 1, []byte{1, 2}), node(4, 4, utf16le(`\EFI\BOOT\BOOTX64.EFI`+"\x00")), node(0x7F, 0xFF, nil))}, `\EFI\BOOT\BOOTX64.EFI`},
		{Event{Type: evEFIApplication, Data: image([]byte{4, 4, 0, 0})}, "program of 0 bytes"},
		{Event{Type: evEFIBootDriver, Data: image(node(4, 6, make([]byte, 16)))}, "part of the firmware"},
		{Event{Type: evEventTag, Data: []byte{1, 0, 0, 0, 2, 0, 0, 0, 'h', 'i'}}, "tag 0x1 hi"},
		{Event{Type: evIPL, Data: []byte(".cmdline\x00")}, ".cmdline"},
		{Event{Type: evIPL, Data: utf16le("wide")}, "wide"},
		{Event{Type: evIPL, Data: []byte("\x1b[2J")}, "4 bytes"},
		{Event{Type: evIPL, Data: []byte(strings.Repeat("x", 500))}, strings.Repeat("x", maxDescription-1) + "…"},
		{Event{Type: evEFIVariableAuthority}, "0 bytes"},
	} {
		if got := c.e.Description(); got != c.want {
			t.Errorf("%s: %q, want %q", c.e.Type, got, c.want)
		}
	}
	if got := EventType(0xABC).String(); got != "0xabc" {
		t.Error(got)
	}
}

func FuzzParseLog(f *testing.F) {
	f.Add(logOf(Event{PCR: 7, Type: evEFIVariableDriver, Data: make([]byte, 40)}, Event{PCR: 4, Type: evEFIApplication, Data: make([]byte, 60)}))
	if log, err := os.ReadFile("testdata/ovmf.log"); err == nil {
		f.Add(log)
	}
	f.Fuzz(func(t *testing.T, log []byte) {
		events, err := ParseLog(log)
		if err != nil {
			if !errors.Is(err, qverr.Inval) {
				t.Error(err)
			}
			return
		}
		for pcr := range Replay(events) {
			if pcr < 0 || pcr > maxPCR {
				t.Errorf("register %d", pcr)
			}
		}
		for _, e := range events {
			if d := e.Description(); strings.ContainsAny(d, "\x1b\n\x00") || len([]rune(d)) > maxDescription {
				t.Errorf("%q", d)
			}
		}
	})
}

// A log of OVMF, systemd-boot and systemd's stub, and the registers of the swtpm
// that they measured into.
func TestRealBoot(t *testing.T) {
	log, values := realBoot(t)
	events, err := ParseLog(log)
	if err != nil {
		t.Fatal(err)
	}
	if differ := values.Differ(Replay(events)); differ != nil {
		t.Errorf("PCR %v differ", differ)
	}
	var text strings.Builder
	for _, e := range events {
		fmt.Fprintf(&text, "%d %s %s\n", e.PCR, e.Type, e.Description())
	}
	const golden = "testdata/ovmf.events"
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if text.String() != string(want) {
		t.Errorf("got\n%s\nwant\n%s", text.String(), want)
	}
}

func realBoot(t *testing.T) (log []byte, values Values) {
	t.Helper()
	log, err := os.ReadFile("testdata/ovmf.log")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("testdata/ovmf.pcrs.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &values); err != nil {
		t.Fatal(err)
	}
	return log, values
}

// Whatever of the log is changed that a digest covers, a register tells.
func TestTamperedLog(t *testing.T) {
	log, values := realBoot(t)
	events, err := ParseLog(log)
	if err != nil {
		t.Fatal(err)
	}
	for i, e := range events {
		if e.Type == evNoAction {
			continue
		}
		for name, changed := range map[string][]Event{
			"left out": slices.Delete(slices.Clone(events), i, i+1),
			"twice":    slices.Insert(slices.Clone(events), i, e),
			"another":  slices.Replace(slices.Clone(events), i, i+1, Event{PCR: e.PCR, Type: e.Type, SHA256: digest.SHA256{1}}),
		} {
			if differ := values.Differ(Replay(changed)); !slices.Equal(differ, []int{e.PCR}) {
				t.Errorf("event %d %s: PCR %v differ, want %d", i, name, differ, e.PCR)
			}
		}
	}
}
