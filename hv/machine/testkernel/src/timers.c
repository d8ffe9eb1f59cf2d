// Timers: the PM timer and the PIT, the local APIC's timer in its three modes, and
// kvmclock. A timer may be late, on a busy host by much, but never early.

#include "kernel.h"

u64 tsc_khz;

u32 pm_now(void) { return in32(0x608); }

u64 ns_since(u32 start) { return (u64)(u32)(pm_now() - start) * 1000000000 / PM_HZ; }

void spin_ms(u32 ms)
{
	u32 start = pm_now();
	while (ns_since(start) < ms * 1000000ul)
		pause();
}

// near tells whether a is b to one part in ten.
static bool near(u64 a, u64 b) { return a > b - b / 10 && a < b + b / 10; }

enum { VECTOR = 0x50 };

static u64 apic_khz;

// moment is what several clocks show at once.
struct moment { u64 tsc, other; u32 pm; };

// at reads the clocks one after the other, a few times, and keeps the time that took
// least: the host may have been busy with something else in between.
static struct moment at(u64 (*other)(void))
{
	struct moment best = {0, 0, 0};
	u64 least = ~0ul;
	for (u32 i = 0; i < 8; i++) {
		u64 before = tsc(), o = other();
		u32 pm = pm_now();
		u64 took = tsc() - before;
		if (took < least) {
			least = took;
			best = (struct moment){before + took / 2, o, pm};
		}
	}
	return best;
}

static u64 ns_between(struct moment a, struct moment b) { return (u64)(u32)(b.pm - a.pm) * 1000000000 / PM_HZ; }

static u64 apic_passed(void) { return 0xffffffff - rdmsr(APIC_CURRENT); }

static void measure(void)
{
	wrmsr(APIC_DIVIDE, 0xb); // by 1
	wrmsr(APIC_TIMER, MASKED | VECTOR);
	wrmsr(APIC_INITIAL, 0xffffffff);
	struct moment first = at(apic_passed);
	spin_ms(20);
	struct moment last = at(apic_passed);
	wrmsr(APIC_INITIAL, 0);
	u64 ns = ns_between(first, last);
	tsc_khz = (last.tsc - first.tsc) * 1000000 / ns;
	apic_khz = (last.other - first.other) * 1000000 / ns;
	check(tsc_khz > 100000 && apic_khz > 1000, "TSC and APIC timer run", "%lx and %lx kHz", tsc_khz, apic_khz);
}

static void one_shot(void)
{
	forget();
	wrmsr(APIC_TIMER, VECTOR);
	u32 start = pm_now();
	wrmsr(APIC_INITIAL, 3 * apic_khz);
	bool came = await(VECTOR, 1);
	u64 ns = ns_since(start);
	check(came && ns > 2700000, "APIC one-shot", "%u after %lx ns", came, ns);
	check(rdmsr(APIC_CURRENT) == 0 && stays_quiet(VECTOR, 1, 8), "APIC one-shot comes once", "%u times", this_cpu()->seen[VECTOR]);
}

static void periodic(void)
{
	forget();
	wrmsr(APIC_TIMER, PERIODIC | VECTOR);
	u32 start = pm_now();
	wrmsr(APIC_INITIAL, 2 * apic_khz);
	bool came = await(VECTOR, 5);
	u64 ns = ns_since(start);
	check(came && ns > 8 * 1000000, "APIC periodic", "%u in %lx ns", this_cpu()->seen[VECTOR], ns);
	wrmsr(APIC_TIMER, PERIODIC | MASKED | VECTOR);
	enable(), disable(); // what is under way
	forget();
	check(stays_quiet(VECTOR, 0, 6), "APIC periodic is masked", "%u more", this_cpu()->seen[VECTOR]);
	wrmsr(APIC_INITIAL, 0);
}

static void deadline(void)
{
	enum { TSC_DEADLINE = 0x6e0 };
	if (!(cpuid(1, 0).c >> 24 & 1)) {
		check(false, "TSC deadline is offered", "it is not");
		return;
	}
	forget();
	wrmsr(APIC_TIMER, DEADLINE | VECTOR);
	asm volatile("mfence" ::: "memory");
	u64 due = tsc() + 3 * tsc_khz;
	wrmsr(TSC_DEADLINE, due);
	bool set = rdmsr(TSC_DEADLINE) == due || tsc() > due;
	bool came = await(VECTOR, 1);
	u64 now = tsc();
	check(set && came && now >= due, "TSC deadline", "set %u, came %u, %lx of %lx", set, came, now, due);
	check(rdmsr(TSC_DEADLINE) == 0, "TSC deadline is disarmed", "%lx", rdmsr(TSC_DEADLINE));
	forget();
	wrmsr(TSC_DEADLINE, tsc() - 1000);
	check(await(VECTOR, 1), "TSC deadline in the past", "no interrupt");
	forget();
	wrmsr(TSC_DEADLINE, tsc() + 5 * tsc_khz);
	wrmsr(TSC_DEADLINE, 0);
	check(stays_quiet(VECTOR, 0, 8), "TSC deadline is cancelled", "%u", this_cpu()->seen[VECTOR]);
	wrmsr(APIC_TIMER, MASKED);
}

