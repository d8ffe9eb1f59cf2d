package qemutests

import (
	"bytes"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"testing"
	"unsafe"

	"github.com/cloudflare/circl/kem/mlkem/mlkem1024"
	"github.com/cloudflare/circl/kem/mlkem/mlkem768"
	"github.com/cloudflare/circl/sign/mldsa/mldsa65"

	"quantavirt/pqc"
	"quantavirt/qemu-tests/needle"
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

// The pieces are what the software has of a loaded key in memory, or no search would find
// them there.
func TestPieces(t *testing.T) {
	software, err := pqc.Open(t.Context(), pqc.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range []pqc.Algorithm{pqc.MLKEM768, pqc.MLKEM1024, pqc.MLDSA65} {
		p, err := a.Params()
		if err != nil {
			t.Fatal(err)
		}
		seed, expanded := random(p.Seed), make([]byte, p.SecretKey)
		if err := software.GenerateKey(t.Context(), a, seed, make([]byte, p.PublicKey), expanded); err != nil {
			t.Fatal(err)
		}
		var set needle.Set
		for i, b := range pieces(t, a, seed, expanded) {
			if err := set.Add(fmt.Sprint(i), b); err != nil {
				t.Fatal(err)
			}
		}
		var key interface{ Destroy() }
		if p.Family == pqc.FamilySignature {
			key, err = software.Signer(t.Context(), a, seed)
		} else {
			key, err = software.Decapsulator(t.Context(), a, seed)
		}
		if err != nil {
			t.Fatal(err)
		}
		found := make(map[string]bool)
		if err := set.Search(bytes.NewReader(memory(reflect.ValueOf(key), make(map[unsafe.Pointer]bool))), func(h needle.Hit) { found[h.Name] = true }); err != nil {
			t.Error(err)
		}
		t.Logf("%s: the loaded key has pieces %v", a, slices.Sorted(maps.Keys(found)))
		if len(found) < 3 {
			t.Errorf("%s: the loaded key has pieces %v only", a, found)
		}
		key.Destroy()
	}
}

// memory is all arrays of numbers that v leads to; seen are pointers that were followed.
func memory(v reflect.Value, seen map[unsafe.Pointer]bool) (all []byte) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() && !seen[v.UnsafePointer()] {
			seen[v.UnsafePointer()] = true
			return memory(v.Elem(), seen)
		}
	case reflect.Interface:
		return memory(v.Elem(), seen)
	case reflect.Struct:
		for i := range v.NumField() {
			all = append(all, memory(v.Field(i), seen)...)
		}
	case reflect.Map:
		for each := v.MapRange(); each.Next(); {
			all = append(all, memory(each.Value(), seen)...)
		}
	case reflect.Slice, reflect.Array:
		element := v.Type().Elem()
		for element.Kind() == reflect.Array {
			element = element.Elem()
		}
		if k := element.Kind(); v.Len() > 0 && k >= reflect.Int && k <= reflect.Uint64 && v.Index(0).CanAddr() {
			return unsafe.Slice((*byte)(v.Index(0).Addr().UnsafePointer()), v.Len()*int(v.Type().Elem().Size()))
		}
		for i := range v.Len() {
			all = append(all, memory(v.Index(i), seen)...)
		}
	}
	return all
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
