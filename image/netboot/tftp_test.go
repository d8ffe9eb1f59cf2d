package netboot

import (
	"bytes"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pin/tftp/v3"

	nettftp "quantavirt/netstack/tftp"
)

// serveTFTP starts the service on a port of the loopback address.
func serveTFTP(t *testing.T, b *booter) string {
	t.Helper()
	conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := nettftp.New(tftpFiles{b}, 1500)
	done := make(chan error, 1)
	go func() { done <- s.Serve(conn) }()
	t.Cleanup(func() {
		s.Shutdown()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return conn.LocalAddr().String()
}

// fetchTFTP gets a file and returns its size as the server announced it.
func fetchTFTP(addr, name string, block int) (body string, size int64, err error) {
	c, err := tftp.NewClient(addr)
	if err != nil {
		return "", 0, err
	}
	c.SetBlockSize(block)
	c.RequestTSize(true)
	from, err := c.Receive(name, "octet")
	if err != nil {
		return "", 0, err
	}
	if in, ok := from.(tftp.IncomingTransfer); ok {
		size, _ = in.Size()
	}
	var buf bytes.Buffer
	_, err = from.WriteTo(&buf)
	return buf.String(), size, err
}

func TestTFTP(t *testing.T) {
	b := newBooter(t, nil)
	dir := files(t, imageFiles...)
	big := strings.Repeat("0123456789abcdef", 20<<10) // 320 KiB
	if err := os.WriteFile(filepath.Join(dir, "big"), []byte(big), 0o644); err != nil {
		t.Fatal(err)
	}
	secret := files(t, "secret")
	if err := os.Symlink(filepath.Join(secret, "secret"), filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	tr, err := openTree(dir, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tr.close)
	b.tree = tr
	addr := serveTFTP(t, b)
	for _, block := range []int{512, 1428, 1468, 65464} {
		body, size, err := fetchTFTP(addr, "/big", block)
		if err != nil || body != big || size != int64(len(big)) {
			t.Errorf("block size %d: %d bytes, announced %d: %v", block, len(body), size, err)
		}
	}
	for _, name := range []string{"nothing", "../secret", "/../../../../etc/passwd", "link", "sub", ".", "/"} {
		if body, _, err := fetchTFTP(addr, name, 512); err == nil || body != "" {
			t.Errorf("%s: %q", name, body)
		}
	}
	c, err := tftp.NewClient(addr)
	if err != nil {
		t.Fatal(err)
	}
	to, err := c.Send("big", "octet")
	if err == nil {
		_, err = to.ReadFrom(strings.NewReader("x"))
	}
	if err == nil {
		t.Error("a file was taken")
	}
	if data, err := os.ReadFile(filepath.Join(dir, "big")); err != nil || string(data) != big {
		t.Error("the file was changed")
	}
}
