package console_test

import (
	"bytes"
	"sync"
	"testing"

	"quantavirt/hv/virtio/console"
	"quantavirt/hv/virtio/internal/driver"
)

// screen is where a console prints.
type screen struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

const rx, tx = 0, 1

func TestOutput(t *testing.T) {
	var out screen
	d := driver.New(t, newConsole(t, &out, console.Options{}), driver.NewMemory(t))
	d.Start(0)
	q := d.Queues[tx]
	q.Do(q.Out([]byte("hello ")), q.Out([]byte("world")))
	q.Do(q.Out([]byte("!")))
	if out.String() != "hello world!" {
		t.Errorf("%q", out.String())
	}
}

func TestInput(t *testing.T) {
	dev := newConsole(t, &screen{}, console.Options{})
	d := driver.New(t, dev, driver.NewMemory(t))
	if n, err := dev.Write([]byte("early ")); n != 6 || err != nil {
		t.Fatal(n, err)
	}
	d.Start(0)
	q := d.Queues[rx]
	// Buffers wait for input.
	first, second := q.In(4), q.In(64)
	q.Add(first)
	q.Add(second)
	q.Kick()
	if _, n := q.Wait(); n != 4 || string(q.Bytes(first)) != "earl" {
		t.Fatalf("%d bytes: %q", n, q.Bytes(first))
	}
	if _, n := q.Wait(); n != 2 || string(q.Bytes(second)[:2]) != "y " {
		t.Fatalf("%d bytes: %q", n, q.Bytes(second))
	}
	// Input waits for buffers.
	if _, err := dev.Write([]byte("typed")); err != nil {
		t.Fatal(err)
	}
	third := q.In(64)
	q.Add(third)
	q.Kick()
	if _, n := q.Wait(); n != 5 || string(q.Bytes(third)[:5]) != "typed" {
		t.Fatalf("%d bytes: %q", n, q.Bytes(third))
	}
}

func TestInputIsBounded(t *testing.T) {
	dev := newConsole(t, &screen{}, console.Options{})
	d := driver.New(t, dev, driver.NewMemory(t))
	d.Start(0)
	for range 100 {
		if n, err := dev.Write(make([]byte, 1000)); n != 1000 || err != nil {
			t.Fatal(n, err)
		}
	}
	q := d.Queues[rx]
	if n := q.Do(q.In(100_000)); n != 4096 {
		t.Errorf("%d bytes were kept", n)
	}
	// A reset forgets what the guest before did not read.
	if _, err := dev.Write([]byte("old")); err != nil {
		t.Fatal(err)
	}
	d.Start(0)
	if _, err := dev.Write([]byte("new")); err != nil {
		t.Fatal(err)
	}
	q = d.Queues[rx]
	in := q.In(10)
	if n := q.Do(in); string(q.Bytes(in)[:n]) != "new" {
		t.Errorf("%q", q.Bytes(in)[:n])
	}
}

func TestPause(t *testing.T) {
	var out screen
	dev := newConsole(t, &out, console.Options{})
	d := driver.New(t, dev, driver.NewMemory(t))
	d.Start(0)
	if err := d.Transport.Pause(); err != nil {
		t.Fatal(err)
	}
	q := d.Queues[rx]
	q.Add(q.In(10))
	q.Kick()
	if _, err := dev.Write([]byte("later")); err != nil {
		t.Fatal(err)
	}
	d.Interrupted(1, 30)
	if _, _, ok := q.Done(); ok {
		t.Fatal("guest memory was written during the pause")
	}
	if err := d.Transport.Resume(); err != nil {
		t.Fatal(err)
	}
	if _, n := q.Wait(); n != 5 {
		t.Fatalf("%d bytes", n)
	}
}
