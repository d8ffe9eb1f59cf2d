package quac100

import "quantavirt/quac100/regs"

// Handle names a key in the card's key store: slot and generation, never 0.
// A handle of a key that is gone is PQCKeyNotFound, also when its slot holds
// another key by now.
type Handle uint32

// Key is the key of an operation: bytes of the caller that go to the card with
// the command, or a key that the card stores.
type Key struct {
	handle Handle
	bytes  []byte
}

// Inline is a key in the caller's memory, in the encoding of its standard.
func Inline(key []byte) Key { return Key{bytes: key} }

// Stored is a key in the card's key store.
func Stored(h Handle) Key { return Key{handle: h} }

// place puts the key into a request: its handle, or its bytes at the front of
// what is returned, with the flag.
func (k Key) place(q *request) []byte {
	if k.handle != 0 {
		q.cmd.KeyID = uint32(k.handle)
		return nil
	}
	q.cmd.Flags |= regs.FlagKeyInline
	return k.bytes
}

// store asks for the secret output to be kept on the card, with attributes or
// those that the algorithm naturally has.
func store(q *request, attrs *regs.Attributes) {
	q.cmd.Flags |= regs.FlagKeyStore
	attributes(q, attrs)
}

// attributes encodes the attribute block of a key to be stored.
func attributes(q *request, attrs *regs.Attributes) {
	if attrs == nil {
		return
	}
	a := *attrs
	a.Version = regs.AttributesVersion
	q.src1[0] = a.Append(make([]byte, 0, regs.AttributesSize))
	if a.Flags&regs.AttrPersistent != 0 {
		q.cmd.Flags |= regs.FlagPersist
	}
}
