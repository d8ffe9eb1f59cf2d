// Delivery of interrupts by the local APIC, and by the IOAPIC with edges and levels.

#include "kernel.h"

enum { LOW = 0x41, MIDDLE = 0x62, HIGH = 0x93 };

static void fixed(void)
{
	forget();
	send(this_cpu()->apic_id, LOW);
	check(await(LOW, 1), "fixed interrupt to itself", "none");
	wrmsr(APIC_SELF, MIDDLE);
	check(await(MIDDLE, 1), "self IPI register", "none");
	wrmsr(APIC_ICR, ICR_SELF | ICR_ASSERT | HIGH);
	check(await(HIGH, 1), "shorthand self", "none");
	check(this_cpu()->taken == 3, "each comes once", "%u in all", this_cpu()->taken);
}

static void priorities(void)
{
	struct cpu *c = this_cpu();
	forget();
	wrmsr(APIC_SELF, LOW);
	wrmsr(APIC_SELF, HIGH);
	wrmsr(APIC_SELF, MIDDLE);
	wrmsr(APIC_SELF, MIDDLE); // pending already: no second
	bool pending = rdmsr(APIC_IRR + LOW / 32) >> LOW % 32 & 1;
	enable();
	disable();
	check(pending && c->taken == 3 && c->order[0] == HIGH && c->order[1] == MIDDLE && c->order[2] == LOW,
	      "order of priority", "pending %u, %u: %x %x %x", pending, c->taken, c->order[0], c->order[1], c->order[2]);

	forget();
	wrmsr(APIC_TPR, HIGH & 0xf0);
	wrmsr(APIC_SELF, MIDDLE);
	wrmsr(APIC_SELF, HIGH);
	enable();
	disable();
	bool held = c->taken == 0;
	wrmsr(APIC_TPR, MIDDLE & 0xf0);
	enable();
	disable();
	held = held && c->taken == 1 && c->order[0] == HIGH;
	wrmsr(APIC_TPR, 0);
	enable();
	disable();
	check(held && c->taken == 2, "task priority holds back", "%u taken", c->taken);
}

static bool leave_open(u32 vector) { (void)vector; return false; }

static void end_of_interrupt(void)
{
	struct cpu *c = this_cpu();
	forget();
	handlers[MIDDLE] = leave_open;
	wrmsr(APIC_SELF, MIDDLE);
	enable();
	disable();
	wrmsr(APIC_SELF, LOW);
	wrmsr(APIC_SELF, HIGH);
	enable();
	disable();
	bool held = c->seen[LOW] == 0, over = c->seen[HIGH] == 1;
	wrmsr(APIC_EOI, 0);
	enable();
	disable();
	check(held && over && c->seen[LOW] == 1, "end of interrupt", "held %u, over %u, then %u", held, over, c->seen[LOW]);
	handlers[MIDDLE] = 0;
}

static void nmi(void)
{
	forget();
	send(this_cpu()->apic_id, ICR_NMI);
	for (u32 i = 0; i < 1000 && !this_cpu()->seen[2]; i++)
		pause();
	check(this_cpu()->seen[2] == 1, "NMI while interrupts are off", "%u", this_cpu()->seen[2]);
}

void test_interrupts(void)
{
	fixed();
	priorities();
	end_of_interrupt();
	nmi();
}

enum { COM1 = 0x3f8, PM_STATUS = 0x600, PM_ENABLE = 0x602, POWER_BUTTON = 1 << 8, VECTOR = 0x71 };

static void edge(void)
{
	forget();
	out8(COM1 + 4, 8); // OUT2 lets the interrupt out
	ioapic_route(4, VECTOR, this_cpu()->apic_id);
	out8(COM1 + 1, 2); // transmitter empty
	bool came = await(VECTOR, 1) && stays_quiet(VECTOR, 1, 2);
	u8 why = in8(COM1 + 2), then = in8(COM1 + 2);
	out8(COM1 + 1, 0); // before printing, which would interrupt
	check(came, "edge of COM1", "%u", this_cpu()->seen[VECTOR]);
	check((why & 0xf) == 2 && (then & 1), "COM1 tells why", "%x, then %x", why, then);

	ioapic_write(0x10 + 2 * 4, MASKED | VECTOR);
	forget();
	out8(COM1 + 1, 2);
	bool quiet = stays_quiet(VECTOR, 0, 2);
	in8(COM1 + 2);
	out8(COM1 + 1, 0);
	check(quiet, "masked pin", "%u", this_cpu()->seen[VECTOR]);
}

static bool read_cause(u32 vector)
{
	if (this_cpu()->seen[vector] == 3)
		in8(COM1 + 2); // takes the line down
	return true;
}

// A level goes on interrupting after each end of interrupt until its cause is gone.
static void level(void)
{
	forget();
	handlers[VECTOR] = read_cause;
	ioapic_route(4, IOAPIC_LEVEL | VECTOR, this_cpu()->apic_id);
	out8(COM1 + 1, 2);
	bool came = await(VECTOR, 3) && stays_quiet(VECTOR, 3, 2);
	handlers[VECTOR] = 0;
	ioapic_write(0x10 + 2 * 4, MASKED);
	out8(COM1 + 1, 0);
	check(came, "level of COM1", "%u", this_cpu()->seen[VECTOR]);
}

static bool release_button(u32 vector)
{
	if (this_cpu()->seen[vector] == 2)
		out16(PM_STATUS, POWER_BUTTON);
	return true;
}

// The test presses the power button when it reads the line.
static void sci(void)
{
	forget();
	handlers[VECTOR] = release_button;
	ioapic_route(9, IOAPIC_LEVEL | VECTOR, this_cpu()->apic_id);
	out16(PM_ENABLE, POWER_BUTTON);
	say("press the power button\n");
	bool came = await(VECTOR, 2);
	check(came && stays_quiet(VECTOR, 2, 2) && !(in16(PM_STATUS) & POWER_BUTTON), "SCI of the power button",
	      "%u, status %x", this_cpu()->seen[VECTOR], in16(PM_STATUS));
	handlers[VECTOR] = 0;
	out16(PM_ENABLE, 0);
	ioapic_write(0x10 + 2 * 9, MASKED);
}

void test_ioapic(void)
{
	u32 version = ioapic_read(1);
	check((version >> 16 & 0xff) == 23, "24 pins", "version %x", version);
	ioapic_write(0x10 + 2 * 20, MASKED | 0x55);
	check(ioapic_read(0x10 + 2 * 20) == (MASKED | 0x55), "redirection entry keeps", "%x", ioapic_read(0x10 + 2 * 20));
	edge();
	level();
	sci();
}
