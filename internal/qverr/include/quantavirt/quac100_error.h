/* SPDX-License-Identifier: Apache-2.0
 * QuantaVirt error codes: QUAC 100 driver and response codes of the card.
 * Generated from the error catalogue (go generate ./internal/qverr). Do not edit.
 */
#ifndef QUANTAVIRT_QUAC100_ERROR_H
#define QUANTAVIRT_QUAC100_ERROR_H

#define QUAC100_ERR_NOT_FOUND      (-200) /* No QUAC 100 on the PCIe bus */
#define QUAC100_ERR_DRIVER         (-201) /* The driver of the QUAC 100 could not be initialised */
#define QUAC100_ERR_FW_VERSION     (-202) /* The card's firmware does not fit the driver */
#define QUAC100_ERR_MMIO           (-203) /* The card's registers (BAR0) could not be mapped */
#define QUAC100_ERR_RING_INIT      (-204) /* The command and response rings could not be set up */
#define QUAC100_ERR_RING_FULL      (-205) /* The command ring is full */
#define QUAC100_ERR_DMA            (-206) /* A DMA transfer of the card failed */
#define QUAC100_ERR_INTERRUPT      (-207) /* An MSI-X interrupt of the card did not arrive */
#define QUAC100_ERR_OVERTEMP       (-208) /* The card throttles because of heat and rejected the operation */
#define QUAC100_ERR_WATCHDOG       (-209) /* The card's watchdog expired */
#define QUAC100_ERR_SELF_TEST      (-210) /* The card's self-test failed */
#define QUAC100_ERR_FW_UPDATE      (-211) /* The firmware update failed */
#define QUAC100_ERR_NTT            (-212) /* The card's NTT engine reported an error */
#define QUAC100_ERR_QRNG_HEALTH    (-213) /* The health test of the card's random number generator failed */
#define QUAC100_ERR_POWER          (-214) /* The card has no auxiliary power */

/* X(code, name, subsystem, transient, errno of Linux, text) */
#define QV_QUAC100_ERROR_LIST_(X) \
  X(QUAC100_ERR_NOT_FOUND, "QUAC100_ERR_NOT_FOUND", "quac100", 0, 19, "No QUAC 100 on the PCIe bus") \
  X(QUAC100_ERR_DRIVER, "QUAC100_ERR_DRIVER", "quac100", 0, 6, "The driver of the QUAC 100 could not be initialised") \
  X(QUAC100_ERR_FW_VERSION, "QUAC100_ERR_FW_VERSION", "quac100", 0, 93, "The card's firmware does not fit the driver") \
  X(QUAC100_ERR_MMIO, "QUAC100_ERR_MMIO", "quac100", 0, 6, "The card's registers (BAR0) could not be mapped") \
  X(QUAC100_ERR_RING_INIT, "QUAC100_ERR_RING_INIT", "quac100", 0, 12, "The command and response rings could not be set up") \
  X(QUAC100_ERR_RING_FULL, "QUAC100_ERR_RING_FULL", "quac100", 0, 105, "The command ring is full") \
  X(QUAC100_ERR_DMA, "QUAC100_ERR_DMA", "quac100", 0, 14, "A DMA transfer of the card failed") \
  X(QUAC100_ERR_INTERRUPT, "QUAC100_ERR_INTERRUPT", "quac100", 0, 5, "An MSI-X interrupt of the card did not arrive") \
  X(QUAC100_ERR_OVERTEMP, "QUAC100_ERR_OVERTEMP", "quac100", 0, 16, "The card throttles because of heat and rejected the operation") \
  X(QUAC100_ERR_WATCHDOG, "QUAC100_ERR_WATCHDOG", "quac100", 0, 110, "The card's watchdog expired") \
  X(QUAC100_ERR_SELF_TEST, "QUAC100_ERR_SELF_TEST", "quac100", 0, 131, "The card's self-test failed") \
  X(QUAC100_ERR_FW_UPDATE, "QUAC100_ERR_FW_UPDATE", "quac100", 0, 5, "The firmware update failed") \
  X(QUAC100_ERR_NTT, "QUAC100_ERR_NTT", "quac100", 0, 5, "The card's NTT engine reported an error") \
  X(QUAC100_ERR_QRNG_HEALTH, "QUAC100_ERR_QRNG_HEALTH", "quac100", 0, 5, "The health test of the card's random number generator failed") \
  X(QUAC100_ERR_POWER, "QUAC100_ERR_POWER", "quac100", 0, 19, "The card has no auxiliary power")

