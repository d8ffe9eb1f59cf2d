package main

import (
	"context"
	"errors"

	"golang.org/x/sys/unix"

	"quantavirt/init/guard"
	"quantavirt/init/volume"
	"quantavirt/internal/initapi/wire"
	"quantavirt/internal/qverr"
	"quantavirt/internal/sealed"
	"quantavirt/internal/tpm"
)

// dataStep is the boot step that mounts the data volume.
const dataStep = "data-volume"

// cryptModules are what an encrypted volume needs of the kernel: the last are its
// cipher and that in the processor's own instructions.
var cryptModules = []string{"dm_crypt", "xts", "aesni_intel"}

func (n *node) loadCrypt() error {
	for i, m := range cryptModules {
		err := load(n.modules, m)
		if err != nil && !errors.Is(err, qverr.NoEnt) && i == 0 {
			return err
		}
	}
	return nil
}

// openData opens the encrypted data volume by the TPM. A volume that stays shut
// can be opened by Unlock.
func (n *node) openData(b *volume.Block) error {
	err := n.loadCrypt()
	var device string
	if err == nil {
		device, err = unsealed(b.Device)
	}
	if err != nil {
		n.mu.Lock()
		n.shut = b
		n.mu.Unlock()
		return qverr.New(qverr.CodeOf(err), "the encrypted data volume %s stays shut: %w", b, err).
			WithHint("open it with the recovery key: quantavirt system unlock; if the change of the system is right, then: quantavirt system reseal")
	}
	return b.Open(device)
}

func unsealed(device string) (string, error) {
	d, err := tpm.Open(tpm.DevicePath)
	if err != nil {
		return "", err
	}
	mapped, err := sealed.Open(sealed.Place{Device: device}, d)
	return mapped, errors.Join(err, d.Close())
}

// Unlock implements control.Node: it opens the data volume with the recovery key,
// mounts it over the memory that stood in its place, and has the daemon start
// anew on it.
func (n *node) Unlock(ctx context.Context, recoveryKey string) error {
	n.unlocking.Lock()
	defer n.unlocking.Unlock()
	n.mu.Lock()
	shut, daemon := n.shut, n.daemon
	n.mu.Unlock()
	if shut == nil || daemon == nil {
		return qverr.New(qverr.State, "no data volume is shut")
	}
	if err := n.loadCrypt(); err != nil {
		return err
	}
	device, err := sealed.Recover(sealed.Place{Device: shut.Device}, recoveryKey)
	if err != nil {
		return err
	}
	b := *shut
	if err = b.Open(device); err == nil {
		err = n.mountVolume(ctx, b)
	}
	if err != nil {
		return errors.Join(err, sealed.Close(sealed.NameData))
	}
	n.set(func(b *wire.Boot) {
		n.shut = nil
		for i := range b.Steps {
			if b.Steps[i].Name == dataStep {
				b.Steps[i].Problem = nil
			}
		}
	})
	n.log.Info("the data volume was opened with the recovery key")
	guard.Go(n.log, "unlock", func() {
		if pid := daemon.PID(); pid != 0 {
			_ = unix.Kill(pid, unix.SIGHUP) // it answers who waits, and leaves the VMs alone
		}
	})
	return nil
}
