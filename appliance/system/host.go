package system

import (
	"bufio"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"quantavirt/appliance/api/spec"
	"quantavirt/internal/initapi"
	"quantavirt/internal/qverr"
	"quantavirt/internal/version"
)

// localBoot is what can be seen without PID 1's help: enough to say what is
// missing on an ordinary host.
func localBoot(dataDir string) initapi.Boot {
	b := initapi.Boot{
		Version: version.Version,
		BootID:  readLine("/proc/sys/kernel/random/boot_id"),
		Cmdline: readLine("/proc/cmdline"),
		Kernel:  readLine("/proc/sys/kernel/osrelease"),
		Data:    initapi.DataVolume{Persistent: true, Device: dataDir},
		KVM:     localKVM(),
		IOMMU:   localIOMMU(),
	}
	b.Hostname, _ = os.Hostname()
	return b
}

// localKVM believes a /dev/kvm only where the processor has the extension: a
// device node is no working device.
func localKVM() initapi.KVM {
	vendor := cpuFlag("svm", "vmx")
	if vendor == "" {
		return initapi.KVM{Problem: initapi.NewProblem(qverr.New(qverr.NoVMX, "the processor shows neither svm nor vmx"))}
	}
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		return initapi.KVM{Vendor: vendor, Problem: initapi.NewProblem(qverr.New(qverr.NoVMX, "open KVM: %w", err))}
	}
	_ = f.Close()
	module := map[string]string{"svm": "kvm_amd", "vmx": "kvm_intel"}[vendor]
	paging := map[string]string{"svm": "npt", "vmx": "ept"}[vendor]
	return initapi.KVM{
		Available:    true,
		Vendor:       vendor,
		Module:       module,
		NestedPaging: isOn(readLine("/sys/module/" + module + "/parameters/" + paging)),
		Nested:       isOn(readLine("/sys/module/" + module + "/parameters/nested")),
	}
}

func isOn(s string) bool { return s == "1" || s == "Y" }

func cpuFlag(wanted ...string) string {
	for _, line := range cpuInfo() {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "flags" {
			flags := strings.Fields(value)
			for _, w := range wanted {
				for _, f := range flags {
					if f == w {
						return w
					}
				}
			}
			return ""
		}
	}
	return ""
}

// cpuInfo is the part of /proc/cpuinfo about the first processor.
func cpuInfo() []string {
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return nil
	}
	defer func() { _ = f.Close() }()
	var lines []string
	for scan := bufio.NewScanner(f); scan.Scan() && scan.Text() != ""; {
		lines = append(lines, scan.Text())
	}
	return lines
}

func cpuModel() string {
	for _, line := range cpuInfo() {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}

// cpu is what the node computes with.
func cpu() spec.CPUInfo {
	return spec.CPUInfo{Model: cpuModel(), Count: runtime.NumCPU(), Vulnerabilities: vulnerabilities(vulnerabilityDir)}
}

// vulnerabilityDir has a file for each weakness that the kernel knows of
// (Documentation/ABI/testing/sysfs-devices-system-cpu).
const vulnerabilityDir = "/sys/devices/system/cpu/vulnerabilities"

func vulnerabilities(dir string) map[string]string {
	out := map[string]string{}
	files, _ := os.ReadDir(dir) // none on a kernel without the folder
	for _, f := range files {
		if text, err := os.ReadFile(filepath.Join(dir, f.Name())); err == nil {
			out[f.Name()] = strings.TrimSpace(string(text))
		}
	}
	return out
}

func localIOMMU() initapi.IOMMU {
	io := initapi.IOMMU{Groups: []initapi.Group{}}
	dirs, _ := filepath.Glob("/sys/kernel/iommu_groups/*")
	for _, dir := range dirs {
		id, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			continue
		}
		g := initapi.Group{ID: id}
		devices, _ := os.ReadDir(filepath.Join(dir, "devices"))
		for _, d := range devices {
			g.Devices = append(g.Devices, d.Name())
		}
		io.Groups = append(io.Groups, g)
	}
	io.Available = len(io.Groups) > 0
	if !io.Available {
		io.Problem = initapi.NewProblem(qverr.New(qverr.NoIOMMU, "the kernel shows no IOMMU groups"))
	}
	return io
}

func readLine(path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(string(data), "\n")
	return line
}

// Memory reads MemTotal and MemAvailable, in bytes.
func Memory() (total, available int64) {
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return 0, 0
	}
	defer func() { _ = f.Close() }()
	for scan := bufio.NewScanner(f); scan.Scan(); {
		fields := strings.Fields(scan.Text())
		if len(fields) < 2 {
			continue
		}
		n, _ := strconv.ParseInt(fields[1], 10, 64)
		switch fields[0] {
		case "MemTotal:":
			total = n << 10
		case "MemAvailable:":
			available = n << 10
		}
	}
	return total, available
}

// residentBytes is the daemon's own resident memory.
func residentBytes() int64 {
	fields := strings.Fields(readLine("/proc/self/statm"))
	if len(fields) < 2 {
		return 0
	}
	n, _ := strconv.ParseInt(fields[1], 10, 64)
	return n * int64(os.Getpagesize())
}

func uptime() float64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0
	}
	return float64(ts.Nano()) / 1e9
}
