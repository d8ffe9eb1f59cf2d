package qemutests

import (
	"bytes"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"quantavirt/image"
	"quantavirt/internal/ukifile"
	"quantavirt/qemu-tests/lab"
)

// nonce of every attestation here.
const nonce = "00112233445566778899aabbccddeeff"

// trustInfo is what a node says about its boot and its data volume.
type trustInfo struct {
	DataVolume struct {
		Persistent bool     `json:"persistent"`
		Encrypted  bool     `json:"encrypted"`
		Locked     bool     `json:"locked"`
		Problem    *problem `json:"problem"`
	} `json:"data_volume"`
	Trust struct {
		SecureBoot string    `json:"secure_boot"`
		TPM        bool      `json:"tpm"`
		PCR11      string    `json:"pcr11"`
		Events     int       `json:"events"`
		LogMatches bool      `json:"log_matches"`
		SealedFor  []string  `json:"sealed_for"`
		Identity   string    `json:"identity"`
		Problems   []problem `json:"problems"`
	} `json:"trust"`
}

func trusted(t *testing.T, n *lab.Node) (i trustInfo) {
	t.Helper()
	settled(t, n)
	if err := n.Call(t.Context(), http.MethodGet, "/api/v1/system/info", nil, &i); err != nil {
		t.Fatal(err)
	}
	return i
}

// An encrypted data volume opens by itself at the boot that it is sealed for,
// stays shut when the command line is another, and opens with the recovery key. The
// first boot proves what it is, of the other the verifier names what differs.
func TestSealedVolume(t *testing.T) {
	s := sealing{t: t, target: blankDisk(t, 1024)}
	n := s.boot(esp(t, nil), false)
	s.encrypt(n)
	s.opensByItself(n)
	kept := n.Token
	if err := n.Down(); err != nil {
		t.Fatal(err)
	}
	s.checkDisk()
	n = s.boot(esp(t, map[string]string{"EFI/Linux/qv-00000001.efi": otherCmdline(t)}), true)
	s.staysShut(n)
	s.recover(n, kept)
}

// sealing is the test's disk and what was learned on the way.
type sealing struct {
	t        *testing.T
	target   string
	key      string // recovery key
	identity string
}

// boot has no token on the command line, so that each boot is measured alike.
func (s *sealing) boot(dir string, again bool) *lab.Node {
	s.t.Helper()
	return boot(s.t, lab.Options{
		Name: "sealed", Firmware: lab.FirmwareUEFI, ESP: dir, TPM: true, KeepData: again, FirstToken: true,
		Extra: targetArgs(lab.MediumVirtio, s.target),
	})
}

// run runs the command and wants it to succeed.
func (s *sealing) run(n *lab.Node, args ...string) (stdout, stderr string) {
	s.t.Helper()
	out, stderr, exit := cli(s.t, n, args...)
	if exit != 0 {
		s.t.Fatalf("quantavirt %v: exit %d: %s%s", args, exit, out, stderr)
	}
	s.t.Logf("$ quantavirt %s\n%s%s", strings.Join(args, " "), stderr, out)
	return out, stderr
}

func (s *sealing) reboot(n *lab.Node) {
	s.t.Helper()
	mark := n.ConsoleMark()
	s.run(n, "system", "reboot")
	if err := n.WaitReadyAfter(s.t.Context(), mark); err != nil {
		s.t.Fatal(err)
	}
}

// encrypt makes the volume.
func (s *sealing) encrypt(n *lab.Node) {
	t := s.t
	t.Helper()
	text, err := os.ReadFile(imageFile(image.PCR11File))
	if err != nil {
		t.Fatal(err)
	}
	var want ukifile.Measurement
	if err := json.Unmarshal(text, &want); err != nil {
		t.Fatal(err)
	}
	i := trusted(t, n)
	if !i.Trust.TPM || i.Trust.PCR11 != want.Value.String() || !i.Trust.LogMatches || i.Trust.Events < 20 {
		t.Errorf("before: %+v, want PCR 11 %s", i.Trust, want.Value)
	}
	s.run(n, "system", "measurements")
	_, stderr := s.run(n, "system", "install", "--disk", "serial:TARGET", "--data-only", "--encrypt", "--yes")
	if s.key = regexp.MustCompile(`([a-z]{8}-){7}[a-z]{8}`).FindString(stderr); s.key == "" {
		t.Fatalf("no recovery key was shown: %s", stderr)
	}
}

// opensByItself boots again, and has the node prove it.
func (s *sealing) opensByItself(n *lab.Node) {
	t := s.t
	t.Helper()
	mark := n.ConsoleMark()
	s.run(n, "system", "reboot")
	n.Token = "" // the volume is new: so is the node's first token
	if err := n.WaitReadyAfter(t.Context(), mark); err != nil {
		t.Fatal(err)
	}
	i := trusted(t, n)
	if !i.DataVolume.Persistent || !i.DataVolume.Encrypted || i.DataVolume.Locked || len(i.Trust.SealedFor) != 1 {
		t.Fatalf("the volume did not open: %+v", i)
	}
	s.run(n, "system", "info")
	if err := n.Call(t.Context(), http.MethodPost, "/api/v1/disks", map[string]any{"name": "kept", "size": "1M"}, nil); err != nil {
		t.Fatal(err)
	}
	s.identity = i.Trust.Identity
	out, exit := s.verify(n, "--uki", imageFile(image.UKIFile))
	if exit != 0 || strings.Contains(out, "WRONG") {
		t.Errorf("the good boot was refused, exit %d:\n%s", exit, out)
	}
	s.attestsVM(n)
	s.reboot(n) // in order, before the power is cut
}

