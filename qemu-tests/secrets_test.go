package qemutests

import (
	"bytes"
	"context"
	"crypto/rand"
	"debug/elf"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"quantavirt/pqc"
	"quantavirt/pqc/keyfile"
	"quantavirt/qemu-tests/guest"
	"quantavirt/qemu-tests/lab"
	"quantavirt/qemu-tests/needle"
)

// planted is the secrets that a node is given, and looked for in.
type planted struct {
	n   *lab.Node
	set needle.Set
	dir string   // for files of this test
	raw []string // names of secrets that the keystore holds as they are
}

// What passes through HTTP in clear stays in the daemon's heap until that is used again:
// Go cannot wipe a string. It must be nowhere else.
const (
	tokenName  = "the token"
	backupName = "the backup's passphrase"
)

// TestNoSecretLeft plants keys in a node, uses them, and looks for them in all its memory,
// on its disk, on its console, in its logs, in its backup and in its support bundle: while
// they live each is once in memory and nowhere else, and after they were destroyed, or the
// daemon killed, nowhere. Collected is first what the daemon's runtime wipes only then.
func TestNoSecretLeft(t *testing.T) {
	algorithms := []pqc.Algorithm{pqc.MLKEM768, pqc.MLDSA65, pqc.SLHDSA128f}[:rounds(2, 3)]
	archive, err := guest.Whose(t.Context(), shared.root, filepath.Join(shared.root, "build", "guest", "whose"))
	if err != nil {
		t.Fatal(err)
	}
	n := boot(t, lab.Options{Name: "secrets", Memory: 1024, DataDisk: 256, Card: true, Archive: archive, Cmdline: "quantavirt.rescue"})
	settled(t, n)
	p := &planted{n: n, dir: t.TempDir()}
	p.passphrase(t, "the keystore's passphrase", "keystore")
	p.cli(t, "crypto", "keystore", "init", "--passphrase-file", p.file("keystore"))
	p.add(t, tokenName, []byte(n.Token))
	p.cli(t, "crypto", "key", "generate", "--algorithm", "ML-DSA-44", "--label", "traffic")
	for _, a := range algorithms {
		p.plant(t, a)
		p.use(t, a)
	}
	p.passphrase(t, backupName, "backup")

	p.collect(t)
	p.look(t, "while the keys live", 1)
	for _, a := range algorithms {
		p.cli(t, "crypto", "key", "destroy", a.String())
	}
	p.collect(t)
	p.look(t, "after they were destroyed", 0)
	if !soaking() {
		return
	}

	p.raw = nil
	p.plant(t, pqc.MLKEM1024)
	p.use(t, pqc.MLKEM1024)
	p.collect(t)
	p.killed(t)
}

// killed looks when the daemon was killed and nothing came in its place that could use its
// memory again.
func (p *planted) killed(t *testing.T) {
	const when = "after the daemon was killed"
	pid := info(t, p.n).Daemon.PID
	mark := p.n.ConsoleMark()
	shell(t, p.n, fmt.Sprintf("mv /bin/quantavirt /bin/away; kill -9 %d; while [ -e /proc/%d ]; do sleep 0.1; done", pid, pid))
	p.inMemory(t, when, 0)
	shell(t, p.n, "mv /bin/away /bin/quantavirt")
	if err := p.n.WaitReadyAfter(t.Context(), mark); err != nil {
		t.Fatal(err)
	}
	p.outside(t, when)
}

func (p *planted) file(name string) string { return filepath.Join(p.dir, name) }

func (p *planted) cli(t *testing.T, args ...string) {
	t.Helper()
	if out, stderr, exit := cli(t, p.n, args...); exit != 0 {
		t.Fatalf("quantavirt %s: exit %d: %s%s", strings.Join(args, " "), exit, out, stderr)
	}
}

