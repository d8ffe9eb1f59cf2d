package needle

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

// A secret is found wherever it lies and however it is written, and nothing else is.
func TestSearch(t *testing.T) {
	secret, other := make([]byte, 33), make([]byte, 33)
	_, _ = rand.Read(secret)
	_, _ = rand.Read(other)
	var s Set
	if err := s.Add("it", secret); err != nil {
		t.Fatal(err)
	}
	for _, at := range []int{0, 1, 4095, chunk - 5, chunk + 30, 2*chunk + 60} {
		for _, before := range []string{"", "a", "ab"} {
			whole := append([]byte(before), append(bytes.Clone(secret), "what follows"...)...)
			for form, text := range map[string]string{
				"raw": string(whole), "hex": hex.EncodeToString(whole), "HEX": strings.ToUpper(hex.EncodeToString(whole)),
				"base64": base64.StdEncoding.EncodeToString(whole), "BASE64": base64.URLEncoding.EncodeToString(whole),
			} {
				hay := append(bytes.Repeat([]byte{0}, at), text...)
				hay = append(hay, other...)
				var hits []Hit
				if err := s.Search(iotest.HalfReader(bytes.NewReader(hay)), func(h Hit) { hits = append(hits, h) }); err != nil {
					t.Fatal(err)
				}
				if len(hits) != 1 || hits[0].Form != strings.ToLower(form) || hits[0].Offset < int64(at) || hits[0].Offset > int64(at)+4 {
					t.Errorf("%s at %d behind %q: %v", form, at, before, hits)
				}
			}
		}
	}
	secret[32] ^= 1
	if err := s.Search(bytes.NewReader(slices.Concat(other, secret)), func(h Hit) { t.Errorf("another secret: %v", h) }); err != nil {
		t.Error(err)
	}
	if s.Add("short", secret[:15]) == nil {
		t.Error("a secret that chance finds is taken")
	}
}
