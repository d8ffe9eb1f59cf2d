package regs

// Device control, 0x0000.
const (
	DevID          Reg = 0x0000
	DevRev         Reg = 0x0004
	DevStatus      Reg = 0x0008
	DevControl     Reg = 0x000C
	DevCaps        Reg = 0x0010
	DevCaps2       Reg = 0x0014
	DevLimits      Reg = 0x0018
	MaxXfer        Reg = 0x001C
	FWVersion      Reg = 0x0020
	FWBuild        Reg = 0x0024
	FWSecVer       Reg = 0x0028
	SerialLo       Reg = 0x0030
	SerialHi       Reg = 0x0034
	UptimeLo       Reg = 0x0040
	UptimeHi       Reg = 0x0044
	Heartbeat      Reg = 0x0048
	HBPeriodMS     Reg = 0x004C
	OpsOKLo        Reg = 0x0050
	OpsOKHi        Reg = 0x0054
	OpsFailLo      Reg = 0x0058
	OpsFailHi      Reg = 0x005C
	TempCore       Reg = 0x0060
	TempMem        Reg = 0x0064
	TempBoard      Reg = 0x0068
	TempVRM        Reg = 0x006C
	TempWarn       Reg = 0x0070
	TempCrit       Reg = 0x0074
	TempShutdown   Reg = 0x0078
	ThermState     Reg = 0x007C
	Scratch0       Reg = 0x0080
	Scratch1       Reg = 0x0084
	VCoreMV        Reg = 0x0088
	VAuxMV         Reg = 0x008C
	PowerMW        Reg = 0x0090
	PowerLimitMW   Reg = 0x0094
	ClockMHz       Reg = 0x0098
	ErrStatus      Reg = 0x00A0
	ErrInfo        Reg = 0x00A4
	ErrAddrLo      Reg = 0x00A8
	ErrAddrHi      Reg = 0x00AC
	ErrCount       Reg = 0x00B0
	KeyStatus      Reg = 0x00B4
	KeyZeroize     Reg = 0x00B8
	SelfTestCtrl   Reg = 0x00C0
	SelfTestStatus Reg = 0x00C4
	SelfTestResult Reg = 0x00C8
	SelfTestUS     Reg = 0x00CC
	FIPSStatus     Reg = 0x00D0
	Reset          Reg = 0x00F0
	ResetCause     Reg = 0x00F4
)

// Command ring, 0x0100.
const (
	CMDQBaseLo      Reg = 0x0100
	CMDQBaseHi      Reg = 0x0104
	CMDQSize        Reg = 0x0108
	CMDQCtrl        Reg = 0x010C
	CMDQHead        Reg = 0x0110
	CMDQTail        Reg = 0x0114
	CMDQDoorbell    Reg = 0x0118
	CMDQStatus      Reg = 0x011C
	CMDQErr         Reg = 0x0120
	CMDQTimeoutMS   Reg = 0x0124
	CMDQMaxInflight Reg = 0x0128
	CMDQFetched     Reg = 0x0130
	CMDQDone        Reg = 0x0134
)

// Response ring, 0x0200.
const (
	RSPQBaseLo   Reg = 0x0200
	RSPQBaseHi   Reg = 0x0204
	RSPQSize     Reg = 0x0208
	RSPQCtrl     Reg = 0x020C
	RSPQHead     Reg = 0x0210
	RSPQTail     Reg = 0x0214
	RSPQDoorbell Reg = 0x0218
	RSPQStatus   Reg = 0x021C
	RSPQErr      Reg = 0x0220
	RSPQPosted   Reg = 0x0224
	RSPQStalls   Reg = 0x0228
)

// Interrupts, 0x0300.
const (
	IntCause      Reg = 0x0300
	IntEnable     Reg = 0x0304
	IntMask       Reg = 0x0308
	IntForce      Reg = 0x030C
	MSIXControl   Reg = 0x0310
	MSIXTableSize Reg = 0x0314
	IntCoalesce   Reg = 0x0320
	IntThrottle   Reg = 0x0324
	IntAutoClr    Reg = 0x0328
	IntRoute0     Reg = 0x0330
	IntRoute1     Reg = 0x0334
	IntRoute2     Reg = 0x0338
	IntRoute3     Reg = 0x033C
)

// DMA engine, 0x0400.
const (
	DMAControl      Reg = 0x0400
	DMAStatus       Reg = 0x0404
	DMAError        Reg = 0x0408
	DMAErrAddrLo    Reg = 0x0410
	DMAErrAddrHi    Reg = 0x0414
	DMAErrTag       Reg = 0x0418
	DMANumChannels  Reg = 0x0420
	DMAMaxXfer      Reg = 0x0424
	DMAAlign        Reg = 0x0428
	DMASGMax        Reg = 0x042C
	DMAAddrWidth    Reg = 0x0430
	DMAXlatCtrl     Reg = 0x0434
	DMARdBytesLo    Reg = 0x0440
	DMARdBytesHi    Reg = 0x0444
	DMAWrBytesLo    Reg = 0x0448
	DMAWrBytesHi    Reg = 0x044C
	DMAXfersLo      Reg = 0x0450
	DMAXfersHi      Reg = 0x0454
	DMAWinBaseLo    Reg = 0x0460
	DMAWinBaseHi    Reg = 0x0464
	DMAWinLimitLo   Reg = 0x0468
	DMAWinLimitHi   Reg = 0x046C
	DMAXlatOffsetLo Reg = 0x0470
	DMAXlatOffsetHi Reg = 0x0474
)

