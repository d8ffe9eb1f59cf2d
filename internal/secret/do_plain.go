//go:build !goexperiment.runtimesecret

package secret

// Wiped says whether Do wipes what f leaves on stack and heap.
const Wiped = false

// Do runs f. This build's runtime cannot wipe what f leaves behind.
func Do(f func()) { f() }
