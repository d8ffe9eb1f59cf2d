package vm

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"hash"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"quantavirt/appliance/api/spec"
	"quantavirt/appliance/task"
	"quantavirt/hv/vmm"
	"quantavirt/internal/qverr"
	"quantavirt/pqc/attest"
)

// measureBuffer is how much is hashed between two looks at the context, in bytes.
const measureBuffer = 1 << 20

// bootSeals keep a file in memory as it is, for every process that has it.
const bootSeals = unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE | unix.F_SEAL_SEAL

// Measured is what a VM with a process was started with. QV_ERR_STATE: it has none, or was
// started without attestation.
func (s *Service) Measured(name string) (attest.Started, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m, err := s.find(name)
	switch {
	case err != nil:
		return attest.Started{}, err
	case !hasProcess(m.rec.State):
		return attest.Started{}, qverr.New(qverr.State, "cannot attest VM %s: it is %s", name, m.rec.State).With("state", string(m.rec.State))
	case m.rec.Measured == nil:
		return attest.Started{}, qverr.New(qverr.State, "VM %s was not measured when it was started", name).
			WithHint("stop it, and start it after: quantavirt vm set %s pqc.attestation=true", name)
	}
	return *m.rec.Measured, nil
}

// measure measures a VM that is about to start, if its configuration says so: nil if not.
// Kernel and initrd are replaced in the plan by copies in memory that nobody can change, of
// the very bytes that were hashed; a reset of the VM loads them again.
func (s *Service) measure(ctx context.Context, m *machine, plan *vmm.Spec, p *task.Progress) (*attest.Started, error) {
	c := &m.rec.Config
	if !c.PQC.Attestation {
		return nil, nil
	}
	p.Phase("measuring")
	document, err := json.Marshal(c)
	if err != nil {
		return nil, qverr.New(qverr.Generic, "encode the configuration: %w", err)
	}
	out := attest.Measures{
		Name: c.Name, UUID: c.UUID, Machine: c.Machine, CPUs: plan.Machine.CPUs, Memory: plan.Machine.Memory,
		Firmware: string(c.Boot.Firmware), Cmdline: plan.Machine.Boot.Cmdline, Disks: []attest.Disk{}, Card: string(c.PQC.Quac100),
	}
	if out.Config, err = attest.ConfigDigest(document); err != nil {
		return nil, err
	}
	first := fileKernel // what the VM starts
	if plan.Machine.Boot.Firmware != "" {
		first = fileFirmware
	}
	if out.Kernel, err = s.sealFile(ctx, plan, first); err != nil {
		return nil, err
	}
	if plan.Machine.Boot.Initrd != "" {
		if out.Initrd, err = s.sealFile(ctx, plan, fileInitrd); err != nil {
			return nil, err
		}
	}
	for i, d := range plan.Machine.Disks {
		disk, err := s.measureDisk(ctx, c.Storage[i], plan.Files[d.File], p)
		if err != nil {
			return nil, err
		}
		out.Disks = append(out.Disks, disk)
	}
	p.Set(0, 0, "")
	return &attest.Started{Measures: out, At: now()}, nil
}

// sealFile replaces a boot file by its copy in memory, and hashes what it copies.
func (s *Service) sealFile(ctx context.Context, plan *vmm.Spec, name string) (digest string, err error) {
	from := plan.Files[name]
	info, err := from.Stat()
	if err != nil {
		return "", qverr.New(qverr.IO, "measure the %s: %w", name, err)
	}
	if left := s.Admissible(); info.Size() > left {
		return "", qverr.New(qverr.NoMem, "the measured copy of the %s needs %d MiB, %d MiB are left", name, info.Size()>>20, left>>20).
			With("needed_bytes", info.Size()).With("left_bytes", left)
	}
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return "", qverr.New(qverr.CodeOf(err), "memory for the %s: %w", name, err)
	}
	to := os.NewFile(uintptr(fd), name)
	sum := sha256.New()
	if _, err = hashed(ctx, from, io.MultiWriter(to, sum), nil); err == nil {
		_, err = unix.FcntlInt(to.Fd(), unix.F_ADD_SEALS, bootSeals)
	}
	if err != nil {
		return "", errors.Join(qverr.New(qverr.CodeOf(err), "measure the %s: %w", name, err), to.Close())
	}
	plan.Files[name] = to
	if err := from.Close(); err != nil {
		return "", qverr.New(qverr.IO, "close the %s: %w", name, err)
	}
	return hexSum(sum), nil
}

// measureDisk describes a disk. A read-only one is hashed: its lock keeps all who would
// write to it away as long as the VM runs.
func (s *Service) measureDisk(ctx context.Context, c spec.StorageConfig, f *os.File, p *task.Progress) (attest.Disk, error) {
	info, err := f.Stat()
	if err != nil {
		return attest.Disk{}, qverr.New(qverr.StrIO, "measure disk %s: %w", c.Disk+c.Path, err)
	}
	d := attest.Disk{Name: c.Disk + c.Path, Serial: c.Serial, Size: info.Size(), ReadOnly: c.Readonly}
	switch {
	case c.Readonly:
		sum := sha256.New()
		if d.Size, err = hashed(ctx, f, sum, func(done int64) { p.Set(done, info.Size(), "bytes") }); err != nil {
			return d, qverr.New(qverr.CodeOf(err), "measure disk %s: %w", d.Name, err)
		}
		d.Content = hexSum(sum)
	case c.Disk != "":
		if d.Origin, err = s.Storage.Origin(c.Disk); err != nil {
			return d, err
		}
	}
	return d, nil
}

func hexSum(h hash.Hash) string { return hex.EncodeToString(h.Sum(nil)) }

// hashed copies a file from its beginning, whatever its offset is, until ctx ends.
func hashed(ctx context.Context, f io.ReaderAt, to io.Writer, progress func(done int64)) (int64, error) {
	buf := make([]byte, measureBuffer)
	for at := int64(0); ; {
		if err := ctx.Err(); err != nil {
			return at, err
		}
		n, err := f.ReadAt(buf, at)
		if _, err := to.Write(buf[:n]); err != nil {
			return at, err
		}
		at += int64(n)
		if progress != nil {
			progress(at)
		}
		if errors.Is(err, io.EOF) {
			return at, nil
		}
		if err != nil {
			return at, err
		}
	}
}
