package testkernel

import (
	"os"
	"testing"

	"quantavirt/hv/machine"
	"quantavirt/internal/hosttool"
)

func TestBuild(t *testing.T) {
	hosttool.Path(t, "gcc")
	path, err := Build(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := machine.CheckKernel(f); err != nil {
		t.Error(err)
	}
}
