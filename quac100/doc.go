// Package quac100 drives the QUAC 100 card from user space.
//
// A Card is brought up as the register map's section 20 says and then serves
// many callers at once: commands go into one ring in shared memory, responses
// come back in any order and find their caller by tag, an interrupt wakes the
// one goroutine that reads them. Every response code of the card becomes an
// error of the catalogue.
//
// The card is reached through the Bus interface: through VFIO on a host
// (OpenVFIO), or straight to a model in the same process in tests.
package quac100
