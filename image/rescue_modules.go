//go:build tools

package image

// The rescue commands are compiled by gobusybox, outside of what the go command
// sees; these imports keep what they need in go.mod.
import (
	_ "github.com/klauspost/pgzip"
	_ "github.com/u-root/u-root/pkg/kmodule"
	_ "mvdan.cc/sh/v3/interp"
)
