package attest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"quantavirt/internal/qverr"
)

// maxPolicy bounds a policy, in bytes.
const maxPolicy = 1 << 20

// Policy is what a VM's measures should be: a JSON object with any of the members of Measures,
// decoded. What it does not name is not compared.
type Policy map[string]any

// needed is what a policy must say at least: a report that is good whatever was booted is no proof.
var needed = []string{"kernel", "initrd", "cmdline"}

// ParsePolicy reads a policy. QV_ERR_CONFIG: it is none, or names what no report has.
func ParsePolicy(data []byte) (Policy, error) {
	if len(data) > maxPolicy {
		return nil, qverr.New(qverr.Config, "a policy of more than %d bytes", maxPolicy)
	}
	var types Measures
	if err := decodeStrict(data, &types); err != nil {
		return nil, qverr.New(qverr.Config, "not a policy for VMs: %w", err)
	}
	tree, err := parseTree(data)
	if err != nil {
		return nil, qverr.New(qverr.Config, "not a policy for VMs: %w", err)
	}
	// encoding/json takes KERNEL for kernel; a comparison does not.
	for _, name := range slices.Sorted(maps.Keys(tree)) {
		if !slices.Contains(measureNames(), name) {
			return nil, qverr.New(qverr.Config, "a policy cannot name %.64q", name)
		}
	}
	return tree, nil
}

// Complete fails with QV_ERR_INVAL if the policy does not say what should have booted.
func (p Policy) Complete() error {
	var missing []string
	for _, name := range needed {
		if _, ok := p[name]; !ok {
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 {
		return qverr.New(qverr.Inval, "nothing says what %s of the VM should be", strings.Join(missing, ", "))
	}
	return nil
}

// measureNames are the members of Measures, in their order.
func measureNames() []string {
	var names []string
	for f := range reflect.TypeFor[Measures]().Fields() {
		names = append(names, f.Tag.Get("json"))
	}
	return names
}

// compare adds one check for each measure.
func (p Policy) compare(c *checklist, m Measures) error {
	data, err := json.Marshal(m)
	if err != nil {
		return qverr.New(qverr.Inval, "encode measures: %w", err)
	}
	got, err := parseTree(data)
	if err != nil {
		return qverr.New(qverr.Inval, "encode measures: %w", err)
	}
	for _, name := range measureNames() {
		want, ok := p[name]
		if !ok {
			c.skip(name, "not compared: "+summary(got[name]))
			continue
		}
		if differ := differences("", got[name], want); len(differ) > 0 {
			c.add(name, "", refused("%s", strings.Join(differ, ", ")))
			continue
		}
		c.add(name, summary(got[name]), nil)
	}
	return nil
}

// differences names where got is not what is wanted. Objects may have members that the policy
// does not name; lists must be as long.
func differences(path string, got, want any) []string {
	switch want := want.(type) {
	case map[string]any:
		have, ok := got.(map[string]any)
		if !ok {
			break
		}
		var all []string
		for _, name := range slices.Sorted(maps.Keys(want)) {
			v, ok := have[name]
			if !ok {
				all = append(all, fmt.Sprintf("%s.%.64s is not in the report", path, name))
				continue
			}
			all = append(all, differences(path+"."+name, v, want[name])...)
		}
		return all
	case []any:
		have, ok := got.([]any)
		if !ok {
			break
		}
		if len(have) != len(want) {
			return []string{fmt.Sprintf("there are %d, not %d", len(have), len(want))}
		}
		var all []string
		for i := range want {
			all = append(all, differences(fmt.Sprintf("%s[%d]", path, i), have[i], want[i])...)
		}
		return all
	}
	if reflect.DeepEqual(got, want) {
		return nil
	}
	return []string{strings.TrimSpace(fmt.Sprintf("%s is %s, not %s", path, show(got), show(want)))}
}

// summary is a measure in one line.
func summary(v any) string {
	disks, ok := v.([]any)
	if !ok {
		return show(v)
	}
	if len(disks) == 0 {
		return "none"
	}
	var all []string
	for _, d := range disks {
		d, _ := d.(map[string]any)
		text := show(d["name"])
		if d["readonly"] == true {
			text += " read-only " + show(d["content"])
		} else {
			text += " writable, made from " + show(d["origin"])
		}
		all = append(all, text)
	}
	return strings.Join(all, ", ")
}

// parseTree decodes one JSON object; numbers keep their digits.
func parseTree(data []byte) (map[string]any, error) {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	var tree map[string]any
	if err := d.Decode(&tree); err != nil {
		return nil, err
	}
	if tree == nil || d.More() {
		return nil, errors.New("it is no JSON object alone")
	}
	return tree, nil
}
