// Package vfiouser serves a model of the QUAC 100 to QEMU's vfio-user-pci device over a UNIX socket.
//
// It follows QEMU's docs/interop/vfio-user.rst, version 0.0, with the limits that one PCI card needs: BAR0 by messages, the
// configuration space, 16 MSI-X vectors by eventfd, DMA through shared memory or, for memory that came without a
// descriptor, through messages to the client. What QEMU 11.1 does beyond the text is handled too:
//
//   - QEMU waits for the answer of a register access with its big lock held, and the same lock serves the card's DMA
//     messages. So requests are answered in the order they come, at once, and nothing in the read loop waits for the card.
//   - One unmap may cover many maps, or none. Whatever lies in its range is gone when the answer goes out.
//   - Every map brings a fresh descriptor of the same memory: a file is mapped once, known by device and inode.
//   - MSI-X is switched on before the eventfds arrive: a vector that fires in between is kept and sent then.
//   - A function level reset is a write to the configuration space; the reset message is the machine's reset.
//   - Writes to the BAR are posted: they get no answer.
//   - A DMA message must fit into the client's socket buffer, or the connection is wedged for good: 64 KiB at a time, one
//     message at a time.
//
// A client that sends nonsense gets errors or loses its connection; it never harms the server or the next client.
package vfiouser
