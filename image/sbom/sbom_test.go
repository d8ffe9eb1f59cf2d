package sbom

import (
	"bytes"
	"flag"
	"os"
	"slices"
	"testing"

	cdx "github.com/CycloneDX/cyclonedx-go"
)

var update = flag.Bool("update", false, "write testdata/golden.json anew")

func components() []Component {
	return []Component{
		{Name: "linux-image-6.12", Version: "6.12.118-1", Kind: DebianPackage, Arch: "amd64", Suite: "trixie", SHA256: "00ff", Licences: []Licence{{Name: "GPL-2"}}},
		{Name: "intel-microcode", Version: "3.2~deb13u1", Kind: DebianFirmware, Arch: "amd64", Suite: "trixie", Licences: []Licence{{Name: "its own", Text: "As is.\n"}}},
		{Name: "golang.org/x/sys", Version: "v0.49.0", Licences: []Licence{{Name: "BSD-3-Clause"}}},
		{Name: "example.org/b", Version: "v1.0.0+incompatible"},
		{Name: "linux", Version: "6.9-own", Kind: Kernel},
	}
}

func TestWrite(t *testing.T) {
	image := Image{ID: "0123", Version: "1.2", Build: "hardware", Kernel: "6.12"}
	var out, again bytes.Buffer
	if err := Write(&out, image, components()); err != nil {
		t.Fatal(err)
	}
	turned := components()
	slices.Reverse(turned)
	if err := Write(&again, image, turned); err != nil || !bytes.Equal(out.Bytes(), again.Bytes()) {
		t.Errorf("the order of components matters, %v", err)
	}
	const golden = "testdata/golden.json"
	if *update {
		if err := os.WriteFile(golden, out.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil || !bytes.Equal(out.Bytes(), want) {
		t.Errorf("%v; go test -update writes the file anew; got\n%s", err, out.Bytes())
	}
	var bom cdx.BOM
	if err := cdx.NewBOMDecoder(&out, cdx.BOMFileFormatJSON).Decode(&bom); err != nil || len(*bom.Components) != 5 {
		t.Errorf("read back: %v", err)
	}
	image.ID = "4567"
	again.Reset()
	if err := Write(&again, image, components()); err != nil || bytes.Contains(again.Bytes(), []byte(bom.SerialNumber)) {
		t.Errorf("another image has the same serial number, %v", err)
	}
}

// A bill that is extended has what it had, and the new once.
func TestExtend(t *testing.T) {
	var bill, more, again bytes.Buffer
	if err := Write(&bill, Image{ID: "0123"}, components()); err != nil {
		t.Fatal(err)
	}
	added := []Component{{Name: "ipxe", Version: "1.21", Kind: DebianPackage, Arch: "all", Suite: "trixie"}, components()[0]}
	if err := Extend(&more, bytes.NewReader(bill.Bytes()), added); err != nil {
		t.Fatal(err)
	}
	var before, after cdx.BOM
	for data, bom := range map[*bytes.Buffer]*cdx.BOM{&bill: &before, &more: &after} {
		if err := cdx.NewBOMDecoder(bytes.NewReader(data.Bytes()), cdx.BOMFileFormatJSON).Decode(bom); err != nil {
			t.Fatal(err)
		}
	}
	last := (*after.Components)[len(*after.Components)-1]
	if len(*after.Components) != len(*before.Components)+1 || last.Name != "ipxe" || after.SerialNumber == before.SerialNumber ||
		!slices.Contains(*(*after.Dependencies)[0].Dependencies, last.BOMRef) {
		t.Errorf("extended:\n%s", more.Bytes())
	}
	if err := Extend(&again, bytes.NewReader(more.Bytes()), added[1:]); err != nil || len(again.Bytes()) != len(more.Bytes()) {
		t.Errorf("%v: nothing new changed the bill:\n%s", err, again.Bytes())
	}
	for _, bad := range []string{"", "{}", `{"bomFormat":"CycloneDX","components":[]}`} {
		if err := Extend(&again, bytes.NewReader([]byte(bad)), added); err == nil {
			t.Errorf("extended %q", bad)
		}
	}
}

func TestRecognise(t *testing.T) {
	for text, want := range map[string][]string{
		"Apache License\n  Version 2.0, January 2004":                                                                 {"Apache-2.0"},
		"Redistribution and use in source and binary\nforms ... may not be used to endorse or promote products":       {"BSD-3-Clause"},
		"Redistribution and use in source and binary forms ...":                                                       {"BSD-2-Clause"},
		"Permission is hereby granted, free of charge, to any person obtaining a copy":                                {"MIT"},
		"Permission to use, copy, modify, and/or distribute this software":                                            {"ISC"},
		"Apache License Version 2.0 ... Permission is hereby granted, free of charge, to any person obtaining a copy": {"Apache-2.0", "MIT"},
		"do what you like": nil,
	} {
		if got := Recognise(text); !slices.Equal(got, want) {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
}
