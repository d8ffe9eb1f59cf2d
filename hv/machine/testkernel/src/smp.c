// Start-up of the other CPUs, and what they do together.

#include "kernel.h"

volatile u32 online = 1;
static u8 stacks[MAX_CPUS][8192] __attribute__((aligned(16)));
extern u64 ap_stack;
extern u8 trampoline[], trampoline_end[];

enum { WAKE = 0x30, IPI = 0xa0, ALL = 0xb0, NMI = 2, FIRST_TRY = 200, GENEROUS = 5000 };

static void (*volatile job)(struct cpu *);
static volatile u32 round_number, finished;

// ap_main is where a CPU comes from the trampoline: it does jobs for ever.
void ap_main(void)
{
	u32 index = online;
	set_up_cpu(index);
	u32 last = round_number;
	__sync_fetch_and_add(&online, 1);
	for (;;) {
		while (round_number == last)
			rest();
		last = round_number;
		job(&cpus[index]);
		__sync_fetch_and_add(&finished, 1);
	}
}

static bool waits(volatile u32 *what, u32 value, u32 ms)
{
	u32 start = pm_now();
	while (*what != value && ns_since(start) < ms * 1000000ul)
		pause();
	return *what == value;
}

static bool start_up(u32 apic_id, u32 tries)
{
	u32 want = online + 1;
	ap_stack = (u64)stacks[online] + sizeof stacks[0];
	send(apic_id, ICR_INIT);
	for (u32 i = 0; i < tries; i++) {
		send(apic_id, ICR_STARTUP | TRAMPOLINE >> 12);
		if (waits(&online, want, i + 1 < tries ? FIRST_TRY : GENEROUS))
			return true;
	}
	return false;
}

// start_others starts the CPUs that the MADT lists, one after the other: those with
// APIC ids of from= on, as many as there is room for.
void start_others(void)
{
	memcpy((void *)TRAMPOLINE, trampoline, trampoline_end - trampoline);
	const u8 *madt = acpi_table("APIC");
	if (!madt)
		return;
	for (const u8 *e = madt + 44; e < madt + acpi_length(madt) && e[1]; e += e[1]) {
		u32 id = e[0] == 0 ? e[3] : e[0] == 9 ? get32(e + 4) : cpus[0].apic_id;
		if (id != cpus[0].apic_id && id >= option("from", 0) && online < MAX_CPUS && !start_up(id, 2))
			say("CPU with APIC id %u does not start\n", id);
	}
}

void on_all(void (*f)(struct cpu *))
{
	job = f;
	finished = 0;
	round_number++;
	if (online > 1)
		wrmsr(APIC_ICR, ICR_OTHERS | ICR_ASSERT | WAKE);
	f(&cpus[0]);
	waits(&finished, online - 1, GENEROUS);
}

static void forget_all(struct cpu *c) { (void)c; forget(); }

static volatile u32 done_sending;

// Each CPU sends to each other, and waits until all have, and all is there.
static void to_all(struct cpu *c)
{
	for (u32 i = 0; i < online; i++)
		if (i != c->index)
			send(cpus[i].apic_id, IPI + c->index);
	__sync_fetch_and_add(&done_sending, 1);
	u32 start = pm_now();
	for (;;) {
		u32 missing = online - done_sending;
		for (u32 i = 0; i < online; i++)
			missing += i != c->index && c->seen[IPI + i] == 0;
		if (missing == 0 || ns_since(start) > GENEROUS * 1000000ul)
			return;
		enable();
		pause();
		disable();
	}
}

static void ipis(void)
{
	on_all(forget_all);
	done_sending = 0;
	on_all(to_all);
	u32 wrong = 0;
	for (u32 to = 0; to < online; to++)
		for (u32 from = 0; from < online; from++)
			wrong += cpus[to].seen[IPI + from] != (from != to);
	check(wrong == 0, "IPIs all to all", "%u of %u", wrong, online * online);
}

static void take(struct cpu *c) { if (c->index) await(ALL, 1); }

static void broadcast(void)
{
	on_all(forget_all);
	wrmsr(APIC_ICR, ICR_OTHERS | ICR_ASSERT | ALL);
	on_all(take);
	u32 wrong = cpus[0].seen[ALL];
	for (u32 i = 1; i < online; i++)
		wrong += cpus[i].seen[ALL] != 1;
	wrmsr(APIC_ICR, ICR_ALL | ICR_ASSERT | ALL);
	check(wrong == 0 && await(ALL, 1), "broadcasts", "%u wrong, own %u", wrong, cpus[0].seen[ALL]);
}

static void nmis(void)
{
	on_all(forget_all);
	u32 missing = 0;
	for (u32 i = 1; i < online; i++) {
		send(cpus[i].apic_id, ICR_NMI);
		missing += !waits(&cpus[i].seen[NMI], 1, GENEROUS);
	}
	check(missing == 0, "NMI to each", "%u missing", missing);
}

static volatile u32 counter, turn;
static volatile u64 latest;
static volatile u32 backwards;

static void count(struct cpu *c)
{
	(void)c;
	for (u32 i = 0; i < 2000; i++)
		__sync_fetch_and_add(&counter, 1);
}

// The TSC is handed round; it must never be behind that of the CPU before.
static void compare_tsc(struct cpu *c)
{
	for (u32 lap = 0; lap < 3; lap++) {
		while (turn != lap * online + c->index)
			pause();
		u64 now = tsc();
		if (now < latest)
			backwards++;
		latest = now;
		turn++;
	}
}

void test_smp(void)
{
	u32 want = option("online", option("cpus", 1));
	check(online == want, "all CPUs start", "%u of %u", online, want);
	u32 twice = 0;
	for (u32 i = 0; i < online; i++)
		for (u32 j = 0; j < i; j++)
			twice += cpus[i].apic_id == cpus[j].apic_id;
	check(twice == 0, "APIC ids differ", "%u do not", twice);
	ipis();
	broadcast();
	nmis();
	counter = 0;
	on_all(count);
	check(counter == 2000 * online, "atomic additions", "%u", counter);
	on_all(compare_tsc);
	check(backwards == 0, "TSC is the same", "%u times back", backwards);

	// INIT takes the last one down, and it starts again.
	if (online > 1) {
		online--;
		check(start_up(cpus[online].apic_id, 2), "starts again after INIT", "%u online", online);
		on_all(forget_all);
	}
}
