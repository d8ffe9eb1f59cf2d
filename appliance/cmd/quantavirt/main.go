// Command quantavirt is the command line of a QuantaVirt node and, as
// "quantavirt daemon", the node's management daemon.
package main

import (
	"os"

	"quantavirt/appliance/cmd/quantavirt/cli"
	"quantavirt/appliance/daemon"
)

func main() {
	os.Exit(run(os.Args[1:]))
}

func run(args []string) int {
	if len(args) > 0 && args[0] == "daemon" {
		return daemon.Main(args[1:])
	}
	return cli.Main(args, cli.OS())
}
