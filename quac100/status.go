package quac100

import (
	"context"
	"fmt"

	"quantavirt/quac100/regs"
)

// Status is what the node shows of a card. Temperatures are in milli-degrees
// Celsius, voltages in mV, power in mW.
type Status struct {
	Address        string   `json:"address"`
	Serial         string   `json:"serial"`
	Model          string   `json:"model"`
	Firmware       string   `json:"firmware"`
	FirmwareBuild  uint32   `json:"firmware_build"`
	Health         string   `json:"health"` // ok, degraded, warning, critical or failed
	SelfTest       string   `json:"self_test"`
	SelfTestFailed []string `json:"self_test_failed,omitempty"`
	TempCore       int32    `json:"temperature_core_mc"`
	TempMemory     int32    `json:"temperature_memory_mc"`
	TempBoard      int32    `json:"temperature_board_mc"`
	TempVRM        int32    `json:"temperature_vrm_mc"`
	PowerMW        uint32   `json:"power_mw"`
	CoreMV         uint32   `json:"core_mv"`
	UptimeSeconds  uint64   `json:"uptime_seconds"`
	OpsOK          uint64   `json:"operations_ok"`
	OpsFailed      uint64   `json:"operations_failed"`
	QRNG           QRNG     `json:"qrng"`
}

// QRNG is the state of the quantum source of randomness.
type QRNG struct {
	Ready    bool   `json:"ready"`
	Healthy  bool   `json:"healthy"`
	PoolBits uint32 `json:"pool_bits"`
	PoolSize uint32 `json:"pool_size_bits"`
	RCTFails uint32 `json:"rct_failures"`
	APTFails uint32 `json:"apt_failures"`
	Bytes    uint64 `json:"bytes_delivered"`
}

// Status reads sensors and counters and asks the firmware for its health.
func (c *Card) Status(ctx context.Context) (Status, error) {
	info, err := c.Info(ctx)
	if err != nil {
		return Status{}, err
	}
	health, err := c.Health(ctx)
	if err != nil {
		return Status{}, err
	}
	major, minor, patch := regs.Version(info.FWVersion)
	s := Status{
		Address: c.bus.Address(), Serial: serialOf(info), Model: info.Model,
		Firmware: fmt.Sprintf("%d.%d.%d", major, minor, patch), FirmwareBuild: info.FWBuild,
		Health: health.State.String(), SelfTest: "passed",
		TempCore: health.TempCore, TempMemory: health.TempMem, TempBoard: health.TempBoard, TempVRM: health.TempVRM,
		PowerMW: health.PowerMW, CoreMV: health.CoreMV, UptimeSeconds: health.Uptime,
		OpsOK: c.read64(regs.OpsOKLo), OpsFailed: c.read64(regs.OpsFailLo),
	}
	switch state := c.bus.Read32(regs.SelfTestStatus); {
	case state&regs.SelfTestRunning != 0:
		s.SelfTest = "running"
	case state&regs.SelfTestPassed == 0:
		s.SelfTest = "failed"
		s.SelfTestFailed = regs.SelfTest(c.bus.Read32(regs.SelfTestResult)).Names()
	}
	qrng := c.bus.Read32(regs.QRNGStatus)
	s.QRNG = QRNG{
		Ready: qrng&regs.QRNGReady != 0, Healthy: qrng&regs.QRNGHealthy != 0,
		PoolBits: c.bus.Read32(regs.QRNGEntropy), PoolSize: c.bus.Read32(regs.QRNGPoolSize),
		RCTFails: c.bus.Read32(regs.QRNGRCTFails), APTFails: c.bus.Read32(regs.QRNGAPTFails),
		Bytes: c.read64(regs.QRNGBytesLo),
	}
	return s, nil
}

// Serial asks the firmware for the card's serial number.
func (c *Card) Serial(ctx context.Context) (string, error) {
	info, err := c.Info(ctx)
	return serialOf(info), err
}

func serialOf(info regs.CardInfo) string {
	if info.SerialText != "" {
		return info.SerialText
	}
	return fmt.Sprintf("%016X", info.Serial)
}

// read64 reads a counter of two halves, which the card does not read at one
// instant: until the high half stays the same.
func (c *Card) read64(lo regs.Reg) uint64 {
	high := c.bus.Read32(lo + 4)
	for {
		low := c.bus.Read32(lo)
		again := c.bus.Read32(lo + 4)
		if again == high {
			return uint64(high)<<32 | uint64(low)
		}
		high = again
	}
}
