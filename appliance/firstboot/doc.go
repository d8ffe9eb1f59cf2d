// Package firstboot finds the node's configuration (internal/nodeconfig),
// remembers which one the node has, and makes what it names.
//
// A node takes a configuration once: the first that it finds. Its settings (host
// name, management network, networks, time servers, TLS policy) hold from then
// on, also when the medium or the server is gone; tokens, images, disks and VMs
// are made at that time and belong to the API afterwards. Another document is
// taken later only if it says "apply": "always". A node whose state is in RAM has
// its first boot each time.
package firstboot