/* Status codes of the card's response descriptors. */
#define QUAC100_RESP_SUCCESS           0x0000 /* The card completed the operation */
#define QUAC100_RESP_INVALID_OPCODE    0x0001 /* The card does not know the opcode */
#define QUAC100_RESP_INVALID_PARAM     0x0002 /* The parameter set or the key handle is not valid */
#define QUAC100_RESP_INVALID_LEN       0x0003 /* The length of an input or output is out of range */
#define QUAC100_RESP_DMA_ERROR         0x0004 /* The card could not read or write host memory */
#define QUAC100_RESP_CRYPTO_FAIL       0x0005 /* The cryptographic operation failed */
#define QUAC100_RESP_KEY_NOT_FOUND     0x0006 /* The card's keystore has no key of that id */
#define QUAC100_RESP_BUSY              0x0007 /* The engine is busy, try again later */
#define QUAC100_RESP_TIMEOUT           0x0008 /* The operation ran into the card's watchdog */
#define QUAC100_RESP_SELF_TEST_FAIL    0x0009 /* A self-test found an internal fault */
#define QUAC100_RESP_QRNG_DEPLETED     0x000A /* The entropy pool of the generator is empty */
#define QUAC100_RESP_QRNG_HEALTH_FAIL  0x000B /* The generator's health test failed */
#define QUAC100_RESP_OVERTEMP          0x000C /* Rejected because the card throttles */
#define QUAC100_RESP_FW_ERROR          0x000D /* An internal error of the firmware */
#define QUAC100_RESP_UNKNOWN           0x00FF /* An unknown error: a fault of the hardware */

/* X(response, code) */
#define QUAC100_RESPONSE_LIST_(X) \
  X(QUAC100_RESP_SUCCESS, QV_SUCCESS) \
  X(QUAC100_RESP_INVALID_OPCODE, QV_ERR_UNSUPPORTED) \
  X(QUAC100_RESP_INVALID_PARAM, QV_ERR_INVAL) \
  X(QUAC100_RESP_INVALID_LEN, QV_ERR_INVAL) \
  X(QUAC100_RESP_DMA_ERROR, QUAC100_ERR_DMA) \
  X(QUAC100_RESP_CRYPTO_FAIL, PQC_ERR_DECRYPT) \
  X(QUAC100_RESP_KEY_NOT_FOUND, PQC_ERR_KEY_NOT_FOUND) \
  X(QUAC100_RESP_BUSY, QV_ERR_AGAIN) \
  X(QUAC100_RESP_TIMEOUT, QUAC100_ERR_WATCHDOG) \
  X(QUAC100_RESP_SELF_TEST_FAIL, QUAC100_ERR_SELF_TEST) \
  X(QUAC100_RESP_QRNG_DEPLETED, PQC_ERR_QRNG) \
  X(QUAC100_RESP_QRNG_HEALTH_FAIL, QUAC100_ERR_QRNG_HEALTH) \
  X(QUAC100_RESP_OVERTEMP, QUAC100_ERR_OVERTEMP) \
  X(QUAC100_RESP_FW_ERROR, QV_ERR_GENERIC) \
  X(QUAC100_RESP_UNKNOWN, QV_ERR_GENERIC)

#include "error.h" /* the functions for all codes */

#endif /* QUANTAVIRT_QUAC100_ERROR_H */
