package vm

import (
	"encoding/json"
	"strconv"
	"strings"

	"github.com/google/uuid"

	"quantavirt/appliance/api/schema"
	"quantavirt/appliance/api/spec"
	"quantavirt/hv/config"
	"quantavirt/internal/qverr"
)

// SchemaVersion is the version of the VM configuration.
const SchemaVersion = "1.0"

// nested are the keys that may stand under "devices".
var nested = []string{"storage", "network", "graphics", "usb", "pci"}

// Parse turns a JSON document, as decoded into an any, into a configuration in
// the flat form, checked and with its defaults. Malformed values are
// QV_ERR_CONFIG with status 400, others that break the schema with 422;
// details.path names the place as the document has it.
func Parse(set *schema.Set, tree any) (spec.VMConfig, error) {
	flat, lifted, err := flatten(tree)
	if err != nil {
		return spec.VMConfig{}, err
	}
	if err := set.Check("VMConfig", flat); err != nil {
		return spec.VMConfig{}, asWritten(err, lifted)
	}
	var c spec.VMConfig
	data, err := json.Marshal(flat)
	if err == nil {
		err = json.Unmarshal(data, &c)
	}
	if err != nil {
		return spec.VMConfig{}, qverr.New(qverr.Config, "VM configuration: %w", err)
	}
	normalise(&c)
	if err := validate(&c); err != nil {
		return spec.VMConfig{}, asWritten(err, lifted)
	}
	return c, nil
}

// flatten lifts the members of "devices" to the top; it changes no input.
func flatten(tree any) (any, map[string]bool, error) {
	doc, ok := tree.(map[string]any)
	if !ok {
		return tree, nil, nil
	}
	raw, ok := doc["devices"]
	if !ok {
		return doc, nil, nil
	}
	devices, ok := raw.(map[string]any)
	if !ok {
		return nil, nil, qverr.Malformed("devices is not an object").With("path", "devices")
	}
	flat := make(map[string]any, len(doc)+len(devices))
	for key, v := range doc {
		if key != "devices" {
			flat[key] = v
		}
	}
	lifted := make(map[string]bool)
	known := make(map[string]bool)
	for _, key := range nested {
		known[key] = true
		v, ok := devices[key]
		if !ok {
			continue
		}
		if _, twice := flat[key]; twice {
			return nil, nil, qverr.New(qverr.Config, "%s stands at the top and under devices", key).With("path", "devices."+key)
		}
		flat[key], lifted[key] = v, true
	}
	for key := range devices {
		if !known[key] {
			return nil, nil, qverr.New(qverr.Config, "devices.%.64s is not a known key", key).With("path", "devices."+bounded(key))
		}
	}
	return flat, lifted, nil
}

func bounded(s string) string {
	if len(s) > 64 {
		return strings.ToValidUTF8(s[:64], "") + "…"
	}
	return s
}

// asWritten gives the path of a lifted member as it stood in the document.
func asWritten(err error, lifted map[string]bool) error {
	e := qverr.From(err)
	path, _ := e.Details["path"].(string)
	top := path
	if i := strings.IndexAny(path, ".["); i >= 0 {
		top = path[:i]
	}
	if !lifted[top] {
		return err
	}
	e.Message = strings.Replace(e.Message, path, "devices."+path, 1)
	return e.With("path", "devices."+path)
}

// normalise fills in what the schema says about absent fields.
func normalise(c *spec.VMConfig) {
	if c.SchemaVersion == "" {
		c.SchemaVersion = SchemaVersion
	}
	if c.UUID == "" {
		c.UUID = uuid.NewString()
	}
	setDefault(&c.Machine, config.MachineType)
	setDefault(&c.CPU.Count, 1)
	setDefault(&c.CPU.Model, "host")
	setDefault(&c.Memory.Hugepages, spec.MemoryConfigHugepagesOff)
	setDefault(&c.Boot.Firmware, spec.BootConfigFirmwareSeabios)
	if c.Boot.Firmware == spec.BootConfigFirmwareDirect {
		setDefault(&c.Console, spec.VMConfigConsoleVirtioConsole)
	}
	setDefault(&c.Console, spec.VMConfigConsoleSerial) // of firmware and boot loader
	setDefault(&c.PQC.Quac100, spec.PQCConfigQuac100None)
	setDefault(&c.Migration.MaxDowntimeMs, 300)
	setDefault(&c.Restart, spec.VMConfigRestartNever)
	if c.Migration.AutoConverge == nil {
		yes := true
		c.Migration.AutoConverge = &yes
	}
	for i := range c.Storage {
		setDefault(&c.Storage[i].Type, spec.StorageConfigTypeVirtioBlk)
		setDefault(&c.Storage[i].Queues, 1)
		setDefault(&c.Storage[i].Cache, spec.StorageConfigCacheWriteback)
	}
	for i := range c.Network {
		setDefault(&c.Network[i].Type, spec.NICConfigTypeVirtioNet)
		setDefault(&c.Network[i].Network, "default")
		setDefault(&c.Network[i].Queues, 1)
		c.Network[i].MAC = strings.ToLower(strings.ReplaceAll(c.Network[i].MAC, "-", ":"))
	}
	t := &c.CPU.Topology
	if *t != (spec.CPUTopology{}) {
		setDefault(&t.Sockets, 1)
		setDefault(&t.Cores, 1)
		setDefault(&t.Threads, 1)
	}
}

func setDefault[T comparable](p *T, v T) {
	var zero T
	if *p == zero {
		*p = v
	}
}

// mergePatch applies RFC 7396 to a copy of target.
func mergePatch(target any, patch map[string]any) map[string]any {
	out := make(map[string]any)
	if old, ok := target.(map[string]any); ok {
		for k, v := range old {
			out[k] = v
		}
	}
	for k, v := range patch {
		switch v := v.(type) {
		case nil:
			delete(out, k)
		case map[string]any:
			out[k] = mergePatch(out[k], v)
		default:
			out[k] = v
		}
	}
	return out
}

func indexed(field string, i int, rest string) string {
	return field + "[" + strconv.Itoa(i) + "]" + rest
}
