/* SPDX-License-Identifier: Apache-2.0
 * QuantaVirt error codes: post-quantum cryptography.
 * Generated from the error catalogue (go generate ./internal/qverr). Do not edit.
 */
#ifndef QUANTAVIRT_PQC_ERROR_H
#define QUANTAVIRT_PQC_ERROR_H

#define PQC_ERR_INIT               (-100) /* The post-quantum subsystem could not be initialised */
#define PQC_ERR_KEYGEN             (-101) /* A key pair could not be generated */
#define PQC_ERR_ENCAPS             (-102) /* ML-KEM encapsulation failed */
#define PQC_ERR_DECAPS             (-103) /* ML-KEM decapsulation failed */
#define PQC_ERR_SIGN               (-104) /* ML-DSA signing failed */
#define PQC_ERR_VERIFY             (-105) /* An ML-DSA signature is not valid */
#define PQC_ERR_ENCRYPT            (-106) /* AEAD encryption failed */
#define PQC_ERR_DECRYPT            (-107) /* AEAD decryption failed, the authentication tag does not match */
#define PQC_ERR_KEYSTORE           (-108) /* The keystore cannot be accessed */
#define PQC_ERR_KEY_NOT_FOUND      (-109) /* No key of that id is in the keystore */
#define PQC_ERR_KEY_EXPIRED        (-110) /* The key is past its expiry date */
#define PQC_ERR_ALGORITHM          (-111) /* Unknown or unsupported algorithm */
#define PQC_ERR_PARAM_SET          (-112) /* The parameter set does not belong to the algorithm */
#define PQC_ERR_QRNG               (-113) /* No entropy from the quantum random number generator */
#define PQC_ERR_SELF_TEST          (-114) /* The self-test of the post-quantum subsystem failed */
#define PQC_ERR_ATTESTATION        (-115) /* Attestation of the VM failed */
#define PQC_ERR_FALLBACK           (-116) /* Neither the card nor the software provider can serve */
#define PQC_ERR_KDF                (-117) /* Key derivation failed */

/* X(code, name, subsystem, transient, errno of Linux, text) */
#define QV_PQC_ERROR_LIST_(X) \
  X(PQC_ERR_INIT, "PQC_ERR_INIT", "pqc", 0, 6, "The post-quantum subsystem could not be initialised") \
  X(PQC_ERR_KEYGEN, "PQC_ERR_KEYGEN", "pqc", 0, 5, "A key pair could not be generated") \
  X(PQC_ERR_ENCAPS, "PQC_ERR_ENCAPS", "pqc", 0, 22, "ML-KEM encapsulation failed") \
  X(PQC_ERR_DECAPS, "PQC_ERR_DECAPS", "pqc", 0, 74, "ML-KEM decapsulation failed") \
  X(PQC_ERR_SIGN, "PQC_ERR_SIGN", "pqc", 0, 5, "ML-DSA signing failed") \
  X(PQC_ERR_VERIFY, "PQC_ERR_VERIFY", "pqc", 0, 129, "An ML-DSA signature is not valid") \
  X(PQC_ERR_ENCRYPT, "PQC_ERR_ENCRYPT", "pqc", 0, 5, "AEAD encryption failed") \
  X(PQC_ERR_DECRYPT, "PQC_ERR_DECRYPT", "pqc", 0, 74, "AEAD decryption failed, the authentication tag does not match") \
  X(PQC_ERR_KEYSTORE, "PQC_ERR_KEYSTORE", "pqc", 0, 13, "The keystore cannot be accessed") \
  X(PQC_ERR_KEY_NOT_FOUND, "PQC_ERR_KEY_NOT_FOUND", "pqc", 0, 126, "No key of that id is in the keystore") \
  X(PQC_ERR_KEY_EXPIRED, "PQC_ERR_KEY_EXPIRED", "pqc", 0, 127, "The key is past its expiry date") \
  X(PQC_ERR_ALGORITHM, "PQC_ERR_ALGORITHM", "pqc", 0, 22, "Unknown or unsupported algorithm") \
  X(PQC_ERR_PARAM_SET, "PQC_ERR_PARAM_SET", "pqc", 0, 22, "The parameter set does not belong to the algorithm") \
  X(PQC_ERR_QRNG, "PQC_ERR_QRNG", "pqc", 0, 11, "No entropy from the quantum random number generator") \
  X(PQC_ERR_SELF_TEST, "PQC_ERR_SELF_TEST", "pqc", 0, 131, "The self-test of the post-quantum subsystem failed") \
  X(PQC_ERR_ATTESTATION, "PQC_ERR_ATTESTATION", "pqc", 0, 129, "Attestation of the VM failed") \
  X(PQC_ERR_FALLBACK, "PQC_ERR_FALLBACK", "pqc", 0, 19, "Neither the card nor the software provider can serve") \
  X(PQC_ERR_KDF, "PQC_ERR_KDF", "pqc", 0, 22, "Key derivation failed")

#include "error.h" /* the functions for all codes */

#endif /* QUANTAVIRT_PQC_ERROR_H */
