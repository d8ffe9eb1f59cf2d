package vmm

import (
	"context"
	"encoding/json"

	"quantavirt/hv/limit"
	"quantavirt/hv/vmm/wire"
	"quantavirt/internal/qverr"
)

// LimitsPatch changes limits: what is nil stays as it is, a Rate that is zero ends a
// limit.
type LimitsPatch struct {
	Operations *limit.Rate `json:"operations,omitempty"`
	Bytes      *limit.Rate `json:"bytes,omitempty"`
}

// Apply returns l, changed.
func (p LimitsPatch) Apply(l limit.Limits) limit.Limits {
	if p.Operations != nil {
		l.Operations = *p.Operations
	}
	if p.Bytes != nil {
		l.Bytes = *p.Bytes
	}
	return l
}

// LimitsPath is the path of a device's limits on the control socket.
func LimitsPath(device string) string { return "/devices/" + device + "/limits" }

// SetLimits changes the limits of a disk or network device while the VM runs, and
// returns those that apply.
func (c *Client) SetLimits(ctx context.Context, device string, p LimitsPatch) (limit.Limits, error) {
	var out limit.Limits
	body, err := json.Marshal(p)
	if err != nil {
		return out, qverr.New(qverr.Generic, "limits of %s: %w", device, err)
	}
	conn, _, resp, err := c.exchange(ctx, &wire.Request{Method: "PATCH", Path: LimitsPath(device),
		Header: wire.Header{"Content-Type": "application/json"}, Body: body})
	if err != nil {
		return out, err
	}
	conn.Close()
	if err := errorOf(resp); err != nil {
		return out, err
	}
	if err := json.Unmarshal(resp.Body, &out); err != nil {
		return out, qverr.New(qverr.IO, "answer of %s to limits of %s: %w", c.socket, device, err)
	}
	return out, nil
}
