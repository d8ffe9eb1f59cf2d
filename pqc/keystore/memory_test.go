package keystore

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"testing"

	"quantavirt/internal/secret"
	"quantavirt/pqc"
)

// No copy of a secret is left in the process once its key is destroyed and the collector
// has run; while it lives it is in its own page alone, which the kernel shows to nobody
// if it can.
func TestNothingLeftInMemory(t *testing.T) {
	if !secret.Wiped {
		t.Skip("this build cannot wipe the heap: GOEXPERIMENT=runtimesecret does")
	}
	r := newRig(t)
	s := r.open()
	own := ownPages(t)
	for _, a := range []pqc.Algorithm{pqc.MLKEM768, pqc.MLDSA65, pqc.SLHDSA128f} {
		k := r.generate(s, a, "")
		needles := r.needles(s, k)
		if a == pqc.MLKEM768 {
			ciphertext := make([]byte, 1088)
			secret.Do(func() { // so that the sender's copy goes too
				c, _ := encapsulate(t, r, k)
				copy(ciphertext, c)
			})
			shared, err := s.Decapsulate(t.Context(), k.ID, ciphertext)
			if err != nil {
				t.Fatal(err)
			}
			needles["the shared key"] = masked(shared.Bytes())
			shared.Wipe()
		} else if _, err := s.Sign(t.Context(), k.ID, []byte("m"), nil); err != nil {
			t.Fatal(err)
		}
		collect()
		for name, where := range find(t, needles) {
			if want := map[string]int{"the seed": own}[name]; len(where) != want {
				t.Errorf("%s: %s is in %d places while the key lives, want %d: %v", a, name, len(where), want, where)
			}
		}
		if err := s.Destroy(t.Context(), k.ID); err != nil {
			t.Fatal(err)
		}
		collect()
		for name, where := range find(t, needles) {
			if len(where) != 0 {
				t.Errorf("%s: %s is left in %v", a, name, where)
			}
		}
	}
}

// ownPages is how many of a secret's own pages can be read as those of a process are: 1,
// or 0 where the kernel hides them.
func ownPages(t *testing.T) int {
	t.Helper()
	b, err := secret.New(32)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Wipe()
	copy(b.Bytes(), "a page that holds a secret alone")
	return len(find(t, map[string][]byte{"it": masked(b.Bytes())})["it"])
}

// collect lets the runtime find what is unreachable, twice: what a finalizer or a pool
// kept is gone only then.
func collect() {
	for range 3 {
		runtime.GC()
	}
}

// needles are parts of a key's secret, masked so that the test itself does not hold
// them.
func (r *rig) needles(s *Store, k Key) map[string][]byte {
	r.t.Helper()
	p, err := k.Algorithm.Params()
	if err != nil {
		r.t.Fatal(err)
	}
	seed := s.keys[k.ID].secret
	out := map[string][]byte{"the seed": masked(seed.Bytes()[:32])}
	if p.Family == pqc.FamilySignature && p.Seed == 32 {
		expanded, err := secret.New(p.SecretKey)
		if err != nil {
			r.t.Fatal(err)
		}
		defer expanded.Wipe()
		secret.Do(func() {
			err = r.crypto.GenerateKey(r.t.Context(), k.Algorithm, seed.Bytes(), make([]byte, p.PublicKey), expanded.Bytes())
		})
		if err != nil {
			r.t.Fatal(err)
		}
		out["K of the expanded key"] = masked(expanded.Bytes()[32:64]) // FIPS 204, algorithm 24
	}
	return out
}

const mask = 0xA7

func masked(b []byte) []byte {
	out := make([]byte, len(b))
	for i := range b {
		out[i] = b[i] ^ mask
	}
	return out
}

// find looks for the needles in all memory of this process that can be written.
func find(t *testing.T, needles map[string][]byte) map[string][]string {
	t.Helper()
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	mem, err := os.Open("/proc/self/mem")
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close()
	found := make(map[string][]string)
	for name := range needles {
		found[name] = nil
	}
	chunk, err := secret.New(1 << 20) // not on the heap, which would be searched too
	if err != nil {
		t.Fatal(err)
	}
	defer chunk.Wipe()
	own := fmt.Sprintf("%p", &chunk.Bytes()[0])[2:]
	lines := bufio.NewScanner(bytes.NewReader(maps))
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		if !strings.HasPrefix(f[1], "rw") || strings.HasPrefix(f[0], own) || len(f) > 5 && f[5] == "[vvar]" {
			continue
		}
		var from, to int64
		if _, err := fmt.Sscanf(f[0], "%x-%x", &from, &to); err != nil {
			t.Fatal(err)
		}
		search(mem, from, to, chunk.Bytes(), needles, found)
	}
	return found
}

// search reads a mapping in pieces that overlap by a needle.
func search(mem io.ReaderAt, from, to int64, chunk []byte, needles map[string][]byte, found map[string][]string) {
	const overlap = 64
	for at := from; at < to; at += int64(len(chunk)) - overlap {
		n, _ := mem.ReadAt(chunk[:min(int64(len(chunk)), to-at)], at) // what is not there cannot hold it
		for i := range chunk[:n] {
			chunk[i] ^= mask
		}
		for name, needle := range needles {
			for rest, base := chunk[:n], 0; ; {
				i := bytes.Index(rest, needle)
				if i < 0 {
					break
				}
				place := fmt.Sprintf("%#x", at+int64(base+i))
				if list := found[name]; len(list) == 0 || list[len(list)-1] != place {
					found[name] = append(list, place)
				}
				rest, base = rest[i+1:], base+i+1
			}
		}
		clear(chunk[:n])
	}
}
