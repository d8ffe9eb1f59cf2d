package main

import (
	"flag"
	"fmt"
	"path/filepath"
	"strings"

	"quantavirt/image/secureboot"
)

// keysDir is where the builder's keys are. They are never committed.
const keysDir = "build/keys"

// keys makes the builder's keys that are missing.
func keys(args []string) error {
	flags := flag.NewFlagSet("mkimage keys", flag.ContinueOnError)
	dir := flags.String("out", keysDir, "where the keys are")
	if err := flags.Parse(args); err != nil {
		return err
	}
	boot, err := secureboot.EnsureKeys(*dir)
	if err != nil {
		return err
	}
	if len(boot.Made) == 0 {
		fmt.Printf("The keys for Secure Boot in %s are kept.\n", *dir)
		return nil
	}
	fmt.Printf("Made for Secure Boot: %s. Keep %s safe: what these keys sign, machines that trust them boot.\n",
		strings.Join(boot.Made, ", "), filepath.Join(*dir, "*.key"))
	return nil
}
