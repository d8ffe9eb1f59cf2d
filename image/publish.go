package image

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// receipt is image.json beside the image: what the image says about itself, and
// what the files are.
type receipt struct {
	Meta
	Compression     string `json:"compression"`
	KernelSHA256    string `json:"kernel_sha256"`
	InitramfsSHA256 string `json:"initramfs_sha256"`
	MicrocodeSHA256 string `json:"microcode_sha256,omitempty"`
}

// publish writes the files of the image, each by a rename, unless they are
// there already. image.json comes last.
func (b *build) publish(ctx context.Context, a *archive, image *Image) (same bool, err error) {
	vmlinuz, err := os.ReadFile(b.kernel.Image)
	if err != nil {
		return false, fmt.Errorf("image: %w", err)
	}
	want := receipt{Meta: a.meta, Compression: fmt.Sprintf("zstd -%d", b.Level), KernelSHA256: digest(vmlinuz)}
	packed, ok := b.published(want)
	if !ok {
		err := b.steps.do(fmt.Sprintf("zstd -%d of %d MiB", b.Level, a.raw.Len()>>20), func() error {
			packed, err = b.compress(ctx, a.raw.Bytes())
			return err
		})
		if err != nil {
			return false, err
		}
	}
	want.InitramfsSHA256 = digest(packed)
	image.Sizes.finish(b.Build, int64(len(vmlinuz)), int64(len(packed)))
	packages, err := b.root.Packages()
	if err != nil {
		return false, fmt.Errorf("image: %w", err)
	}
	bill, err := b.bill(ctx, a)
	if err != nil {
		return false, err
	}
	files := []file{{"vmlinuz", vmlinuz}, {"initramfs.zst", packed}, {"packages.txt", []byte(packages)}, {SBOMFile, bill},
		{driversFile, []byte(driverList(a.items))}}
	if b.microcode != nil {
		want.MicrocodeSHA256 = digest(b.microcode)
		files = append(files, file{microcodeFile, b.microcode})
	} else if err := os.Remove(filepath.Join(b.dir, microcodeFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("image: %w", err) // that of an earlier build
	}
	for _, f := range []struct {
		name string
		v    any
	}{{"sizes.json", image.Sizes}, {"image.json", want}} {
		text, err := json.MarshalIndent(f.v, "", "  ")
		if err != nil {
			return false, err
		}
		files = append(files, file{f.name, append(text, '\n')})
	}
	for _, f := range files {
		if err := f.write(b.dir); err != nil {
			return false, fmt.Errorf("image: %w", err)
		}
	}
	return ok, nil
}

// published returns the compressed archive of an earlier run if it holds the
// same.
func (b *build) published(want receipt) (packed []byte, ok bool) {
	text, err := os.ReadFile(filepath.Join(b.dir, "image.json"))
	if err != nil {
		return nil, false
	}
	var have receipt
	if json.Unmarshal(text, &have) != nil || have.ID != want.ID || have.Compression != want.Compression {
		return nil, false
	}
	packed, err = os.ReadFile(filepath.Join(b.dir, "initramfs.zst"))
	if err != nil || digest(packed) != have.InitramfsSHA256 {
		return nil, false
	}
	return packed, have.KernelSHA256 == want.KernelSHA256
}

// compress runs the root's zstd, whose version is recorded like everything of
// the root. Its output does not depend on the number of threads.
func (b *build) compress(ctx context.Context, raw []byte) ([]byte, error) {
	cmd := b.root.Command("zstd", fmt.Sprintf("-%d", b.Level), "-T0", "-q", "-c")
	var out, problem bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(raw), &out, &problem
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("image: zstd: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })
	defer stop()
	if err := cmd.Wait(); err != nil {
		return nil, fmt.Errorf("image: zstd: %w: %s", errors.Join(err, context.Cause(ctx)), problem.Bytes())
	}
	return out.Bytes(), nil
}

type file struct {
	name string
	data []byte
}

// write replaces the file in dir unless it holds the same already.
func (f file) write(dir string) error {
	path := filepath.Join(dir, f.name)
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, f.data) {
		return nil
	}
	temp := path + ".part"
	if err := os.WriteFile(temp, f.data, 0o644); err != nil {
		return err
	}
	return os.Rename(temp, path)
}

func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// Print writes the table of sizes.
func (i Image) Print(w io.Writer) { i.Sizes.Print(w) }
