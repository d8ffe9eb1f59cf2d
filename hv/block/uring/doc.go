// Package uring is the little of Linux's io_uring (io_uring_setup(2),
// io_uring_enter(2), io_uring_register(2)) that a disk needs: one ring for one
// goroutine, completions that make an eventfd readable, and no operation that a disk
// does not need.
//
// Waiting is left to whoever watches the eventfd, which is the runtime's poller: an
// idle ring costs no thread. A kernel without io_uring, or one that forbids it
// (sysctl kernel.io_uring_disabled), is told by New.
//
// Files are not registered with the ring: the kernel takes a ring apart some time after
// its process has ended, and a disk's file, with its lock, would stay open until
// then. Neither are buffers: that pins guest memory, which a balloon wants back.
//
// A ring does the operations listed in this package and no others: what it does passes
// a seccomp filter.
//
// System calls: io_uring_setup, io_uring_register and mmap in New, io_uring_enter in
// Submit, munmap and close in Close.
package uring
