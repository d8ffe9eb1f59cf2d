// Package initapi is how the management daemon talks to PID 1: a client of the
// socket, and the types of package wire, which is the contract.
package initapi

import "quantavirt/internal/initapi/wire"

// Socket is where PID 1 listens.
const Socket = wire.Socket

// The types of the contract.
type (
	Boot       = wire.Boot
	Step       = wire.Step
	Problem    = wire.Problem
	DataVolume = wire.DataVolume
	KVM        = wire.KVM
	IOMMU      = wire.IOMMU
	Group      = wire.Group
	Card       = wire.Card
	Cards      = wire.Cards
	Exit       = wire.Exit
	Banner     = wire.Banner
	Rescue     = wire.Rescue
	Unlock     = wire.Unlock
)

// NewProblem describes err with the texts of the catalogue; nil for nil.
func NewProblem(err error) *Problem { return wire.NewProblem(err) }
