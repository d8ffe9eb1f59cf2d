// Command hv stands for the programs of the product in tests of the archive.
package main

import (
	"fmt"

	"quantavirt/internal/version"
)

func main() { fmt.Println(version.Version) }
