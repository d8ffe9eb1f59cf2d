// Output on COM1, the command line, memory.

#include "kernel.h"

static const char *current = "start";

static void put(char c) { out8(0x3f8, c); }

static void put_text(const char *s)
{
	while (*s)
		put(*s++);
}

static void put_number(u64 v, u32 base)
{
	char digits[24];
	u32 n = 0;
	do
		digits[n++] = "0123456789abcdef"[v % base];
	while (v /= base);
	while (n)
		put(digits[--n]);
}

static void put_format(const char *f, __builtin_va_list args)
{
	for (; *f; f++) {
		if (*f != '%') {
			put(*f);
			continue;
		}
		switch (*++f) {
		case 's': put_text(__builtin_va_arg(args, const char *)); break;
		case 'u': put_number(__builtin_va_arg(args, u32), 10); break;
		case 'x': put_number(__builtin_va_arg(args, u32), 16); break;
		case 'l': put_number(__builtin_va_arg(args, u64), *++f == 'x' ? 16 : 10); break;
		}
	}
}

void say(const char *format, ...)
{
	__builtin_va_list args;
	__builtin_va_start(args, format);
	put_format(format, args);
	__builtin_va_end(args);
}

void suite(const char *name) { current = name; }

// A check that is good says so in few characters: each is an exit.
void report(bool good, const char *what, const char *format, ...)
{
	say(good ? "ok %s: %s\n" : "FAIL %s: %s: ", current, what);
	if (good)
		return;
	__builtin_va_list args;
	__builtin_va_start(args, format);
	put_format(format, args);
	__builtin_va_end(args);
	put('\n');
}

// power_off enters S5 by PM1a control, as the DSDT says.
void power_off(void)
{
	out16(0x604, 5 << 10 | 1 << 13);
	for (;;)
		asm volatile("cli; hlt");
}

static const char *command_line(void) { return *(const char **)(start_info + 24); }

// find looks for a word of the command line that begins with name.
static const char *find(const char *name)
{
	for (const char *s = command_line(); *s; s++) {
		if (s != command_line() && s[-1] != ' ')
			continue;
		const char *a = s, *b = name;
		while (*b && *a == *b)
			a++, b++;
		if (!*b)
			return a;
	}
	return 0;
}

u32 option(const char *name, u32 otherwise)
{
	const char *s = find(name);
	if (!s || *s != '=')
		return otherwise;
	u32 v = 0;
	for (s++; *s >= '0' && *s <= '9'; s++)
		v = 10 * v + *s - '0';
	return v;
}

bool wanted(const char *suite_name)
{
	char word[16] = "no-";
	u32 n = 3;
	for (const char *s = suite_name; *s && n < sizeof word - 1; s++)
		word[n++] = *s;
	return !find(word);
}

void *memcpy(void *to, const void *from, u64 n)
{
	void *start = to;
	asm volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(n)::"memory");
	return start;
}

void *memset(void *to, int v, u64 n)
{
	void *start = to;
	asm volatile("rep stosb" : "+D"(to), "+c"(n) : "a"(v) : "memory");
	return start;
}

bool same(const void *a, const void *b, u64 n)
{
	for (const u8 *p = a, *q = b; n; n--)
		if (*p++ != *q++)
			return false;
	return true;
}

u8 sum(const void *p, u64 n)
{
	u8 s = 0;
	for (const u8 *b = p; n; n--)
		s += *b++;
	return s;
}

extern u64 pml4[512], pdpt[512];
static u64 extra[4][512] __attribute__((aligned(4096)));
static u32 used;

static u64 *below(u64 *table, u64 index)
{
	if (!(table[index] & 1) && used < COUNT(extra))
		table[index] = (u64)extra[used++] | 3;
	return (u64 *)(table[index] & ~0xffful);
}

void *map(u64 phys)
{
	if (phys >> 32) {
		u64 *pd = below(below(pml4, phys >> 39 & 511), phys >> 30 & 511);
		pd[phys >> 21 & 511] = (phys & ~0x1ffffful) | 0x83;
	}
	return (void *)phys;
}
