package pqc

import (
	"bytes"
	"compress/bzip2"
	"compress/gzip"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// hexBytes are bytes in hexadecimal, as the vectors have them.
type hexBytes []byte

func (h *hexBytes) UnmarshalJSON(text []byte) error {
	var s string
	if err := json.Unmarshal(text, &s); err != nil {
		return err
	}
	b, err := hex.DecodeString(s)
	*h = b
	return err
}

// fields are what cases, groups and results of NIST's ACVP files have; each
// kind of test uses some. A key may stand in the group for all its cases.
type fields struct {
	TcID int `json:"tcId"`

	Seed, D, Z, EK, DK, M, C, K            hexBytes // ML-KEM, ML-DSA
	SK, PK, Message, Context, Signature    hexBytes
	Mu, Rnd, SkSeed, SkPrf, PkSeed         hexBytes
	AdditionalRandomness                   hexBytes
	Key, IV, AAD, PT, CT, Tag              hexBytes // AES-GCM
	Msg, MD                                hexBytes // hashes
	DKM                                    hexBytes // KDA
	HashAlg                                string
	Len, OutLen                            int // bits
	TestPassed                             *bool
	ResultsArray                           []struct{ MD hexBytes }
	KDFParameter                           struct{ Salt, Z hexBytes }
	FixedInfoPartyU, FixedInfoPartyV       struct{ PartyID, EphemeralData hexBytes }
	KDFConfiguration                       struct{ KDFType, HMACAlg, FixedInfoPattern string }
	ParameterSet, Function, TestType       string
	SignatureInterface, PreHash, Direction string
	Deterministic, ExternalMu              bool
	KeyLen, IVLen, TagLen                  int
	MinOutLen, MaxOutLen                   int
}

type group struct {
	TgID int `json:"tgId"`
	fields
	Tests []fields
}

// vectorCase is a case with its group and its answer.
type vectorCase struct {
	group   *fields
	in, out *fields
}

func (c vectorCase) String() string {
	return fmt.Sprintf("%s case %d", c.group.ParameterSet, c.in.TcID)
}

// join puts cases and answers together. What is missing fails the test.
func join(t *testing.T, prompt, results []group) (cases []vectorCase) {
	t.Helper()
	answers := make(map[[2]int]*fields)
	for i := range results {
		for j := range results[i].Tests {
			answers[[2]int{results[i].TgID, results[i].Tests[j].TcID}] = &results[i].Tests[j]
		}
	}
	for i := range prompt {
		g := &prompt[i]
		for j := range g.Tests {
			out := answers[[2]int{g.TgID, g.Tests[j].TcID}]
			if out == nil {
				t.Fatalf("group %d case %d has no answer", g.TgID, g.Tests[j].TcID)
			}
			cases = append(cases, vectorCase{&g.fields, &g.Tests[j], out})
		}
	}
	return cases
}

func decodeJSON(t *testing.T, r io.Reader, v any) {
	t.Helper()
	if err := json.NewDecoder(r).Decode(v); err != nil {
		t.Fatal(err)
	}
}

func gunzip(t *testing.T, path string) io.Reader {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	r, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// circlVectors reads a pair of files of circl's test data.
func circlVectors(t *testing.T, prompt, results string) []vectorCase {
	t.Helper()
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/cloudflare/circl").Output()
	if err != nil {
		t.Fatal(err)
	}
	dir := strings.TrimSpace(string(out))
	var in, want struct{ TestGroups []group }
	decodeJSON(t, gunzip(t, filepath.Join(dir, prompt)), &in)
	decodeJSON(t, gunzip(t, filepath.Join(dir, results)), &want)
	return join(t, in.TestGroups, want.TestGroups)
}

// Modules that hold nothing but vectors. They are no dependency of ours: the go
// command fetches them into its cache.
const (
	geomys     = "github.com/geomys/acvp-testdata@v0.0.0-20251201200548-d893de8b8b1c"
	geomysSum  = "h1:W9bTdyWTJoakpzDOLR5BNKaGjYAmoaJOioBztGGWI98="
	wycheproof = "github.com/C2SP/wycheproof@v0.0.0-20250901140545-b51abcfb8daf"
)

// fetchModule returns the directory of a module.
func fetchModule(t *testing.T, module, sum string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "go.mod"), []byte("module vectors\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("go", "mod", "download", "-json", module)
	cmd.Dir = dir
	out, err := cmd.Output()
	var got struct{ Dir, Sum, Error string }
	if jsonErr := json.Unmarshal(out, &got); err != nil || jsonErr != nil || got.Error != "" {
		t.Fatalf("vectors of %s: %v %v %s", module, err, jsonErr, got.Error)
	}
	if got.Sum != sum {
		t.Fatalf("%s has sum %s, want %s", module, got.Sum, sum)
	}
	return got.Dir
}

// geomysVectors reads a file of github.com/geomys/acvp-testdata.
func geomysVectors(t *testing.T, dir, name string) (cases []vectorCase) {
	t.Helper()
	type set struct{ TestGroups []group }
	read := func(kind string) (sets []set) {
		f, err := os.Open(filepath.Join(dir, kind, name+".bz2"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		decodeJSON(t, bzip2.NewReader(f), &sets)
		return sets
	}
	in, want := read("vectors"), read("expected")
	if len(in) != len(want) {
		t.Fatalf("%s: %d sets and %d answers", name, len(in), len(want))
	}
	for i := range in {
		cases = append(cases, join(t, in[i].TestGroups, want[i].TestGroups)...)
	}
	return cases
}

// full tells whether the cases that take long are to be run too.
func full() bool { return os.Getenv("QV_SOAK") != "" }

// tally counts vectors by algorithm and operation.
type tally map[string]int

func (c tally) add(a, op string) { c[a+"  "+op]++ }

func (c tally) report(t *testing.T, of string) {
	t.Helper()
	total := 0
	for _, k := range slices.Sorted(maps.Keys(c)) {
		t.Logf("%6d  %s", c[k], k)
		total += c[k]
	}
	t.Logf("%6d  vectors of %s", total, of)
	if total == 0 {
		t.Error("no vector was run")
	}
}
