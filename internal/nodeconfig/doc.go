// Package nodeconfig reads quantavirt.json, the configuration that a node gets
// at its first boot (schema version 1), and finds it: on the boot medium, at an
// HTTP server, in SMBIOS or in QEMU's fw_cfg.
//
// Parse is forgiving in one way only: a part that is wrong is left out and
// reported with its path, and the rest is taken. An unknown key is wrong. The
// schema is described in docs/configuration.md, which a test holds against this
// package. Documents come from media and networks and are taken for hostile.
package nodeconfig
