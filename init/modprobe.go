package main

import (
	"os"

	"golang.org/x/sys/unix"

	"quantavirt/init/cmdline"
	"quantavirt/init/kmod"
)

// modprobe loads what the kernel asks for (request_module): it calls the program
// in /proc/sys/kernel/modprobe with "-q -- NAME" and goes on when that has
// ended. Most such modules are loaded by then; this catches the rest, and who
// comes too early.
func modprobe(name string) int {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return 1
	}
	text, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return 1
	}
	line := cmdline.Parse(string(text))
	loader, err := kmod.New(kmod.Options{
		Dir: "/lib/modules/" + unix.ByteSliceToString(u.Release[:]), Params: line.ModuleParams, Blacklist: line.Blacklist(),
	})
	if err != nil || loader.Ask(name) != nil {
		return 1
	}
	return 0
}
