package disks

import (
	"slices"
	"strings"

	"quantavirt/internal/qverr"
)

// Words that select a disk by its size.
const (
	Smallest = "smallest"
	Largest  = "largest"
)

// CheckSelector refuses what is in none of the forms of Select.
func CheckSelector(selector string) error {
	kind, value, ok := strings.Cut(selector, ":")
	switch {
	case selector == Smallest, selector == Largest:
		return nil
	case strings.HasPrefix(selector, "/dev/") && len(selector) > len("/dev/"):
		return nil
	case ok && value != "" && slices.Contains([]string{"serial", "path", "wwn"}, kind):
		return nil
	}
	return qverr.New(qverr.Inval, "%.80q is none of /dev/NAME, serial:…, path:…, wwn:…, smallest, largest", selector)
}

// Select finds the one disk that a selector means: /dev/NAME, serial:…, path:…
// (as Disk.Path), wwn:…, smallest or largest. Removable disks, those on USB
// and read-only ones are never the smallest or largest. QV_ERR_NOENT: there is none; QV_ERR_CONFIG:
// there are several, and guessing could destroy data; QV_ERR_INVAL: the
// selector is in none of the forms.
func Select(all []Disk, selector string) (Disk, error) {
	if err := CheckSelector(selector); err != nil {
		return Disk{}, err
	}
	if selector == Smallest || selector == Largest {
		return bySize(all, selector)
	}
	kind, value, _ := strings.Cut(selector, ":")
	var found []Disk
	for _, d := range all {
		have := map[string]string{"serial": d.Serial, "path": d.Path, "wwn": d.WWN}[kind]
		if d.Device == selector || have != "" && have == value {
			found = append(found, d)
		}
	}
	if len(found) == 0 {
		return Disk{}, qverr.New(qverr.NoEnt, "there is no disk %.80s", selector).WithHint("see what is there: quantavirt system disks")
	}
	return one(found, selector)
}

func bySize(all []Disk, selector string) (Disk, error) {
	fixed := slices.DeleteFunc(slices.Clone(all), func(d Disk) bool { return d.Removable || d.ReadOnly || d.Bus == "usb" })
	if len(fixed) == 0 {
		return Disk{}, qverr.New(qverr.NoEnt, "there is no fixed disk")
	}
	least := func(a, b Disk) int {
		if selector == Largest {
			a, b = b, a
		}
		switch {
		case a.SizeBytes < b.SizeBytes:
			return -1
		case a.SizeBytes > b.SizeBytes:
			return 1
		}
		return 0
	}
	best := slices.MinFunc(fixed, least)
	return one(slices.DeleteFunc(fixed, func(d Disk) bool { return d.SizeBytes != best.SizeBytes }), selector)
}

func one(found []Disk, selector string) (Disk, error) {
	if len(found) == 1 {
		return found[0], nil
	}
	names := make([]string, len(found))
	for i, d := range found {
		names[i] = d.String()
	}
	return Disk{}, qverr.New(qverr.Config, "%d disks are %.80s: %s", len(found), selector, strings.Join(names, ", ")).
		WithHint("name one by its serial number: serial:…")
}
