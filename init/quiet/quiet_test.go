package quiet

import (
	"errors"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// nice is the priority of the calling thread; the raw call gives 20 - nice.
func nice(t *testing.T) int {
	t.Helper()
	n, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
	if err != nil {
		t.Error(err)
	}
	return 20 - n
}

func TestDo(t *testing.T) {
	before := nice(t)
	inside := -100
	want := errors.New("of the work")
	if err := Do("work", func() error { inside = nice(t); return want }); !errors.Is(err, want) {
		t.Errorf("%v", err)
	}
	if inside != lowest {
		t.Errorf("the work had priority %d", inside)
	}
	// The thread is not used again.
	for range 100 {
		ch := make(chan int)
		go func() { ch <- nice(t) }()
		if n := <-ch; n != before {
			t.Fatalf("another goroutine has priority %d, not %d", n, before)
		}
	}
	if err := Do("bad work", func() error { panic("on purpose") }); err == nil || !strings.Contains(err.Error(), "bad work panicked") {
		t.Errorf("%v", err)
	}
}
