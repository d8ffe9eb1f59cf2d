// What CPUID says on each CPU, and that it agrees with the APIC ids.

#include "kernel.h"

static u32 sockets, cores, threads;
static volatile u32 bad_initial, bad_level, bad_amd, bad_package;
static u32 thread_shift, core_shift, packages[MAX_CPUS];

static bool amd(void) { return cpuid(0, 0).b == 0x68747541; }

// bits is how many bits number n things.
static u32 bits(u32 n)
{
	u32 b = 0;
	while (1u << b < n)
		b++;
	return b;
}

// Leaves 0xb and 0x1f: threads, then cores, then the end.
static bool levels(u32 leaf, u32 apic_id)
{
	struct cpuid t = cpuid(leaf, 0), c = cpuid(leaf, 1), end = cpuid(leaf, 2);
	return t.d == apic_id && c.d == apic_id && (t.c >> 8 & 0xff) == 1 && (c.c >> 8 & 0xff) == 2 && (end.c >> 8 & 0xff) == 0 &&
	       (t.b & 0xffff) == threads && (c.b & 0xffff) == cores * threads &&
	       (t.a & 31) == thread_shift && (c.a & 31) == core_shift;
}

static void look(struct cpu *c)
{
	if (cpuid(1, 0).b >> 24 != (c->apic_id & 0xff))
		__sync_fetch_and_add(&bad_initial, 1);
	u32 top = cpuid(0, 0).a;
	if ((top >= 0xb && !levels(0xb, c->apic_id)) || (top >= 0x1f && !levels(0x1f, c->apic_id)))
		__sync_fetch_and_add(&bad_level, 1);
	if (amd() && cpuid(0x80000000, 0).a >= 0x8000001e && cpuid(0x80000001, 0).c >> 22 & 1) {
		struct cpuid e = cpuid(0x8000001e, 0);
		if (e.a != c->apic_id || (e.b >> 8 & 0xff) != threads - 1 ||
		    (e.b & 0xff) != (c->apic_id >> thread_shift & ((1u << (core_shift - thread_shift)) - 1)))
			__sync_fetch_and_add(&bad_amd, 1);
	}
	u32 package = c->apic_id >> core_shift;
	if (package >= sockets)
		__sync_fetch_and_add(&bad_package, 1);
	else
		__sync_fetch_and_add(&packages[package], 1);
}

// caches are those of leaf 4 (Intel) or 0x8000001d (AMD): as many CPUs share one as
// its level says, and a package has room for the cores.
static u32 bad_caches(u32 leaf)
{
	u32 bad = 0;
	for (u32 i = 0; i < 8; i++) {
		struct cpuid c = cpuid(leaf, i);
		if ((c.a & 0x1f) == 0)
			break;
		u32 share = (c.a >> 14 & 0xfff) + 1, level = c.a >> 5 & 7;
		u32 of = level >= 3 ? 1u << core_shift : 1u << thread_shift;
		bad += share != of;
		if (leaf == 4)
			bad += (c.a >> 26) + 1 != 1u << (core_shift - thread_shift);
	}
	return bad;
}

// test_level looks at the features of x86-64-v2 and v3 (level=2 or 3).
static void test_level(u32 level)
{
	struct cpuid f = cpuid(1, 0);
	bool two = f.c >> 0 & 1 && f.c >> 9 & 1 && f.c >> 13 & 1 && f.c >> 19 & 1 && f.c >> 20 & 1 && f.c >> 23 & 1;
	bool avx = f.c >> 28 & 1, avx2 = cpuid(7, 0).b >> 5 & 1, xsave = f.c >> 26 & 1;
	check(two, "level 2", "%x", f.c);
	check(level >= 3 ? avx && avx2 && xsave : !avx && !avx2 && !xsave, "level 3", "avx %u, avx2 %u, xsave %u", avx, avx2, xsave);
	u32 state = xsave ? cpuid(13, 0).a : 0;
	check(state == (level >= 3 ? 7u : 0u), "extended state", "%x", state);
}

void test_cpuid(void)
{
	if (option("level", 0))
		test_level(option("level", 0));
	u32 n = option("cpus", 1);
	sockets = option("sockets", 1), threads = option("threads", 1), cores = option("cores", n / (sockets * threads));
	thread_shift = bits(threads);
	core_shift = thread_shift + bits(cores);

	struct cpuid f = cpuid(1, 0), kvm = cpuid(0x40000000, 0);
	check(f.c >> 31 && kvm.b == 0x4b4d564b && kvm.c == 0x564b4d56 && kvm.d == 0x4d, "hypervisor leaf", "%x %x %x", kvm.b, kvm.c, kvm.d);
	check(!(f.c >> 5 & 1) && !(cpuid(0x80000001, 0).c >> 2 & 1), "no VMX, no SVM", "shown");
	check(f.c >> 21 & 1, "x2APIC", "not shown");
	u32 own = cores * threads;
	check((f.d >> 28 & 1) == (own > 1) && (f.b >> 16 & 0xff) >= own, "CPUs of a package", "%u, HTT %u", f.b >> 16 & 0xff, f.d >> 28 & 1);
	if (cpuid(0x80000000, 0).a >= 0x80000008 && amd()) {
		u32 c = cpuid(0x80000008, 0).c;
		check((c & 0xff) + 1 == own && (c >> 12 & 15) == core_shift, "AMD's count", "%x", c);
	}
	on_all(look);
	check(bad_initial == 0, "initial APIC id", "%u differ", bad_initial);
	check(bad_level == 0, "topology leaves", "%u differ", bad_level);
	check(bad_amd == 0, "AMD's extended ids", "%u differ", bad_amd);
	u32 uneven = bad_package;
	for (u32 i = 0; i < sockets; i++)
		uneven += packages[i] != own;
	check(uneven == 0, "packages are full", "%u are not", uneven);
	u32 bad = amd() ? bad_caches(0x8000001d) : bad_caches(4);
	check(bad == 0, "caches are shared as their level says", "%u are not", bad);
}
