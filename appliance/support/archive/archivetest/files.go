// Package archivetest unpacks support bundles for tests.
package archivetest

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"io"
	"strings"
	"testing"
)

// Files are the contents of a bundle by their names within its folder, outside of which
// there must be nothing.
func Files(t testing.TB, bundle io.Reader) (folder string, files map[string]string) {
	t.Helper()
	zip, err := gzip.NewReader(bundle)
	if err != nil {
		t.Fatal(err)
	}
	files = make(map[string]string)
	for r := tar.NewReader(zip); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return folder, files
		}
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		in, name, _ := strings.Cut(h.Name, "/")
		if folder != "" && in != folder {
			t.Fatalf("%s is outside of %s", h.Name, folder)
		}
		folder = in
		files[name] = string(body)
	}
}
