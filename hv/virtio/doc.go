// Package virtio is the device side of virtio 1.2 (OASIS): split virtqueues
// (section 2.7), the modern PCI transport (4.1) and what all devices share. The
// devices are in the packages below it.
//
// The guest is hostile: every address, length and index that it writes is copied
// once, checked and then used. A driver that breaks the rules gets
// DEVICE_NEEDS_RESET, never more.
//
// A device implements Device. It works from DRIVER_OK (Activate) to Deactivate;
// between Pause and Resume it touches no guest memory. Its queues tell it by an
// eventfd that there is work and tell the guest by another; KVM connects both
// without passing through this process (ioeventfd, irqfd), and vhost takes them
// as they are.
package virtio
