// A kernel that looks at the machine it runs on. The command line tells what
// should be there (cpus=, sockets=, cores=, threads=, level= of x86-64), which CPUs to
// start (from= an APIC id on, online= so many) and may name suites to leave out
// (no-pci); latency= measures a timer instead. Lines on COM1 say what was found; the last is "done".

#include "kernel.h"

static const struct {
	const char *name;
	void (*run)(void);
} suites[] = {
	{"acpi", test_acpi}, {"pci", test_pci}, {"interrupts", test_interrupts}, {"ioapic", test_ioapic},
	{"timers", test_timers}, {"msix", test_msix}, {"smp", test_smp}, {"cpuid", test_cpuid},
};

void kernel_main(void)
{
	set_up_cpu(0);
	if (option("latency", 0)) {
		measure_latency(option("latency", 0));
		say("done\n");
		power_off();
	}
	start_others();
	for (u32 i = 0; i < COUNT(suites); i++) {
		if (!wanted(suites[i].name))
			continue;
		suite(suites[i].name);
		suites[i].run();
	}
	say("done\n");
	power_off();
}
