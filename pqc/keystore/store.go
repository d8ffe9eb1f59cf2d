package keystore

import (
	"cmp"
	"crypto/rand"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/google/uuid"

	"quantavirt/internal/qverr"
	"quantavirt/internal/secret"
	"quantavirt/pqc"
)

// FileName is that of the keystore in its directory.
const FileName = "keys.qvk"

// Counter counts the generations of the file where an older file does not reach.
type Counter interface {
	// Name is where it is: "tpm" or "state".
	Name() string
	// Value is its count. QV_ERR_NOENT: it does not exist.
	Value() (uint64, error)
	// Count counts up by one and returns the new count. It makes the counter if there
	// is none.
	Count() (uint64, error)
}

// Options of a Store.
type Options struct {
	Dir      string
	Provider pqc.Provider
	Counter  Counter
	Sealer   Sealer   // nil: only a passphrase opens the keystore, unless Create says otherwise
	Others   []Sealer // that Create can name
	Card     Card     // nil: no key can be on a card
	Now      func() time.Time
	Log      *slog.Logger
}

// Condition of a Store.
type Condition string

// Conditions.
const (
	Absent Condition = "absent"  // there is none, and never was
	Locked Condition = "locked"  // waits for its passphrase
	Broken Condition = "refused" // what is there is not taken
	Open   Condition = "open"
)

// Store is the node's keystore.
type Store struct {
	Options

	mu        sync.RWMutex // held for reading while a secret is used
	condition Condition
	err       error // why it is not open
	header    header
	master    *secret.Buffer
	keys      map[string]*entry
	unsaved   int // uses since the file was written
	usesMu    sync.Mutex
}

// entry is a key with its secret.
type entry struct {
	Key
	secret *secret.Buffer
}

// New makes a Store; Load opens it.
func New(o Options) *Store {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Store{Options: o, condition: Locked, err: refused("the keystore was not looked at yet")}
}

// Load reads the keystore, and opens it if the hardware does. The error says why it is
// not open, with PQC_ERR_KEYSTORE; every operation gives it then.
func (s *Store) Load() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.load()
}

func (s *Store) load() error {
	s.shut()
	f, err := s.read()
	if errors.Is(err, fs.ErrNotExist) {
		return s.absent()
	}
	if err != nil {
		return s.refuse(err)
	}
	var by Sealer
	if f.Sealed != nil {
		by = s.sealer(f.Sealed.By)
	}
	if by == nil {
		return s.locked("its passphrase is needed")
	}
	raw, err := unseal(by, f)
	if err != nil {
		if f.Passphrase != nil {
			return s.locked("%w; its passphrase opens it", err)
		}
		return s.refuse(refused("the keystore does not open: %w", err))
	}
	return s.open(f, raw, false)
}

// LoadAgain is Load if the keystore is not open: when hardware has come that may open it.
func (s *Store) LoadAgain() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.condition == Open {
		return nil
	}
	return s.load()
}

// read reads the file. fs.ErrNotExist: there is none.
func (s *Store) read() (file, error) {
	in, err := os.Open(filepath.Join(s.Dir, FileName))
	if err != nil {
		return file{}, refused("the keystore: %w", err)
	}
	defer func() { _ = in.Close() }()
	data, err := io.ReadAll(io.LimitReader(in, maxFile+1))
	if err != nil {
		return file{}, refused("read the keystore: %w", err)
	}
	if len(data) > maxFile {
		return file{}, refused("the keystore's file is damaged: it has more than %d bytes", maxFile)
	}
	return parseFile(data)
}

// absent is right only if there never was a keystore.
func (s *Store) absent() error {
	switch n, err := s.Counter.Value(); {
	case errors.Is(err, qverr.NoEnt):
		s.condition = Absent
		s.err = refused("the node has no keystore yet").WithHint("make one: quantavirt crypto keystore init")
		return s.err
	case err != nil:
		return s.refuse(refused("the keystore's counter (%s): %w", s.Counter.Name(), err))
	default:
		return s.refuse(refused("the keystore's file is gone: it was of generation %d", n))
	}
}

