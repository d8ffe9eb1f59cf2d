package event

import "testing"

func TestBus(t *testing.T) {
	var bus Bus
	bus.Publish(Event{Kind: "nobody listens"})
	fast, slow := bus.Subscribe(2), bus.Subscribe(1)
	bus.Publish(Event{Kind: "a"})
	bus.Publish(Event{Kind: "b"})
	if e := <-fast.C; e.Kind != "a" || e.Time.IsZero() {
		t.Errorf("first event: %+v", e)
	}
	if e := <-fast.C; e.Kind != "b" {
		t.Errorf("second event: %+v", e)
	}
	if slow.Lost() != 1 || fast.Lost() != 0 {
		t.Errorf("lost %d and %d, want 1 and 0", slow.Lost(), fast.Lost())
	}
	slow.Close()
	slow.Close()
	<-slow.C
	if _, open := <-slow.C; open {
		t.Error("a closed subscription still delivers")
	}
	bus.Publish(Event{Kind: "c"})
	if e := <-fast.C; e.Kind != "c" {
		t.Errorf("third event: %+v", e)
	}
}
