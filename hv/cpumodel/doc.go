// Package cpumodel decides which features of the host's CPU a guest sees: all of
// them, or those of a named baseline, which every newer host has too, so that a
// guest can move there; and single flags on or off. Flags have the names that Linux
// shows in /proc/cpuinfo. Bits, models and what depends on what are tables.
//
// It works on lists of CPUID leaves and touches neither KVM nor topology. Hidden
// features are hidden wherever the guest could meet them: KVM holds XCR0, EFER and
// the MSRs of a feature against CPUID.
package cpumodel
