// Command hv is the virtual machine monitor.
//
//	hv vm/NAME   the process of one VM; started by the daemon, see package vmm
//	hv run …     a VM without a daemon: its console is this terminal
//	hv unpack …  stores a bzImage unpacked, which starts sooner
//	hv version
package main

import (
	"fmt"
	"os"
	"runtime"
	"strings"

	"quantavirt/hv/vmm/process"
	"quantavirt/internal/qverr"
	"quantavirt/internal/version"
)

const usage = `usage: hv run --kernel FILE [flags]   run a VM with its console on this terminal
       hv unpack KERNEL FILE          store a bzImage unpacked, for run --unpacked
       hv version                     print the version
       hv vm/NAME                     (started by the management daemon)
Flags of run: hv run --help
`

// The process is called what its first thread is: no vCPU may run on that and name it.
func init() { runtime.LockOSThread() }

func main() {
	if len(os.Args) < 2 {
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	}
	command := os.Args[1]
	if name, ok := strings.CutPrefix(command, "vm/"); ok && len(os.Args) == 2 {
		os.Exit(process.Main(name))
	}
	switch command {
	case "version", "--version":
		fmt.Println("hv", version.Version)
	case "run":
		status, err := run(os.Args[2:])
		if err != nil {
			fmt.Fprint(os.Stderr, "hv: ", qverr.CodeOf(err), ": ", err, "\r\n")
		}
		os.Exit(status)
	case "unpack":
		if len(os.Args) != 4 {
			fmt.Fprint(os.Stderr, usage)
			os.Exit(2)
		}
		if err := unpack(os.Args[2], os.Args[3]); err != nil {
			fmt.Fprintln(os.Stderr, "hv:", qverr.Line(err))
			os.Exit(qverr.ExitCode(err))
		}
	default:
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	}
}
