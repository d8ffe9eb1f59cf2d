package machine

import (
	"log/slog"
	"strings"
	"sync"
	"time"
)

// The port that firmware prints its log on: a read tells it by debugPresent that
// somebody listens.
const (
	portDebug    = 0x402
	debugPresent = 0xe9

	debugLineMax = 160 // bytes; the rest of a line is cut off
	// A start of SeaBIOS prints about 100 lines. A guest that prints on gets
	// debugBurst lines at once and then one every debugPause.
	debugBurst = 256
	debugPause = 10 * time.Second
)

// debugConsole copies what firmware prints to the log of the VM.
type debugConsole struct {
	log *slog.Logger
	now func() time.Time

	mu      sync.Mutex
	line    []byte
	credit  int // lines that may be written now
	since   time.Time
	dropped int // lines since the last one written
}

func newDebugConsole(log *slog.Logger) *debugConsole {
	return &debugConsole{log: log, now: time.Now, credit: debugBurst, since: time.Now()}
}

func (c *debugConsole) reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.line = nil
}

func (c *debugConsole) readPort(_ uint16, data []byte) {
	ones(data)
	data[0] = debugPresent
}

func (c *debugConsole) writePort(_ uint16, data []byte) eventKind {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch b := data[0]; {
	case b == '\n':
		c.flush()
	case len(c.line) < debugLineMax && b >= ' ' && b <= '~':
		c.line = append(c.line, b)
	}
	return 0
}

// flush writes the line, if the guest may still write one; c.mu is held.
func (c *debugConsole) flush() {
	text := strings.TrimSpace(string(c.line))
	c.line = c.line[:0]
	if text == "" {
		return
	}
	if n := int(c.now().Sub(c.since) / debugPause); n > 0 {
		c.since = c.since.Add(time.Duration(n) * debugPause)
		c.credit = min(c.credit+n, debugBurst)
	}
	if c.credit == 0 {
		c.dropped++
		return
	}
	c.credit--
	if c.dropped > 0 {
		c.log.Info("firmware: "+text, "dropped_lines", c.dropped)
		c.dropped = 0
		return
	}
	c.log.Info("firmware: " + text)
}
