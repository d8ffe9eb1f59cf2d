package logring

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

func TestRingKeepsWholeLines(t *testing.T) {
	r := New(64)
	rnd := rand.New(rand.NewPCG(1, 2))
	var all strings.Builder
	for i := range 500 {
		line := fmt.Sprintf("line %d %s\n", i, strings.Repeat("x", rnd.IntN(20)))
		all.WriteString(line)
		half := rnd.IntN(len(line))
		_, _ = r.Write([]byte(line[:half]))
		_, _ = r.Write([]byte(line[half:]))
		got := string(r.Bytes())
		if len(got) > 64 || !strings.HasSuffix(all.String(), got) || !strings.HasPrefix(got, "line ") {
			t.Fatalf("after line %d: %q", i, got)
		}
	}
	if got := string(r.Tail(1)); !strings.HasPrefix(got, "line 499 ") || strings.Count(got, "\n") != 1 {
		t.Errorf("last line: %q", got)
	}
}

func TestLongAndPartialLines(t *testing.T) {
	r := New(3 * maxLine)
	var teed int
	r.Tee(func([]byte) { teed++ })
	_, _ = r.Write([]byte(strings.Repeat("a", maxLine+5)))
	if got := r.Bytes(); len(got) != maxLine+1+5 {
		t.Errorf("%d bytes", len(got))
	}
	_, _ = r.Write([]byte("b\n"))
	if got := string(r.Bytes()); !strings.HasSuffix(got, "a\naaaaab\n") {
		t.Errorf("ends with %q", got[len(got)-20:])
	}
	if teed != 2 {
		t.Errorf("%d lines teed", teed)
	}
}
