// Command init is PID 1 of the appliance. It brings the machine up (boot.go is
// the list of steps), keeps the management daemon running, reaps, answers on
// init.sock, and ends the node in order. It depends on little, must not end,
// and knows nothing about virtual machines.
//
// Each step's part is a package of its own below this one, which can be tested
// without booting.
package main
