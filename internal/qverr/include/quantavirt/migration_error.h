/* SPDX-License-Identifier: Apache-2.0
 * QuantaVirt error codes: migration.
 * Generated from the error catalogue (go generate ./internal/qverr). Do not edit.
 */
#ifndef QUANTAVIRT_MIGRATION_ERROR_H
#define QUANTAVIRT_MIGRATION_ERROR_H

#define QV_MIG_ERR_CONNECT         (-300) /* The destination host cannot be reached */
#define QV_MIG_ERR_AUTH            (-301) /* The hosts could not authenticate each other */
#define QV_MIG_ERR_CPU_COMPAT      (-302) /* The destination's CPU lacks features of the VM's CPU */
#define QV_MIG_ERR_MEM_TRANSFER    (-303) /* Memory pages could not be transferred */
#define QV_MIG_ERR_CONVERGE        (-304) /* Migration cannot converge: memory is dirtied faster than it is sent */
#define QV_MIG_ERR_DOWNTIME        (-305) /* The expected downtime is above max_downtime_ms */
#define QV_MIG_ERR_CANCEL          (-306) /* The migration was cancelled */
#define QV_MIG_ERR_PQC_KEY         (-307) /* The post-quantum key exchange of the migration channel failed */
#define QV_MIG_ERR_STORAGE         (-308) /* The destination cannot access the VM's shared storage */
#define QV_MIG_ERR_RDMA            (-309) /* The RDMA transport could not be initialised */
#define QV_MIG_ERR_DEVICE          (-310) /* The state of a device could not be migrated */

/* X(code, name, subsystem, transient, errno of Linux, text) */
#define QV_MIGRATION_ERROR_LIST_(X) \
  X(QV_MIG_ERR_CONNECT, "QV_MIG_ERR_CONNECT", "migration", 0, 113, "The destination host cannot be reached") \
  X(QV_MIG_ERR_AUTH, "QV_MIG_ERR_AUTH", "migration", 0, 13, "The hosts could not authenticate each other") \
  X(QV_MIG_ERR_CPU_COMPAT, "QV_MIG_ERR_CPU_COMPAT", "migration", 0, 95, "The destination's CPU lacks features of the VM's CPU") \
  X(QV_MIG_ERR_MEM_TRANSFER, "QV_MIG_ERR_MEM_TRANSFER", "migration", 0, 5, "Memory pages could not be transferred") \
  X(QV_MIG_ERR_CONVERGE, "QV_MIG_ERR_CONVERGE", "migration", 0, 62, "Migration cannot converge: memory is dirtied faster than it is sent") \
  X(QV_MIG_ERR_DOWNTIME, "QV_MIG_ERR_DOWNTIME", "migration", 0, 62, "The expected downtime is above max_downtime_ms") \
  X(QV_MIG_ERR_CANCEL, "QV_MIG_ERR_CANCEL", "migration", 0, 125, "The migration was cancelled") \
  X(QV_MIG_ERR_PQC_KEY, "QV_MIG_ERR_PQC_KEY", "migration", 0, 129, "The post-quantum key exchange of the migration channel failed") \
  X(QV_MIG_ERR_STORAGE, "QV_MIG_ERR_STORAGE", "migration", 0, 121, "The destination cannot access the VM's shared storage") \
  X(QV_MIG_ERR_RDMA, "QV_MIG_ERR_RDMA", "migration", 0, 6, "The RDMA transport could not be initialised") \
  X(QV_MIG_ERR_DEVICE, "QV_MIG_ERR_DEVICE", "migration", 0, 5, "The state of a device could not be migrated")

#include "error.h" /* the functions for all codes */

#endif /* QUANTAVIRT_MIGRATION_ERROR_H */
