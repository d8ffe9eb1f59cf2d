package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"

	"github.com/u-root/gobusybox/src/pkg/bb"
	"github.com/u-root/gobusybox/src/pkg/golang"
	"github.com/u-root/mkuimage/cpio"
	"github.com/u-root/mkuimage/uimage/builder"
	"github.com/u-root/mkuimage/uimage/initramfs"
	"github.com/u-root/uio/llog"
)

// rescue are the u-root commands for the rescue shell.
var rescue = []string{
	"gosh", "cat", "cp", "df", "dmesg", "find", "free", "grep", "head", "hexdump", "id", "insmod", "ip", "kill", "ln", "ls", "lsmod",
	"mkdir", "more", "mount", "mv", "netstat", "ping", "ps", "rm", "rmmod", "sleep", "sync", "tail", "umount", "uname", "uptime", "wc",
}

// rescueTag builds u-root's shell without its line editor, which is larger
// than all other commands together.
const rescueTag = "goshsmall"

const rescuePackages = "github.com/u-root/u-root/cmds/core/"

// programEnv is the environment of Go for what runs in the image. The experiment lets
// the runtime wipe what secrets leave behind (package internal/secret).
var programEnv = []string{"CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64", "GOAMD64=v1", "GOFLAGS=", "GOEXPERIMENT=runtimesecret"}

// goBuild compiles like every program of the image: static, and the same bytes
// on every machine. Go's cache and its build ids make a second run short, which
// is why u-root's own builders, which rebuild everything each time, are not used.
func goBuild(ctx context.Context, dir, out, pkg, ldflags string, extra []string, env ...string) error {
	args := append([]string{"build", "-trimpath", "-buildvcs=false", "-ldflags", strings.TrimSpace("-s -w " + ldflags), "-o", out}, extra...)
	cmd := exec.CommandContext(ctx, "go", append(args, pkg)...)
	cmd.Dir = dir
	cmd.Env = append(append(os.Environ(), programEnv...), env...)
	if text, err := cmd.CombinedOutput(); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return fmt.Errorf("image: go build %s: %w\n%s", pkg, err, text)
	}
	return nil
}

// programBuilder is u-root's builder for the programs of the product.
type programBuilder struct {
	ctx     context.Context
	b       *build
	program Program
	groups  map[string]string
}

var _ builder.Builder = (*programBuilder)(nil)

// DefaultBinaryDir implements builder.Builder.
func (p *programBuilder) DefaultBinaryDir() string { return path.Dir(p.program.Path) }

// Build implements builder.Builder.
func (p *programBuilder) Build(_ *llog.Logger, files *initramfs.Files, _ builder.Opts) error {
	out := filepath.Join(p.b.dir, "programs", path.Base(p.program.Path))
	err := p.b.steps.do("go build "+p.program.Package, func() error {
		return goBuild(p.ctx, p.b.Source, out, p.program.Package, "-X quantavirt/internal/version.Version="+p.b.Version, nil)
	})
	if err != nil {
		return err
	}
	return addProgram(files, p.program.Path, out, p.groups, "/"+p.program.Path)
}

func addProgram(files *initramfs.Files, name, file string, groups map[string]string, group string) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("image: %w", err)
	}
	groups[name] = group
	return files.AddRecord(cpio.StaticFile(name, string(data), 0o755))
}

// rescueBuilder is u-root's builder for the rescue commands: one program made
// by gobusybox, and a link for each command.
type rescueBuilder struct {
	ctx    context.Context
	b      *build
	groups map[string]string
}

var _ builder.Builder = (*rescueBuilder)(nil)

// DefaultBinaryDir implements builder.Builder.
func (*rescueBuilder) DefaultBinaryDir() string { return "bbin" }

// Build implements builder.Builder.
func (r *rescueBuilder) Build(l *llog.Logger, files *initramfs.Files, opts builder.Opts) error {
	file, err := r.program(l, opts)
	if err != nil {
		return err
	}
	for _, pkg := range opts.Packages {
		if err := files.AddRecord(cpio.Symlink(path.Join("bbin", path.Base(pkg)), "bb")); err != nil {
			return err
		}
	}
	return addProgram(files, "bbin/bb", file, r.groups, "/bbin/bb")
}

// program returns the compiled program. It depends on nothing of this tree but
// the versions in go.mod, so it is kept under a name made from these.
func (r *rescueBuilder) program(l *llog.Logger, opts builder.Opts) (string, error) {
	key, err := r.key(opts)
	if err != nil {
		return "", err
	}
	dir := filepath.Join(r.b.Out, "rescue")
	file := filepath.Join(dir, "bb-"+key)
	if _, err := os.Stat(file); err == nil {
		return file, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("image: %w", err)
	}
	return file, r.b.steps.do("gobusybox: "+strings.Join(rescue, " "), func() error {
		source := filepath.Join(opts.TempDir, "bb")
		err := bb.BuildBusybox(l.AtLevel(slog.LevelInfo), &bb.Opts{
			Env: opts.Env, GenSrcDir: source, CommandPaths: opts.Packages, BinaryPath: os.DevNull, GenerateOnly: true,
		})
		if err != nil {
			return fmt.Errorf("image: gobusybox: %w", err)
		}
		// The generated tree is a GOPATH. Inlining is worth nothing in a rescue shell.
		temp := file + ".part"
		err = goBuild(r.ctx, filepath.Join(source, "src", "bb.u-root.com", "bb"), temp, ".", "",
			[]string{"-gcflags=all=-l", "-tags", rescueTag}, "GO111MODULE=off", "GOPATH="+source)
		if err != nil {
			return err
		}
		return os.Rename(temp, file)
	})
}

func (r *rescueBuilder) key(opts builder.Opts) (string, error) {
	version, err := opts.Env.Version()
	if err != nil {
		return "", fmt.Errorf("image: version of Go: %w", err)
	}
	sum := sha256.New()
	fmt.Fprintf(sum, "%s\n%s\n%s\n", version, rescueTag, strings.Join(opts.Packages, "\n"))
	for _, name := range []string{"go.mod", "go.sum"} {
		f, err := os.Open(filepath.Join(r.b.Source, name))
		if err != nil {
			return "", fmt.Errorf("image: %w", err)
		}
		_, err = io.Copy(sum, f)
		_ = f.Close()
		if err != nil {
			return "", fmt.Errorf("image: %w", err)
		}
	}
	return hex.EncodeToString(sum.Sum(nil)[:6]), nil
}

// goEnvironment is that of u-root's packages for the tree.
func goEnvironment(ctx context.Context, source string) (*golang.Environ, error) {
	cmd := exec.CommandContext(ctx, "go", "env", "GOROOT")
	cmd.Dir = source
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("image: go env: %w", err)
	}
	return golang.Default(golang.DisableCGO(), golang.WithGOOS("linux"), golang.WithGOARCH("amd64"),
		golang.WithGOROOT(strings.TrimSpace(string(out))), golang.WithWorkingDir(source), golang.WithBuildTag(rescueTag)), nil
}
