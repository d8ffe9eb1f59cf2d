package regs

import (
	"bytes"
	"math/rand/v2"
	"reflect"
	"testing"
)

func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i + 1)
	}
	return b
}

func TestEntriesUseEveryByte(t *testing.T) {
	raw := pattern(CommandSize)
	c, err := ParseCommand(raw)
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, CommandSize)
	if c.Put(got); !bytes.Equal(got, raw) {
		t.Errorf("command\n got %x\nwant %x", got, raw)
	}
	r, err := ParseResponse(raw)
	if err != nil {
		t.Fatal(err)
	}
	got = make([]byte, ResponseSize)
	if r.Put(got); !bytes.Equal(got, raw[:ResponseSize]) {
		t.Errorf("response\n got %x\nwant %x", got, raw[:ResponseSize])
	}
	s, err := ParseSG(raw)
	if err != nil {
		t.Fatal(err)
	}
	got = make([]byte, SGSize)
	if s.Put(got); !bytes.Equal(got, raw[:SGSize]) {
		t.Errorf("SG entry\n got %x\nwant %x", got, raw[:SGSize])
	}
}

// Golden bytes: the layout itself, not only that both directions agree.
func TestCommandLayout(t *testing.T) {
	c := Command{Opcode: OpKEMEncaps, Flags: FlagIRQ | FlagKeyInline, Param: MLKEM768, Aux: 0x0102, Tag: 0x03040506, KeyID: 0x0708090A,
		Src0: 0x1112131415161718, Src1: 0x21, Dst0: 0x31, Dst1: 0x41, Src0Len: 1184, Src1Len: 2, Dst0Len: 1088, Dst1Len: 32}
	b := make([]byte, CommandSize)
	c.Put(b)
	want := []byte{
		0x01, 0x01, 0x04, 0x01, 0x01, 0x11, 0x02, 0x01, 6, 5, 4, 3, 0x0A, 9, 8, 7,
		0x18, 0x17, 0x16, 0x15, 0x14, 0x13, 0x12, 0x11, 0x21, 0, 0, 0, 0, 0, 0, 0,
		0x31, 0, 0, 0, 0, 0, 0, 0, 0x41, 0, 0, 0, 0, 0, 0, 0,
		0xA0, 4, 0, 0, 2, 0, 0, 0, 0x40, 4, 0, 0, 32, 0, 0, 0,
	}
	if !bytes.Equal(b, want) {
		t.Errorf("got  %x\nwant %x", b, want)
	}
	r := Response{Tag: 1, Opcode: OpEcho, SQHead: 2, Out0Len: 3, Out1Len: 4, KeyID: 5, Detail: 6, LatencyNS: 7, Status: RespBusy, Flags: RespPhase | RespVerified}
	b = make([]byte, ResponseSize)
	r.Put(b)
	want = []byte{1, 0, 0, 0, 1, 0, 2, 0, 3, 0, 0, 0, 4, 0, 0, 0, 5, 0, 0, 0, 6, 0, 0, 0, 7, 0, 0, 0, 7, 0, 0x11, 0}
	if !bytes.Equal(b, want) {
		t.Errorf("got  %x\nwant %x", b, want)
	}
}

type record struct {
	name  string
	size  int
	parse func([]byte) (any, error)
	bytes func(any) []byte
}

var records = []record{
	{"health", HealthSize, func(b []byte) (any, error) { return ParseHealth(b) }, func(v any) []byte { x := v.(Health); return x.Append(nil) }},
	{"card", CardInfoSize, func(b []byte) (any, error) { return ParseCardInfo(b) }, func(v any) []byte { x := v.(CardInfo); return x.Append(nil) }},
	{"attributes", AttributesSize, func(b []byte) (any, error) { return ParseAttributes(b) }, func(v any) []byte { x := v.(Attributes); return x.Append(nil) }},
	{"key", KeyInfoSize, func(b []byte) (any, error) { return ParseKeyInfo(b) }, func(v any) []byte { x := v.(KeyInfo); return x.Append(nil) }},
	{"wrapped", WrappedSize, func(b []byte) (any, error) { return ParseWrapped(b) }, func(v any) []byte { x := v.(Wrapped); return x.Append(nil) }},
	{"firmware", FWHeaderSize, func(b []byte) (any, error) { return ParseFWHeader(b) }, func(v any) []byte { x := v.(FWHeader); return x.Append(nil) }},
}

// roundTrip holds what decoding says against what it says after encoding again.
func roundTrip(t *testing.T, r record, raw []byte) {
	t.Helper()
	v, err := r.parse(raw)
	if err != nil {
		return
	}
	again := r.bytes(v)
	if len(again) != r.size {
		t.Fatalf("%s is %d bytes, want %d", r.name, len(again), r.size)
	}
	w, err := r.parse(again)
	if err != nil || !reflect.DeepEqual(v, w) {
		t.Fatalf("%s: %+v became %+v (%v)", r.name, v, w, err)
	}
}

func TestRecords(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, r := range records {
		if _, err := r.parse(make([]byte, r.size-1)); err == nil {
			t.Errorf("%s: short bytes accepted", r.name)
		}
		for range 64 {
			raw := make([]byte, r.size)
			for i := range raw {
				raw[i] = byte(rng.Uint32())
			}
			if r.name == "health" || r.name == "card" {
				le.PutUint32(raw, uint32(r.size))
			}
			if _, err := r.parse(raw); err != nil {
				t.Fatalf("%s: %v", r.name, err)
			}
			roundTrip(t, r, raw)
		}
	}
	if _, err := ParseHealth(make([]byte, HealthSize)); err == nil {
		t.Error("a health record that says size 0 is accepted")
	}
	if _, err := ParseCardInfo(make([]byte, CardInfoSize)); err == nil {
		t.Error("a card record that says size 0 is accepted")
	}
}

func TestTextsAreCut(t *testing.T) {
	long := string(bytes.Repeat([]byte("x"), 200))
	c := CardInfo{Model: long, SerialText: "s"}
	got, err := ParseCardInfo(c.Append(nil))
	if err != nil || got.Model != long[:32] || got.SerialText != "s" {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestShortEntries(t *testing.T) {
	if _, err := ParseCommand(make([]byte, CommandSize-1)); err == nil {
		t.Error("short command accepted")
	}
	if _, err := ParseResponse(make([]byte, ResponseSize-1)); err == nil {
		t.Error("short response accepted")
	}
	if _, err := ParseSG(make([]byte, SGSize-1)); err == nil {
		t.Error("short SG entry accepted")
	}
}

func FuzzEntries(f *testing.F) {
	f.Add(pattern(CommandSize))
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, err := ParseCommand(b); err == nil {
			out := make([]byte, CommandSize)
			if c.Put(out); !bytes.Equal(out, b[:CommandSize]) {
				t.Fatalf("command %x became %x", b[:CommandSize], out)
			}
		}
		if r, err := ParseResponse(b); err == nil {
			out := make([]byte, ResponseSize)
			if r.Put(out); !bytes.Equal(out, b[:ResponseSize]) {
				t.Fatalf("response %x became %x", b[:ResponseSize], out)
			}
		}
		if s, err := ParseSG(b); err == nil {
			out := make([]byte, SGSize)
			if s.Put(out); !bytes.Equal(out, b[:SGSize]) {
				t.Fatalf("SG entry %x became %x", b[:SGSize], out)
			}
		}
	})
}

func FuzzRecords(f *testing.F) {
	for _, r := range records {
		raw := pattern(r.size)
		le.PutUint32(raw, uint32(r.size))
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, r := range records {
			roundTrip(t, r, b)
		}
	})
}
