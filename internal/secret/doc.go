// Package secret keeps key material out of where memory is copied to: swap, core
// dumps, and what the garbage collector leaves behind.
//
// A Buffer lies outside Go's heap, is locked, is left out of dumps and is wiped when
// it is let go, by the kernel too where that has memfd_secret. Do runs what needs a copy on stack or heap; built with
// GOEXPERIMENT=runtimesecret, as the appliance is, the runtime then wipes registers and
// stack at once and the heap when it collects it. Harden does for the whole process what
// the kernel can.
package secret
