package nodeconfig

import (
	"crypto/sha256"
	"encoding/hex"
	"net/netip"
)

const (
	// Version is the schema version that this package reads.
	Version = 1
	// MaxSize bounds a document, in bytes.
	MaxSize = 1 << 20
	// FileName is that of the document on a boot medium, in the root folder.
	FileName = "quantavirt.json"
)

// Values of Document.Apply.
const (
	Once   = "once"   // at the first boot of a node
	Always = "always" // also later, each time the document has changed
)

// Document is a configuration. What it does not say has its zero value.
type Document struct {
	Apply      string // Once or Always
	Hostname   string
	Management Management
	Tokens     []Token
	Data       *Target  // make a data volume on a disk
	Install    *Install // install the node on a disk
	Networks   []Network
	Images     []Image
	Disks      []Disk
	VMs        []VM
	NTP        *[]string // nil: not said; empty: no time server is asked
	TLSPolicy  string    // pq-only or compatible
}

// Modes of Management.
const (
	DHCP   = "dhcp"
	Static = "static"
)

// Management is the network under which the node is reached.
type Management struct {
	Mode      string // "", DHCP or Static
	Interface string // its name or its MAC address; "" for the first with a carrier
	Address   netip.Prefix
	Gateway   netip.Addr
	DNS       []netip.Addr
	MTU       int // bytes; 0: not said
}

// Token is a trusted API token.
type Token struct {
	Hash        string // sha256:HEX
	Description string
	Role        string // admin or viewer
}

// Target is a disk that is written to.
type Target struct {
	Disk       string // selector, see disks.Select
	WipeSerial string // serial number of the disk, if what is on it may be lost
	Encrypt    bool   // the data volume, with a key sealed to the TPM
}

// What a node does when it has installed itself.
const (
	ThenReboot   = "reboot"
	ThenPowerOff = "poweroff"
	ThenNothing  = "nothing"
)

// Install says where the node installs itself without being asked.
type Install struct {
	Target
	Source string // URL of a unified kernel image or a bundle; "": from the boot medium
	SHA256 string // hex, of what Source gives
	Then   string // ThenReboot, ThenPowerOff or ThenNothing
}

// Network is a virtual network of guests besides "default".
type Network struct {
	Path   string // in the document
	Name   string
	Subnet netip.Prefix // address of the node in it, with the length
	DHCP   bool
	NAT    bool
	MTU    int // bytes; 0: 1500
	DNS    []netip.Addr
	Domain string

	BootFile   string     // what machines boot from it: an image, a name on BootServer or a URL
	BootServer netip.Addr // the TFTP server, when it is not the node
	BootImages []string   // further images that the node serves to them
}

// Image is a kernel, an initrd or a raw image to fetch.
type Image struct {
	Path   string // in the document
	ID     string
	Kind   string // kernel, initrd, raw
	URL    string
	SHA256 string // hex
}

// Disk is a virtual disk to make, empty or from a URL.
type Disk struct {
	Path   string // in the document
	Name   string
	Size   string // "": that of the content
	URL    string
	SHA256 string // hex
}

// VM is a virtual machine to define; it is started if its configuration has
// autostart.
type VM struct {
	Path   string // in the document
	Name   string
	Config map[string]any // a VMConfig of the API, not checked but for its name
}

// Sum names a document: the SHA-256 of its bytes, in hex.
func Sum(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}
