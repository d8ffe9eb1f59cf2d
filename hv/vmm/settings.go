package vmm

import (
	"context"
	"encoding/json"

	"quantavirt/hv/limit"
	"quantavirt/hv/vmm/wire"
	"quantavirt/internal/qverr"
)

// NICSetting is what can be changed of a network device while the guest runs; nil
// leaves a thing as it is.
type NICSetting struct {
	Link   *bool         `json:"link_up,omitempty"`
	Limits *limit.Limits `json:"limits,omitempty"` // of each direction
}

// SetLink pulls the cable of the network device called id, or puts it back.
func (c *Client) SetLink(ctx context.Context, id string, up bool) error {
	return c.put(ctx, "/nics/"+id, NICSetting{Link: &up})
}

// SetNICLimits changes the limits of a network device. QV_ERR_STATE while vhost-net
// moves its packets.
func (c *Client) SetNICLimits(ctx context.Context, id string, l limit.Limits) error {
	return c.put(ctx, "/nics/"+id, NICSetting{Limits: &l})
}

// DiskSetting is what can be changed of a disk while the guest runs; nil leaves a thing
// as it is.
type DiskSetting struct {
	Limits *limit.Limits `json:"limits,omitempty"`
}

// SetDiskLimits changes the limits of a disk, for requests that wait too.
func (c *Client) SetDiskLimits(ctx context.Context, id string, l limit.Limits) error {
	return c.put(ctx, "/disks/"+id, DiskSetting{Limits: &l})
}

// BalloonSetting is what can be changed of the balloon while the guest runs.
type BalloonSetting struct {
	Target int64 `json:"target_bytes"` // memory that is left to the guest
}

// SetBalloon asks the guest to make do with target bytes, a multiple of 4096. Whether it
// does shows in Stats. QV_ERR_BALLOON when it has no driver for the balloon.
func (c *Client) SetBalloon(ctx context.Context, target int64) error {
	return c.put(ctx, "/balloon", BalloonSetting{Target: target})
}

// ConsoleSize is the size of a terminal in characters.
type ConsoleSize struct {
	Columns uint16 `json:"columns"`
	Rows    uint16 `json:"rows"`
}

// SetConsoleSize tells the guest how large the terminal on its virtio console is.
func (c *Client) SetConsoleSize(ctx context.Context, size ConsoleSize) error {
	return c.put(ctx, "/console/"+ConsoleVirtio, size)
}

func (c *Client) put(ctx context.Context, path string, body any) error {
	data, err := json.Marshal(body)
	if err != nil {
		return qverr.New(qverr.Inval, "PUT %s: %w", path, err)
	}
	conn, _, resp, err := c.exchange(ctx, &wire.Request{Method: "PUT", Path: path, Body: data,
		Header: wire.Header{"Content-Type": "application/json"}})
	if err != nil {
		return err
	}
	conn.Close()
	return errorOf(resp)
}
