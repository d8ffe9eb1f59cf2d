// Package support makes support bundles: what is to be known of a node to help with it, in
// one file without secrets. See docs/support.md for what is in one.
//
// A bundle is made as it is sent and never stored. Each thing in it is collected in time
// of its own, beside the sending, so that what hangs or fails costs only itself: it is
// named in the bundle. Nothing is tested, changed or opened for a bundle.
package support
