package spec

import (
	"bytes"
	"os"
	"testing"

	"sigs.k8s.io/yaml"
)

// The embedded description is the one that people edit.
func TestDescriptionIsCurrent(t *testing.T) {
	source, err := os.ReadFile("../openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	want, err := yaml.YAMLToJSON(source)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(bytes.TrimSpace(JSON), bytes.TrimSpace(want)) {
		t.Error("openapi.json is not made from openapi.yaml: run go generate ./appliance/api/spec")
	}
}
