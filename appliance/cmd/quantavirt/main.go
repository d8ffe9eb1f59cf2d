// Command quantavirt is the command line of a QuantaVirt node.
package main

import (
	"os"

	"quantavirt/appliance/cmd/quantavirt/cli"
)

func main() {
	os.Exit(cli.Main(os.Args[1:], cli.OS()))
}
