package cli

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"

	"github.com/spf13/cobra"

	"quantavirt/internal/qverr"
	"quantavirt/pqc/attest"
)

// measures is what the flags say that a VM should have been started with.
func (p proof) measures(cmd *cobra.Command) (attest.Policy, error) {
	policy := attest.Policy{}
	if p.policy != "" {
		data, err := os.ReadFile(p.policy)
		if err != nil {
			return nil, qverr.New(qverr.CodeOf(err), "%w", err)
		}
		if policy, err = attest.ParsePolicy(data); err != nil {
			return nil, err
		}
	}
	for _, m := range []struct {
		name, value string
		measure     func(string) (string, error)
	}{
		{"kernel", p.kernel, fileDigest},
		{"initrd", p.initrd, func(path string) (string, error) {
			if path == "" {
				return "", nil
			}
			return fileDigest(path)
		}},
		{"cmdline", p.cmdline, func(line string) (string, error) { return line, nil }},
		{"config", p.config, configDigest},
	} {
		if !cmd.Flags().Changed(m.name) {
			continue
		}
		value, err := m.measure(m.value)
		if err != nil {
			return nil, err
		}
		if said, ok := policy[m.name]; ok && said != value {
			return nil, qverr.New(qverr.Inval, "--%s is not what the policy says", m.name)
		}
		policy[m.name] = value
	}
	if err := policy.Complete(); err != nil {
		return nil, usage(cmd, err)
	}
	return policy, nil
}

// fileDigest is the SHA-256 of a file.
func fileDigest(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", qverr.New(qverr.CodeOf(err), "%w", err)
	}
	defer func() { _ = f.Close() }()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", qverr.New(qverr.IO, "read %s: %w", path, err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// configDigest is that of a configuration which vm export has written.
func configDigest(path string) (string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return "", qverr.New(qverr.CodeOf(err), "%w", err)
	}
	return attest.ConfigDigest(data)
}
