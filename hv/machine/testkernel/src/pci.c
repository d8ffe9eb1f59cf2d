// PCI configuration space: both ways to it agree, and it behaves.

#include "kernel.h"

enum { SLOTS = 32, RNG = 0x10441af4 };

static u64 ecam(u32 slot, u32 off)
{
	static u64 base;
	if (!base)
		base = get64(acpi_table("MCFG") + 44);
	return base + (slot << 15) + off;
}

u32 pci_read(u32 slot, u32 off)
{
	out32(0xcf8, 1u << 31 | slot << 11 | (off & 0xfc));
	return in32(0xcfc);
}

void pci_write(u32 slot, u32 off, u32 v)
{
	out32(0xcf8, 1u << 31 | slot << 11 | (off & 0xfc));
	out32(0xcfc, v);
}

u32 ecam_read(u32 slot, u32 off) { return mmio_read(ecam(slot, off)); }
void ecam_write(u32 slot, u32 off, u32 v) { mmio_write(ecam(slot, off), v); }

static bool present(u32 slot) { return (ecam_read(slot, 0) & 0xffff) != 0xffff; }

u32 pci_capability(u32 slot, u8 id, u32 after)
{
	u32 at = after ? ecam_read(slot, after) >> 8 & 0xfc : ecam_read(slot, 0x34) & 0xfc;
	for (u32 i = 0; at && i < 48; i++) {
		u32 c = ecam_read(slot, at);
		if ((c & 0xff) == id)
			return at;
		at = c >> 8 & 0xfc;
	}
	return 0;
}

u64 pci_bar(u32 slot, u32 index)
{
	u32 low = ecam_read(slot, 0x10 + 4 * index);
	u64 high = (low & 6) == 4 ? ecam_read(slot, 0x14 + 4 * index) : 0;
	return high << 32 | (low & ~0xfu);
}

static void agree(void)
{
	u32 differ = 0, found = 0;
	for (u32 slot = 0; slot < SLOTS; slot++) {
		if (!present(slot)) {
			differ += pci_read(slot, 0) != 0xffffffff;
			continue;
		}
		found++;
		for (u32 off = 0; off < 256; off += 4)
			differ += pci_read(slot, off) != ecam_read(slot, off);
	}
	check(found >= 1 && differ == 0, "CF8 and ECAM agree", "%u devices, %u differ", found, differ);
	u32 id = pci_read(0, 0);
	out32(0xcf8, 1u << 31);
	bool parts = in16(0xcfc) == (u16)id && in16(0xcfe) == id >> 16 && in8(0xcfd) == (u8)(id >> 8) &&
		     *(volatile u16 *)ecam(0, 2) == id >> 16 && *(volatile u8 *)ecam(0, 3) == id >> 24;
	check(parts, "parts of a register", "differ");
	out32(0xcf8, 0);
	check(in32(0xcfc) == 0xffffffff, "CF8 without its enable bit", "%x", in32(0xcfc));
}

// size_bar writes ones into a BAR, and puts it back. It returns how many are wrong.
static u32 size_bar(u32 slot, u32 at, bool wide)
{
	u32 low = ecam_read(slot, at), high = wide ? ecam_read(slot, at + 4) : 0;
	ecam_write(slot, at, 0xffffffff);
	u64 mask = ecam_read(slot, at);
	if (wide) {
		ecam_write(slot, at + 4, 0xffffffff);
		mask |= (u64)ecam_read(slot, at + 4) << 32;
		ecam_write(slot, at + 4, high);
	} else {
		mask |= 0xffffffffull << 32;
	}
	ecam_write(slot, at, low);
	u64 size = ~(mask & ~0xful) + 1, base = (u64)high << 32 | (low & ~0xfu);
	return (size & (size - 1)) != 0 || size < 16 || (mask & 0xf) != (low & 0xf) || (base & (size - 1)) != 0 ||
	       ecam_read(slot, at) != low;
}

static void bars(void)
{
	u32 wrong = 0, n = 0;
	for (u32 slot = 0; slot < SLOTS; slot++) {
		if (!present(slot))
			continue;
		u32 command = ecam_read(slot, 4) & 0xffff;
		ecam_write(slot, 4, command & ~3u); // nothing decodes meanwhile
		for (u32 at = 0x10; at < 0x28; at += 4) {
			u32 bar = ecam_read(slot, at);
			bool wide = (bar & 7) == 4;
			if (bar == 0) {
				ecam_write(slot, at, 0xffffffff);
				wrong += ecam_read(slot, at) != 0;
				continue;
			}
			n++;
			wrong += size_bar(slot, at, wide);
			at += wide ? 4 : 0;
		}
		ecam_write(slot, 4, command);
	}
	check(wrong == 0, "sizes of BARs", "%u of %u wrong", wrong, n);
}

static void capabilities(void)
{
	u32 bad = 0;
	for (u32 slot = 0; slot < SLOTS; slot++) {
		if (!present(slot) || !(ecam_read(slot, 4) >> 20 & 1))
			continue;
		u32 at = ecam_read(slot, 0x34) & 0xff, steps = 0;
		while (at && steps++ < 48) {
			bad += at < 0x40 || at & 3;
			at = ecam_read(slot, at & 0xfc) >> 8 & 0xff;
		}
		bad += steps >= 48;
	}
	check(bad == 0, "capability lists", "%u bad", bad);
}

static void read_only(void)
{
	static const u8 fields[] = {0x00, 0x08, 0x0e & 0xfc, 0x2c, 0x34, 0x3c};
	u32 changed = 0;
	for (u32 slot = 0; slot < SLOTS; slot++) {
		if (!present(slot))
			continue;
		for (u32 i = 0; i < COUNT(fields); i++) {
			u32 writable = fields[i] == 0x3c ? 0xff : fields[i] == 0x0c ? 0xffff : 0; // interrupt line; cache line, latency
			u32 before = ecam_read(slot, fields[i]);
			ecam_write(slot, fields[i], ~before);
			changed += (ecam_read(slot, fields[i]) ^ before) & ~writable ? 1 : 0;
			ecam_write(slot, fields[i], before);
		}
	}
	check(changed == 0, "read-only fields", "%u changed", changed);
}

static void decoding(void)
{
	for (u32 slot = 0; slot < SLOTS; slot++) {
		if (ecam_read(slot, 0) != RNG)
			continue;
		u64 common = (u64)map(pci_bar(slot, 0));
		u32 command = ecam_read(slot, 4) & 0xffff;
		ecam_write(slot, 4, command & ~2u);
		u32 off = mmio_read(common + 16);
		ecam_write(slot, 4, command | 2);
		u32 on = mmio_read(common + 16); // vector of configuration changes, number of queues
		check(off == 0xffffffff && on != 0xffffffff, "memory decoding", "off %x, on %x", off, on);
		return;
	}
	check(false, "memory decoding", "there is no entropy device");
}

void test_pci(void)
{
	agree();
	bars();
	capabilities();
	read_only();
	decoding();
}