func (p *planted) write(t *testing.T, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(p.file(name), data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func (p *planted) add(t *testing.T, name string, secret []byte) {
	t.Helper()
	if err := p.set.Add(name, secret); err != nil {
		t.Fatal(err)
	}
}

// passphrase makes one in a file.
func (p *planted) passphrase(t *testing.T, name, file string) {
	t.Helper()
	text := base64.RawURLEncoding.EncodeToString(random(30))
	p.add(t, name, []byte(text))
	p.write(t, file, []byte(text+"\n"))
}

func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return b
}

// plant imports a key that it knows, under the name of its algorithm.
func (p *planted) plant(t *testing.T, a pqc.Algorithm) {
	t.Helper()
	params, err := a.Params()
	if err != nil {
		t.Fatal(err)
	}
	seed, public, expanded := random(params.Seed), make([]byte, params.PublicKey), make([]byte, params.SecretKey)
	software, err := pqc.Open(t.Context(), pqc.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := software.GenerateKey(t.Context(), a, seed, public, expanded); err != nil {
		t.Fatal(err)
	}
	key := &keyfile.Private{Algorithm: a, Seed: seed}
	held := seed
	if params.Seed != 32 && params.Seed != 64 { // SLH-DSA's format has no seed
		key, held = &keyfile.Private{Algorithm: a, Expanded: expanded}, expanded
	}
	der, err := keyfile.MarshalPrivate(key)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range parts(a, held) {
		name := fmt.Sprintf("%s, what the keystore holds from byte %d", a, part[0])
		p.raw = append(p.raw, name)
		p.add(t, name, held[part[0]:part[1]])
	}
	for i, piece := range pieces(t, a, seed, expanded) {
		p.add(t, fmt.Sprintf("%s, piece %d of the secret", a, i), piece)
	}
	p.write(t, a.String(), der)
	p.cli(t, "crypto", "key", "import", p.file(a.String()), "--label", a.String(), "--extractable")
}

// use does with a key what it is for, and exports it.
func (p *planted) use(t *testing.T, a pqc.Algorithm) {
	t.Helper()
	params, err := a.Params()
	if err != nil {
		t.Fatal(err)
	}
	name := a.String()
	if params.Family == pqc.FamilySignature {
		p.cli(t, "crypto", "sign", "--key", name, "--signature", p.file(name+".sig"), filepath.Join(shared.root, "go.mod"))
	} else {
		p.cli(t, "crypto", "encaps", "--key", name, "--ciphertext", p.file(name+".ct"), "--shared", p.file(name+".shared"))
		shared, err := os.ReadFile(p.file(name + ".shared"))
		if err != nil {
			t.Fatal(err)
		}
		p.add(t, name+", a shared key", shared)
		p.cli(t, "crypto", "decaps", "--key", name, "--shared", p.file(name+".again"), p.file(name+".ct"))
		if again, err := os.ReadFile(p.file(name + ".again")); err != nil || !bytes.Equal(shared, again) {
			t.Errorf("%s: shared keys differ: %v", a, err)
		}
	}
	p.cli(t, "crypto", "key", "export", name, "--file", p.file(name+".exported"), "--plain")
}

// collect makes the daemon allocate as much as lets its collector run several times:
// each message is read into memory as a whole.
func (p *planted) collect(t *testing.T) {
	t.Helper()
	for range 8 {
		if err := p.n.Call(t.Context(), http.MethodPost, "/api/v1/crypto/keys/traffic/sign?prehash=SHA2-512", io.LimitReader(zeros{}, 12<<20), nil); err != nil {
			t.Fatal(err)
		}
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// look searches the node, and wants what the keystore holds so many times in memory and
// nothing anywhere else.
func (p *planted) look(t *testing.T, when string, live int) {
	t.Helper()
	p.outside(t, when)
	p.inMemory(t, when, live)
}

// outside wants nothing in the backup, in the support bundle, in logs, on the disk and on the
// console.
func (p *planted) outside(t *testing.T, when string) {
	t.Helper()
	backup := p.file(fmt.Sprintf("%d.backup", time.Now().UnixNano()))
	p.cli(t, "system", "backup", "--output", backup, "--passphrase-file", p.file("backup"))
	bundle, _ := supportBundle(t, p.n)
	for name, text := range bundle {
		p.clean(t, when, "support bundle, "+name, strings.NewReader(text))
	}
	shell(t, p.n, "sync")
	for _, source := range []string{"node", "boot"} {
		a, err := p.n.Do(t.Context(), http.MethodGet, "/api/v1/logs?limit=100000&source="+source, nil)
		if err != nil || a.Status != http.StatusOK {
			t.Fatalf("logs: %d %v", a.Status, err)
		}
		p.clean(t, when, "log "+source, bytes.NewReader(a.Body))
	}
	for _, name := range []string{backup, p.n.DataDisk, p.n.ConsoleLog} {
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		p.clean(t, when, filepath.Base(name), f)
		f.Close()
	}
}

// inMemory wants what the keystore holds so many times, and other secrets never.
func (p *planted) inMemory(t *testing.T, when string, live int) {
	t.Helper()
	found, places := p.memory(t)
	t.Logf("%s: %v", when, found)
	want := make(map[string]int)
	for _, name := range p.raw {
		want[name] = live
		found[name] += 0 // so that none found is noticed
	}
	for name := range found {
		if name == tokenName || name == backupName || found[name] == want[name] {
			continue
		}
		t.Errorf("%s: %s is %d times in memory, want %d: %s", when, name, found[name], want[name], p.whose(t, places[name]))
	}
}

func (p *planted) clean(t *testing.T, when, where string, r io.Reader) {
	t.Helper()
	if err := p.set.Search(r, func(h needle.Hit) { t.Errorf("%s: %s: %v", when, where, h) }); err != nil {
		t.Error(err)
	}
}

// memory searches a dump of all memory, and counts hits by secret; places are their
// physical addresses.
func (p *planted) memory(t *testing.T) (found map[string]int, places map[string][]uint64) {
	t.Helper()
	path := filepath.Join(p.n.Dir, "memory.dump")
	defer os.Remove(path)
	if err := p.n.Dump(path); err != nil {
		t.Fatal(err)
	}
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	found, places = make(map[string]int), make(map[string][]uint64)
	var size uint64
	for _, prog := range f.Progs {
		if prog.Type != elf.PT_LOAD {
			continue
		}
		size += prog.Filesz
		err := p.set.Search(prog.Open(), func(h needle.Hit) {
			found[h.Name]++
			places[h.Name] = append(places[h.Name], prog.Paddr+uint64(h.Offset))
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if size < 1<<30 {
		t.Fatalf("the dump has %d bytes", size)
	}
	return found, places
}

// whose is what the node itself knows of the pages.
func (p *planted) whose(t *testing.T, places []uint64) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	command := "/nested/whose"
	for _, at := range places[:min(len(places), 8)] {
		command += fmt.Sprintf(" %#x", at)
	}
	out, err := p.n.Shell(ctx, command)
	if err != nil {
		return err.Error()
	}
	return out
}
