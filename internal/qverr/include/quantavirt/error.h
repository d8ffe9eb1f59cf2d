/* SPDX-License-Identifier: Apache-2.0
 * QuantaVirt error codes: hypervisor core, and the functions for all codes.
 * Generated from the error catalogue (go generate ./internal/qverr). Do not edit.
 */
#ifndef QUANTAVIRT_ERROR_H
#define QUANTAVIRT_ERROR_H

#define QV_SUCCESS                      0 /* The operation completed */
#define QV_ERR_GENERIC               (-1) /* Internal error without a more precise code */
#define QV_ERR_NOMEM                 (-2) /* Not enough memory on the host */
#define QV_ERR_NOVMX                 (-3) /* Intel VMX / AMD SVM hardware virtualization is not available */
#define QV_ERR_NOIOMMU               (-4) /* No IOMMU is active on this host */
#define QV_ERR_INVAL                 (-5) /* Invalid parameter or argument */
#define QV_ERR_NOENT                 (-6) /* The named resource does not exist */
#define QV_ERR_EXIST                 (-7) /* A resource of that name exists already */
#define QV_ERR_BUSY                  (-8) /* The resource is in use or locked */
#define QV_ERR_PERM                  (-9) /* Permission denied */
#define QV_ERR_NODEV                (-10) /* Device not found or not usable */
#define QV_ERR_IO                   (-11) /* Input or output failed */
#define QV_ERR_TIMEOUT              (-12) /* The operation did not end in time */
#define QV_ERR_AGAIN                (-13) /* Temporarily not possible, try again */
#define QV_ERR_NOSPC                (-14) /* No space left */
#define QV_ERR_UNSUPPORTED          (-15) /* Feature not supported here */
#define QV_ERR_STATE                (-16) /* Invalid state transition */
#define QV_ERR_CONFIG               (-17) /* The configuration is not valid */
#define QV_ERR_LIMIT                (-18) /* A limit is exceeded */
#define QV_ERR_AUTH                 (-19) /* Authentication failed */
#define QV_ERR_VERSION              (-20) /* Versions do not fit together */
#define QV_ERR_VM_CREATE            (-21) /* The VM could not be created */
#define QV_ERR_VM_START             (-22) /* The VM could not be started */
#define QV_ERR_VM_STOP              (-23) /* The VM could not be stopped */
#define QV_ERR_VM_DESTROY           (-24) /* The VM could not be destroyed */
#define QV_ERR_VM_PAUSE             (-25) /* The VM could not be paused */
#define QV_ERR_VM_RESUME            (-26) /* The VM could not be resumed */
#define QV_ERR_VM_SNAPSHOT          (-27) /* The snapshot could not be taken */
#define QV_ERR_VM_RESTORE           (-28) /* The snapshot could not be restored */
#define QV_ERR_VM_CLONE             (-29) /* The VM could not be cloned */
#define QV_ERR_VM_STUCK             (-30) /* The VM no longer responds */
#define QV_ERR_VMCS_ALLOC           (-31) /* The VMCS (Intel) of a vCPU could not be allocated */
#define QV_ERR_VMCB_ALLOC           (-32) /* The VMCB (AMD) of a vCPU could not be allocated */
#define QV_ERR_VMLAUNCH             (-33) /* The first entry into the guest (VMLAUNCH) failed */
#define QV_ERR_VMRESUME             (-34) /* Entering the guest again (VMRESUME) failed */
#define QV_ERR_VMEXIT               (-35) /* The guest left guest mode for a reason that is not handled */
#define QV_ERR_EPT_SETUP            (-36) /* Nested paging (Intel EPT) could not be set up */
#define QV_ERR_NPT_SETUP            (-37) /* Nested paging (AMD NPT) could not be set up */
#define QV_ERR_EPT_VIOLATION        (-38) /* The guest accessed memory that nothing backs */
#define QV_ERR_CPUID                (-39) /* The guest's CPUID could not be built */
#define QV_ERR_MSR                  (-40) /* Access to a model-specific register failed */
#define QV_ERR_PIN                  (-41) /* A vCPU could not be pinned */
#define QV_ERR_TOPOLOGY             (-42) /* The CPU topology does not add up */
#define QV_ERR_TRIPLE_FAULT         (-43) /* The guest crashed with a triple fault */
#define QV_ERR_HUGEPAGE             (-51) /* Huge pages could not be allocated */
#define QV_ERR_BALLOON              (-52) /* The guest's balloon driver does not answer */
#define QV_ERR_HOTPLUG_MEM          (-53) /* Memory could not be added to the running VM */
#define QV_ERR_MEM_ENCRYPT          (-54) /* Memory encryption could not be set up */
#define QV_ERR_NUMA                 (-55) /* Memory of the wanted NUMA node could not be had */

