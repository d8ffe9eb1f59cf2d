package vm

import (
	"quantavirt/appliance/api/spec"
	"quantavirt/hv/limit"
)

// diskLimits are those of a configuration; the bursts are those that package limit
// takes by itself.
func diskLimits(d *spec.StorageConfig) limit.Limits {
	return limit.Limits{Operations: limit.Rate{PerSecond: uint64(d.Iops)}, Bytes: limit.Rate{PerSecond: uint64(d.Bandwidth)}}
}
