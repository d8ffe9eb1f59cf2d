// Package limit bounds how much a device may do: token buckets for operations and
// bytes, with a burst, as QEMU and Firecracker have them.
//
// A request is charged when it comes and told how long to wait. One that is larger
// than the burst passes and puts the bucket into debt, which later ones wait for. So
// the rate holds in the long run whatever the sizes are, and requests are served
// in the order in which they came, from whichever queue.
//
// Nothing runs in the background: a bucket is the virtual time at which it will be
// full again (GCRA, ITU-T I.371). It is changed with one compare-and-swap, so that
// the queues of a device share no lock.
package limit
