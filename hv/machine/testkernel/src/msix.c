// MSI-X of a virtio device (the entropy device): masks and pending bits.

#include "kernel.h"

enum { RNG = 0x10441af4, VECTOR = 0x81, SIZE = 8 };

static u64 common, notify, table, pending;
static u32 slot, capability;

static struct { u64 addr; u32 len; u16 flags, next; } __attribute__((aligned(16))) descriptors[SIZE];
static volatile struct { u16 flags, index, ring[SIZE]; } available;
static volatile struct { u16 flags, index; struct { u32 id, len; } ring[SIZE]; } used __attribute__((aligned(4)));
static u8 buffer[16];

static void put8(u64 a, u8 v) { *(volatile u8 *)a = v; }
static void put16(u64 a, u16 v) { *(volatile u16 *)a = v; }

static bool find(void)
{
	for (slot = 0; slot < 32 && ecam_read(slot, 0) != RNG; slot++)
		;
	if (slot == 32 || !(capability = pci_capability(slot, 0x11, 0)))
		return false;
	u64 bar = (u64)map(pci_bar(slot, 0));
	for (u32 c = pci_capability(slot, 9, 0); c; c = pci_capability(slot, 9, c)) {
		u32 kind = ecam_read(slot, c) >> 24, off = ecam_read(slot, c + 8);
		if (kind == 1)
			common = bar + off;
		else if (kind == 2)
			notify = bar + off;
	}
	table = bar + (ecam_read(slot, capability + 4) & ~7u);
	pending = bar + (ecam_read(slot, capability + 8) & ~7u);
	ecam_write(slot, 4, (ecam_read(slot, 4) & 0xffff) | 6); // memory, bus master
	return true;
}

static void control(u32 bits) { ecam_write(slot, capability, (ecam_read(slot, capability) & 0x3fffffff) | bits << 30); }

enum { OFF = 0, FUNCTION_MASK = 1, ON = 2 };

// drive makes the device ready with one queue, whose interrupt is vector 0.
static bool drive(void)
{
	put8(common + 20, 0);
	put8(common + 20, 3);
	mmio_write(common + 8, 1);  // features 32 to 63
	mmio_write(common + 12, 1); // version 1
	mmio_write(common + 8, 0);
	mmio_write(common + 12, 0);
	put8(common + 20, 11);
	put16(common + 22, 0);
	put16(common + 24, SIZE);
	put16(common + 26, 0);
	bool vector = *(volatile u16 *)(common + 26) == 0;
	mmio_write(common + 32, (u64)descriptors), mmio_write(common + 36, 0);
	mmio_write(common + 40, (u64)&available), mmio_write(common + 44, 0);
	mmio_write(common + 48, (u64)&used), mmio_write(common + 52, 0);
	put16(common + 28, 1);
	put8(common + 20, 15);
	return vector && *(volatile u8 *)(common + 20) == 15;
}

// request has the buffer filled, and waits for that: it causes one interrupt.
static bool request(void)
{
	u16 want = used.index + 1;
	descriptors[0].addr = (u64)buffer, descriptors[0].len = sizeof buffer, descriptors[0].flags = 2;
	available.ring[available.index % SIZE] = 0;
	asm volatile("mfence" ::: "memory");
	available.index++;
	put16(notify, 0);
	u32 start = pm_now();
	while (used.index != want && ns_since(start) < 5000000000)
		pause();
	return used.index == want;
}

static bool is_pending(void)
{
	// The device tells of the request just after it shows it.
	u32 start = pm_now();
	while (!(mmio_read(pending) & 1) && ns_since(start) < 5000000000)
		pause();
	return mmio_read(pending) & 1;
}

static void masks(void)
{
	forget();
	mmio_write(table + 12, 1);
	bool moved = request() && is_pending(), quiet = stays_quiet(VECTOR, 0, 2);
	check(moved && quiet, "masked vector is pending", "moved %u, %u came", moved, this_cpu()->seen[VECTOR]);
	mmio_write(table + 12, 0);
	check(await(VECTOR, 1) && !(mmio_read(pending) & 1), "unmasking delivers", "%u, pending %x", this_cpu()->seen[VECTOR], mmio_read(pending));
	check(stays_quiet(VECTOR, 1, 2), "only once", "%u", this_cpu()->seen[VECTOR]);

	forget();
	control(ON | FUNCTION_MASK);
	moved = request() && is_pending(), quiet = stays_quiet(VECTOR, 0, 2);
	check(moved && quiet, "masked function is pending", "moved %u, %u came", moved, this_cpu()->seen[VECTOR]);
	control(ON);
	check(await(VECTOR, 1) && !(mmio_read(pending) & 1), "unmasking the function delivers", "%u", this_cpu()->seen[VECTOR]);
}

// destination is the address of messages to a CPU; ids above 255 are possible where
// CPUID offers it.
static u32 destination(u32 apic_id)
{
	return 0xfee00000 | (apic_id & 0xff) << 12 | apic_id >> 8 << 5;
}

// move sends the vector to the last CPU.
static u32 moved_to;
static void wait_there(struct cpu *c) { if (c->index == moved_to) await(VECTOR, 1); }
static void forget_all(struct cpu *c) { (void)c; forget(); }

static void other_cpu(void)
{
	moved_to = online - 1;
	on_all(forget_all);
	mmio_write(table, destination(cpus[moved_to].apic_id));
	bool done = request();
	on_all(wait_there);
	check(done && cpus[moved_to].seen[VECTOR] == 1, "vector moves to another CPU", "%u", cpus[moved_to].seen[VECTOR]);
}

void test_msix(void)
{
	if (!find()) {
		check(false, "MSI-X", "there is no entropy device with it");
		return;
	}
	u32 vectors = (ecam_read(slot, capability) >> 16 & 0x7ff) + 1;
	check(vectors == 2, "size of the table", "%u", vectors);
	check(mmio_read(table + 12) == 1 && mmio_read(pending) == 0, "masked at reset", "%x", mmio_read(table + 12));
	mmio_write(table, 0xfee00000 | this_cpu()->apic_id << 12);
	mmio_write(table + 4, 0);
	mmio_write(table + 8, VECTOR);
	mmio_write(table + 12, 0xffffffff);
	check(mmio_read(table) == (0xfee00000 | this_cpu()->apic_id << 12) && mmio_read(table + 8) == VECTOR && (mmio_read(table + 12) & 1),
	      "table keeps what is written", "%x %x %x", mmio_read(table), mmio_read(table + 8), mmio_read(table + 12));
	mmio_write(pending, 0xffffffff);
	check(mmio_read(pending) == 0, "pending bits are read-only", "%x", mmio_read(pending));
	control(ON);
	check(drive(), "device is ready", "status %x", mmio_read(common + 20) & 0xff);
	mmio_write(table + 12, 0);
	forget();
	check(request() && await(VECTOR, 1), "interrupt", "%u", this_cpu()->seen[VECTOR]);
	masks();
	other_cpu();
	put8(common + 20, 0);
	control(OFF);
}
