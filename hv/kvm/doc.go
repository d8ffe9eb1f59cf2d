// Package kvm is the ioctl surface of Linux's KVM on x86-64 and nothing else:
// typed calls on the system, VM and vCPU descriptors, following
// Documentation/virt/kvm/api.rst and <linux/kvm.h>. It decides nothing.
//
// Errors wrap the errno and carry the catalogue code of the call that failed.
package kvm
