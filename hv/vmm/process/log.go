package process

import (
	"fmt"
	"os"
	"sync"

	"golang.org/x/time/rate"
)

// What a guest may cause to be logged: lines a second after a burst, and the size of
// the file, in bytes.
const (
	logRate  = 5
	logBurst = 200
	logSize  = 1 << 20
)

// boundedLog keeps what a guest does over and over from filling the volume. It drops
// lines beyond the rate, and begins a file that is full anew. It is told a line a Write.
type boundedLog struct {
	mu      sync.Mutex
	file    *os.File // open for appending
	size    int64    // of the file; -1 when it is none
	quota   *rate.Limiter
	dropped int // lines, not told yet
}

func newBoundedLog(file *os.File) *boundedLog {
	l := &boundedLog{file: file, size: -1, quota: rate.NewLimiter(logRate, logBurst)}
	if info, err := file.Stat(); err == nil && info.Mode().IsRegular() {
		l.size = info.Size()
	}
	return l
}

func (l *boundedLog) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.quota.Allow() {
		l.dropped++
		return len(line), nil
	}
	if l.dropped > 0 {
		if err := l.put(fmt.Appendf(nil, "%d lines were dropped: there are too many\n", l.dropped)); err != nil {
			return 0, err
		}
		l.dropped = 0
	}
	return len(line), l.put(line)
}

func (l *boundedLog) put(line []byte) error {
	if l.size >= 0 && l.size+int64(len(line)) > logSize {
		if err := l.file.Truncate(0); err != nil {
			return err
		}
		l.size = 0
		if err := l.put(fmt.Appendf(nil, "older lines were dropped: the log may have %d KiB\n", logSize>>10)); err != nil {
			return err
		}
	}
	n, err := l.file.Write(line)
	if l.size >= 0 {
		l.size += int64(n)
	}
	return err
}
