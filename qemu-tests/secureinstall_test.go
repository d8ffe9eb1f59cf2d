package qemutests

import (
	"bytes"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"quantavirt/appliance/api/spec"
	"quantavirt/image"
	"quantavirt/image/media"
	"quantavirt/qemu-tests/lab"
)

// secured is a machine with Secure Boot and a TPM, and its disk.
type secured struct {
	*sealing
	keys string
}

// boot starts it from what its firmware finds.
func (s *secured) boot(o lab.Options) *lab.Node {
	s.t.Helper()
	o.Name, o.Firmware, o.TPM, o.FirstToken, o.IOMMU = "secure-install", lab.FirmwareSecure, true, true, lab.IOMMUNone
	n := boot(s.t, o)
	n.Token = installedToken
	return n
}

// What is installed boots as securely as what was booted: under Secure Boot a machine
// installs itself, encrypted, from a medium. It boots by its boot entry, opens its data
// volume by itself, and takes an update. A system that nobody has signed is refused;
// under make soak it is forced upon the node, refused by the firmware, and the one before
// runs again.
func TestSecureInstall(t *testing.T) {
	if !soaking() {
		t.Skip("only under make soak; TestSecureBoot and TestSealedVolume have its parts")
	}
	s := &secured{sealing: &sealing{t: t, target: blankDisk(t, 4096)}, keys: builderKeys(t)}
	config := configurationArgs(t, map[string]any{
		"hostname": "vault", "tokens": []any{map[string]any{"hash": tokenHash(installedToken)}},
		"install": map[string]any{"disk": "serial:TARGET", "encrypt": true, "then": "poweroff"},
	})
	begin := time.Now()
	lap := func(what string) { t.Helper(); t.Logf("%5.1f s: %s", time.Since(begin).Seconds(), what) }
	enrolled := enrol(t, s.keys)
	lap("the firmware has the keys")
	n := s.boot(lab.Options{
		Variables: enrolled, NoWait: true, Extra: append(config, targetArgs(lab.MediumVirtio, s.target)...),
		Medium: lab.Medium{File: medium(t, "virtual", media.DiskFile), As: lab.MediumVirtio},
	})
	waitExit(t, n, 3*time.Minute)
	lap("installed by itself, encrypted")
	if text := lab.Tail(n.ConsoleLog, 100); !strings.Contains(text, "has no recovery key yet") || strings.Contains(text, "boot entry") {
		t.Errorf("the console after the installation:\n%s", text)
	}
	n = s.boot(lab.Options{KeepData: true, Medium: lab.Medium{File: s.target, As: lab.MediumVirtio, Keep: true, FirmwareOrder: true}})
	lap("the installed disk has booted")
	if line := waitLine(t, n, "BdsDxe: starting "); !strings.Contains(line, `"QuantaVirt" from HD(2,GPT,`) || !strings.Contains(line, `\EFI\systemd\systemd-bootx64.efi`) {
		t.Errorf("the firmware boots something else than our entry: %s", line)
	}
	s.takesRecoveryKey(n)
	lap("it has a recovery key")
	s.updates(n)
	lap("updated, blessed and proven")
	s.refusesUnsigned(n)
	lap("the unsigned system is given up")
}

// opened wants the data volume to have been opened by the TPM under Secure Boot.
func (s *secured) opened(n *lab.Node, when string) trustInfo {
	s.t.Helper()
	i := trusted(s.t, n)
	if !i.DataVolume.Persistent || !i.DataVolume.Encrypted || i.DataVolume.Locked || i.Trust.SecureBoot != "on" || !i.Trust.LogMatches {
		s.t.Fatalf("%s: %+v", when, i)
	}
	return i
}

