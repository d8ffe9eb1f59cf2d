// Command yamljson rewrites a YAML file as compact JSON; it serves go:generate.
package main

import (
	"fmt"
	"os"

	"sigs.k8s.io/yaml"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "yamljson:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 2 {
		return fmt.Errorf("want IN.yaml OUT.json")
	}
	in, err := os.ReadFile(args[0])
	if err != nil {
		return err
	}
	out, err := yaml.YAMLToJSON(in)
	if err != nil {
		return fmt.Errorf("%s: %w", args[0], err)
	}
	return os.WriteFile(args[1], append(out, '\n'), 0o644)
}
