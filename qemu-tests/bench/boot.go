package bench

import (
	"context"
	"fmt"
	"io"
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
	o := lab.Options{Name: "bench", Card: true, DataDisk: 256, Archive: archive}
	var idle []float64
	ready, bare, err := r.inTurn(ctx, o, func(n *lab.Node) error {
		steps, inUse, err := look(ctx, n)
		idle = append(idle, inUse)
		r.rep.Boot.Steps = steps
		return err
	})
	if err != nil {
		return err
	}
	r.rep.IdleMiB = median(idle)
	r.rep.Boot.compare(ready, bare)
	r.rep.Boot.print(r.opts.Out, "boot", "API ready")
	fmt.Fprintf(r.opts.Out, "memory: %.0f MiB in use when idle\n", r.rep.IdleMiB)
	return nil
}

// inTurn boots a bare init and the appliance in turn, and calls see with each
// appliance. It returns their times in milliseconds.
func (r *run) inTurn(ctx context.Context, o lab.Options, see func(*lab.Node) error) (ready, bare []float64, err error) {
	for range r.opts.Runs {
		ms, err := bareBoot(ctx, o)
		if err != nil {
			return nil, nil, err
		}
		bare = append(bare, ms)
		n, err := lab.Up(ctx, o)
		if err != nil {
			return nil, nil, err
		}
		ready = append(ready, float64(n.BootTime.Milliseconds()))
		err = see(n)
		_ = n.Down()
		if err != nil {
			return nil, nil, err
		}
	}
	return ready, bare, nil
}

// compare takes the medians.
func (b *Boot) compare(ready, bare []float64) {
	b.Ready, b.Bare = median(ready), median(bare)
	b.Ratio = b.Ready / b.Bare
}

func (b *Boot) print(w io.Writer, part, what string) {
	for _, s := range b.Steps {
		fmt.Fprintf(w, "%s: %6d ms  +%5d ms  %s\n", part, s.StartMS, s.TookMS, s.Name)
	}
	fmt.Fprintf(w, "%s: %s %.0f ms, bare init %.0f ms: ratio %.2f (aim: 1.3)\n", part, what, b.Ready, b.Bare, b.Ratio)
}

// look asks a node for its boot steps and the memory in use, in MiB.
func look(ctx context.Context, n *lab.Node) (steps []Step, inUse float64, err error) {
	var info struct {
		Memory struct {
			Total     int64 `json:"total_bytes"`
			Available int64 `json:"available_bytes"`
		} `json:"memory"`
		Steps []Step `json:"boot_steps"`
	}
	err = n.Call(ctx, http.MethodGet, "/api/v1/system/info", nil, &info)
	return info.Steps, float64(info.Memory.Total-info.Memory.Available) / (1 << 20), err
}

// bareBoot boots the bare init once on a node.
func bareBoot(ctx context.Context, o lab.Options) (float64, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	o.Name, o.Cmdline, o.NoWait = "bare", "rdinit=/bare/init", true
	n, err := lab.Up(ctx, o)
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
