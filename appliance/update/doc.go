// Package update replaces the node's system so that no mistake, crash or power
// cut leaves a machine that does not come up.
//
// An update bundle (package internal/bundle) is received and verified before
// anything is written. Its system goes into a new slot (package internal/slot) beside
// the running one, is read back, and is armed: the boot loader tries it once. The
// node reboots. The system on trial is blessed when for some time all is as it was
// before: the API answers, the data volume is mounted, the uplink is up, the VMs
// that ran run again, the cards are well. If that does not come about in time, the
// node reboots; and as the loader has no try left, that boots the slot before, as
// does a panic, a hang with a watchdog, a reset or a power cut. The slot before
// notes why, and refuses that system from then on unless it is forced.
//
// The EFI system partition is mounted only while it is looked at or written.
package update
