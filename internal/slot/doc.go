// Package slot knows how installed systems lie on the EFI system partition and
// which of them a boot loader takes. It does no I/O.
//
//	EFI/Linux/qv-NNNNNNNN[+L[-D]].efi   a system as a unified kernel image, for UEFI
//	qv/NNNNNNNN/vmlinuz, initramfs, cmdline   the same in pieces, for GRUB on BIOS
//	qv/NNNNNNNN/slot.json               what the slot holds and how it fared (Info)
//	qv/NNNNNNNN/note.txt                why PID 1 gave it up, when no daemon could say so in slot.json
//	grub/grubenv                        GRUB's environment block (Env)
//
// NNNNNNNN is the slot's sequence number. The loaders:
//
//   - systemd-boot counts in the file name (UAPI.1, Boot Loader Specification, section
//     "Boot counting"): +L is the number of tries left, -D of those done. Before it boots
//     a counted entry it renames it. It takes the first in the order of Compare,
//     as long as the images' .osrel names no version, by which it would sort before
//     it looks at the file name.
//   - GRUB boots qv_try while qv_tries is above 0, which it counts down and saves
//     before; else qv_default.
//
// A slot that is on trial is not blessed until it has run well: its name keeps
// its counter, and qv_default keeps the slot before.
package slot