// NTT engine, 0x0500.
const (
	NTTControl       Reg = 0x0500
	NTTStatus        Reg = 0x0504
	NTTParamN        Reg = 0x0508
	NTTParamQ        Reg = 0x050C
	NTTTwiddleBaseLo Reg = 0x0510
	NTTTwiddleBaseHi Reg = 0x0514
	NTTEngineMask    Reg = 0x0518
	NTTErr           Reg = 0x051C
	NTTFwdLo         Reg = 0x0520
	NTTFwdHi         Reg = 0x0524
	NTTInvLo         Reg = 0x0528
	NTTInvHi         Reg = 0x052C
	NTTCyclesLo      Reg = 0x0530
	NTTCyclesHi      Reg = 0x0534
)

// QRNG, 0x0600.
const (
	QRNGControl    Reg = 0x0600
	QRNGStatus     Reg = 0x0604
	QRNGEntropy    Reg = 0x0608
	QRNGPoolSize   Reg = 0x060C
	QRNGData       Reg = 0x0610
	QRNGPop        Reg = 0x0614
	QRNGPopSeq     Reg = 0x0618
	QRNGLowMark    Reg = 0x061C
	QRNGReadyMark  Reg = 0x0620
	QRNGHealth     Reg = 0x0624
	QRNGBiasCount  Reg = 0x0628
	QRNGRCTCutoff  Reg = 0x062C
	QRNGAPTCutoff  Reg = 0x0630
	QRNGAPTWindow  Reg = 0x0634
	QRNGRCTFails   Reg = 0x0638
	QRNGAPTFails   Reg = 0x063C
	QRNGStartupLen Reg = 0x0640
	QRNGSrcMask    Reg = 0x0644
	QRNGSrcOK      Reg = 0x0648
	QRNGRateKbps   Reg = 0x064C
	QRNGReseeds    Reg = 0x0650
	QRNGReqFail    Reg = 0x0654
	QRNGBytesLo    Reg = 0x0658
	QRNGBytesHi    Reg = 0x065C
)

// Performance counters, 0x0700.
const (
	PerfCtrl         Reg = 0x0700
	PerfSeq          Reg = 0x0704
	PerfTimeLo       Reg = 0x0708
	PerfTimeHi       Reg = 0x070C
	PerfKEMKeygenLo  Reg = 0x0710
	PerfKEMKeygenHi  Reg = 0x0714
	PerfEncapsLo     Reg = 0x0718
	PerfEncapsHi     Reg = 0x071C
	PerfDecapsLo     Reg = 0x0720
	PerfDecapsHi     Reg = 0x0724
	PerfSigKeygenLo  Reg = 0x0728
	PerfSigKeygenHi  Reg = 0x072C
	PerfSignLo       Reg = 0x0730
	PerfSignHi       Reg = 0x0734
	PerfVerifyLo     Reg = 0x0738
	PerfVerifyHi     Reg = 0x073C
	PerfQRNGBytesLo  Reg = 0x0740
	PerfQRNGBytesHi  Reg = 0x0744
	PerfAESOpsLo     Reg = 0x0748
	PerfAESOpsHi     Reg = 0x074C
	PerfAESBytesLo   Reg = 0x0750
	PerfAESBytesHi   Reg = 0x0754
	PerfKeyOpsLo     Reg = 0x0758
	PerfKeyOpsHi     Reg = 0x075C
	PerfCmdsOKLo     Reg = 0x0760
	PerfCmdsOKHi     Reg = 0x0764
	PerfCmdsFailedLo Reg = 0x0768
	PerfCmdsFailedHi Reg = 0x076C
	PerfDMARdLo      Reg = 0x0770
	PerfDMARdHi      Reg = 0x0774
	PerfDMAWrLo      Reg = 0x0778
	PerfDMAWrHi      Reg = 0x077C
	PerfIRQSentLo    Reg = 0x0780
	PerfIRQSentHi    Reg = 0x0784
	PerfIRQMergedLo  Reg = 0x0788
	PerfIRQMergedHi  Reg = 0x078C
	PerfBusyNSLo     Reg = 0x0790
	PerfBusyNSHi     Reg = 0x0794
	PerfStallNSLo    Reg = 0x0798
	PerfStallNSHi    Reg = 0x079C
	PerfDepthMax     Reg = 0x07A0
	PerfHistSel      Reg = 0x07A4
	PerfOpsRate      Reg = 0x07A8
	PerfRdRate       Reg = 0x07AC
	PerfWrRate       Reg = 0x07B0
	PerfHist0        Reg = 0x07C0
)

// Firmware update, 0x0800.
const (
	FWCtrl        Reg = 0x0800
	FWUnlock      Reg = 0x0804
	FWStatus      Reg = 0x0808
	FWError       Reg = 0x080C
	FWStageAddrLo Reg = 0x0810
	FWStageAddrHi Reg = 0x0814
	FWStageLen    Reg = 0x0818
	FWStageOffset Reg = 0x081C
	FWImageLen    Reg = 0x0820
	FWProgress    Reg = 0x0824
	FWBytes       Reg = 0x0828
	FWBankSel     Reg = 0x0830
	FWAVersion    Reg = 0x0834
	FWASecVer     Reg = 0x0838
	FWBVersion    Reg = 0x083C
	FWBSecVer     Reg = 0x0840
	FWMinSecVer   Reg = 0x0844
	FWKeyID       Reg = 0x0848
	FWBootTries   Reg = 0x084C
	FWDigest0     Reg = 0x0850
	FWMaxImage    Reg = 0x0890
)
