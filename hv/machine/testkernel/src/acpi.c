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
}
