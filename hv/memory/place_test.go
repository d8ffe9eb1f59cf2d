package memory_test

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"testing"

	"quantavirt/hv/memory"
	"quantavirt/internal/qverr"
)

// pool sets how many huge pages of 2 MiB the host has, for this test.
func pool(t *testing.T, pages int) {
	t.Helper()
	for _, file := range []string{"nr_hugepages", "nr_overcommit_hugepages"} {
		path := "/sys/kernel/mm/hugepages/hugepages-2048kB/" + file
		old, err := os.ReadFile(path)
		if err != nil {
			t.Skipf("this kernel has no huge pages: %v", err)
		}
		n := 0
		if file == "nr_hugepages" {
			n = pages
		}
		if err := os.WriteFile(path, []byte(strconv.Itoa(n)), 0); err != nil {
			t.Skipf("the pool cannot be set: %v", err)
		}
		t.Cleanup(func() { _ = os.WriteFile(path, old, 0) })
	}
	got, _ := os.ReadFile("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages")
	if strings.TrimSpace(string(got)) != strconv.Itoa(pages) {
		t.Skipf("the host has not %d huge pages", pages)
	}
}

func free(t *testing.T) int {
	t.Helper()
	b, err := os.ReadFile("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages")
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestHugePages(t *testing.T) {
	pool(t, 8)
	for _, node := range []*int{nil, new(0)} {
		o := memory.Options{HugePage: 2 << 20, Node: node}
		if _, err := memory.NewFrom(18<<20, o); !errors.Is(err, qverr.Hugepage) {
			t.Errorf("nine pages of eight: %v", err)
		}
		m, err := memory.NewFrom(16<<20, o)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := memory.NewFrom(2<<20, memory.Options{HugePage: 2 << 20}); !errors.Is(err, qverr.Hugepage) {
			t.Errorf("a page that is taken: %v", err)
		}
		if err := m.PutUint64(10<<20, 7); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(m.DiscardRange(10<<20, 2<<20), m.Discard()); err != nil {
			t.Fatal(err)
		}
		if v, err := m.Uint64(10 << 20); err != nil || v != 0 {
			t.Errorf("after the discard: %d, %v", v, err)
		}
		if _, err := memory.NewFrom(2<<20, memory.Options{HugePage: 2 << 20}); !errors.Is(err, qverr.Hugepage) {
			t.Errorf("a page that was given back by a reset: %v", err)
		}
		if err := m.Close(); err != nil {
			t.Fatal(err)
		}
		if n := free(t); n != 8 {
			t.Errorf("%d free pages after the end", n)
		}
	}
}

func TestNode(t *testing.T) {
	m, err := memory.NewFrom(1<<20, memory.Options{Node: new(0)})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.PutUint64(0, 1); err != nil {
		t.Fatal(err)
	}
	maps, err := os.ReadFile("/proc/self/numa_maps")
	if err == nil && !strings.Contains(string(maps), "bind:0 file=/memfd:guest-ram") {
		t.Error("the memory is not bound to node 0")
	}
	m.Close()
	for _, node := range []int{-1, 900, 1 << 20} {
		if _, err := memory.NewFrom(1<<20, memory.Options{Node: &node}); !errors.Is(err, qverr.NUMA) {
			t.Errorf("node %d: %v", node, err)
		}
	}
	if _, err := memory.NewFrom(1<<20, memory.Options{HugePage: 4 << 20}); !errors.Is(err, qverr.Inval) {
		t.Errorf("pages of 4 MiB: %v", err)
	}
}
