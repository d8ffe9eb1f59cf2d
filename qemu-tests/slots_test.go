package qemutests

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	"quantavirt/appliance/api/spec"
	"quantavirt/qemu-tests/lab"
)

// sendUpdate uploads a bundle and waits until the node is up again after its
// reboot. The system has good seconds to show that all is well.
func sendUpdate(t *testing.T, n *lab.Node, data []byte, good int) {
	t.Helper()
	begin := time.Now()
	mark := n.ConsoleMark()
	path := fmt.Sprintf("/api/v1/system/update?good=%d&limit=240", good)
	if err := n.Call(t.Context(), http.MethodPost, path, io.Reader(bytes.NewReader(data)), nil); err != nil {
		t.Fatal(err)
	}
	t.Logf("%.1f s: the bundle is received and verified", time.Since(begin).Seconds())
	again(t, n, mark)
}

// again waits until the node is ready once more since a mark.
func again(t *testing.T, n *lab.Node, mark int64) {
	t.Helper()
	begin := time.Now()
	if err := n.WaitReadyAfter(t.Context(), mark); err != nil {
		t.Fatal(err)
	}
	t.Logf("%.1f s later: the API is back", time.Since(begin).Seconds())
}

func slotsOf(t *testing.T, n *lab.Node) spec.SlotList {
	t.Helper()
	var l spec.SlotList
	if err := n.Call(t.Context(), http.MethodGet, "/api/v1/system/slots", nil, &l); err != nil {
		t.Fatal(err)
	}
	return l
}

// slotState waits until the slot with a version has a state. A node that is on its
// way down or up does not answer meanwhile.
func slotState(t *testing.T, n *lab.Node, version string, state spec.SlotState) spec.Slot {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		l, err := trySlots(ctx, n)
		for _, s := range l.Items {
			if s.Version == version && s.State == state {
				return s
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("no slot with version %s is %s: %+v, %v", version, state, l, err)
		}
	}
}

func trySlots(ctx context.Context, n *lab.Node) (l spec.SlotList, err error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return l, n.Call(ctx, http.MethodGet, "/api/v1/system/slots", nil, &l)
}