/* X(code, name, subsystem, transient, errno of Linux, text) */
#define QV_CORE_ERROR_LIST_(X) \
  X(QV_SUCCESS, "QV_SUCCESS", "success", 0, 0, "The operation completed") \
  X(QV_ERR_GENERIC, "QV_ERR_GENERIC", "hypervisor", 0, 5, "Internal error without a more precise code") \
  X(QV_ERR_NOMEM, "QV_ERR_NOMEM", "hypervisor", 0, 12, "Not enough memory on the host") \
  X(QV_ERR_NOVMX, "QV_ERR_NOVMX", "hypervisor", 0, 19, "Intel VMX / AMD SVM hardware virtualization is not available") \
  X(QV_ERR_NOIOMMU, "QV_ERR_NOIOMMU", "hypervisor", 0, 19, "No IOMMU is active on this host") \
  X(QV_ERR_INVAL, "QV_ERR_INVAL", "hypervisor", 0, 22, "Invalid parameter or argument") \
  X(QV_ERR_NOENT, "QV_ERR_NOENT", "hypervisor", 0, 2, "The named resource does not exist") \
  X(QV_ERR_EXIST, "QV_ERR_EXIST", "hypervisor", 0, 17, "A resource of that name exists already") \
  X(QV_ERR_BUSY, "QV_ERR_BUSY", "hypervisor", 1, 16, "The resource is in use or locked") \
  X(QV_ERR_PERM, "QV_ERR_PERM", "hypervisor", 0, 1, "Permission denied") \
  X(QV_ERR_NODEV, "QV_ERR_NODEV", "hypervisor", 0, 19, "Device not found or not usable") \
  X(QV_ERR_IO, "QV_ERR_IO", "hypervisor", 0, 5, "Input or output failed") \
  X(QV_ERR_TIMEOUT, "QV_ERR_TIMEOUT", "hypervisor", 1, 110, "The operation did not end in time") \
  X(QV_ERR_AGAIN, "QV_ERR_AGAIN", "hypervisor", 1, 11, "Temporarily not possible, try again") \
  X(QV_ERR_NOSPC, "QV_ERR_NOSPC", "hypervisor", 0, 28, "No space left") \
  X(QV_ERR_UNSUPPORTED, "QV_ERR_UNSUPPORTED", "hypervisor", 0, 95, "Feature not supported here") \
  X(QV_ERR_STATE, "QV_ERR_STATE", "hypervisor", 0, 77, "Invalid state transition") \
  X(QV_ERR_CONFIG, "QV_ERR_CONFIG", "hypervisor", 0, 22, "The configuration is not valid") \
  X(QV_ERR_LIMIT, "QV_ERR_LIMIT", "hypervisor", 0, 24, "A limit is exceeded") \
  X(QV_ERR_AUTH, "QV_ERR_AUTH", "hypervisor", 0, 13, "Authentication failed") \
  X(QV_ERR_VERSION, "QV_ERR_VERSION", "hypervisor", 0, 93, "Versions do not fit together") \
  X(QV_ERR_VM_CREATE, "QV_ERR_VM_CREATE", "hypervisor", 0, 5, "The VM could not be created") \
  X(QV_ERR_VM_START, "QV_ERR_VM_START", "hypervisor", 0, 5, "The VM could not be started") \
  X(QV_ERR_VM_STOP, "QV_ERR_VM_STOP", "hypervisor", 0, 5, "The VM could not be stopped") \
  X(QV_ERR_VM_DESTROY, "QV_ERR_VM_DESTROY", "hypervisor", 0, 5, "The VM could not be destroyed") \
  X(QV_ERR_VM_PAUSE, "QV_ERR_VM_PAUSE", "hypervisor", 0, 5, "The VM could not be paused") \
  X(QV_ERR_VM_RESUME, "QV_ERR_VM_RESUME", "hypervisor", 0, 5, "The VM could not be resumed") \
  X(QV_ERR_VM_SNAPSHOT, "QV_ERR_VM_SNAPSHOT", "hypervisor", 0, 5, "The snapshot could not be taken") \
  X(QV_ERR_VM_RESTORE, "QV_ERR_VM_RESTORE", "hypervisor", 0, 5, "The snapshot could not be restored") \
  X(QV_ERR_VM_CLONE, "QV_ERR_VM_CLONE", "hypervisor", 0, 5, "The VM could not be cloned") \
  X(QV_ERR_VM_STUCK, "QV_ERR_VM_STUCK", "hypervisor", 0, 110, "The VM no longer responds") \
  X(QV_ERR_VMCS_ALLOC, "QV_ERR_VMCS_ALLOC", "hypervisor", 0, 12, "The VMCS (Intel) of a vCPU could not be allocated") \
  X(QV_ERR_VMCB_ALLOC, "QV_ERR_VMCB_ALLOC", "hypervisor", 0, 12, "The VMCB (AMD) of a vCPU could not be allocated") \
  X(QV_ERR_VMLAUNCH, "QV_ERR_VMLAUNCH", "hypervisor", 0, 5, "The first entry into the guest (VMLAUNCH) failed") \
  X(QV_ERR_VMRESUME, "QV_ERR_VMRESUME", "hypervisor", 0, 5, "Entering the guest again (VMRESUME) failed") \
  X(QV_ERR_VMEXIT, "QV_ERR_VMEXIT", "hypervisor", 0, 5, "The guest left guest mode for a reason that is not handled") \
  X(QV_ERR_EPT_SETUP, "QV_ERR_EPT_SETUP", "hypervisor", 0, 12, "Nested paging (Intel EPT) could not be set up") \
  X(QV_ERR_NPT_SETUP, "QV_ERR_NPT_SETUP", "hypervisor", 0, 12, "Nested paging (AMD NPT) could not be set up") \
  X(QV_ERR_EPT_VIOLATION, "QV_ERR_EPT_VIOLATION", "hypervisor", 0, 14, "The guest accessed memory that nothing backs") \
  X(QV_ERR_CPUID, "QV_ERR_CPUID", "hypervisor", 0, 22, "The guest's CPUID could not be built") \
  X(QV_ERR_MSR, "QV_ERR_MSR", "hypervisor", 0, 1, "Access to a model-specific register failed") \
  X(QV_ERR_PIN, "QV_ERR_PIN", "hypervisor", 0, 22, "A vCPU could not be pinned") \
  X(QV_ERR_TOPOLOGY, "QV_ERR_TOPOLOGY", "hypervisor", 0, 22, "The CPU topology does not add up") \
  X(QV_ERR_TRIPLE_FAULT, "QV_ERR_TRIPLE_FAULT", "hypervisor", 0, 14, "The guest crashed with a triple fault") \
  X(QV_ERR_HUGEPAGE, "QV_ERR_HUGEPAGE", "hypervisor", 0, 12, "Huge pages could not be allocated") \
  X(QV_ERR_BALLOON, "QV_ERR_BALLOON", "hypervisor", 0, 5, "The guest's balloon driver does not answer") \
  X(QV_ERR_HOTPLUG_MEM, "QV_ERR_HOTPLUG_MEM", "hypervisor", 0, 5, "Memory could not be added to the running VM") \
  X(QV_ERR_MEM_ENCRYPT, "QV_ERR_MEM_ENCRYPT", "hypervisor", 0, 95, "Memory encryption could not be set up") \
  X(QV_ERR_NUMA, "QV_ERR_NUMA", "hypervisor", 0, 12, "Memory of the wanted NUMA node could not be had")

