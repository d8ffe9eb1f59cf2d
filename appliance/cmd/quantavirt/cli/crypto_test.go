package cli

import (
	"flag"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files anew")

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s: got\n%s\nwant\n%s", name, got, want)
	}
}

const (
	aKey = `{"id":"5d0f5f5e-6c0f-4f0c-9b0e-0a5b3c2d1e0f","label":"release","algorithm":"ML-DSA-65","usage":["sign","verify"],
		"state":"active","version":2,"origin":"generated","extractable":true,"created_at":"2026-11-27T07:00:00.5Z",
		"expires_at":"2027-11-27T07:00:00Z","replaces":"0b1c2d3e-0000-4000-8000-000000000001","uses":41,"public_key":"AAAA"}`
	oldKey = `{"id":"0b1c2d3e-0000-4000-8000-000000000001","label":"release","algorithm":"ML-DSA-65","usage":["sign","verify"],
		"state":"retired","version":1,"origin":"imported","extractable":false,"created_at":"2025-11-27T07:00:00Z",
		"retired_at":"2026-11-27T07:00:00Z","replaced_by":"5d0f5f5e-6c0f-4f0c-9b0e-0a5b3c2d1e0f","uses":7,"public_key":"AAAA"}`
)

// answers are what the node of these tests says.
var answers = map[string]string{
	"GET /api/v1/crypto/keys":          `{"items":[` + oldKey + `,` + aKey + `]}`,
	"GET /api/v1/crypto/keys/release":  aKey,
	"GET /api/v1/crypto/keys/0b1c2d3e": oldKey,
	"GET /api/v1/crypto/keystore": `{"state":"open","keys":2,"generation":9,"counter":"tpm","opened_by":["tpm","passphrase"],"envelope_key":"",
		"memory":{"locked":true,"no_core_dump":true,"no_swap":true,"wiped":true}}`,
	"POST /api/v1/crypto/bench": `{"provider":"quac100","items":[{"algorithm":"ML-KEM-768","operation":"encaps","operations":4000,"nanoseconds":100000000},
		{"algorithm":"ML-KEM-768","operation":"decaps","operations":3,"nanoseconds":1500000000}]}`,
	"GET /api/v1/crypto/quac100": `{"provider":"quac100","cards":[{"address":"0000:00:08.0","iommu_group":4,"bound":true,"serial":"QUAC100-0000000051430001",
		"hardware":"QUAC 100","firmware":"1.0.0","self_test":"passed","health":"ok","healthy":true,"temperature_c":45}]}`,
	"POST /api/v1/crypto/quac100/0000:00:08.0/self-test": `{"address":"0000:00:08.0","iommu_group":4,"bound":true,"serial":"QUAC100-0000000051430001",
		"hardware":"QUAC 100","firmware":"1.0.0","self_test":"passed","health":"ok","healthy":true,"temperature_c":45}`,
	"GET /api/v1/crypto/quac100/0000:00:08.0/stats": `{"ok":123456789,"failed":{"BUSY":2},"polling":true}`,
	"GET /api/v1/crypto/qrng/random":                `{"provider":"quac100","data":"AAECAwQFBgc="}`,
}

// What is printed for people.
func TestCryptoOutput(t *testing.T) {
	env := node(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answerJSON(w, http.StatusOK, answers[r.Method+" "+r.URL.Path])
	}))
	for _, line := range []string{
		"crypto key list", "crypto key show release", "crypto key show 0b1c2d3e", "crypto keystore status", "crypto bench ml-kem-768",
		"crypto quac100 list", "crypto quac100 status", "crypto quac100 self-test", "crypto quac100 stats", "crypto qrng read --bytes 8",
		"crypto --help", "crypto key --help", "crypto key export --help", "crypto keystore init --help", "crypto sign --help",
	} {
		got := runIn(t, env, nil, strings.Fields(line)...)
		if got.exit != 0 || got.err != "" {
			t.Errorf("%s: exit %d, %s", line, got.exit, got.err)
		}
		golden(t, strings.NewReplacer(" --", "-", " ", "-").Replace(line), got.out)
	}
}

func TestCryptoUsage(t *testing.T) {
	for _, args := range [][]string{
		{"crypto", "key", "generate"}, {"crypto", "key", "show"}, {"crypto", "key", "generate", "--algorithm", "ML-DSA-44", "--expires", "soon"},
		{"crypto", "key", "expire", "a", "--at", "1h", "--never"}, {"crypto", "key", "export", "a"}, {"crypto", "key", "export", "a", "--file", "b", "--raw"},
		{"crypto", "key", "export", "a", "--file", "b", "--plain", "--public"}, {"crypto", "sign", "a"}, {"crypto", "sign", "--key", "a", "b"},
		{"crypto", "verify", "a"}, {"crypto", "verify", "--signature", "s", "a"}, {"crypto", "verify", "--signature", "s", "--key", "k", "--public-key", "p", "a"},
		{"crypto", "encaps"}, {"crypto", "encaps", "--ciphertext", "c", "--shared", "s"}, {"crypto", "decaps", "a"}, {"crypto", "keystore", "unlock"},
	} {
		got := runIn(t, map[string]string{"QUANTAVIRT_HOST": "unix:///nonexistent"}, nil, args...)
		if got.exit != 2 || !strings.HasPrefix(got.err, "Error: QV_ERR_INVAL (-5): ") || strings.Count(got.err, "\n") != 1 {
			t.Errorf("%v: exit %d, %q", args, got.exit, got.err)
		}
	}
}

// New firmware goes to the only card, or to the one that is named.
func TestFirmwareUpload(t *testing.T) {
	var got []string
	env := node(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			answerJSON(w, http.StatusOK, answers[r.Method+" "+r.URL.Path])
			return
		}
		body, _ := io.ReadAll(r.Body)
		got = append(got, r.URL.Path+" "+string(body))
		answerJSON(w, http.StatusAccepted, `{"id":"t1","kind":"quac100.firmware","target":"quac100/x","state":"succeeded","progress":{"done":0,"total":0},"created_at":"2026-11-27T07:00:00Z"}`)
	}))
	image := filepath.Join(t.TempDir(), "fw")
	if err := os.WriteFile(image, []byte("firmware"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"crypto", "quac100", "fw-update", image}, {"crypto", "quac100", "fw-update", image, "--card", "0000:00:09.0"}} {
		if r := runIn(t, env, nil, args...); r.exit != 0 || !strings.Contains(r.out, ": done") {
			t.Errorf("%v: exit %d, %s%s", args, r.exit, r.out, r.err)
		}
	}
	want := []string{"/api/v1/crypto/quac100/0000:00:08.0/firmware firmware", "/api/v1/crypto/quac100/0000:00:09.0/firmware firmware"}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
