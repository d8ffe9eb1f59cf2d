package main

import (
	"flag"
	"fmt"
	"path/filepath"
	"strings"

	"quantavirt/image"
	"quantavirt/image/secureboot"
)

// keysDir is where the builder's keys are. They are never committed.
const keysDir = "build/keys"

// keys makes the builder's keys that are missing.
func keys(args []string) error {
	flags := flag.NewFlagSet("mkimage keys", flag.ContinueOnError)
	dir := flags.String("out", keysDir, "where the keys are")
	more := flags.Bool("new-update-key", false, "make a further key for updates, to change over to")
	if err := flags.Parse(args); err != nil {
		return err
	}
	boot, err := secureboot.EnsureKeys(*dir)
	if err != nil {
		return err
	}
	if len(boot.Made) == 0 {
		fmt.Printf("The keys for Secure Boot in %s are kept.\n", *dir)
	} else {
		fmt.Printf("Made for Secure Boot: %s. Keep %s safe: what these keys sign, machines that trust them boot.\n",
			strings.Join(boot.Made, ", "), filepath.Join(*dir, "*.key"))
	}
	return updateKeys(*dir, *more)
}

// updateKeys shows the keys that sign update bundles; the first is made if there
// is none.
func updateKeys(dir string, more bool) error {
	list, err := image.UpdateKeys(dir)
	if err == nil && more {
		var key image.UpdateKey
		key, err = image.NewUpdateKey(dir)
		list = append(list, key)
	}
	if err != nil {
		return err
	}
	fmt.Println("Keys for updates, which every image of this builder trusts:")
	for _, k := range list {
		where := "with its private key"
		if k.Private == nil {
			where = "public only"
		}
		id, err := k.ID()
		if err != nil {
			return err
		}
		fmt.Printf("  %-12s %s  %s\n", k.Name, id, where)
	}
	return nil
}
