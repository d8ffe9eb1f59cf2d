// The firmware tables, as an operating system finds them from PVH's start info.

#include "kernel.h"

static const u8 *rsdp(void) { return *(const u8 **)(start_info + 32); }

u32 acpi_length(const u8 *table) { return get32(table + 4); }

const u8 *acpi_table(const char *signature)
{
	const u8 *xsdt = (const u8 *)get64(rsdp() + 24);
	for (const u8 *p = xsdt + 36; p < xsdt + acpi_length(xsdt); p += 8)
		if (same((const u8 *)get64(p), signature, 4))
			return (const u8 *)get64(p);
	return 0;
}

static bool sound(const u8 *t)
{
	u32 n = acpi_length(t);
	return n >= 36 && n < 1 << 20 && sum(t, n) == 0;
}

// reserved tells whether the memory map keeps [at, at+n) from use as RAM.
static bool reserved(u64 at, u64 n)
{
	const u8 *e = *(const u8 **)(start_info + 40);
	for (u32 i = *(u32 *)(start_info + 48); i; i--, e += 24)
		if (get32(e + 16) == 1 && at < get64(e) + get64(e + 8) && at + n > get64(e))
			return false;
	return true;
}

static void madt(void)
{
	const u8 *t = acpi_table("APIC");
	u32 found = 0, ioapics = 0, sci = 0, strange = 0;
	for (const u8 *e = t + 44; e < t + acpi_length(t); e += e[1]) {
		if (e[1] < 2) {
			strange++;
			break;
		}
		switch (e[0]) {
		case 0: found += e[4] & 1; break;
		case 9: found += e[8] & 1; break;
		case 1: ioapics += get32(e + 4) == 0xfec00000; break;
		case 2: sci += e[3] == 9 && get32(e + 4) == 9 && get16(e + 8) == 0xd; break;
		case 4: case 10: break;
		default: strange++;
		}
	}
	check(found == option("cpus", 1), "MADT lists the CPUs", "%u", found);
	check(ioapics == 1 && sci == 1 && strange == 0, "MADT has IOAPIC and SCI", "%u, %u, %u strange", ioapics, sci, strange);
}

// generation_id is what ADDR of the generation device in the DSDT says: a package of
// two integers.
static const u8 *generation_id(const u8 *dsdt)
{
	for (const u8 *p = dsdt; p < dsdt + acpi_length(dsdt) - 16; p++)
		if (same(p, "ADDR\x12", 5) && p[7] == 0x0c)
			return (const u8 *)(u64)get32(p + 8);
	return 0;
}

enum { GPE = 0x620 };

// switch_off ends the interrupts of a level whose cause stays.
static bool switch_off(u32 vector)
{
	(void)vector;
	out16(GPE + 2, 0);
	return true;
}

// The operator makes a new id when it reads the line.
static void generation(const u8 *dsdt)
{
	enum { PIN = 9, VECTOR = 0x72 };
	static u8 old[16];
	static const u8 zero[16];
	const u8 *id = generation_id(dsdt);
	if (!id) {
		check(false, "generation id", "there is none");
		return;
	}
	memcpy(old, id, sizeof old);
	bool random = !same(old, zero, sizeof old);
	forget();
	handlers[VECTOR] = switch_off;
	ioapic_route(PIN, IOAPIC_LEVEL | VECTOR, this_cpu()->apic_id);
	out16(GPE + 2, 1);
	say("change the generation\n");
	bool came = await(VECTOR, 1);
	ioapic_write(0x10 + 2 * PIN, MASKED);
	handlers[VECTOR] = 0;
	u16 status = in16(GPE);
	out16(GPE, status);
	check(random && came && status == 1 && in16(GPE) == 0 && !same(old, id, sizeof old), "generation id changes",
	      "was random %u, came %u, status %x, then %x", random, came, status, in16(GPE));
}

void test_acpi(void)
{
	check(*(u32 *)start_info == 0x336ec578, "start info", "magic %x", *(u32 *)start_info);
	const u8 *r = rsdp();
	check(same(r, "RSD PTR ", 8) && sum(r, 20) == 0 && sum(r, get32(r + 20)) == 0, "RSDP", "bad");
	const u8 *xsdt = (const u8 *)get64(r + 24);
	check(same(xsdt, "XSDT", 4) && sound(xsdt), "XSDT", "bad");
	u32 bad = 0, outside = 0, n = 0;
	for (const u8 *p = xsdt + 36; p < xsdt + acpi_length(xsdt); p += 8, n++) {
		const u8 *t = (const u8 *)get64(p);
		bad += !sound(t);
		outside += !reserved((u64)t, acpi_length(t));
	}
	check(n >= 3 && bad == 0 && outside == 0, "tables", "%u, %u bad, %u in RAM", n, bad, outside);
	const u8 *fadt = acpi_table("FACP");
	const u8 *dsdt = (const u8 *)get64(fadt + 140), *facs = (const u8 *)(u64)get32(fadt + 36);
	check(same(dsdt, "DSDT", 4) && sound(dsdt) && get32(fadt + 40) == (u32)(u64)dsdt, "DSDT", "bad");
	check(same(facs, "FACS", 4) && ((u64)facs & 63) == 0, "FACS", "bad");
	check(get32(fadt + 76) == 0x608 && get16(fadt + 46) == 9, "FADT", "PM timer %x, SCI %u", get32(fadt + 76), get16(fadt + 46));
	const u8 *mcfg = acpi_table("MCFG");
	check(mcfg && *(u32 *)get64(mcfg + 44) == pci_read(0, 0), "MCFG leads to ECAM", "bad");
	madt();
	generation(dsdt);
}
