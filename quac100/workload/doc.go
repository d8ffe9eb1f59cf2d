// Package workload is the mix of operations that tests load a card with: every opcode
// and every algorithm that the card has, from many callers, each of which checks what
// the card answers. Whatever bus leads to the card, the load is the same.
//
// Sets of SLH-DSA that take long to sign are rare, and left out only where that is asked for.
package workload
