package qverr

import "syscall"

var pqcRows = []Entry{
	{Code: PQCInit, Name: "PQC_ERR_INIT", Severity: SevFatal, HTTPStatus: 500, ExitCode: 10, Errno: syscall.ENXIO,
		Summary: "The post-quantum subsystem could not be initialised",
		Causes: []string{
			"The QUAC 100 is present but its driver did not come up",
			"The software provider failed its self-test",
		},
		Recovery: []string{
			"Check that the driver serves the card: quantavirt crypto quac100 status",
			"Check the device: the card must be bound to vfio-pci (on hosts with the kernel driver, /dev/quac100 must exist)",
		}},
	{Code: PQCKeygen, Name: "PQC_ERR_KEYGEN", Severity: SevError, HTTPStatus: 500, ExitCode: 10, Errno: syscall.EIO,
		Summary: "A key pair could not be generated",
		Causes: []string{
			"No healthy random source",
			"Parameters that the algorithm does not have",
		},
		Recovery: []string{
			"Check the random source: quantavirt crypto qrng status",
			"Check the parameters of the algorithm",
		}},
	{Code: PQCEncaps, Name: "PQC_ERR_ENCAPS", Severity: SevError, HTTPStatus: 500, ExitCode: 10, Errno: syscall.EINVAL,
		Summary: "ML-KEM encapsulation failed",
		Causes: []string{
			"The public key is not valid for the parameter set",
			"An input has the wrong size",
		},
		Recovery: []string{
			"Check that the public key is valid",
			"Check the sizes of the inputs",
		}},
	{Code: PQCDecaps, Name: "PQC_ERR_DECAPS", Severity: SevError, HTTPStatus: 500, ExitCode: 10, Errno: syscall.EBADMSG,
		Summary: "ML-KEM decapsulation failed",
		Causes: []string{
			"The secret key does not belong to the public key that was used",
			"The ciphertext is damaged or of the wrong size",
		},
		Recovery: []string{
			"Check that the secret key is the matching one",
			"Check the integrity of the ciphertext",
		}},
	{Code: PQCSign, Name: "PQC_ERR_SIGN", Severity: SevError, HTTPStatus: 500, ExitCode: 10, Errno: syscall.EIO,
		Summary: "ML-DSA signing failed",
		Causes: []string{
			"The secret key is not usable",
			"The message or its context is too long",
		},
		Recovery: []string{
			"Check the secret key",
			"Check the size of the message",
		}},
	{Code: PQCVerify, Name: "PQC_ERR_VERIFY", Severity: SevError, HTTPStatus: 500, ExitCode: 10, Errno: syscall.EKEYREJECTED,
		Summary: "An ML-DSA signature is not valid",
		Causes: []string{
			"The signed data was changed",
			"The signature was made with another key",
		},
		Recovery: []string{
			"Treat the data as tampered with until proven otherwise",
			"Check that the public key belongs to the signer",
		}},
	{Code: PQCEncrypt, Name: "PQC_ERR_ENCRYPT", Severity: SevError, HTTPStatus: 500, ExitCode: 10, Errno: syscall.EIO,
		Summary: "AEAD encryption failed",
		Causes: []string{
			"Key or nonce is not valid",
			"The input is too long",
		},
		Recovery: []string{
			"Check key and nonce",
			"Check the length of the input",
		}},
	{Code: PQCDecrypt, Name: "PQC_ERR_DECRYPT", Severity: SevError, HTTPStatus: 500, ExitCode: 10, Errno: syscall.EBADMSG,
		Summary: "AEAD decryption failed, the authentication tag does not match",
		Causes: []string{
			"The ciphertext was changed",
			"The wrong key was used",
		},
		Recovery: []string{
			"Do not use the data: its integrity is violated",
			"Check that the key is the one it was encrypted with",
		}},
	{Code: PQCKeystore, Name: "PQC_ERR_KEYSTORE", Severity: SevError, HTTPStatus: 500, ExitCode: 10, Errno: syscall.EACCES,
		Summary: "The keystore cannot be accessed",
		Causes: []string{
			"The keystore is locked, or there is none yet",
			"Its file is damaged, or older than the node remembers",
			"The keystore's files have the wrong owner or mode",
		},
		Recovery: []string{
			"See how it is: quantavirt crypto keystore status",
			"Unlock it: quantavirt crypto keystore unlock",
			"Check owner and mode of /var/lib/quantavirt/keystore",
		}},
	{Code: PQCKeyNotFound, Name: "PQC_ERR_KEY_NOT_FOUND", Severity: SevError, HTTPStatus: 404, ExitCode: 10, Errno: syscall.ENOKEY,
		Summary: "No key of that id is in the keystore",
		Causes: []string{
			"The id is misspelt",
			"The key was deleted or never imported",
		},
		Recovery: []string{
			"List the keys: quantavirt crypto key list",
			"Import the key again",
		}},
	{Code: PQCKeyExpired, Name: "PQC_ERR_KEY_EXPIRED", Severity: SevError, HTTPStatus: 500, ExitCode: 10, Errno: syscall.EKEYEXPIRED,
		Summary: "The key is past its expiry date",
		Causes: []string{
			"The key was not rotated in time",
			"The node's clock is wrong",
		},
		Recovery: []string{
			"Rotate the key: quantavirt crypto key rotate",
			"Check the node's time: quantavirt system info",
		}},
	{Code: PQCAlgorithm, Name: "PQC_ERR_ALGORITHM", Severity: SevError, HTTPStatus: 400, ExitCode: 10, Errno: syscall.EINVAL,
		Summary: "Unknown or unsupported algorithm",
		Causes: []string{
			"The name of the algorithm is misspelt",
			"The provider does not implement it",
		},
		Recovery: []string{
			"Use a valid name: ML-KEM-512, ML-KEM-768, ML-KEM-1024, ML-DSA-44, ML-DSA-65, ML-DSA-87, …",
		}},
	{Code: PQCParamSet, Name: "PQC_ERR_PARAM_SET", Severity: SevError, HTTPStatus: 400, ExitCode: 10, Errno: syscall.EINVAL,
		Summary: "The parameter set does not belong to the algorithm",
		Causes: []string{
			"A parameter set of another algorithm was given",
		},
		Recovery: []string{
			"Use a parameter set of the algorithm, for example ML-DSA-44, -65 or -87",
		}},
	{Code: PQCQRNG, Name: "PQC_ERR_QRNG", Severity: SevWarning, HTTPStatus: 500, ExitCode: 10, Errno: syscall.EAGAIN,
		Summary: "No entropy from the quantum random number generator",
		Causes: []string{
			"The pool is drained faster than it fills",
			"The generator is disabled or unhealthy",
		},
		Recovery: []string{
			"Check its health: quantavirt crypto qrng status",
			"Wait until the pool has refilled",
		}},
	{Code: PQCSelfTest, Name: "PQC_ERR_SELF_TEST", Severity: SevFatal, HTTPStatus: 500, ExitCode: 10, Errno: syscall.ENOTRECOVERABLE,
		Summary: "The self-test of the post-quantum subsystem failed",
		Causes: []string{
			"A fault of the hardware or firmware",
			"A damaged installation",
		},
		Recovery: []string{
			"Run the diagnostics: quantavirt crypto quac100 status",
			"Contact support with a support bundle",
		}},
	{Code: PQCAttestation, Name: "PQC_ERR_ATTESTATION", Severity: SevError, HTTPStatus: 500, ExitCode: 10, Errno: syscall.EKEYREJECTED,
		Summary: "Attestation of the VM failed",
		Causes: []string{
			"A measurement differs from the expected value: the VM's image may have been modified",
		},
		Recovery: []string{
			"Find out what changed before trusting the VM",
			"Attest again after an intended change",
		}},
	{Code: PQCFallback, Name: "PQC_ERR_FALLBACK", Severity: SevFatal, HTTPStatus: 500, ExitCode: 10, Errno: syscall.ENODEV,
		Summary: "Neither the card nor the software provider can serve",
		Causes: []string{
			"The card failed and the software provider is not usable",
			"require_hardware forbids the software provider",
		},
		Recovery: []string{
			"Check the card: quantavirt crypto quac100 status",
			"Check the installation and the require_hardware setting",
		}},
	{Code: PQCKDF, Name: "PQC_ERR_KDF", Severity: SevError, HTTPStatus: 500, ExitCode: 10, Errno: syscall.EINVAL,
		Summary: "Key derivation failed",
		Causes: []string{
			"HKDF was given inputs that it does not accept",
		},
		Recovery: []string{
			"Check salt, info string and output length",
		}},
}
