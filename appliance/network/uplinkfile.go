package network

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"quantavirt/appliance/api/spec"
	"quantavirt/internal/qverr"
	"quantavirt/netstack"
	"quantavirt/netstack/uplink"
)

// UplinkFile is the uplink's configuration in the data directory, once it was set
// over the API. It is a file of its own, so that the uplink comes up before the
// state file is open, or if that is broken.
const UplinkFile = "uplink.json"

// uplinkVersion is that of the file's form.
const uplinkVersion = 1

// maxUplinkFile bounds what is read of it, in bytes.
const maxUplinkFile = 64 << 10

// uplinkRecord is what the file holds.
type uplinkRecord struct {
	Version int                    `json:"version"`
	Config  *netstack.UplinkConfig `json:"config,omitempty"` // confirmed; nil: the one that the node has without the API
	Pending *pendingUplink         `json:"pending,omitempty"`
	First   *netstack.UplinkConfig `json:"first,omitempty"` // of the node's configuration
}

// pendingUplink is a change that nobody has confirmed yet.
type pendingUplink struct {
	Config   *netstack.UplinkConfig `json:"config,omitempty"`     // as uplinkRecord's
	BootID   string                 `json:"boot_id"`              // a reboot ends it
	Deadline time.Duration          `json:"deadline_boottime_ns"` // CLOCK_BOOTTIME: the wall clock jumps
	OldMTU   int                    `json:"old_mtu,omitempty"`    // of the interface before the change, in bytes
}

// running says whether the change may still be confirmed.
func (p *pendingUplink) running(c clock) bool {
	return p != nil && p.BootID == c.bootID && c.now() < p.Deadline
}

// clock is the time since the start of the kernel, and which start.
type clock struct {
	bootID string
	now    func() time.Duration
}

func bootClock() clock {
	id, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return clock{strings.TrimSpace(string(id)), func() time.Duration {
		var ts unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
			return 0
		}
		return time.Duration(ts.Nano())
	}}
}

// readUplink reads the file; one that is not there is empty. QV_ERR_CONFIG: it
// holds something else.
func readUplink(path string) (uplinkRecord, error) {
	var r uplinkRecord
	f, err := os.Open(path)
	if path == "" || errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err != nil {
		return r, qverr.New(qverr.CodeOf(err), "configuration of the uplink: %w", err)
	}
	defer func() { _ = f.Close() }()
	data := make([]byte, maxUplinkFile)
	n, err := f.Read(data)
	if err != nil && n == 0 {
		return r, qverr.New(qverr.Config, "configuration of the uplink: %w", err)
	}
	return parseUplink(data[:n])
}

func parseUplink(data []byte) (uplinkRecord, error) {
	var r uplinkRecord
	err := json.Unmarshal(data, &r)
	if err == nil && r.Version != uplinkVersion {
		err = qverr.New(qverr.Version, "its version is %d, not %d", r.Version, uplinkVersion)
	}
	configs := []*netstack.UplinkConfig{r.Config, r.First}
	if r.Pending != nil {
		configs = append(configs, r.Pending.Config)
	}
	for _, c := range configs {
		if err == nil && c != nil {
			err = c.Check()
		}
	}
	if err != nil {
		return uplinkRecord{}, qverr.New(qverr.Config, "configuration of the uplink: %w", err)
	}
	return r, nil
}

// writeUplink replaces the file and is on disk when it returns.
func writeUplink(path string, r uplinkRecord) error {
	if path == "" {
		return nil
	}
	r.Version = uplinkVersion
	data, err := json.MarshalIndent(r, "", "  ")
	if err == nil {
		err = replaceFile(path, append(data, '\n'))
	}
	if err != nil {
		return qverr.New(qverr.CodeOf(err), "store the configuration of the uplink: %w", err)
	}
	return nil
}

func replaceFile(path string, data []byte) error {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }()
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// ConfirmedUplink is the configuration that the uplink has without a change that
// waits to be confirmed, as the file in the data directory and the kernel command
// line have it. With an error it is what can be had in spite of that.
func ConfirmedUplink(dataDir string, options map[string]string) (netstack.UplinkConfig, error) {
	r, err := readUplink(filepath.Join(dataDir, UplinkFile))
	if r.Config != nil {
		return *r.Config, nil
	}
	var first netstack.UplinkConfig
	if r.First != nil {
		first = *r.First
	}
	cfg, _, lineErr := baseUplink(first, options)
	return cfg, errors.Join(err, lineErr)
}

// baseUplink is what the node has without the API: first, from its configuration,
// and over that what the kernel command line says.
func baseUplink(first netstack.UplinkConfig, options map[string]string) (netstack.UplinkConfig, spec.UplinkSource, error) {
	source := spec.UplinkSourceDefault
	if first.Mode != "" {
		source = spec.UplinkSourceConfiguration
	}
	switch ip := options["ip"]; ip {
	case "":
		return first, source, nil
	case "dhcp":
		first.Mode, first.Static = "", uplink.Static{}
	default:
		static, err := uplink.ParseStatic(ip)
		if err != nil {
			return first, source, qverr.New(qverr.CodeOf(err), "quantavirt.ip is ignored: %w", err)
		}
		first.Mode, first.Static = uplink.StaticMode, static
	}
	return first, spec.UplinkSourceKernelCommandLine, nil
}
