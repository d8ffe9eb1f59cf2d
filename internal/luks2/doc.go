// Package luks2 writes and reads the header of an encrypted volume: "LUKS2
// On-Disk Format Specification", version 1.1.4. cryptsetup of any distribution opens what
// it makes, with the recovery key alone.
//
// It makes one kind of volume: AES-256-XTS, key slots by PBKDF2. Their passphrases must be
// random: the function is not slow, as there is nothing to be guessed in 256 bits. Of
// volumes made by others it opens those of that kind, and says what it cannot.
//
// A header may be hostile: no memory is taken for what it claims, and what
// breaks its form is QV_STR_ERR_FORMAT.
package luks2
