// Package tap makes the TAP devices of virtual network cards.
//
// A device belongs to its descriptor, not to the name: it is not persistent
// (TUNSETPERSIST), so the kernel removes it when the last copy of the
// descriptor is closed. The VM process holds the only one, so the device ends
// with it whatever ends it, and lives on when the daemon dies.
//
// What a restarted daemon must know about a device stands in its alias.
package tap
