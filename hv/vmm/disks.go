package vmm

// DiskStats counts what the guest asked of one disk.
type DiskStats struct {
	ID         string `json:"id"`
	Reads      uint64 `json:"reads"`
	ReadBytes  uint64 `json:"read_bytes"`
	Writes     uint64 `json:"writes"`
	WriteBytes uint64 `json:"write_bytes"`
	Flushes    uint64 `json:"flushes"`
	Discards   uint64 `json:"discards"`
	Errors     uint64 `json:"errors"`
	// Throttled counts the requests that had to wait for a limit.
	Throttled uint64       `json:"throttled"`
	Latency   LatencyStats `json:"latency"`
}

// LatencyStats is how long requests took, from when they were taken from the queue
// until they were given back, with the wait for a limit.
type LatencyStats struct {
	Count uint64 `json:"count"`
	SumUS int64  `json:"sum_us"`
	MaxUS int64  `json:"max_us"`
	// Histogram has in element i the requests that took less than 2^i microseconds and
	// at least half of that; longer ones are in the last of 24.
	Histogram []uint64 `json:"histogram"`
}
