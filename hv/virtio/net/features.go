package net

import "golang.org/x/sys/unix"

// Feature bits, section 5.1.3.
const (
	featureCSum          = 1 << 0
	featureGuestCSum     = 1 << 1
	featureGuestOffloads = 1 << 2
	featureMTU           = 1 << 3
	featureMAC           = 1 << 5
	featureGuestTSO4     = 1 << 7
	featureGuestTSO6     = 1 << 8
	featureGuestECN      = 1 << 9
	featureHostTSO4      = 1 << 11
	featureHostTSO6      = 1 << 12
	featureHostECN       = 1 << 13
	featureMergeable     = 1 << 15
	featureStatus        = 1 << 16
	featureControl       = 1 << 17
	featureControlRX     = 1 << 18
	featureAnnounce      = 1 << 21
	featureMultiQueue    = 1 << 22
	featureControlMAC    = 1 << 23
)

// segmentation is what both ways of moving packets leave to the host's kernel.
const segmentation uint64 = featureCSum | featureGuestCSum | featureGuestTSO4 | featureGuestTSO6 | featureGuestECN |
	featureHostTSO4 | featureHostTSO6 | featureHostECN

// What the driver accepts of these is what the TAP may hand over without doing
// it first.
var offloads = []struct {
	feature uint64
	flag    int
}{
	{featureGuestCSum, unix.TUN_F_CSUM},
	{featureGuestTSO4, unix.TUN_F_TSO4},
	{featureGuestTSO6, unix.TUN_F_TSO6},
	{featureGuestECN, unix.TUN_F_TSO_ECN},
}
