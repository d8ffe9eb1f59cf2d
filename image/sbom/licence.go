package sbom

import "strings"

// Recognise finds the licence of a Go module by its text, as far as it is one of
// those usual there. It returns SPDX identifiers, several if the text holds
// several.
func Recognise(text string) []string {
	text = strings.Join(strings.Fields(text), " ")
	has := func(s string) bool { return strings.Contains(text, s) }
	var found []string
	for _, l := range []struct {
		id string
		is bool
	}{
		{"Apache-2.0", has("Apache License") && has("Version 2.0")},
		{"BSD-2-Clause", has("Redistribution and use in source and binary forms") && !has("endorse or promote products")},
		{"BSD-3-Clause", has("Redistribution and use in source and binary forms") && has("endorse or promote products")},
		{"ISC", has("Permission to use, copy, modify, and distribute this software") || has("Permission to use, copy, modify, and/or distribute this software")},
		{"MIT", has("Permission is hereby granted, free of charge, to any person obtaining a copy")},
		{"MPL-2.0", has("Mozilla Public License") && has("2.0")},
	} {
		if l.is {
			found = append(found, l.id)
		}
	}
	return found
}
