package model

import (
	"crypto/sha256"
	"time"

	"quantavirt/quac100/regs"
)

// storedKey is one slot of the key store.
type storedKey struct {
	attrs      regs.Attributes
	public     []byte
	secret     []byte
	created    uint64 // Unix seconds
	lastUsed   uint64
	nonces     uint64 // that the card made for it
	generation uint16 // of the handle; survives the key
	used       bool
	reserved   bool // a command in flight will fill it
}

func (k *storedKey) wipe() {
	clear(k.public)
	clear(k.secret)
	*k = storedKey{generation: k.generation, reserved: k.reserved}
}

func (k *storedKey) persistent() bool { return k.attrs.Flags&regs.AttrPersistent != 0 }

func handleOf(slot int, k *storedKey) uint32 {
	return uint32(k.generation)<<regs.KeyHandleGeneration | uint32(slot)
}

// keyStore holds the keys of the card, under the card's lock.
type keyStore struct {
	slots   [regs.KeySlots]storedKey
	changed uint64 // version of the persistent keys
	saved   uint64 // version in the file
	failed  uint64 // version that could not be written
}

// lookup finds a key; all slots are compared whatever matches.
func (s *keyStore) lookup(handle uint32) (slot int, ok bool) {
	slot = -1
	for i := range s.slots {
		k := &s.slots[i]
		if k.used && handleOf(i, k) == handle {
			slot = i
		}
	}
	return slot, slot >= 0
}

// reserve keeps a free slot for a command.
func (s *keyStore) reserve() (slot int, ok bool) {
	for i := range s.slots {
		if k := &s.slots[i]; !k.used && !k.reserved {
			k.reserved = true
			return i, true
		}
	}
	return 0, false
}

func (s *keyStore) count() (n int) {
	for i := range s.slots {
		if s.slots[i].used {
			n++
		}
	}
	return n
}

func (s *keyStore) full() bool { return s.count() == regs.KeySlots }

// destroy wipes the keys that pick chooses.
func (c *Card) destroy(pick func(*storedKey) bool) (n int) {
	for i := range c.keys.slots {
		k := &c.keys.slots[i]
		if !k.used || !pick(k) {
			continue
		}
		if k.persistent() {
			c.keysChanged()
		}
		k.wipe()
		n++
	}
	c.showKeys()
	return n
}

func anyKey(*storedKey) bool        { return true }
func volatileKey(k *storedKey) bool { return !k.persistent() }

func (c *Card) showKeys() {
	c.set(regs.KeyStatus, uint32(regs.KeySlots)<<16|uint32(c.keys.count()))
}

// zeroize destroys every key, also the persistent ones.
func (c *Card) zeroize() {
	c.destroy(anyKey)
	c.raise(regs.CauseKeyEvent)
}

// keyNeed is what an operation wants of the key that KEY_ID names.
type keyNeed struct {
	usage regs.Usage // 0: no matter
	types []regs.KeyType
	alg   bool // must be that of PARAM
	uses  bool // counts as a use
	any   bool // also keys that are not active
}

var (
	kemPublic  = []regs.KeyType{regs.KeyKEMPublic, regs.KeyKEMPair}
	kemSecret  = []regs.KeyType{regs.KeyKEMSecret, regs.KeyKEMPair}
	sigPublic  = []regs.KeyType{regs.KeySignaturePublic, regs.KeySignaturePair}
	sigSecret  = []regs.KeyType{regs.KeySignatureSecret, regs.KeySignaturePair}
	symmetric  = []regs.KeyType{regs.KeySymmetric}
	withPublic = []regs.KeyType{regs.KeyKEMPublic, regs.KeyKEMPair, regs.KeySignaturePublic, regs.KeySignaturePair}
)

// take does steps 12 and 13 for one handle and returns a copy of the key, which the command may go on using when the
// stored one is destroyed.
func (c *Card) take(handle uint32, need keyNeed, alg regs.Alg) (*storedKey, int, verdict) {
	slot, ok := c.keys.lookup(handle)
	if !ok {
		return nil, 0, refuse(regs.RespKeyNotFound, 0)
	}
	k := &c.keys.slots[slot]
	if v := c.usable(k, need, alg); v.status != 0 {
		return nil, 0, v
	}
	if need.uses {
		k.attrs.UseCount++
		k.lastUsed = uint64(time.Now().Unix())
	}
	copied := *k
	copied.public = append([]byte(nil), k.public...)
	copied.secret = append([]byte(nil), k.secret...)
	return &copied, slot, verdict{}
}