func (s *Store) refuse(err error) error {
	e := qverr.From(err)
	if e.Code != qverr.PQCKeystore {
		e = refused("%w", err)
	}
	if e.Hint == "" {
		e = e.WithHint("restore a backup, or put it aside: quantavirt crypto keystore init --replace")
	}
	s.condition, s.err = Broken, e
	s.Log.Error("the keystore is refused and left as it is", "err", e)
	return e
}

func (s *Store) locked(why string, args ...any) error {
	s.condition = Locked
	s.err = refused("the keystore is locked: "+why, args...).WithHint("open it: quantavirt crypto keystore unlock")
	return s.err
}

// open takes a file that master opens, if it is of the newest generation, and owns
// master then. With recovered it takes any, as the newest.
func (s *Store) open(f file, master *secret.Buffer, recovered bool) error {
	plain, err := f.open(master.Bytes())
	if err != nil {
		master.Wipe()
		return s.refuse(err)
	}
	defer plain.Wipe()
	if !recovered {
		err = s.checkGeneration(f.header)
	}
	var records []record
	if err == nil {
		records, err = parseRecords(plain.Bytes())
	}
	keys := make(map[string]*entry, len(records))
	for _, r := range records {
		if err == nil {
			keys[r.key.ID] = &entry{Key: r.key}
			keys[r.key.ID].secret, err = secret.Take(r.secret)
		}
	}
	if err != nil {
		for _, k := range keys {
			k.secret.Wipe()
		}
		master.Wipe()
		return s.refuse(err)
	}
	s.header, s.master, s.keys, s.condition, s.err = f.header, master, keys, Open, nil
	s.Log.Info("the keystore is open", "generation", f.Generation, "keys", len(keys))
	return nil
}

// checkGeneration refuses an older file. One that is ahead by one was written when the
// node went down before the counter had counted along.
func (s *Store) checkGeneration(h header) error {
	if h.Counter != s.Counter.Name() {
		return refused("the keystore was counted along by %q, which is not there", h.Counter).WithHint("%s", recoverHint)
	}
	n, err := s.Counter.Value()
	switch {
	case errors.Is(err, qverr.NoEnt):
		return refused("the keystore's counter (%s) is gone", h.Counter).WithHint("%s", recoverHint)
	case err != nil:
		return refused("the keystore's counter (%s): %w", h.Counter, err)
	case h.Generation == n:
		return nil
	case h.Generation < n:
		return refused("the keystore is an old one: generation %d, and the counter (%s) is at %d", h.Generation, h.Counter, n).WithHint("%s", recoverHint)
	case h.Generation > n+1:
		return refused("the keystore is of generation %d, and its counter (%s) is at %d only: it was set back", h.Generation, h.Counter, n).
			WithHint("%s", recoverHint)
	}
	return s.count(h.Generation)
}

const recoverHint = "if it is the one that is wanted, a restored backup for example: quantavirt crypto keystore unlock --recover, with its passphrase"

// count brings the counter to a generation that is one ahead.
func (s *Store) count(generation uint64) error {
	n, err := s.Counter.Count()
	if err != nil {
		return refused("the keystore's counter (%s): %w", s.Counter.Name(), err)
	}
	if n != generation {
		return refused("the keystore's counter (%s) is at %d, not at %d: somebody else counts", s.Counter.Name(), n, generation)
	}
	return nil
}

