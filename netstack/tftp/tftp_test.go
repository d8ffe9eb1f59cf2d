package tftp

import (
	"net/netip"
	"testing"

	"quantavirt/internal/qverr"
)

func TestBounds(t *testing.T) {
	s := New(nil, 1500)
	client := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}) }
	var release []func()
	for range perClient {
		r, err := s.enter(client(0))
		if err != nil {
			t.Fatal(err)
		}
		release = append(release, r)
	}
	if _, err := s.enter(client(0)); qverr.CodeOf(err) != qverr.Limit {
		t.Errorf("one client too often: %v", err)
	}
	for i := perClient; i < transfers; i++ {
		r, err := s.enter(client(i / perClient))
		if err != nil {
			t.Fatalf("transfer %d: %v", i, err)
		}
		release = append(release, r)
	}
	if _, err := s.enter(client(9999)); qverr.CodeOf(err) != qverr.Limit {
		t.Errorf("one transfer too many: %v", err)
	}
	release[0]()
	r, err := s.enter(client(9999))
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range append(release[1:], r) {
		r()
	}
	if len(s.active) != 0 || len(s.slots) != 0 {
		t.Errorf("left: %v, %d", s.active, len(s.slots))
	}
}
