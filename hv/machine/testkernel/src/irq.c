// Interrupts: the IDT, the x2APIC of a CPU, the IOAPIC.

#include "kernel.h"

struct cpu cpus[MAX_CPUS];
handler_t handlers[256];

static struct { u16 low, selector; u8 ist, type; u16 middle; u32 high, zero; } idt[256];
extern u8 stubs[];

struct frame {
	u64 registers[15];
	u64 vector, error, rip, cs, rflags, rsp, ss;
};

struct cpu *this_cpu(void)
{
	struct cpu *c;
	asm("movq %%gs:0, %0" : "=r"(c));
	return c;
}

void interrupt(struct frame *f)
{
	u32 v = f->vector;
	if (v < 32 && v != 2) {
		say("FAIL: exception %u, error %lx, at %lx\n", v, f->error, f->rip);
		power_off();
	}
	struct cpu *c = this_cpu();
	c->seen[v]++;
	c->order[c->taken++ % sizeof c->order] = v;
	bool end = !handlers[v] || handlers[v](v);
	if (end && v >= 32)
		wrmsr(APIC_EOI, 0);
}

static void make_idt(void)
{
	for (u32 v = 0; v < 256; v++) {
		u64 at = (u64)stubs + 16 * v;
		idt[v].low = at, idt[v].middle = at >> 16, idt[v].high = at >> 32;
		idt[v].selector = 8, idt[v].type = 0x8e;
	}
}

static struct cpu *gs[MAX_CPUS]; // what GS:0 is of each CPU

void set_up_cpu(u32 index)
{
	if (index == 0)
		make_idt();
	struct { u16 limit; u64 base; } __attribute__((packed)) pointer = {sizeof idt - 1, (u64)idt};
	asm volatile("lidt %0" ::"m"(pointer));
	struct cpu *c = &cpus[index];
	c->index = index;
	gs[index] = c;
	wrmsr(0xc0000101, (u64)&gs[index]);
	wrmsr(0x1b, rdmsr(0x1b) | 3 << 10); // x2APIC
	wrmsr(APIC_SPURIOUS, 0x1ff);
	wrmsr(APIC_LINT0, MASKED);
	wrmsr(APIC_TPR, 0);
	c->apic_id = rdmsr(APIC_ID);
	// The 8259s keep still.
	out8(0x21, 0xff);
	out8(0xa1, 0xff);
}

void forget(void)
{
	struct cpu *c = this_cpu();
	for (u32 v = 0; v < 256; v++)
		c->seen[v] = 0;
	c->taken = 0;
}

bool await(u32 vector, u32 n)
{
	struct cpu *c = this_cpu();
	u32 start = pm_now();
	while (c->seen[vector] < n && ns_since(start) < 5000000000) {
		enable();
		pause();
		disable();
	}
	return c->seen[vector] >= n;
}

bool stays_quiet(u32 vector, u32 n, u32 ms)
{
	enable();
	spin_ms(ms);
	disable();
	return this_cpu()->seen[vector] <= n;
}

#define IOAPIC 0xfec00000ul

u32 ioapic_read(u32 reg)
{
	mmio_write(IOAPIC, reg);
	return mmio_read(IOAPIC + 16);
}

void ioapic_write(u32 reg, u32 v)
{
	mmio_write(IOAPIC, reg);
	mmio_write(IOAPIC + 16, v);
}

void ioapic_route(u32 pin, u32 flags_and_vector, u8 apic_id)
{
	ioapic_write(0x10 + 2 * pin, MASKED);
	ioapic_write(0x11 + 2 * pin, (u32)apic_id << 24);
	ioapic_write(0x10 + 2 * pin, flags_and_vector);
}
