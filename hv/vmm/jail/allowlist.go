package jail

import "golang.org/x/sys/unix"

// rule allows one system call. The list is data: what is not in it ends the
// process.
type rule struct {
	call uint32 // unix.SYS_*
	// when says with which arguments; nil allows any. One of them must hold.
	when []match
	// building marks what only the making of a machine needs: Seal takes it away.
	building bool
	why      string
}

// match is what an argument must be: the value, after the mask. Only the low half
// is compared; the kernel ignores the high one of all arguments that are
// compared below.
type match struct {
	arg         int
	mask, value uint32
	why         string
}

// self stands for the process id of the caller.
const self = 0xffff_fff5

func is(arg int, value uint32, why string) match { return match{arg, ^uint32(0), value, why} }

// without allows an argument that has none of the bits.
func without(arg int, bits uint32, why string) []match { return []match{{arg, bits, 0, why}} }

// onlyThreads are the flags that Go's runtime makes threads with, newosproc in
// runtime/os_linux.go; the thread's own storage (CLONE_SETTLS) comes with most.
const onlyThreads = unix.CLONE_VM | unix.CLONE_FS | unix.CLONE_FILES | unix.CLONE_SIGHAND | unix.CLONE_SYSVSEM | unix.CLONE_THREAD

// allowlist is every system call that a VM process may make after Enter. KVM_RUN
// comes first, because it is asked for most often. No row opens a file or a socket,
// makes or reaches another process, or makes memory executable.
var allowlist = []rule{
	{call: unix.SYS_IOCTL, when: ioctls, why: "KVM, vhost, TAP, VFIO"},

	// Memory.
	{call: unix.SYS_MMAP, when: without(2, unix.PROT_EXEC, "no new code"), why: "guest RAM, BARs, vCPU areas, the Go heap"},
	{call: unix.SYS_MPROTECT, when: without(2, unix.PROT_EXEC, "no new code"), why: "the Go heap"},
	{call: unix.SYS_MUNMAP, why: "the Go heap, guest RAM at the end"},
	{call: unix.SYS_MADVISE, why: "the Go heap, huge pages, pages that the guest gives back"},
	{call: unix.SYS_MINCORE, why: "the Go runtime looks where a mapping may go"},
	{call: unix.SYS_BRK, why: "the Go runtime at a low address space"},
	{call: unix.SYS_MEMFD_CREATE, building: true, why: "guest RAM"},
	{call: unix.SYS_FTRUNCATE, why: "the size of guest RAM, a log that is full"},
	{call: unix.SYS_FALLOCATE, why: "discard and write zeroes of a disk, pages that the guest gives back"},
	{call: unix.SYS_MBIND, building: true, why: "guest RAM on a NUMA node"},
	{call: unix.SYS_SET_MEMPOLICY, building: true, why: "guest RAM on a NUMA node"},

	// Threads and time.
	{call: unix.SYS_CLONE, when: []match{{0, ^uint32(unix.CLONE_SETTLS), onlyThreads, "a thread of this process"}}, why: "threads of the Go runtime"},
	{call: unix.SYS_FUTEX, why: "locks of the Go runtime"},
	{call: unix.SYS_NANOSLEEP, why: "sysmon of the Go runtime"},
	{call: unix.SYS_RESTART_SYSCALL, why: "a sleep that a signal interrupted"},
	{call: unix.SYS_SCHED_YIELD, why: "spinning locks of the Go runtime"},
	{call: unix.SYS_SCHED_GETAFFINITY, why: "the Go runtime counts CPUs"},
	{call: unix.SYS_SCHED_SETAFFINITY, why: "vCPUs on CPUs of their own"},
	{call: unix.SYS_CLOCK_GETTIME, why: "processor time of vCPUs, the clock where the vDSO has none"},
	{call: unix.SYS_GETTIMEOFDAY, why: "the clock where the vDSO has none"},
	{call: unix.SYS_GETRUSAGE, why: "statistics"},
	{call: unix.SYS_GETPID, why: "the Go runtime signals its threads"},
	{call: unix.SYS_GETTID, why: "the Go runtime signals its threads"},
	{call: unix.SYS_TGKILL, when: []match{is(0, self, "itself")}, why: "preemption, kicks of vCPUs"},
	{call: unix.SYS_PRCTL, when: []match{
		is(0, unix.PR_SET_VMA, "names of the Go heap's mappings"),
		is(0, unix.PR_SET_NAME, "names of vCPU threads"),
	}, why: "names"},
	{call: unix.SYS_SECCOMP, building: true, when: []match{is(0, unix.SECCOMP_SET_MODE_FILTER, "a further filter can only forbid more")}, why: "Seal"},
	{call: unix.SYS_RT_SIGACTION, why: "the Go runtime's handlers"},
	{call: unix.SYS_RT_SIGPROCMASK, why: "the Go runtime's threads, making vhost workers"},
	{call: unix.SYS_RT_SIGRETURN, why: "the end of a handler"},
	{call: unix.SYS_SIGALTSTACK, why: "stacks of the Go runtime's handlers"},
	{call: unix.SYS_EXIT, why: "the end of a thread"},
	{call: unix.SYS_EXIT_GROUP, why: "the end"},

	// Descriptors that the process has.
	{call: unix.SYS_READ, why: "eventfds, TAPs, connections"},
	{call: unix.SYS_WRITE, why: "eventfds, TAPs, connections, the log"},
	{call: unix.SYS_READV, why: "TAPs"},
	{call: unix.SYS_WRITEV, why: "TAPs, connections"},
	{call: unix.SYS_PREAD64, why: "kernels, console rings, functions of the host"},
	{call: unix.SYS_PWRITE64, why: "console rings, last words, functions of the host"},
	{call: unix.SYS_PREADV, why: "disks"},
	{call: unix.SYS_PREADV2, why: "disks"},
	{call: unix.SYS_PWRITEV, why: "disks"},
	{call: unix.SYS_PWRITEV2, why: "disks that write through"},
	{call: unix.SYS_SENDFILE, why: "an initrd into guest RAM, at a reset as well"},
	{call: unix.SYS_FDATASYNC, why: "flush of a disk"},
	{call: unix.SYS_FSYNC, why: "flush of a disk"},
	{call: unix.SYS_LSEEK, why: "reading kernels"},
	{call: unix.SYS_FSTAT, why: "sizes of disks and kernels"},
	{call: unix.SYS_FSTATFS, building: true, why: "is a disk's file in memory"},
	{call: unix.SYS_STATX, when: []match{{2, unix.AT_EMPTY_PATH, unix.AT_EMPTY_PATH, "of a descriptor"}}, why: "alignment of a disk"},
	{call: unix.SYS_CLOSE, why: "all of them"},
	{call: unix.SYS_FCNTL, when: fcntls, why: "flags, seals, copies"},
	{call: unix.SYS_EVENTFD2, why: "doorbells and interrupts, the Go runtime's poller"},
	{call: unix.SYS_EPOLL_CREATE1, why: "the Go runtime's poller"},
	{call: unix.SYS_EPOLL_CTL, why: "the Go runtime's poller"},
	{call: unix.SYS_EPOLL_PWAIT, why: "the Go runtime's poller"},
	{call: unix.SYS_EPOLL_PWAIT2, why: "the Go runtime's poller"},
	{call: unix.SYS_POLL, why: "waiting for a descriptor that the poller cannot have"},
	{call: unix.SYS_PPOLL, why: "waiting for a descriptor that the poller cannot have"},
	{call: unix.SYS_GETRANDOM, why: "the entropy device, hash seeds of the Go runtime"},
	{call: unix.SYS_IO_URING_SETUP, building: true, why: "rings of disks"},
	{call: unix.SYS_IO_URING_REGISTER, building: true, why: "the eventfd and the allowed operations of rings"},
	{call: unix.SYS_IO_URING_ENTER, why: "requests of disks"},

	// The control socket, which came from the daemon.
	{call: unix.SYS_ACCEPT4, why: "callers of the control socket"},
	{call: unix.SYS_GETSOCKNAME, why: "the control socket"},
	{call: unix.SYS_GETPEERNAME, why: "callers of the control socket"},
	{call: unix.SYS_GETSOCKOPT, why: "the kind of the control socket"},
	{call: unix.SYS_SHUTDOWN, why: "the end of a connection"},
	{call: unix.SYS_SENDMSG, why: "the answer to the start frame"},
	{call: unix.SYS_RECVMSG, why: "descriptors from the daemon"},
	{call: unix.SYS_SENDTO, why: "connections"},
	{call: unix.SYS_RECVFROM, why: "connections"},
}

var fcntls = []match{
	is(1, unix.F_GETFL, "may it block, may it write"),
	is(1, unix.F_SETFL, "non-blocking, O_DIRECT"),
	is(1, unix.F_GETFD, "close-on-exec"),
	is(1, unix.F_SETFD, "close-on-exec"),
	is(1, unix.F_DUPFD_CLOEXEC, "the control socket for the poller"),
	is(1, unix.F_ADD_SEALS, "the size of guest RAM"),
	is(1, unix.F_GET_SEALS, "the size of guest RAM"),
}
