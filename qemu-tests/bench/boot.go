package bench

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/u-root/u-root/pkg/cpio"

	"quantavirt/qemu-tests/lab"
)

// Boot compares the appliance with a bare init. Times are milliseconds from the
// start of QEMU, medians over the runs.
type Boot struct {
	Ready float64 `json:"api_ready_ms"`
	Bare  float64 `json:"bare_init_ms"`
	Ratio float64 `json:"ratio"`
	Steps []Step  `json:"steps"`
}

// Step is a boot step of the last run; times are since kernel start.
type Step struct {
	Name    string `json:"name"`
	StartMS int64  `json:"start_ms"`
	TookMS  int64  `json:"took_ms"`
}

const bareInit = `#!/bare/busybox sh
/bare/busybox mkdir -p /proc
/bare/busybox mount -t proc proc /proc
/bare/busybox echo "bare: up $(/bare/busybox cut -d' ' -f1 /proc/uptime)"
/bare/busybox sleep 1000
`

// boot runs the appliance and the bare init in turn. Both unpack the same
// archives; only what the kernel starts differs.
func (r *run) boot(ctx context.Context) error {
	archive, err := r.bareArchive()
	if err != nil {
		return err
	}
	var ready, bare, idle []float64
	for range r.opts.Runs {
		ms, err := r.bareBoot(ctx, archive)
		if err != nil {
			return err
		}
		bare = append(bare, ms)
		n, err := lab.Up(ctx, lab.Options{Name: "bench", Card: true, DataDisk: 256, Archive: archive})
		if err != nil {
			return err
		}
		ready = append(ready, float64(n.BootTime.Milliseconds()))
		var info struct {
			Memory struct {
				Total     int64 `json:"total_bytes"`
				Available int64 `json:"available_bytes"`
			} `json:"memory"`
			Steps []Step `json:"boot_steps"`
		}
		err = n.Call(ctx, http.MethodGet, "/api/v1/system/info", nil, &info)
		_ = n.Down()
		if err != nil {
			return err
		}
		idle = append(idle, float64(info.Memory.Total-info.Memory.Available)/(1<<20))
		r.rep.Boot.Steps = info.Steps
	}
	b := &r.rep.Boot
	b.Ready, b.Bare = median(ready), median(bare)
	b.Ratio = b.Ready / b.Bare
	r.rep.IdleMiB = median(idle)
	for _, s := range b.Steps {
		fmt.Fprintf(r.opts.Out, "boot: %6d ms  +%5d ms  %s\n", s.StartMS, s.TookMS, s.Name)
	}
	fmt.Fprintf(r.opts.Out, "boot: API ready %.0f ms, bare init %.0f ms: ratio %.2f (aim: 1.3)\n", b.Ready, b.Bare, b.Ratio)
	fmt.Fprintf(r.opts.Out, "memory: %.0f MiB in use when idle\n", r.rep.IdleMiB)
	return nil
}

// bareBoot boots the bare init once.
func (r *run) bareBoot(ctx context.Context, archive string) (float64, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	n, err := lab.Up(ctx, lab.Options{Name: "bare", Card: true, DataDisk: 256, Archive: archive, Cmdline: "rdinit=/bare/init", NoWait: true})
	if err != nil {
		return 0, err
	}
	defer func() { _ = n.Down() }()
	if _, err := n.WaitLine(ctx, "bare: up"); err != nil {
		return 0, err
	}
	return float64(time.Since(n.Started).Milliseconds()), nil
}

// bareArchive holds busybox and the script that is the bare init.
func (r *run) bareArchive() (string, error) {
	busybox, err := os.ReadFile(r.tool.Path("usr", "bin", "busybox"))
	if err != nil {
		return "", err
	}
	return r.archive("bare.cpio", []cpio.Record{
		cpio.Directory("bare", 0o755),
		cpio.StaticFile("bare/busybox", string(busybox), 0o755),
		cpio.StaticFile("bare/init", bareInit, 0o755),
	})
}

// archive writes a cpio archive into build/bench.
func (r *run) archive(name string, records []cpio.Record) (string, error) {
	dir := filepath.Join(r.root, "build", "bench")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	path := filepath.Join(dir, name)
	f, err := os.Create(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	w := cpio.Newc.Writer(f)
	if err := cpio.WriteRecords(w, records); err != nil {
		return "", err
	}
	return path, cpio.WriteTrailer(w)
}