static void pit(void)
{
	enum { PIT_HZ = 1193182, HZ = 500 };
	u32 divisor = PIT_HZ / HZ;
	forget();
	ioapic_route(2, VECTOR, this_cpu()->apic_id);
	out8(0x43, 0x34); // channel 0, mode 2
	u32 start = pm_now();
	out8(0x40, divisor);
	out8(0x40, divisor >> 8);
	bool came = await(VECTOR, 5);
	u64 ns = ns_since(start);
	check(came && ns > 8 * 1000000, "PIT interrupts", "%u in %lx ns", this_cpu()->seen[VECTOR], ns);
	ioapic_write(0x10 + 2 * 2, MASKED);

	// Channel 2 counts down once and shows its end at port 61. KVM's counts from the
	// moment when the count is written, whatever the gate is.
	divisor = PIT_HZ / 100;
	out8(0x61, 1);
	out8(0x43, 0xb0);
	start = pm_now();
	out8(0x42, divisor);
	out8(0x42, divisor >> 8);
	while (!(in8(0x61) & 0x20) && ns_since(start) < 2000000000)
		pause();
	ns = ns_since(start);
	check(in8(0x61) & 0x20 && ns > 9 * 1000000, "PIT channel 2", "%lx ns", ns);
	out8(0x61, 0);
	// Its interrupts stop: mode 0 with nothing written counts no more.
	out8(0x43, 0x30);
}

static void pm_timer(void)
{
	u32 before = pm_now(), backwards = 0;
	for (u32 i = 0; i < 20; i++) {
		u32 now = pm_now();
		backwards += now - before > 1u << 31;
		before = now;
	}
	check(backwards == 0, "PM timer goes forward", "%u times back", backwards);
}

// struct pvclock_vcpu_time_info of Linux.
static volatile struct {
	u32 version, pad;
	u64 tsc_timestamp, system_time;
	u32 mul;
	signed char shift;
	u8 flags, pad2[2];
} __attribute__((aligned(64))) clock;

enum { SYSTEM_TIME = 0x4b564d01 };

u64 clock_khz(void)
{
	wrmsr(SYSTEM_TIME, (u64)&clock | 1);
	u64 khz = (1000000ul << 32) / clock.mul;
	khz = clock.shift < 0 ? khz << -clock.shift : khz >> clock.shift;
	wrmsr(SYSTEM_TIME, 0);
	return khz;
}

static u64 clock_now(void)
{
	u64 ns;
	u32 version;
	do {
		version = clock.version;
		u64 delta = tsc() - clock.tsc_timestamp;
		delta = clock.shift < 0 ? delta >> -clock.shift : delta << clock.shift;
		ns = clock.system_time + (u64)((unsigned __int128)delta * clock.mul >> 32);
	} while (version & 1 || version != clock.version);
	return ns;
}

static void kvmclock(void)
{
	if (!(cpuid(0x40000001, 0).a >> 3 & 1)) {
		check(false, "kvmclock is offered", "it is not");
		return;
	}
	wrmsr(SYSTEM_TIME, (u64)&clock | 1);
	check(clock.version && !(clock.version & 1) && clock.mul, "kvmclock", "version %u", clock.version);
	struct moment first = at(clock_now);
	spin_ms(20);
	struct moment last = at(clock_now);
	u64 passed = last.other - first.other, khz = (last.tsc - first.tsc) * 1000000 / passed, ns = ns_between(first, last);
	check(near(passed, ns), "kvmclock against PM timer", "%lx and %lx ns", passed, ns);
	check(near(khz, tsc_khz), "kvmclock against TSC", "%lx kHz, not %lx", khz, tsc_khz);
	u64 before = last.other;
	u32 backwards = 0;
	for (u32 i = 0; i < 1000; i++) {
		u64 now = clock_now();
		backwards += now < before;
		before = now;
	}
	check(backwards == 0, "kvmclock goes forward", "%u times back", backwards);
	wrmsr(SYSTEM_TIME, 0);
}

// struct kvm_steal_time of Linux.
static volatile struct {
	u64 steal;
	u32 version, flags, pad[12];
} stolen __attribute__((aligned(64)));

static void steal_time(void)
{
	enum { STEAL_TIME = 0x4b564d03 };
	if (!(cpuid(0x40000001, 0).a >> 5 & 1)) {
		check(false, "steal time is offered", "it is not");
		return;
	}
	u32 start = pm_now();
	wrmsr(STEAL_TIME, (u64)&stolen | 1);
	u64 first = stolen.steal;
	u32 version = stolen.version;
	spin_ms(5);
	check(version && !(version & 1) && stolen.steal >= first && stolen.steal - first < ns_since(start), "steal time",
	      "version %u, %lx then %lx ns", version, first, stolen.steal);
	wrmsr(STEAL_TIME, 0);
}

void test_timers(void)
{
	pm_timer();
	measure();
	one_shot();
	periodic();
	deadline();
	pit();
	kvmclock();
	steal_time();
}