#include "pqc_error.h"
#include "quac100_error.h"
#include "migration_error.h"
#include "storage_error.h"
#include "network_error.h"

#define QV_ERROR_LIST_(X) \
  QV_CORE_ERROR_LIST_(X) \
  QV_PQC_ERROR_LIST_(X) \
  QV_QUAC100_ERROR_LIST_(X) \
  QV_MIGRATION_ERROR_LIST_(X) \
  QV_STORAGE_ERROR_LIST_(X) \
  QV_NETWORK_ERROR_LIST_(X)

#ifdef __cplusplus
extern "C" {
#endif

/* Human-readable description of a code, never NULL. */
static inline const char *qv_strerror(int code)
{
    switch (code) {
#define QV_X_(code_, name_, subsystem_, transient_, errno_, text_) case code_: return text_;
    QV_ERROR_LIST_(QV_X_)
#undef QV_X_
    default: return "Unknown error";
    }
}

/* Symbolic name of a code, "QV_ERR_UNKNOWN" for a number without one. */
static inline const char *qv_strerror_name(int code)
{
    switch (code) {
#define QV_X_(code_, name_, subsystem_, transient_, errno_, text_) case code_: return name_;
    QV_ERROR_LIST_(QV_X_)
#undef QV_X_
    default: return "QV_ERR_UNKNOWN";
    }
}

/* Subsystem that a code belongs to: success, hypervisor, pqc, quac100,
 * migration, storage or network; "unknown" for a number outside all ranges. */
static inline const char *qv_strerror_subsystem(int code)
{
    if (code == 0) return "success";
    if (code < 0 && code >= -99) return "hypervisor";
    if (code <= -100 && code >= -199) return "pqc";
    if (code <= -200 && code >= -299) return "quac100";
    if (code <= -300 && code >= -399) return "migration";
    if (code <= -400 && code >= -499) return "storage";
    if (code <= -500 && code >= -599) return "network";
    return "unknown";
}

/* 1 when repeating the operation may help, else 0. */
static inline int qv_error_is_transient(int code)
{
    switch (code) {
#define QV_X_(code_, name_, subsystem_, transient_, errno_, text_) case code_: return transient_;
    QV_ERROR_LIST_(QV_X_)
#undef QV_X_
    default: return 0;
    }
}

/* Closest errno of Linux (a positive number), 0 for success, 5 (EIO) for a
 * number that is no code. */
static inline int qv_error_to_errno(int code)
{
    switch (code) {
#define QV_X_(code_, name_, subsystem_, transient_, errno_, text_) case code_: return errno_;
    QV_ERROR_LIST_(QV_X_)
#undef QV_X_
    default: return 5;
    }
}

/* Code of a response code of the QUAC 100. */
static inline int qv_error_from_quac100_response(unsigned response)
{
    switch (response) {
#define QV_X_(response_, code_) case response_: return code_;
    QUAC100_RESPONSE_LIST_(QV_X_)
#undef QV_X_
    default: return QV_ERR_GENERIC;
    }
}

#ifdef __cplusplus
}
#endif

#endif /* QUANTAVIRT_ERROR_H */
