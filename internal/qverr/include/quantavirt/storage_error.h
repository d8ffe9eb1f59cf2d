/* SPDX-License-Identifier: Apache-2.0
 * QuantaVirt error codes: storage.
 * Generated from the error catalogue (go generate ./internal/qverr). Do not edit.
 */
#ifndef QUANTAVIRT_STORAGE_ERROR_H
#define QUANTAVIRT_STORAGE_ERROR_H

#define QV_STR_ERR_OPEN            (-400) /* The disk image could not be opened */
#define QV_STR_ERR_FORMAT          (-401) /* The disk's format is unknown or damaged */
#define QV_STR_ERR_LOCK            (-402) /* The disk image is locked by another process */
#define QV_STR_ERR_READONLY        (-403) /* A read-only disk cannot be written */
#define QV_STR_ERR_FULL            (-404) /* The disk image or its storage pool is full */
#define QV_STR_ERR_IO              (-405) /* Reading or writing the disk failed */
#define QV_STR_ERR_QCOW2_CORRUPT   (-406) /* The metadata of a qcow2 image is corrupt */
#define QV_STR_ERR_SNAPSHOT        (-407) /* A snapshot operation on the disk failed */
#define QV_STR_ERR_ENCRYPT_KEY     (-408) /* The key of the encrypted disk is not available */
#define QV_STR_ERR_ENCRYPT_FAIL    (-409) /* Encrypting or decrypting the disk failed */
#define QV_STR_ERR_CONTROLLER      (-410) /* The storage controller could not be initialised */
#define QV_STR_ERR_DISCARD         (-411) /* A discard (TRIM) operation failed */

/* X(code, name, subsystem, transient, errno of Linux, text) */
#define QV_STORAGE_ERROR_LIST_(X) \
  X(QV_STR_ERR_OPEN, "QV_STR_ERR_OPEN", "storage", 0, 2, "The disk image could not be opened") \
  X(QV_STR_ERR_FORMAT, "QV_STR_ERR_FORMAT", "storage", 0, 124, "The disk's format is unknown or damaged") \
  X(QV_STR_ERR_LOCK, "QV_STR_ERR_LOCK", "storage", 0, 16, "The disk image is locked by another process") \
  X(QV_STR_ERR_READONLY, "QV_STR_ERR_READONLY", "storage", 0, 30, "A read-only disk cannot be written") \
  X(QV_STR_ERR_FULL, "QV_STR_ERR_FULL", "storage", 0, 28, "The disk image or its storage pool is full") \
  X(QV_STR_ERR_IO, "QV_STR_ERR_IO", "storage", 0, 5, "Reading or writing the disk failed") \
  X(QV_STR_ERR_QCOW2_CORRUPT, "QV_STR_ERR_QCOW2_CORRUPT", "storage", 0, 117, "The metadata of a qcow2 image is corrupt") \
  X(QV_STR_ERR_SNAPSHOT, "QV_STR_ERR_SNAPSHOT", "storage", 0, 5, "A snapshot operation on the disk failed") \
  X(QV_STR_ERR_ENCRYPT_KEY, "QV_STR_ERR_ENCRYPT_KEY", "storage", 0, 126, "The key of the encrypted disk is not available") \
  X(QV_STR_ERR_ENCRYPT_FAIL, "QV_STR_ERR_ENCRYPT_FAIL", "storage", 0, 74, "Encrypting or decrypting the disk failed") \
  X(QV_STR_ERR_CONTROLLER, "QV_STR_ERR_CONTROLLER", "storage", 0, 6, "The storage controller could not be initialised") \
  X(QV_STR_ERR_DISCARD, "QV_STR_ERR_DISCARD", "storage", 0, 95, "A discard (TRIM) operation failed")

#include "error.h" /* the functions for all codes */

#endif /* QUANTAVIRT_STORAGE_ERROR_H */
