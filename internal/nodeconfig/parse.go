package nodeconfig

import (
	"net/netip"
	"strings"

	jsonv2 "github.com/go-json-experiment/json"

	"quantavirt/internal/qverr"
)

// Bounds of lists: far above what a node can use.
const (
	maxTokens     = 64
	maxNetworks   = 64
	maxImages     = 256
	maxVMs        = 1024
	maxServers    = 8
	maxBootImages = 64
)

// Parse reads a document. What is wrong is left out of it and reported, each
// with code QV_ERR_CONFIG and its place in details.path: "" for the document as
// a whole, of which nothing is taken then.
func Parse(data []byte) (Document, []error) {
	r := &report{}
	whole := func(format string, args ...any) (Document, []error) {
		return Document{}, []error{qverr.New(qverr.Config, format, args...).With("path", "")}
	}
	if len(data) > MaxSize {
		return whole("the configuration has %d bytes, at most %d are read", len(data), MaxSize)
	}
	var v any
	if err := jsonv2.Unmarshal(data, &v); err != nil {
		return whole("the configuration is not JSON: %w", err)
	}
	m, ok := v.(map[string]any)
	if !ok {
		return whole("the configuration is %s, not an object", kindOf(v))
	}
	if version, said := m["schema_version"]; said && version != float64(Version) {
		return Document{}, []error{qverr.New(qverr.Config, "the configuration has schema version %.40s, this node knows %d", show(version), Version).With("path", "schema_version")}
	}
	doc := r.document(m)
	return doc, r.problems
}

func (r *report) document(m map[string]any) Document {
	o, _ := r.object("", m)
	o.take("schema_version")
	d := Document{Apply: o.text("apply", oneOf(Once, Always)), Hostname: o.text("hostname", CheckHostname)}
	if d.Apply == "" {
		d.Apply = Once
	}
	o.section("management", func(e *object) {
		if m, ok := e.management(); ok {
			d.Management = m
		}
	})
	o.objects("tokens", maxTokens, func(e *object) {
		if t, ok := e.token(); ok {
			d.Tokens = append(d.Tokens, t)
		}
	})
	o.section("data", func(e *object) {
		if t := e.target(); e.close() {
			d.Data = &t
		}
	})
	o.section("install", func(e *object) {
		if i, ok := e.install(); ok {
			d.Install = &i
		}
	})
	o.resources(&d)
	before := len(r.problems)
	if servers, ok := o.texts("ntp", maxServers, server); ok && len(r.problems) == before {
		d.NTP = &servers
	}
	o.section("tls", func(e *object) {
		if policy := e.text("policy", oneOf("pq-only", "compatible")); e.close() {
			d.TLSPolicy = policy
		}
	})
	o.close()
	return d
}

// section is an object member.
func (o *object) section(key string, read func(e *object)) {
	v, ok := o.take(key)
	if !ok {
		return
	}
	if e, ok := o.object(o.at(key), v); ok {
		read(e)
	}
}

func (o *object) management() (Management, bool) {
	m := Management{Mode: o.text("mode", oneOf(DHCP, Static)), Interface: o.text("interface", link), MTU: o.number("mtu", 68, 65535)}
	if m.Mode == "" {
		m.Mode = DHCP
	}
	if m.Mode == Static {
		o.need("address")
	}
	for _, key := range []string{"address", "gateway", "dns"} {
		if _, ok := o.left[key]; ok && m.Mode != Static {
			o.add(o.at(key), `goes with "mode": "static" only`)
		}
	}
	if s := o.text("address", prefix); s != "" {
		m.Address = netip.MustParsePrefix(s)
	}
	if s := o.text("gateway", address); s != "" {
		m.Gateway = netip.MustParseAddr(s)
	}
	m.DNS = o.addresses("dns")
	return m, o.close()
}

func (o *object) addresses(key string) []netip.Addr {
	var all []netip.Addr
	texts, _ := o.texts(key, maxServers, address)
	for _, s := range texts {
		all = append(all, netip.MustParseAddr(s))
	}
	return all
}

func (o *object) token() (Token, bool) {
	o.need("hash")
	t := Token{Hash: o.text("hash", tokenHash), Description: o.text("description", text(512)), Role: o.text("role", oneOf("admin", "viewer"))}
	if t.Role == "" {
		t.Role = "admin"
	}
	return t, o.close()
}

func (o *object) target() Target {
	o.need("disk")
	return Target{Disk: o.text("disk", selector), WipeSerial: o.text("wipe_serial", text(256)), Encrypt: o.flag("encrypt", false)}
}

func (o *object) install() (Install, bool) {
	i := Install{Target: o.target(), Then: o.text("then", oneOf(ThenReboot, ThenPowerOff, ThenNothing))}
	i.Source, i.SHA256 = o.source("source")
	if i.Then == "" {
		i.Then = ThenReboot
	}
	return i, o.close()
}

// source is a URL, and the sum of what it gives, without which a plain HTTP
// server is not believed.
func (o *object) source(key string) (url, digest string) {
	url, digest = o.text(key, CheckURL), o.text("sha256", sum)
	switch {
	case strings.HasPrefix(url, "http:") && digest == "":
		o.add(o.at("sha256"), "is missing: what comes over plain HTTP must have one")
	case url == "" && digest != "":
		o.add(o.at("sha256"), "goes with %s only", key)
	}
	return url, digest
}

// resources are the things that the API could make as well.
func (o *object) resources(d *Document) {
	o.objects("networks", maxNetworks, func(e *object) {
		if n, ok := e.network(); ok {
			d.Networks = append(d.Networks, n)
		}
	})
	o.objects("images", maxImages, func(e *object) {
		e.need("id", "kind", "url")
		i := Image{Path: e.path, ID: e.text("id", name), Kind: e.text("kind", oneOf("kernel", "initrd", "raw"))}
		i.URL, i.SHA256 = e.source("url")
		if e.close() {
			d.Images = append(d.Images, i)
		}
	})
	o.objects("disks", maxImages, func(e *object) {
		e.need("name")
		if _, ok := e.left["url"]; !ok {
			e.need("size")
		}
		k := Disk{Path: e.path, Name: e.text("name", name), Size: e.text("size", diskSize)}
		k.URL, k.SHA256 = e.source("url")
		if e.close() {
			d.Disks = append(d.Disks, k)
		}
	})
	o.list("vms", maxVMs, func(path string, v any) {
		e, ok := o.object(path, v)
		if !ok {
			return
		}
		e.need("name")
		if n := e.text("name", name); n != "" {
			d.VMs = append(d.VMs, VM{Path: path, Name: n, Config: v.(map[string]any)})
		}
	})
}

func (o *object) network() (Network, bool) {
	o.need("name", "subnet")
	n := Network{
		Path: o.path, Name: o.text("name", name), DHCP: o.flag("dhcp", true), NAT: o.flag("nat", true),
		MTU: o.number("mtu", 68, 65535), DNS: o.addresses("dns"), Domain: o.text("domain", server),
	}
	if s := o.text("subnet", prefix); s != "" {
		n.Subnet = netip.MustParsePrefix(s)
	}
	n.BootFile = o.text("boot_file", bootFile)
	if s := o.text("boot_server", address); s != "" {
		n.BootServer = netip.MustParseAddr(s)
	}
	if list, _ := o.texts("boot_images", maxBootImages, name); len(list) > 0 {
		n.BootImages = list
	}
	if n.BootFile == "" && (n.BootServer.IsValid() || n.BootImages != nil) {
		o.need("boot_file")
	}
	return n, o.close()
}