func (c *Card) usable(k *storedKey, need keyNeed, alg regs.Alg) verdict {
	if e := k.attrs.Expiry; e != 0 && k.attrs.State == regs.KeyActive && uint64(time.Now().Unix()) >= e {
		k.attrs.State = regs.KeyExpired
		c.raise(regs.CauseKeyEvent)
	}
	if !need.any && k.attrs.State != regs.KeyActive {
		return refuse(regs.RespInvalidParam, regs.DetailKeyState)
	}
	fits := len(need.types) == 0
	for _, t := range need.types {
		fits = fits || k.attrs.Type == t
	}
	switch {
	case !fits || need.alg && k.attrs.Alg != alg:
		return refuse(regs.RespInvalidParam, regs.DetailKeyType)
	case need.usage&^k.attrs.Usage != 0:
		return refuse(regs.RespInvalidParam, regs.DetailKeyUsage)
	case need.uses && k.attrs.MaxUses != 0 && k.attrs.UseCount >= k.attrs.MaxUses:
		return refuse(regs.RespInvalidParam, regs.DetailQuota)
	}
	return verdict{}
}

// naturalUsage is the usage of a key whose command has no attribute block.
func naturalUsage(f regs.Family) regs.Usage {
	if f == regs.FamilySignature {
		return regs.UsageSign | regs.UsageVerify
	}
	return regs.UsageEncrypt | regs.UsageDecrypt
}

// attributesFor reads the attribute block of a key of alg and type to be stored, or makes it.
func attributesFor(block []byte, alg regs.Alg, want regs.KeyType, persist bool) (regs.Attributes, verdict) {
	if len(block) == 0 {
		s, _ := regs.SizesOf(alg)
		a := regs.Attributes{Version: regs.AttributesVersion, Alg: alg, Type: want, State: regs.KeyActive,
			Usage: naturalUsage(s.Family), Flags: regs.AttrDefault}
		if persist {
			a.Flags |= regs.AttrPersistent
		}
		return a, verdict{}
	}
	a, err := regs.ParseAttributes(block)
	if err != nil {
		return a, refuse(regs.RespInvalidLen, regs.DetailSrc1Len)
	}
	if v := plausible(&a, alg, persist); v.status != 0 {
		return a, v
	}
	if a.Type != want {
		return a, refuse(regs.RespInvalidParam, regs.DetailKeyType)
	}
	return a, verdict{}
}

const (
	usageBits = regs.UsageExport<<1 - 1
	attrBits  = regs.AttrDestroyable<<1 - 1
)

// plausible checks what an attribute block may say at all, and makes it that of an active key.
func plausible(a *regs.Attributes, alg regs.Alg, persist bool) verdict {
	switch {
	case a.Version != regs.AttributesVersion || a.Usage&^usageBits != 0 || a.Flags&^attrBits != 0 || a.UseCount != 0 ||
		(a.Flags&regs.AttrPersistent != 0) != persist:
		return refuse(regs.RespInvalidParam, regs.DetailReservedNonzero)
	case a.Alg != alg:
		return refuse(regs.RespInvalidParam, regs.DetailBadParamSet)
	case a.State != regs.KeyStateInput:
		return refuse(regs.RespInvalidParam, regs.DetailKeyState)
	}
	a.State = regs.KeyActive
	return verdict{}
}

// keep fills the slot that the command has reserved. It is the last step of a command that succeeds.
func (c *Card) keep(j *job, k *storedKey) (handle uint32, ok bool) {
	c.lock()
	defer c.unlock()
	if j.gen != c.gen {
		k.wipe()
		return 0, false
	}
	s := &c.keys.slots[j.slot]
	k.generation = s.generation + 1
	if k.generation == 0 {
		k.generation = 1
	}
	k.used, k.created = true, uint64(time.Now().Unix())
	k.lastUsed = k.created
	*s = *k
	j.reserved = false
	if k.persistent() {
		c.keysChanged()
	}
	c.showKeys()
	if c.keys.full() {
		c.raise(regs.CauseKeyEvent)
	}
	return handleOf(j.slot, s), true
}

// forget destroys a new key that could not be written to the file.
func (c *Card) forget(handle uint32, kept bool) {
	if !kept {
		return
	}
	c.lock()
	defer c.unlock()
	if slot, ok := c.keys.lookup(handle); ok {
		c.keys.slots[slot].wipe()
		c.showKeys()
	}
}

// unreserve gives back a slot that was not filled.
func (c *Card) unreserve(j *job) {
	if !j.reserved {
		return
	}
	c.lock()
	defer c.unlock()
	c.keys.slots[j.slot].reserved = false
	j.reserved = false
}

// digestOf is the key id of a key with a public half.
func digestOf(public []byte) [32]byte { return sha256.Sum256(public) }
