// Package system describes the node as a whole: what PID 1 found and did, what
// the machine has and lacks, the clock, and how it goes down.
package system