// Create makes an empty keystore. text is its passphrase, empty for none: then the
// hardware has to keep the master key. by names that; "" is what Options prefer, ByPassphrase
// is none. With replace what cannot be opened is put aside. QV_ERR_EXIST:
// there is one.
func (s *Store) Create(text []byte, replace bool, by string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.condition != Absent && s.condition != Open {
		_ = s.load() // what it is now
	}
	keeper := s.Sealer
	if by != "" {
		keeper = s.sealer(by)
	}
	switch {
	case s.condition == Open:
		return qverr.New(qverr.Exist, "the node has a keystore").WithHint("see it: quantavirt crypto keystore status")
	case s.condition == Locked:
		return qverr.New(qverr.Exist, "the node has a keystore, which is locked").WithHint("open it: quantavirt crypto keystore unlock")
	case s.condition == Broken && !replace:
		return s.err
	case keeper == nil && by != "" && by != ByPassphrase:
		return qverr.New(qverr.NoDev, "nothing here keeps the keystore's master key by the name of %.16q", by)
	case len(text) == 0 && keeper == nil:
		return qverr.New(qverr.Inval, "nothing here can keep the keystore's master key: the boot was not measured by a TPM").
			WithHint("give a passphrase")
	}
	master, err := secret.New(masterSize)
	if err != nil {
		return err
	}
	_, _ = rand.Read(master.Bytes()) // never fails
	h := header{ID: uuid.New(), Counter: s.Counter.Name()}
	if err = seals(&h, master.Bytes(), text, keeper); err == nil {
		err = s.base(&h)
	}
	if err == nil {
		err = s.putAside()
	}
	if err != nil {
		master.Wipe()
		return err
	}
	s.header, s.master, s.keys, s.condition, s.err = h, master, make(map[string]*entry), Open, nil
	return s.commit()
}

// base sets the generation to where the counter is.
func (s *Store) base(h *header) (err error) {
	h.Counter = s.Counter.Name()
	if h.Generation, err = s.Counter.Value(); errors.Is(err, qverr.NoEnt) {
		h.Generation, err = s.Counter.Count()
	}
	if err != nil {
		return refused("the keystore's counter (%s): %w", s.Counter.Name(), err)
	}
	return nil
}

// putAside keeps the file that could not be opened, under another name.
func (s *Store) putAside() error {
	path := filepath.Join(s.Dir, FileName)
	err := os.Rename(path, path+"."+s.Now().UTC().Format("20060102T150405Z")+".refused")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return refused("put the keystore aside: %w", err)
	}
	return nil
}

// Unlock opens the keystore by its passphrase. With recovered the file is taken as the
// newest, and sealed anew by the hardware that is there now: for a restored backup, another
// board, or a cleared TPM. QV_ERR_PERM: the passphrase is another.
func (s *Store) Unlock(text []byte, recovered bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.condition == Open {
		return nil
	}
	f, err := s.read()
	if errors.Is(err, fs.ErrNotExist) {
		return s.absent()
	}
	if err != nil {
		return s.refuse(err)
	}
	if f.Passphrase == nil {
		return refused("the keystore has no passphrase: %w", cmp.Or(s.err, error(refused("the hardware has its key"))))
	}
	master, err := secret.New(masterSize)
	if err != nil {
		return err
	}
	if err := f.Passphrase.unwrap(master.Bytes(), text); err != nil {
		master.Wipe()
		return err
	}
	if err := s.open(f, master, recovered); err != nil || !recovered {
		return err
	}
	s.Log.Warn("the keystore was recovered by its passphrase", "generation", f.Generation)
	if err = s.again(&s.header, s.master.Bytes()); err == nil {
		err = s.base(&s.header)
	}
	if err != nil {
		s.shut()
		return s.refuse(err)
	}
	return s.commit()
}

// SetPassphrase sets the keystore's passphrase, in place of the one before.
func (s *Store) SetPassphrase(text []byte) error {
	return s.change(func() error {
		p, err := wrap(s.master.Bytes(), text)
		if err == nil {
			s.header.Passphrase = p
		}
		return err
	})
}

// Close writes what was counted, and wipes all keys.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var err error
	if s.condition == Open && s.unsaved > 0 {
		err = s.write()
	}
	s.shut()
	s.condition, s.err = Locked, refused("the keystore is closed")
	return err
}

func (s *Store) shut() {
	for _, k := range s.keys {
		k.secret.Wipe()
	}
	s.master.Wipe()
	s.keys, s.master, s.header, s.unsaved = nil, nil, header{}, 0
	s.condition = Locked
}
