// Command quantavirt is the command line of a QuantaVirt node and, as
// "quantavirt daemon", the node's management daemon, or "quantavirt rescue" in its
// place.
package main

import (
	"os"

	"quantavirt/appliance/cmd/quantavirt/cli"
	"quantavirt/appliance/daemon"
	"quantavirt/appliance/rescue"
)

func main() {
	os.Exit(run(os.Args[1:]))
}

func run(args []string) int {
	if len(args) > 0 {
		switch args[0] {
		case "daemon":
			return daemon.Main(args[1:])
		case "rescue":
			return rescue.Main(args[1:])
		}
	}
	return cli.Main(args, cli.OS())
}
