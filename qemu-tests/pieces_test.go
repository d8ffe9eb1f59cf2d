package qemutests

import (
	"reflect"
	"testing"
	"unsafe"

	"github.com/cloudflare/circl/kem/mlkem/mlkem1024"
	"github.com/cloudflare/circl/kem/mlkem/mlkem768"
	"github.com/cloudflare/circl/sign/mldsa/mldsa65"

	"quantavirt/pqc"
)

// pieces are parts of a secret key, in the encoding of its standard and as the software
// has it in memory, that nothing public has.
func pieces(t *testing.T, a pqc.Algorithm, seed, expanded []byte) [][]byte {
	t.Helper()
	var loaded any
	var secret []string // fields, from the outermost
	var out [][]byte
	switch a {
	case pqc.MLKEM768, pqc.MLKEM1024: // d‖z, and dk = s‖ek‖H(ek)‖z (FIPS 203, algorithm 16)
		size := map[pqc.Algorithm]int{pqc.MLKEM768: 1152, pqc.MLKEM1024: 1536}[a]
		out = [][]byte{expanded[:32], expanded[size/2 : size/2+32], expanded[size-32 : size]}
		loaded, secret = circlKEM(a, seed), []string{"sh"}
	case pqc.MLDSA65: // sk = ρ‖K‖tr‖s1‖s2‖t0 (FIPS 204, algorithm 24)
		out = [][]byte{expanded[32:64], expanded[128:160], expanded[1000:1032], expanded[len(expanded)-32:]}
		_, key := mldsa65.NewKeyFromSeed((*[32]byte)(seed))
		loaded, secret = key, []string{"s1", "s2", "t0", "s1h", "s2h", "t0h"}
	case pqc.SLHDSA128f: // is what the keystore holds
	default:
		t.Fatalf("no pieces of %s", a)
	}
	for _, name := range secret {
		if b := numbers(reflect.ValueOf(loaded), name); b == nil {
			t.Fatalf("%s has no %s", a, name)
		} else {
			out = append(out, b[:64], b[len(b)/2:len(b)/2+64], b[len(b)-64:])
		}
	}
	return out
}

// parts are from where to where secrets lie in what the keystore holds of a key.
func parts(a pqc.Algorithm, held []byte) [][2]int {
	switch a {
	case pqc.MLKEM768, pqc.MLKEM1024: // d‖z
		return [][2]int{{0, 32}, {32, 64}}
	case pqc.SLHDSA128f: // SK.seed‖SK.prf‖PK.seed‖PK.root
		return [][2]int{{0, 16}, {16, 32}}
	}
	return [][2]int{{0, len(held)}}
}

func circlKEM(a pqc.Algorithm, seed []byte) any {
	if a == pqc.MLKEM768 {
		_, key := mlkem768.NewKeyFromSeed(seed)
		return key
	}
	_, key := mlkem1024.NewKeyFromSeed(seed)
	return key
}

// numbers is the memory of the field with a name, at any depth.
func numbers(v reflect.Value, name string) []byte {
	switch v.Kind() {
	case reflect.Pointer:
		return numbers(v.Elem(), name)
	case reflect.Struct:
		for i := range v.NumField() {
			f := v.Field(i)
			if v.Type().Field(i).Name == name {
				return unsafe.Slice((*byte)(f.Addr().UnsafePointer()), f.Type().Size())
			}
			if b := numbers(f, name); b != nil {
				return b
			}
		}
	}
	return nil
}
