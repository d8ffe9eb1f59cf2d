//go:build !race

package quac100_test

const raceEnabled = false
