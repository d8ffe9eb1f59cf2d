// Package model is the QUAC 100 in software: registers, rings, DMA, interrupts, random source and cryptography of the
// card as package regs describes it, as a Go library without any process or protocol around it.
//
// Register and configuration accesses never wait: they change state under one lock and leave all work (DMA,
// cryptography, self-tests, resets) to the card's own goroutines. Whoever serves them to a guest may therefore answer
// each at once, which QEMU's vfio-user protocol needs: an emulator that waits for a register holds the lock that the
// card's own DMA would need.
//
// The environment is a Host: memory by IOVA and interrupt messages. Use it in process like this:
//
//	card, err := model.New(model.Config{Serial: 1, HostMSIX: true})
//	defer card.Close()
//	mem := model.NewMemory(func(vector int) { … })
//	mem.Map(0x10000, make([]byte, 4096), true, true)
//	card.Connect(mem)
//	card.WriteConfig(regs.CfgCommand, []byte{0x06, 0})     // memory and bus master
//	card.WriteConfig(regs.CfgMSIXControl, []byte{0, 0x80}) // MSI-X on
//	err = card.WaitReady(ctx)
//
// The cryptography is that of circl and the standard library; the pre-hash and hedged forms of ML-DSA, which circl does
// not let a caller's randomness into, are the package's own and tested against circl.
package model
