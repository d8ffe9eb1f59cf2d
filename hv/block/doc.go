// Package block holds the layers a virtual disk is made of, behind one interface.
//
// Formats and filters stack on Device; nothing above it knows the format. Raw is
// the format of this version. All of it is independent of the guest's interface:
// hv/virtio/blk checks what a guest asks before it gets here, and every layer
// checks its range again.
//
// Errors carry the storage codes of the catalogue: a range past the end is
// QV_ERR_INVAL, a write to a read-only disk QV_STR_ERR_READONLY, a full volume
// QV_STR_ERR_FULL, everything else that the host's storage refuses QV_STR_ERR_IO.
package block
