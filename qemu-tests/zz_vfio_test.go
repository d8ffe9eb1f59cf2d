package qemutests

import (
	"io"
	"testing"

	"quantavirt/image/tools"
	"quantavirt/qemu-tests/lab"
)

func TestVFIOOnly(t *testing.T) {
	tool, err := tools.Ensure(t.Context(), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	n := boot(t, lab.Options{Name: "vfio", Memory: 3072, Card: true, Cmdline: "quantavirt.rescue"})
	passThrough(t, n, tool)
}
