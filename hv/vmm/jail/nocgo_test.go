//go:build !cgo

package jail_test

const withC = false
