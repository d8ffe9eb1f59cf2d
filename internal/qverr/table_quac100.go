package qverr

import "syscall"

var quac100Rows = []Entry{
	{Code: QUACNotFound, Name: "QUAC100_ERR_NOT_FOUND", Severity: SevError, HTTPStatus: 503, ExitCode: 6, Errno: syscall.ENODEV,
		Summary: "No QUAC 100 on the PCIe bus",
		Causes: []string{
			"The card is not plugged in or not seated well",
			"The card has no power",
		},
		Recovery: []string{
			"Power off and reseat the card",
			"See whether the bus shows it: lspci | grep 1DB7",
			"Check its power cable",
		}},
	{Code: QUACDriver, Name: "QUAC100_ERR_DRIVER", Severity: SevError, HTTPStatus: 503, ExitCode: 1, Errno: syscall.ENXIO,
		Summary: "The driver of the QUAC 100 could not be initialised",
		Causes: []string{
			"The card is not bound to vfio-pci or its IOMMU group is not viable",
			"The card did not reach its READY state",
		},
		Recovery: []string{
			"Check the binding: quantavirt crypto quac100 status (on hosts with the kernel driver: modprobe quac100)",
			"Look for errors of the kernel: dmesg",
		}},
	{Code: QUACFWVersion, Name: "QUAC100_ERR_FW_VERSION", Severity: SevError, HTTPStatus: 503, ExitCode: 1, Errno: syscall.EPROTONOSUPPORT,
		Summary: "The card's firmware does not fit the driver",
		Causes: []string{
			"The firmware is older or newer than the driver supports",
		},
		Recovery: []string{
			"Update the firmware: quantavirt crypto quac100 fw-update IMAGE",
		}},
	{Code: QUACMMIO, Name: "QUAC100_ERR_MMIO", Severity: SevError, HTTPStatus: 503, ExitCode: 1, Errno: syscall.ENXIO,
		Summary: "The card's registers (BAR0) could not be mapped",
		Causes: []string{
			"The IOMMU is off or misconfigured",
			"PCIe address ranges collide",
		},
		Recovery: []string{
			"Check the IOMMU: quantavirt system info",
			"Check that the card's BAR0 has an address without conflict: lspci -vv",
		}},
	{Code: QUACRingInit, Name: "QUAC100_ERR_RING_INIT", Severity: SevError, HTTPStatus: 503, ExitCode: 1, Errno: syscall.ENOMEM,
		Summary: "The command and response rings could not be set up",
		Causes: []string{
			"No memory that the card can reach by DMA",
			"The IOMMU refuses the mapping",
		},
		Recovery: []string{
			"Check that DMA-capable memory can be allocated and locked",
			"Check the IOMMU passthrough configuration",
		}},
	{Code: QUACRingFull, Name: "QUAC100_ERR_RING_FULL", Severity: SevWarning, HTTPStatus: 503, ExitCode: 1, Errno: syscall.ENOBUFS,
		Summary: "The command ring is full",
		Causes: []string{
			"More commands are submitted than the card completes",
			"Commands are stalled in the card",
		},
		Recovery: []string{
			"Wait for completions",
			"Use a larger ring",
			"Look for stalled commands: quantavirt crypto quac100 status",
		}},
	{Code: QUACDMA, Name: "QUAC100_ERR_DMA", Severity: SevError, HTTPStatus: 503, ExitCode: 1, Errno: syscall.EFAULT,
		Summary: "A DMA transfer of the card failed",
		Causes: []string{
			"The IOMMU has no mapping for an address the card used",
			"An address given to the card is not valid",
		},
		Recovery: []string{
			"Check the IOMMU mappings: dmesg shows faults of the IOMMU",
			"Check the physical addresses given to the card",
		}},
	{Code: QUACInterrupt, Name: "QUAC100_ERR_INTERRUPT", Severity: SevError, HTTPStatus: 503, ExitCode: 1, Errno: syscall.EIO,
		Summary: "An MSI-X interrupt of the card did not arrive",
		Causes: []string{
			"Interrupt vectors could not be allocated",
			"Interrupt remapping is off",
		},
		Recovery: []string{
			"Check the allocation of the interrupts: grep vfio /proc/interrupts",
			"Check that the host has MSI-X vectors left",
		}},
	{Code: QUACOvertemp, Name: "QUAC100_ERR_OVERTEMP", Severity: SevWarning, HTTPStatus: 503, ExitCode: 1, Errno: syscall.EBUSY,
		Summary: "The card throttles because of heat and rejected the operation",
		Causes: []string{
			"Too little air flow",
			"A fan has failed",
			"Sustained load at a high inlet temperature",
		},
		Recovery: []string{
			"Improve the cooling",
			"Check that the fans turn",
			"Reduce the load on the card",
		}},
	{Code: QUACWatchdog, Name: "QUAC100_ERR_WATCHDOG", Severity: SevError, HTTPStatus: 503, ExitCode: 1, Errno: syscall.ETIMEDOUT,
		Summary: "The card's watchdog expired",
		Causes: []string{
			"The card hangs",
			"The driver stopped feeding the watchdog",
		},
		Recovery: []string{
			"Reset the card: quantavirt crypto quac100 reset",
		}},
	{Code: QUACSelfTest, Name: "QUAC100_ERR_SELF_TEST", Severity: SevFatal, HTTPStatus: 503, ExitCode: 1, Errno: syscall.ENOTRECOVERABLE,
		Summary: "The card's self-test failed",
		Causes: []string{
			"A fault of the card",
		},
		Recovery: []string{
			"Power cycle the system",
			"If it fails again, return the card (RMA)",
		}},
	{Code: QUACFWUpdate, Name: "QUAC100_ERR_FW_UPDATE", Severity: SevError, HTTPStatus: 503, ExitCode: 1, Errno: syscall.EIO,
		Summary: "The firmware update failed",
		Causes: []string{
			"The image is damaged, not signed or not for this card",
			"The update was interrupted",
		},
		Recovery: []string{
			"Go on working: the card returns to its previous firmware bank",
			"Repeat the update with a verified image",
		}},
	{Code: QUACNTT, Name: "QUAC100_ERR_NTT", Severity: SevError, HTTPStatus: 503, ExitCode: 1, Errno: syscall.EIO,
		Summary: "The card's NTT engine reported an error",
		Causes: []string{
			"Polynomial parameters that the engine does not accept",
			"A fault of the engine",
		},
		Recovery: []string{
			"Reset the NTT engine: quantavirt crypto quac100 reset",
			"Check the polynomial parameters",
		}},
	{Code: QUACQRNGHealth, Name: "QUAC100_ERR_QRNG_HEALTH", Severity: SevError, HTTPStatus: 503, ExitCode: 1, Errno: syscall.EIO,
		Summary: "The health test of the card's random number generator failed",
		Causes: []string{
			"The entropy source is degraded",
		},
		Recovery: []string{
			"Wait: the card recovers by itself where it can",
			"Use the software random source in the meantime",
		}},
	{Code: QUACPower, Name: "QUAC100_ERR_POWER", Severity: SevError, HTTPStatus: 503, ExitCode: 1, Errno: syscall.ENODEV,
		Summary: "The card has no auxiliary power",
		Causes: []string{
			"The 6-pin power cable is not connected",
		},
		Recovery: []string{
			"Connect the 6-pin PCIe power cable to the QUAC 100",
		}},
}
