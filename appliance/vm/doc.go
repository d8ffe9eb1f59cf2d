// Package vm keeps the virtual machines of the node: their configurations
// (schema version 1.0), their states, and the VM processes behind them.
//
// The store decides what exists; configs/NAME.json is a copy for people. A VM
// process does not need the daemon: a new daemon finds the running ones through
// their control sockets and learns from PID 1 how the others ended. What is
// legal in which state is one table (state.go). Actions run as tasks, one at a
// time per VM; what is wrong from the state alone, or plainly missing, is
// refused before there is a task.
package vm
