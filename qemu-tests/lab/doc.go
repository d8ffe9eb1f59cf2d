// Package lab starts and stops appliances under QEMU: the image of this tree,
// emulated by TCG (or by the hardware where /proc/cpuinfo shows vmx or svm),
// with a data disk, an IOMMU, the model of the QUAC 100 card and networks as
// asked for. It needs no root rights except for Options.Outside.
//
// Everything of an appliance lies in build/lab/NAME: node.json (the Node), the
// console log, the QMP and serial sockets, the data disk and the log of the
// card's model. A node outlives the process that started it; Down ends it.
package lab
