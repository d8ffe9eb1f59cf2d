package image

import (
	"context"
	"fmt"
	"maps"
	"os"
	"strings"

	"github.com/u-root/mkuimage/cpio"
	"github.com/u-root/mkuimage/uimage"
	"github.com/u-root/uio/llog"
)

// fill has u-root build the programs and write the archive.
func (b *build) fill(ctx context.Context, a *archive, list moduleList) error {
	base, err := b.base(ctx, a, list)
	if err != nil {
		return err
	}
	env, err := goEnvironment(ctx, b.Source)
	if err != nil {
		return err
	}
	temp, err := os.MkdirTemp(b.dir, "temp-")
	if err != nil {
		return fmt.Errorf("image: %w", err)
	}
	defer os.RemoveAll(temp)
	options := []uimage.Modifier{
		uimage.WithReplaceEnv(env), uimage.WithTempDir(temp), uimage.WithSkipLDD(),
		uimage.WithBaseArchive(base), uimage.WithOutput(a),
	}
	options = append(options, b.programBuilders(ctx, a)...)
	var commands []string
	for _, name := range rescue {
		commands = append(commands, rescuePackages+name)
	}
	options = append(options, uimage.WithCommands(nil, &rescueBuilder{ctx: ctx, b: b, groups: a.groups}, commands...))
	// u-root reports what it does in too much detail; its errors are returned.
	if err := uimage.Create(llog.New(100, func(string, ...any) {}), options...); err != nil {
		return fmt.Errorf("image: initramfs: %w", err)
	}
	return nil
}

// programBuilders has the product's programs built, as one file or as several.
func (b *build) programBuilders(ctx context.Context, a *archive) []uimage.Modifier {
	if !b.Separate {
		var packages []string
		for _, p := range b.Programs {
			packages = append(packages, p.Package)
		}
		all := &multicallBuilder{ctx: ctx, b: b, programs: b.Programs, groups: a.groups}
		return []uimage.Modifier{uimage.WithCommands(nil, all, packages...)}
	}
	var options []uimage.Modifier
	for _, p := range b.Programs {
		one := &programBuilder{ctx: ctx, b: b, program: p, groups: a.groups}
		options = append(options, uimage.WithCommands(nil, one, p.Package))
	}
	return options
}

// base is all of the archive that is not a program.
func (b *build) base(ctx context.Context, a *archive, list moduleList) (*cpio.Archive, error) {
	records := []cpio.Record{
		cpio.Directory("bin", 0o755),
		cpio.Directory("bbin", 0o755),
		cpio.Directory("dev", 0o755),
		cpio.CharDev("dev/console", 0o600, 5, 1), // the kernel opens it before /init
		cpio.CharDev("dev/null", 0o666, 1, 3),
		cpio.Directory("etc", 0o755),
		cpio.Directory("etc/quantavirt", 0o755),
		cpio.Directory("lib", 0o755),
		cpio.Directory("proc", 0o755),
		cpio.Directory("root", 0o700),
		cpio.Directory("run", 0o755),
		cpio.Directory("sys", 0o755),
		cpio.Directory("tmp", 0o1777),
		cpio.Directory("var", 0o755),
		cpio.Directory("var/lib", 0o755),
		cpio.Symlink("var/run", "/run"),
		cpio.Symlink("bin/sh", "/bbin/gosh"),
		cpio.StaticFile("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n", 0o644),
		cpio.StaticFile("etc/group", "root:x:0:\n", 0o644),
		cpio.StaticFile("etc/hosts", "127.0.0.1 localhost\n::1 localhost\n", 0o644),
	}
	keys, err := UpdateKeys(b.Keys)
	if err != nil {
		return nil, err
	}
	records = append(records, updateKeyRecords(keys)...)
	signer, err := LoadSigner(b.Keys)
	if err != nil {
		return nil, err
	}
	certificates, err := b.root.Certificates()
	if err != nil {
		return nil, err
	}
	const bundle = "etc/ssl/certs/ca-certificates.crt"
	a.groups[bundle] = "CA certificates"
	records = append(records, cpio.StaticFile(bundle, string(certificates), 0o644))
	for _, make := range []func() ([]cpio.Record, map[string]string, error){
		func() ([]cpio.Record, map[string]string, error) { return foreignRecords(b.root) },
		func() ([]cpio.Record, map[string]string, error) { return loaderRecords(ctx, b.root, signer) },
		func() ([]cpio.Record, map[string]string, error) { return guestRecords(b.root) },
	} {
		more, groups, err := make()
		if err != nil {
			return nil, err
		}
		records = append(records, more...)
		maps.Copy(a.groups, groups)
	}
	err = b.steps.do("modules of "+b.kernel.Release+" for the "+strings.ToLower(b.Build)+" build", func() error {
		modules, groups, wanted, err := moduleRecords(b.kernel, list)
		records = append(records, modules...)
		b.firmware = wanted
		for name, group := range groups {
			a.groups[name] = group
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	more, err := b.firmwareRecords(a)
	if err != nil {
		return nil, err
	}
	return cpio.ArchiveFromRecords(append(records, more...))
}
