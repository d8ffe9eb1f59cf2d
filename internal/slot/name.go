package slot

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strconv"

	"quantavirt/internal/qverr"
)

// MaxSequence is the highest sequence number.
const MaxSequence = 99999999

// Folders and files on the EFI system partition.
const (
	UKIFolder = "EFI/Linux"
	Folder    = "qv"
	EnvFile   = "grub/grubenv"
	InfoFile  = "slot.json"
	NoteFile  = "note.txt" // why PID 1 gave the slot up
	Kernel    = "vmlinuz"
	Initramfs = "initramfs"
	Cmdline   = "cmdline"
)

// Name is the file name of a unified kernel image.
type Name struct {
	Sequence uint32
	Counted  bool // on trial, or given up
	Left     int  // tries left, if Counted
	Done     int  // tries done, if Counted
}

var nameForm = regexp.MustCompile(`^qv-([0-9]{8})(?:\+([0-9]{1,4})(?:-([0-9]{1,4}))?)?\.efi$`)

// ParseName reads a file name; false: it is not that of a slot.
func ParseName(file string) (Name, bool) {
	m := nameForm.FindStringSubmatch(file)
	if m == nil {
		return Name{}, false
	}
	seq, err := ParseSequence(m[1])
	n := Name{Sequence: seq, Counted: m[2] != "", Left: number(m[2]), Done: number(m[3])}
	return n, err == nil
}

// number is that of at most four digits, 0 for none.
func number(digits string) int {
	n, _ := strconv.Atoi(digits)
	return n
}

// ParseSequence reads the eight digits of a sequence number, 1 to MaxSequence.
func ParseSequence(digits string) (uint32, error) {
	n, err := strconv.ParseUint(digits, 10, 32)
	if err != nil || len(digits) != 8 || n < 1 {
		return 0, qverr.New(qverr.Inval, "%.20q is no number of a slot", digits)
	}
	return uint32(n), nil
}

// Digits is the form of a sequence number in names.
func Digits(sequence uint32) string { return fmt.Sprintf("%08d", sequence) }

func (n Name) String() string {
	s := "qv-" + Digits(n.Sequence)
	if n.Counted {
		s += fmt.Sprintf("+%d", n.Left)
		if n.Done > 0 {
			s += fmt.Sprintf("-%d", n.Done)
		}
	}
	return s + ".efi"
}

// Exhausted says that no try is left.
func (n Name) Exhausted() bool { return n.Counted && n.Left == 0 }

// Tried is the name as systemd-boot leaves it when it boots n.
func (n Name) Tried() Name {
	if n.Counted {
		n.Left, n.Done = max(n.Left-1, 0), n.Done+1
	}
	return n
}

// Compare orders names as systemd-boot does: what has no tries left comes last,
// else the higher sequence number first; of two names of one slot the one with more tries
// left, then the one with fewer done. Negative: a comes first.
func Compare(a, b Name) int {
	last := func(n Name) int {
		if n.Exhausted() {
			return 1
		}
		return 0
	}
	if c := cmp.Or(cmp.Compare(last(a), last(b)), cmp.Compare(b.Sequence, a.Sequence)); c != 0 || !a.Counted || !b.Counted {
		return c
	}
	return cmp.Or(cmp.Compare(b.Left, a.Left), cmp.Compare(a.Done, b.Done))
}

// First is the name that systemd-boot boots among the files of EFI/Linux;
// false: none of them is a slot.
func First(files []string) (Name, bool) {
	var names []Name
	for _, f := range files {
		if n, ok := ParseName(f); ok {
			names = append(names, n)
		}
	}
	if len(names) == 0 {
		return Name{}, false
	}
	return slices.MinFunc(names, Compare), true
}
