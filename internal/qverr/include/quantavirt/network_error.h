/* SPDX-License-Identifier: Apache-2.0
 * QuantaVirt error codes: network.
 * Generated from the error catalogue (go generate ./internal/qverr). Do not edit.
 */
#ifndef QUANTAVIRT_NETWORK_ERROR_H
#define QUANTAVIRT_NETWORK_ERROR_H

#define QV_NET_ERR_CREATE          (-500) /* The network could not be created */
#define QV_NET_ERR_BRIDGE          (-501) /* The bridge of a network failed */
#define QV_NET_ERR_TAP             (-502) /* A TAP device could not be created */
#define QV_NET_ERR_VHOST           (-503) /* vhost-net could not be activated */
#define QV_NET_ERR_VHOST_USER      (-504) /* The vhost-user socket cannot be connected */
#define QV_NET_ERR_DHCP            (-505) /* The DHCP server of a network could not be started */
#define QV_NET_ERR_NAT             (-506) /* Address translation (NAT, masquerade) could not be set up */
#define QV_NET_ERR_MAC             (-507) /* The MAC address is not valid or already in use */
#define QV_NET_ERR_MTU             (-508) /* The MTU could not be set */
#define QV_NET_ERR_PQC_TUNNEL      (-509) /* The post-quantum tunnel could not be established */
#define QV_NET_ERR_FIREWALL        (-510) /* A firewall rule could not be applied */

/* X(code, name, subsystem, transient, errno of Linux, text) */
#define QV_NETWORK_ERROR_LIST_(X) \
  X(QV_NET_ERR_CREATE, "QV_NET_ERR_CREATE", "network", 0, 98, "The network could not be created") \
  X(QV_NET_ERR_BRIDGE, "QV_NET_ERR_BRIDGE", "network", 0, 100, "The bridge of a network failed") \
  X(QV_NET_ERR_TAP, "QV_NET_ERR_TAP", "network", 0, 6, "A TAP device could not be created") \
  X(QV_NET_ERR_VHOST, "QV_NET_ERR_VHOST", "network", 0, 6, "vhost-net could not be activated") \
  X(QV_NET_ERR_VHOST_USER, "QV_NET_ERR_VHOST_USER", "network", 0, 111, "The vhost-user socket cannot be connected") \
  X(QV_NET_ERR_DHCP, "QV_NET_ERR_DHCP", "network", 0, 98, "The DHCP server of a network could not be started") \
  X(QV_NET_ERR_NAT, "QV_NET_ERR_NAT", "network", 0, 5, "Address translation (NAT, masquerade) could not be set up") \
  X(QV_NET_ERR_MAC, "QV_NET_ERR_MAC", "network", 0, 22, "The MAC address is not valid or already in use") \
  X(QV_NET_ERR_MTU, "QV_NET_ERR_MTU", "network", 0, 22, "The MTU could not be set") \
  X(QV_NET_ERR_PQC_TUNNEL, "QV_NET_ERR_PQC_TUNNEL", "network", 0, 71, "The post-quantum tunnel could not be established") \
  X(QV_NET_ERR_FIREWALL, "QV_NET_ERR_FIREWALL", "network", 0, 22, "A firewall rule could not be applied")

#include "error.h" /* the functions for all codes */

#endif /* QUANTAVIRT_NETWORK_ERROR_H */
