package nodeconfig

import (
	"bytes"
	"encoding/base64"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"quantavirt/internal/qverr"
)

// Sources of a document, in the order in which they are asked. The first that
// has one wins as a whole; options of the kernel command line then override
// single fields.
const (
	FromMedium = "medium" // FileName in the root of the boot medium
	FromURL    = "url"    // named by the command line or by SMBIOS
	FromSMBIOS = "smbios" // OEM string
	FromFWCfg  = "fw_cfg" // item of QEMU
)

// Found is a document and where it was found.
type Found struct {
	Source string // one of the constants
	Place  string // file, URL or name of the item
	Data   []byte
}

// Prefixes of OEM strings (SMBIOS 3.7, section 7.12) that are for us.
const (
	oemDocument = "quantavirt:"        // base64 of a document follows
	oemURL      = "quantavirt.config=" // URL of a document follows
)

// fwCfgItem is the item of QEMU's fw_cfg, below the directory of its driver.
const fwCfgItem = "by_name/opt/org.quantavirt/config/raw"

// Machine is where the machine itself may hold a document.
type Machine struct {
	Sys string // /sys
}

// OEM looks at the OEM strings of SMBIOS: for a document, and for the URL of
// one. The error is that of a table or a string that is damaged.
func (m Machine) OEM() (found *Found, url string, err error) {
	table, err := readBounded(filepath.Join(m.Sys, "firmware/dmi/tables/DMI"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, "", nil
	}
	if err != nil {
		return nil, "", qverr.New(qverr.IO, "read the SMBIOS table: %w", err)
	}
	for _, s := range oemStrings(table) {
		if rest, ok := strings.CutPrefix(s, oemURL); ok && url == "" {
			url = rest
		} else if rest, ok := strings.CutPrefix(s, oemDocument); ok && found == nil {
			data, err := base64.StdEncoding.DecodeString(strings.TrimSpace(rest))
			if err != nil {
				return nil, url, qverr.New(qverr.Config, "the OEM string %s… of SMBIOS is not base64: %w", oemDocument, err).With("path", "")
			}
			found = &Found{Source: FromSMBIOS, Place: "OEM string", Data: data}
		}
	}
	return found, url, nil
}

// FWCfg reads the item that QEMU gives with -fw_cfg
// name=opt/org.quantavirt/config,file=…; nil if there is none.
func (m Machine) FWCfg() (*Found, error) {
	return fromFile(FromFWCfg, filepath.Join(m.Sys, "firmware/qemu_fw_cfg", fwCfgItem))
}

// Medium reads the document of a mounted boot medium; nil if there is none.
func Medium(dir string) (*Found, error) { return fromFile(FromMedium, filepath.Join(dir, FileName)) }

func fromFile(source, path string) (*Found, error) {
	data, err := readBounded(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, qverr.New(qverr.CodeOf(err), "read the configuration: %w", err)
	}
	return &Found{Source: source, Place: path, Data: data}, nil
}

// readBounded reads a file; one byte more than MaxSize is enough to see that
// it is too large.
func readBounded(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	return io.ReadAll(io.LimitReader(f, MaxSize+1))
}

// Types of SMBIOS structures.
const (
	typeOEM = 11
	typeEnd = 127
)

// oemStrings are the strings of all structures of type 11. A structure is its
// type, the length of its formatted area (with this header of 4 bytes), a handle,
// and behind that area strings up to an empty one (SMBIOS 3.7, section 6.1). What
// is cut off is left out.
func oemStrings(table []byte) []string {
	var all []string
	for len(table) >= 4 {
		kind, length := table[0], int(table[1])
		if length < 4 || length > len(table) || kind == typeEnd {
			break
		}
		table = table[length:]
		var texts []string
		for {
			end := bytes.IndexByte(table, 0)
			if end < 0 {
				return all
			}
			text := string(table[:end])
			table = table[end+1:]
			if text == "" {
				break
			}
			texts = append(texts, text)
		}
		if len(texts) == 0 && len(table) > 0 && table[0] == 0 {
			table = table[1:] // no strings: two zeroes
		}
		if kind == typeOEM {
			all = append(all, texts...)
		}
	}
	return all
}
