package daemon

import (
	"os"

	"quantavirt/internal/qverr"
)

// bootFile opens an image that guests boot from a network.
func (d *daemon) bootFile(name string) (*os.File, error) {
	if d.storage == nil {
		return nil, qverr.New(qverr.Again, "the images are not there yet")
	}
	kind, err := d.storage.ImageKind(name)
	if err != nil {
		return nil, err
	}
	return d.storage.OpenImage(name, kind)
}
