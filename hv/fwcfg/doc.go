// Package fwcfg is the fw_cfg device by which a machine tells its firmware what it
// is: items by key, named files in a directory, read by bytes at a port or by DMA
// (QEMU's docs/specs/fw_cfg.rst). Nothing can be written: a guest that tries gets
// the error bit. All that the guest says is checked; what it asks for costs at
// most MaxTransfer bytes of copying at a time.
package fwcfg
