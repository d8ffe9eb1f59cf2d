//go:build goexperiment.runtimesecret

package secret

import "runtime/secret"

// Wiped says whether Do wipes what f leaves on stack and heap.
const Wiped = true

// Do runs f and wipes what it leaves in registers, on its stack and, once it is
// collected, on the heap. What f makes for its caller must be copied into memory
// that was allocated before.
func Do(f func()) { secret.Do(f) }