// takesRecoveryKey has one made for the volume, which has none.
func (s *secured) takesRecoveryKey(n *lab.Node) {
	t := s.t
	t.Helper()
	lacks := func(i trustInfo) bool {
		for _, p := range i.Trust.Problems {
			if strings.Contains(p.Message, "has no recovery key") {
				return true
			}
		}
		return false
	}
	i := s.opened(n, "installed")
	if s.identity = i.Trust.Identity; !lacks(i) {
		t.Errorf("nothing says that there is no recovery key: %+v", i.Trust.Problems)
	}
	_, stderr := s.run(n, "system", "recovery-key")
	if s.key = regexp.MustCompile(`([a-z]{8}-){7}[a-z]{8}`).FindString(stderr); s.key == "" {
		t.Fatalf("no recovery key was shown: %s", stderr)
	}
	if lacks(trusted(t, n)) {
		t.Error("there is a recovery key now, and it is said to be missing")
	}
	s.run(n, "system", "reseal", "--recovery-key", s.key) // it opens the volume
}

// bundle makes one of a system with another command line, signed for Secure Boot or
// not.
func (s *secured) bundle(version, words, keys string) string {
	s.t.Helper()
	out := filepath.Join(s.t.TempDir(), "x.qvu")
	_, err := image.Bundle(image.BundleOptions{
		Out: out, Keys: s.keys, UKIs: map[string]string{"virtual": signedBy(s.t, keys, image.Cmdline+" "+words).slot},
		Version: version, Counter: 2, Created: time.Now(),
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return out
}

// updates updates the node; the new system proves itself by the bundle.
func (s *secured) updates(n *lab.Node) {
	t := s.t
	t.Helper()
	bundle := s.bundle("9.1", "quantavirt.hostname=vault2", s.keys)
	data, err := os.ReadFile(bundle)
	if err != nil {
		t.Fatal(err)
	}
	sendUpdate(t, n, data, 3)
	slotState(t, n, "9.1", spec.SlotStateGood)
	s.opened(n, "updated")
	if out, exit := s.verify(n, "--bundle", bundle, "--keys", s.keys); exit != 0 || strings.Contains(out, "WRONG") {
		t.Errorf("the good boot was refused, exit %d:\n%s", exit, out)
	}
}

// refusesUnsigned sends a system that the firmware does not start: it is refused, and
// when it is forced upon the node, the one before comes back and says why.
func (s *secured) refusesUnsigned(n *lab.Node) {
	t := s.t
	t.Helper()
	data, err := os.ReadFile(s.bundle("9.2", "quantavirt.hostname=vault3", ""))
	if err != nil {
		t.Fatal(err)
	}
	if a, err := n.Do(t.Context(), http.MethodPost, "/api/v1/system/update", io.Reader(bytes.NewReader(data))); err != nil || !strings.Contains(string(a.Body), `"QV_ERR_PERM"`) {
		t.Errorf("%v, status %d: %s", err, a.Status, a.Body)
	}
	if rounds(0, 1) == 0 {
		return
	}
	mark := n.ConsoleMark()
	if err := n.Call(t.Context(), http.MethodPost, "/api/v1/system/update?good=3&limit=240&force=true", io.Reader(bytes.NewReader(data)), nil); err != nil {
		t.Fatal(err)
	}
	again(t, n, mark)
	waitLine(t, n, `Error loading \EFI\Linux\qv-00000003`)
	const why = "Secure Boot is on, and the firmware did not start it: "
	if failed := slotState(t, n, "9.2", spec.SlotStateFailed); !strings.Contains(failed.Reason, why) {
		t.Errorf("the reason: %s", failed.Reason)
	}
	if good := slotState(t, n, "9.1", spec.SlotStateGood); !good.Running || !good.Next {
		t.Errorf("the slot that should run: %+v", good)
	}
	s.opened(n, "back")
	out, stderr, exit := cli(t, n, "log", "tail", "--level", "error", "--grep", "9.2")
	if exit != 0 || !strings.Contains(out, why) {
		t.Errorf("the log, exit %d: %s%s", exit, out, stderr)
	}
}
