package jail

import "golang.org/x/sys/unix"

// ioctls are the requests of SYS_IOCTL, its argument 1, by their numbers in
// <linux/kvm.h>, <linux/vhost.h>, <linux/vfio.h>, <linux/if_tun.h> and <linux/fs.h>. That none is
// missing and, but for VFIO, none is left over is tested against the sources of hv.
var ioctls = []match{
	is(1, 0xae80, "KVM_RUN: guest code"),

	// The machine.
	is(1, 0xae00, "KVM_GET_API_VERSION"),
	is(1, 0xae01, "KVM_CREATE_VM: at the start and at a reset"),
	is(1, 0xae03, "KVM_CHECK_EXTENSION"),
	is(1, 0xae04, "KVM_GET_VCPU_MMAP_SIZE"),
	is(1, 0xc008ae05, "KVM_GET_SUPPORTED_CPUID"),
	is(1, 0xae41, "KVM_CREATE_VCPU"),
	is(1, 0x4020ae46, "KVM_SET_USER_MEMORY_REGION: guest RAM"),
	is(1, 0xae47, "KVM_SET_TSS_ADDR: VMX in real mode"),
	is(1, 0x4008ae48, "KVM_SET_IDENTITY_MAP_ADDR: VMX in real mode"),
	is(1, 0xae60, "KVM_CREATE_IRQCHIP"),
	is(1, 0x4008ae61, "KVM_IRQ_LINE: COM1, ACPI"),
	is(1, 0x4008ae6a, "KVM_SET_GSI_ROUTING: MSI-X vectors"),
	is(1, 0x4020ae76, "KVM_IRQFD: interrupts of devices"),
	is(1, 0x4040ae77, "KVM_CREATE_PIT2"),
	is(1, 0x4040ae79, "KVM_IOEVENTFD: doorbells of devices"),
	is(1, 0x4030ae7b, "KVM_SET_CLOCK"),
	is(1, 0x8030ae7c, "KVM_GET_CLOCK"),
	is(1, 0x4068aea3, "KVM_ENABLE_CAP: APIC ids of 32 bits"),

	// vCPUs.
	is(1, 0x8090ae81, "KVM_GET_REGS: crash report"),
	is(1, 0x4090ae82, "KVM_SET_REGS: entry point"),
	is(1, 0x8138ae83, "KVM_GET_SREGS: entry point, crash report"),
	is(1, 0x4138ae84, "KVM_SET_SREGS: entry point"),
	is(1, 0xc008ae88, "KVM_GET_MSRS"),
	is(1, 0x4008ae89, "KVM_SET_MSRS"),
	is(1, 0x8400ae8e, "KVM_GET_LAPIC"),
	is(1, 0x4400ae8f, "KVM_SET_LAPIC"),
	is(1, 0xc040aed5, "KVM_PRE_FAULT_MEMORY: the kernel"),
	is(1, 0x4008ae90, "KVM_SET_CPUID2"),
	is(1, 0x8004ae98, "KVM_GET_MP_STATE"),
	is(1, 0x4004ae99, "KVM_SET_MP_STATE: which vCPUs wait for their start-up message"),
	is(1, 0xae9a, "KVM_NMI"),
	is(1, 0xaea3, "KVM_GET_TSC_KHZ"),
	is(1, 0xaead, "KVM_KVMCLOCK_CTRL: a guest that was paused"),

	// vhost-net and vhost-vsock.
	is(1, 0x8008af00, "VHOST_GET_FEATURES"),
	is(1, 0x4008af00, "VHOST_SET_FEATURES"),
	is(1, 0xaf01, "VHOST_SET_OWNER"),
	is(1, 0x4008af03, "VHOST_SET_MEM_TABLE"),
	is(1, 0x4008af10, "VHOST_SET_VRING_NUM"),
	is(1, 0x4028af11, "VHOST_SET_VRING_ADDR"),
	is(1, 0x4008af12, "VHOST_SET_VRING_BASE"),
	is(1, 0x4008af20, "VHOST_SET_VRING_KICK"),
	is(1, 0x4008af21, "VHOST_SET_VRING_CALL"),
	is(1, 0x4008af30, "VHOST_NET_SET_BACKEND"),
	is(1, 0x4008af60, "VHOST_VSOCK_SET_GUEST_CID"),
	is(1, 0x4004af61, "VHOST_VSOCK_SET_RUNNING"),

	// Functions of the host, whose group and container the daemon has opened. Their numbers
	// are _IO(';', 100 + n) in <linux/vfio.h>.
	is(1, ';'<<8+107, "VFIO_DEVICE_GET_INFO"),
	is(1, ';'<<8+108, "VFIO_DEVICE_GET_REGION_INFO: BARs"),
	is(1, ';'<<8+110, "VFIO_DEVICE_SET_IRQS: MSI-X vectors"),
	is(1, ';'<<8+111, "VFIO_DEVICE_RESET"),
	is(1, ';'<<8+113, "VFIO_IOMMU_MAP_DMA: guest RAM, and on a function VFIO_DEVICE_PCI_HOT_RESET"),

	// TAPs and disks.
	is(1, unix.TUNGETIFF, "is it a TAP"),
	is(1, unix.TUNSETVNETHDRSZ, "the header before a packet"),
	is(1, unix.TUNSETOFFLOAD, "what the guest's driver takes over"),
	is(1, unix.TUNSETQUEUE, "how many queues the guest's driver uses"),
	is(1, unix.TUNSETTXFILTER, "what the guest's driver wants to receive"),
	is(1, unix.BLKGETSIZE64, "the size of a block device"),
}
