package efivar

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"quantavirt/internal/qverr"
)

const bootOrder = "BootOrder"

// bootName is that of a boot option, with four upper-case hexadecimal digits.
var bootName = regexp.MustCompile("^Boot[0-9A-F]{4}$")

// written are the attributes of the variables of boot options.
const written = NonVolatile | BootAccess | RuntimeAccess

// BootFirst has the firmware boot an option first. It takes the place of those that
// have its description and its file on whatever partition; all others keep their
// order behind it. A variable that is right already is not written. It returns the
// option's variable.
func BootFirst(v Variables, o LoadOption) (name string, err error) {
	_, path, ok := o.File()
	if !ok {
		return "", qverr.New(qverr.Inval, "boot entry %q: its path is not that of a file on a partition", o.Description)
	}
	value, err := o.Encode()
	if err != nil {
		return "", err
	}
	names, err := v.Names()
	if err != nil {
		return "", err
	}
	order, err := readOrder(v)
	if err != nil {
		return "", err
	}
	taken, ours := map[uint16]bool{}, []uint16(nil)
	for _, name := range names {
		if !bootName.MatchString(name) {
			continue
		}
		n, _ := strconv.ParseUint(name[4:], 16, 16) // as the pattern says
		taken[uint16(n)] = true
		if same(v, name, o.Description, path) {
			ours = append(ours, uint16(n))
		}
	}
	number, err := choose(order, taken, ours)
	if err != nil {
		return "", err
	}
	if err := put(v, bootVariable(number), value); err != nil {
		return "", err
	}
	left := slices.DeleteFunc(order, func(n uint16) bool { return n == number || slices.Contains(ours, n) })
	if err := put(v, bootOrder, encodeOrder(append([]uint16{number}, left...))); err != nil {
		return "", err
	}
	for _, n := range ours {
		if n == number {
			continue
		}
		if err := v.Delete(bootVariable(n)); err != nil {
			return "", err
		}
	}
	return bootVariable(number), nil
}

func bootVariable(n uint16) string { return fmt.Sprintf("Boot%04X", n) }

// same tells whether a boot option has a description and boots a file. What cannot
// be read as one is somebody else's.
func same(v Variables, name, description, path string) bool {
	_, value, err := v.Get(name)
	if err != nil {
		return false
	}
	o, err := ParseLoadOption(value)
	if err != nil {
		return false
	}
	_, file, ok := o.File()
	return ok && o.Description == description && strings.EqualFold(file, path)
}

// choose is the number of an option: that of the first of ours, or the lowest that
// is free.
func choose(order []uint16, taken map[uint16]bool, ours []uint16) (uint16, error) {
	for _, n := range append(slices.Clone(order), ours...) {
		if slices.Contains(ours, n) {
			return n, nil
		}
	}
	for n := range 1 << 16 {
		if !taken[uint16(n)] {
			return uint16(n), nil
		}
	}
	return 0, qverr.New(qverr.Limit, "the firmware has no room for one more boot entry")
}

// put writes a variable that does not hold the value already.
func put(v Variables, name string, value []byte) error {
	attributes, have, err := v.Get(name)
	if err == nil && attributes == written && bytes.Equal(have, value) {
		return nil
	}
	if err != nil && qverr.CodeOf(err) != qverr.NoEnt {
		return err
	}
	return v.Set(name, written, value)
}

// readOrder reads BootOrder; a firmware that was never set up has none.
func readOrder(v Variables) ([]uint16, error) {
	_, value, err := v.Get(bootOrder)
	if qverr.CodeOf(err) == qverr.NoEnt {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var order []uint16
	for ; len(value) >= 2; value = value[2:] {
		order = append(order, binary.LittleEndian.Uint16(value))
	}
	return order, nil
}

func encodeOrder(order []uint16) []byte {
	var out []byte
	for _, n := range order {
		out = binary.LittleEndian.AppendUint16(out, n)
	}
	return out
}
