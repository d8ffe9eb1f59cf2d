// How late a timer of 1 ms is: "latency=N" on the command line measures N periods in
// place of the suites. The timer is the TSC's deadline; kvmclock tells the frequency,
// as it is the same under every monitor.

#include "kernel.h"

enum { TSC_DEADLINE = 0x6e0, VECTOR = 0x50, BUCKETS = 24 };

static u64 woken;

static bool wake(u32 vector)
{
	(void)vector;
	woken = tsc();
	return true;
}

// Lines "late US COUNT" say how many were less than US microseconds late and not
// less than half of that; "worst US" is the latest.
void measure_latency(u32 periods)
{
	static u32 late[BUCKETS];
	u64 khz = clock_khz(), worst = 0;
	handlers[VECTOR] = wake;
	wrmsr(APIC_TIMER, DEADLINE | VECTOR);
	asm volatile("mfence" ::: "memory");
	u64 due = tsc() + khz;
	for (u32 i = 0; i < periods; i++) {
		woken = 0;
		wrmsr(TSC_DEADLINE, due);
		while (!woken)
			rest();
		u64 us = (woken - due) * 1000 / khz;
		u32 bucket = 0;
		while (us >> bucket && bucket < BUCKETS - 1)
			bucket++;
		late[bucket]++;
		if (us > worst)
			worst = us;
		due += khz;
		if (due < tsc())
			due = tsc() + khz; // whole periods were missed
	}
	for (u32 i = 0; i < BUCKETS; i++)
		if (late[i])
			say("late %u %u\n", 1u << i, late[i]);
	say("worst %u\n", (u32)worst);
}
