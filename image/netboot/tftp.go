package netboot

import (
	"errors"
	"net/netip"
	"strconv"

	"quantavirt/netstack/tftp"
)

// tftpFiles are those of the tree.
type tftpFiles struct{ *booter }

// Open implements tftp.Source.
func (t tftpFiles) Open(client netip.Addr, name string) (tftp.File, error) {
	f, info, err := t.tree.open(name)
	if err != nil {
		t.record(Identity{}, client, "TFTP "+strconv.Quote(name), "no such file")
		return tftp.File{}, errors.New("no such file")
	}
	return tftp.File{ReadCloser: f, Size: info.Size()}, nil
}

// Sent implements tftp.Source.
func (t tftpFiles) Sent(client netip.Addr, name string, bytes int64, err error) {
	if err != nil {
		t.log.Debug("TFTP transfer ended early", "client", client, "file", name, "bytes", bytes, "err", err)
		return
	}
	t.record(Identity{}, client, "TFTP "+name, strconv.FormatInt(bytes, 10)+" bytes")
}

// Refused implements tftp.Source.
func (t tftpFiles) Refused(client netip.Addr, name string, err error) {
	t.log.Warn("TFTP request refused", "client", client, "file", name, "err", err)
}
