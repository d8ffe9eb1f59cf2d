// What the suites of the test kernel share.
#pragma once

#include "layout.h"

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long u64;
typedef unsigned char bool;
enum { false, true };

#define MAX_CPUS 8
#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

// lib.c: output. check reports one thing that was looked at; format knows %s, %u
// (u32), %x (u32) and %lx (u64). What it prints is read after good was found out.
#define check(good, ...)                \
	do {                            \
		bool was = (good);      \
		report(was, __VA_ARGS__); \
	} while (0)
void report(bool good, const char *what, const char *format, ...);
void say(const char *format, ...);
void suite(const char *name);
_Noreturn void power_off(void);

// The command line: option("cpus", 1) is the N of cpus=N, or else 1.
u32 option(const char *name, u32 otherwise);
bool wanted(const char *suite_name);

void *memcpy(void *to, const void *from, u64 n);
void *memset(void *to, int v, u64 n);
bool same(const void *a, const void *b, u64 n);
u8 sum(const void *p, u64 n);
// map makes a physical address usable and returns it: above 4 GiB, pages are added.
void *map(u64 phys);

// The CPU.
static inline void out8(u16 p, u8 v) { asm volatile("outb %0, %1" ::"a"(v), "Nd"(p)); }
static inline void out16(u16 p, u16 v) { asm volatile("outw %0, %1" ::"a"(v), "Nd"(p)); }
static inline void out32(u16 p, u32 v) { asm volatile("outl %0, %1" ::"a"(v), "Nd"(p)); }
static inline u8 in8(u16 p) { u8 v; asm volatile("inb %1, %0" : "=a"(v) : "Nd"(p)); return v; }
static inline u16 in16(u16 p) { u16 v; asm volatile("inw %1, %0" : "=a"(v) : "Nd"(p)); return v; }
static inline u32 in32(u16 p) { u32 v; asm volatile("inl %1, %0" : "=a"(v) : "Nd"(p)); return v; }
static inline u64 rdmsr(u32 i) { u32 a, d; asm volatile("rdmsr" : "=a"(a), "=d"(d) : "c"(i) : "memory"); return (u64)d << 32 | a; }
static inline void wrmsr(u32 i, u64 v) { asm volatile("wrmsr" ::"c"(i), "a"((u32)v), "d"((u32)(v >> 32)) : "memory"); }
static inline u64 tsc(void) { u32 a, d; asm volatile("lfence; rdtsc" : "=a"(a), "=d"(d)::"memory"); return (u64)d << 32 | a; }
static inline void pause(void) { asm volatile("pause" ::: "memory"); }
static inline void enable(void) { asm volatile("sti; nop" ::: "memory"); }
static inline void disable(void) { asm volatile("cli" ::: "memory"); }
static inline void rest(void) { asm volatile("sti; hlt; cli" ::: "memory"); }
static inline u32 mmio_read(u64 a) { u32 v; asm volatile("movl (%1), %0" : "=r"(v) : "r"(a) : "memory"); return v; }
static inline void mmio_write(u64 a, u32 v) { asm volatile("movl %0, (%1)" ::"r"(v), "r"(a) : "memory"); }

struct cpuid { u32 a, b, c, d; };
static inline struct cpuid cpuid(u32 leaf, u32 index)
{
	struct cpuid r;
	asm volatile("cpuid" : "=a"(r.a), "=b"(r.b), "=c"(r.c), "=d"(r.d) : "a"(leaf), "c"(index));
	return r;
}

// irq.c: interrupts. Each CPU counts those that came, by vector, and remembers
// their order.
struct cpu {
	u32 index, apic_id;
	volatile u32 seen[256];
	volatile u8 order[64];
	volatile u32 taken;
};
extern struct cpu cpus[MAX_CPUS];
struct cpu *this_cpu(void);

// handler, when set for a vector, runs before the end of interrupt is signalled; it
// returns false to leave that to somebody else.
typedef bool (*handler_t)(u32 vector);
extern handler_t handlers[256];

void set_up_cpu(u32 index); // IDT, GS and the x2APIC of this CPU
void forget(void);          // all that this CPU has seen
// await lets interrupts in until vector has come n times since forget; it gives up
// after a generous time and returns false.
bool await(u32 vector, u32 n);
// stays_quiet lets interrupts in for about ms milliseconds and tells whether vector
// has not come more often than n times by then.
bool stays_quiet(u32 vector, u32 n, u32 ms);

// Registers of the x2APIC (Intel SDM 3A, table 11-6).
enum {
	APIC_ID = 0x802, APIC_VERSION = 0x803, APIC_TPR = 0x808, APIC_EOI = 0x80b, APIC_SPURIOUS = 0x80f,
	APIC_IRR = 0x820, APIC_ICR = 0x830, APIC_TIMER = 0x832, APIC_LINT0 = 0x835, APIC_LINT1 = 0x836,
	APIC_INITIAL = 0x838, APIC_CURRENT = 0x839, APIC_DIVIDE = 0x83e, APIC_SELF = 0x83f,
	MASKED = 1 << 16, PERIODIC = 1 << 17, DEADLINE = 2 << 17,
	ICR_NMI = 4 << 8, ICR_INIT = 5 << 8, ICR_STARTUP = 6 << 8, ICR_ASSERT = 1 << 14,
	ICR_SELF = 1 << 18, ICR_ALL = 2 << 18, ICR_OTHERS = 3 << 18,
};
static inline void send(u32 apic_id, u32 what) { wrmsr(APIC_ICR, (u64)apic_id << 32 | what | ICR_ASSERT); }

// The IOAPIC.
u32 ioapic_read(u32 reg);
void ioapic_write(u32 reg, u32 v);
void ioapic_route(u32 pin, u32 flags_and_vector, u8 apic_id);
#define IOAPIC_LEVEL (1 << 15)

// time.c: the PM timer, 3.579545 MHz, measures all else.
#define PM_HZ 3579545
u32 pm_now(void);
u64 ns_since(u32 pm_start); // up to 1200 s
void spin_ms(u32 ms);
extern u64 tsc_khz;
u64 clock_khz(void); // of the TSC, as kvmclock says

// latency.c
void measure_latency(u32 periods);

// smp.c: other CPUs.
extern volatile u32 online;
void start_others(void);
// on_all runs f on all CPUs at once and returns when it has ended everywhere.
void on_all(void (*f)(struct cpu *));

// pci.c: configuration space, by port and by ECAM.
u32 pci_read(u32 slot, u32 off);
void pci_write(u32 slot, u32 off, u32 v);
u32 ecam_read(u32 slot, u32 off);
void ecam_write(u32 slot, u32 off, u32 v);
u32 pci_capability(u32 slot, u8 id, u32 after); // offset, 0 for none
u64 pci_bar(u32 slot, u32 index);

// acpi.c
const u8 *acpi_table(const char *signature); // 0 for none
u32 acpi_length(const u8 *table);

static inline u16 get16(const u8 *p) { return p[0] | p[1] << 8; }
static inline u32 get32(const u8 *p) { return get16(p) | (u32)get16(p + 2) << 16; }
static inline u64 get64(const u8 *p) { return get32(p) | (u64)get32(p + 4) << 32; }

extern u64 start_info;

// The suites.
void test_acpi(void);
void test_cpuid(void);
void test_interrupts(void);
void test_ioapic(void);
void test_timers(void);
void test_smp(void);
void test_pci(void);
void test_msix(void);
