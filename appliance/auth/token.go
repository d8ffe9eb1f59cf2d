package auth

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"quantavirt/appliance/api/spec"
	"quantavirt/appliance/store"
	"quantavirt/internal/qverr"
)

const (
	tokenPrefix = "qv_"
	// TokenLen is the length of every token.
	TokenLen = len(tokenPrefix) + 43

	// lastUseGrain is how stale the stored time of last use may be.
	lastUseGrain = 10 * time.Minute
)

// Principal is who calls.
type Principal struct {
	Name string // "token ID", "uid 0"
	Role spec.TokenRole
}

type record struct {
	Token  spec.Token `json:"token"`
	SHA256 string     `json:"sha256"` // hex, of the whole token
}

type known struct {
	record
	hash      [sha256.Size]byte
	saved     time.Time // last use as stored
	transient bool      // not in the store: from the kernel command line
}

// Tokens are the tokens of the node.
type Tokens struct {
	db  *store.DB
	now func() time.Time

	mu  sync.Mutex
	all []*known
}

// OpenTokens reads the stored tokens.
func OpenTokens(db *store.DB) (*Tokens, error) {
	records, err := store.All[record](db, store.Tokens)
	if err != nil {
		return nil, err
	}
	t := &Tokens{db: db, now: time.Now}
	for _, r := range records {
		k := &known{record: r}
		if n, err := hex.Decode(k.hash[:], []byte(r.SHA256)); err != nil || n != len(k.hash) {
			return nil, qverr.New(qverr.IO, "stored token %s has no valid hash", r.Token.ID)
		}
		t.all = append(t.all, k)
	}
	return t, nil
}

// Trust accepts the token with this hash, "sha256:HEX", as an administrator
// until the daemon ends.
func (t *Tokens) Trust(hash string) error {
	raw, err := parseHash(hash)
	if err != nil {
		return err
	}
	k := &known{hash: raw, transient: true}
	k.Token = spec.Token{
		ID:          "cmdline",
		Description: "quantavirt.token-hash of the kernel command line",
		Role:        spec.TokenRoleAdmin,
		CreatedAt:   t.now().UTC(),
		Origin:      spec.TokenOriginKernelCommandLine,
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.all = slices.DeleteFunc(t.all, func(k *known) bool { return k.transient })
	t.all = append(t.all, k)
	return nil
}

// TrustHash keeps the token with this hash, "sha256:HEX", as one of the node's
// configuration. A token that is known already stays as it is.
func (t *Tokens) TrustHash(hash, description string, role spec.TokenRole) error {
	raw, err := parseHash(hash)
	if err != nil {
		return err
	}
	k := &known{hash: raw}
	k.SHA256 = hex.EncodeToString(raw[:])
	k.Token = spec.Token{ID: uuid.NewString(), Description: description, Role: role, CreatedAt: t.now().UTC(), Origin: spec.TokenOriginConfiguration}
	t.mu.Lock()
	defer t.mu.Unlock()
	if slices.ContainsFunc(t.all, func(old *known) bool { return old.hash == raw && !old.transient }) {
		return nil
	}
	if err := t.db.Put(store.Tokens, k.Token.ID, k.record); err != nil {
		return err
	}
	t.all = append(t.all, k)
	return nil
}

func parseHash(hash string) (raw [sha256.Size]byte, err error) {
	digits, ok := strings.CutPrefix(hash, "sha256:")
	b, err := hex.DecodeString(digits)
	if !ok || err != nil || len(b) != len(raw) {
		return raw, qverr.New(qverr.Inval, "token hash is not sha256: and 64 hex digits")
	}
	return [sha256.Size]byte(b), nil
}

// Empty says whether no token is known.
func (t *Tokens) Empty() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.all) == 0
}

// Create makes a token. The secret is returned here and never again; lifetime 0
// means that it does not expire.
func (t *Tokens) Create(description string, role spec.TokenRole, lifetime time.Duration, origin spec.TokenOrigin) (spec.TokenSecret, error) {
	var random [32]byte
	if _, err := rand.Read(random[:]); err != nil {
		return spec.TokenSecret{}, qverr.New(qverr.Generic, "make a token: %w", err)
	}
	secret := tokenPrefix + base64.RawURLEncoding.EncodeToString(random[:])
	k := &known{hash: sha256.Sum256([]byte(secret))}
	k.SHA256 = hex.EncodeToString(k.hash[:])
	now := t.now().UTC()
	k.Token = spec.Token{ID: uuid.NewString(), Description: description, Role: role, CreatedAt: now, Origin: origin}
	if lifetime > 0 {
		expires := now.Add(lifetime)
		k.Token.ExpiresAt = &expires
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.db.Put(store.Tokens, k.Token.ID, k.record); err != nil {
		return spec.TokenSecret{}, err
	}
	t.all = append(t.all, k)
	return spec.TokenSecret{Token: secret, Info: k.Token}, nil
}

// List returns the tokens without their secrets, oldest first.
func (t *Tokens) List() []spec.Token {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make([]spec.Token, 0, len(t.all))
	for _, k := range t.all {
		out = append(out, k.Token)
	}
	slices.SortStableFunc(out, func(a, b spec.Token) int { return a.CreatedAt.Compare(b.CreatedAt) })
	return out
}

// Revoke forgets a token; QV_ERR_NOENT when there is none with this id.
func (t *Tokens) Revoke(id string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	i := slices.IndexFunc(t.all, func(k *known) bool { return k.Token.ID == id })
	if i < 0 {
		return qverr.New(qverr.NoEnt, "there is no token %.64q", id)
	}
	if !t.all[i].transient {
		if err := t.db.Delete(store.Tokens, id); err != nil {
			return err
		}
	}
	t.all = slices.Delete(t.all, i, i+1)
	return nil
}

// Check finds who presents the value of an Authorization header. Whatever is
// wrong is the same QV_ERR_AUTH; the time does not depend on how much of a
// token was right.
func (t *Tokens) Check(header string) (Principal, error) {
	scheme, secret, ok := strings.Cut(header, " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") {
		return Principal{}, qverr.New(qverr.Auth, "the request carries no bearer token").
			WithHint("give a token with --token or QUANTAVIRT_TOKEN")
	}
	hash := sha256.Sum256([]byte(strings.TrimSpace(secret)))
	now := t.now().UTC()
	t.mu.Lock()
	defer t.mu.Unlock()
	var found *known
	for _, k := range t.all {
		if subtle.ConstantTimeCompare(hash[:], k.hash[:]) == 1 {
			found = k
		}
	}
	if found == nil || found.Token.ExpiresAt != nil && now.After(*found.Token.ExpiresAt) {
		return Principal{}, qverr.New(qverr.Auth, "the token is not valid")
	}
	t.used(found, now)
	return Principal{Name: "token " + found.Token.ID, Role: found.Token.Role}, nil
}

func (t *Tokens) used(k *known, now time.Time) {
	k.Token.LastUsedAt = &now
	if k.transient || now.Sub(k.saved) < lastUseGrain {
		return
	}
	k.saved = now
	// The time of last use is worth no failed request.
	_ = t.db.Put(store.Tokens, k.Token.ID, k.record)
}