// verify asks for a report, and checks it without the node against the system that
// the arguments name.
func (s *sealing) verify(n *lab.Node, system ...string) (out string, exit int) {
	s.t.Helper()
	return s.check(n, []string{"system", "attest"}, system...)
}

// check asks for a report by a command, and checks it without the node.
func (s *sealing) check(n *lab.Node, command []string, expected ...string) (out string, exit int) {
	t := s.t
	t.Helper()
	report, stderr, exit := cli(t, n, append(command, "--nonce", nonce)...)
	if exit != 0 {
		t.Fatalf("attest: exit %d: %s", exit, stderr)
	}
	file := filepath.Join(t.TempDir(), "report.json")
	if err := os.WriteFile(file, []byte(report), 0o644); err != nil {
		t.Fatal(err)
	}
	away := &lab.Node{}
	out, stderr, exit = cli(t, away, append([]string{"attest", "verify", "--nonce", nonce, "--identity", s.identity, file}, expected...)...)
	t.Logf("$ quantavirt attest verify …\n%s%s", out, stderr)
	return out + stderr, exit
}

// checkDisk looks for what lies on the disk in clear.
func (s *sealing) checkDisk() {
	s.t.Helper()
	data, err := os.ReadFile(s.target)
	if err != nil {
		s.t.Fatal(err)
	}
	if !bytes.HasPrefix(data, []byte("LUKS\xba\xbe")) {
		s.t.Error("the disk does not begin with a header of LUKS2")
	}
	for _, clear := range []string{"state.db", "identity.key", "-----BEGIN", `"kept"`} {
		if bytes.Contains(data, []byte(clear)) {
			s.t.Errorf("the disk shows %q", clear)
		}
	}
}

// otherCmdline makes the build's image with one more second before the reboot
// after a panic.
func otherCmdline(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile(imageFile(image.UKIFile))
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Count(data, []byte(image.Cmdline)) != 1 {
		t.Fatal("the image does not hold its command line once")
	}
	data = bytes.Replace(data, []byte(image.Cmdline), []byte(strings.Replace(image.Cmdline, "panic=10", "panic=11", 1)), 1)
	path := filepath.Join(t.TempDir(), "other.efi")
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func (s *sealing) staysShut(n *lab.Node) {
	t := s.t
	t.Helper()
	i := trusted(t, n)
	const why = "PCR 11 (the system and its command line) differs"
	if d := i.DataVolume; d.Persistent || !d.Encrypted || !d.Locked || d.Problem == nil || d.Problem.Name != "QV_ERR_PERM" || !strings.Contains(d.Problem.Message, why) {
		t.Fatalf("the volume is not shut, or not because of PCR 11: %+v %+v", d, d.Problem)
	}
	if text := lab.Tail(n.ConsoleLog, 1000); !strings.Contains(text, "stays shut") || !strings.Contains(text, why) {
		t.Errorf("the console does not say so:\n%s", text)
	}
	out, exit := s.verify(n, "--uki", imageFile(image.UKIFile))
	if exit == 0 || !strings.Contains(out, "PQC_ERR_ATTESTATION") || !strings.Contains(out, ".cmdline is ") || strings.Contains(out, ".linux is ") {
		t.Errorf("the other boot, exit %d:\n%s", exit, out)
	}
	if _, stderr, exit := cli(t, n, "system", "unlock", "--recovery-key", strings.Repeat("cccccccc-", 7)+"cccccccc"); exit == 0 || !strings.Contains(stderr, "QV_ERR_PERM") {
		t.Errorf("another recovery key, exit %d: %s", exit, stderr)
	}
}

// recover opens the volume by its recovery key, and seals it for the boot of now.
func (s *sealing) recover(n *lab.Node, kept string) {
	t := s.t
	t.Helper()
	mark := n.ConsoleMark()
	s.run(n, "system", "unlock", "--recovery-key", s.key)
	n.Token = kept
	if err := n.WaitReadyAfter(t.Context(), mark); err != nil {
		t.Fatal(err)
	}
	check := func(when string) {
		t.Helper()
		if i := trusted(t, n); !i.DataVolume.Persistent || !i.DataVolume.Encrypted || i.DataVolume.Locked || i.Trust.Identity != s.identity {
			t.Fatalf("%s: %+v", when, i)
		}
		if a, err := n.Do(t.Context(), http.MethodGet, "/api/v1/disks/kept", nil); err != nil || a.Status != http.StatusOK {
			t.Errorf("%s: what was made before: %d %v", when, a.Status, err)
		}
	}
	check("unlocked")
	if _, stderr, exit := cli(t, n, "system", "reseal"); exit == 0 || !strings.Contains(stderr, "QV_ERR_PERM") {
		t.Errorf("sealed again without the recovery key, exit %d: %s", exit, stderr)
	}
	s.run(n, "system", "reseal", "--recovery-key", s.key)
	if soaking() {
		s.reboot(n)
		check("sealed again, and booted")
	}
}
