/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Helpers for what bindgen cannot see: inline functions, macros, and structures that must not be mirrored in Rust
 * (net_device, sock, dst_entry). One C operation each, no policy. shim_net.c has the packet path, shim_ctl.c the control
 * plane.
 */
#ifndef RVS_SHIM_H
#define RVS_SHIM_H

#include <linux/capability.h>
#include <linux/netdevice.h>
#include <linux/skbuff.h>
#include <linux/sockptr.h>
#include <linux/types.h>
#include <net/addrconf.h>
#include <net/genetlink.h>

struct dst_entry;
struct in6_addr;
struct net;

enum { RVS_HZ = HZ };

/* ---- shim_net.c ---- */

/* A CPU's traffic counters. */
struct rvs_counters {
	u64 conns;
	u64 inpkts;
	u64 outpkts;
	u64 inbytes;
	u64 outbytes;
};

struct rvs_counters *rvs_helper_counters_alloc(void);
void rvs_helper_counters_free(struct rvs_counters *c);
void rvs_helper_counters_cpu(struct rvs_counters *c, u32 cpu, u64 *out);
void rvs_helper_counters_sum(struct rvs_counters *c, u64 *out);
void rvs_helper_count_in(struct rvs_counters *dest, struct rvs_counters *svc, struct rvs_counters *total, u32 bytes);
void rvs_helper_count_out(struct rvs_counters *dest, struct rvs_counters *svc, struct rvs_counters *total, u32 bytes);
void rvs_helper_count_conn(struct rvs_counters *dest, struct rvs_counters *svc, struct rvs_counters *total);

struct kmem_cache *rvs_helper_cache_create(const char *name, u32 size, u32 align);
void *rvs_helper_cache_alloc(struct kmem_cache *cache);
void rvs_helper_cond_resched(void);
void rvs_helper_warn_once(void);
u64 rvs_helper_uptime_ms(void);
void rvs_helper_random(void *buf, size_t len);
u32 rvs_helper_random_up_to(u32 max);
void rvs_helper_spin_lock_bh(spinlock_t *lock);
void rvs_helper_shared_lock_bh(const void *of);
void rvs_helper_shared_unlock_bh(const void *of);
void rvs_helper_spin_unlock_bh(spinlock_t *lock);

/* rvs_helper_skb_facts() */
#define RVS_SKB_SEEN 1		/* ipvs_property is set */
#define RVS_SKB_TO_HOST 2	/* pkt_type is PACKET_HOST */
#define RVS_SKB_ROUTED 4	/* has a dst */
#define RVS_SKB_NODEFRAG 8	/* from an IPv4 socket with IP_NODEFRAG */
#define RVS_SKB_NO_DEV 16	/* no input device: made on this host */
#define RVS_SKB_LOOPBACK 32	/* the device is a loopback */
#define RVS_SKB_PARTIAL 64	/* CHECKSUM_PARTIAL */
#define RVS_SKB_COMPLETE 128	/* CHECKSUM_COMPLETE */
u32 rvs_helper_skb_facts(const struct sk_buff *skb);
u32 rvs_helper_skb_mark(const struct sk_buff *skb);
void rvs_helper_skb_set_seen(struct sk_buff *skb);
void rvs_helper_skb_csum_none(struct sk_buff *skb);
void rvs_helper_skb_csum_unnecessary(struct sk_buff *skb);
void rvs_helper_skb_csum_partial(struct sk_buff *skb, u32 start, u16 offset);
u32 rvs_helper_skb_checksum(const struct sk_buff *skb, u32 offset, u32 len, u32 sum);
bool rvs_helper_skb_csum_ok(struct sk_buff *skb, u32 offset, u8 proto, u8 af);
void rvs_helper_skb_free(struct sk_buff *skb);
bool rvs_helper_skb_too_big(const struct sk_buff *skb, u32 mtu, bool v6);
void rvs_helper_skb_orphan(struct sk_buff *skb);
void rvs_helper_skb_dev_loopback(struct sk_buff *skb, struct net *net);

/* rvs_helper_route_facts() */
#define RVS_RT_VALID 1		/* the route may be used */
#define RVS_RT_LOCAL 2		/* it leads to this host */
#define RVS_RT_OLD_INPUT 4	/* the packet's own is of an input device */
#define RVS_RT_OLD_LOCAL 8	/* both lead to this host */
/* ... its families */
#define RVS_RT_V6 1		/* the route's is IPv6 */
#define RVS_RT_SKB_V6 2		/* the packet's is */
/* rvs_helper_route4(), rvs_helper_route6() */
#define RVS_RT_NEXT_HOP 1	/* packets are for others beyond */
#define RVS_RT_TUNNEL 2		/* they get a source address of ours */
u32 rvs_helper_route_facts(const struct sk_buff *skb, struct dst_entry *dst, u32 cookie, u32 families, u32 *mtu);
struct dst_entry *rvs_helper_route4(struct net *net, __be32 daddr, u32 flags, u32 *saddr);
struct dst_entry *rvs_helper_route6(struct net *net, const u32 *daddr, u32 flags, u32 *saddr, u32 *cookie);
bool rvs_helper_is_unicast4(struct net *net, __be32 addr);
bool rvs_helper_route_dev_down(struct dst_entry *dst);
void rvs_helper_dst_release(struct dst_entry *dst);
void rvs_helper_skb_dst_set(struct sk_buff *skb, struct dst_entry *dst, bool ref);
void rvs_helper_link_failure(struct sk_buff *skb);
void rvs_helper_local_out(struct sk_buff *skb, struct net *net, bool v6);
int rvs_helper_reroute(struct sk_buff *skb, struct net *net, bool v6);

int rvs_helper_defrag4(struct sk_buff *skb, struct net *net, u32 hook);
int rvs_helper_find_hdr6(const struct sk_buff *skb, u32 *offset, int target, u16 *fragoff, int *flags);
void rvs_helper_icmp_send(struct sk_buff *skb, u8 type, u8 code, u32 info);
void rvs_helper_icmpv6_send(struct sk_buff *skb, u8 type, u8 code, u32 info);
bool rvs_helper_route_is_local4(const struct sk_buff *skb);
bool rvs_helper_skb_strip4(struct sk_buff *skb, u32 len, u32 header);
void rvs_helper_skb_consume(struct sk_buff *skb);
void rvs_helper_path_mtu4(struct sk_buff *skb, struct net *net, u32 mtu);
u32 rvs_helper_dst_mtu(const struct dst_entry *dst);
void rvs_helper_ttl_exceeded(struct sk_buff *skb, struct net *net, bool v6);

u32 rvs_helper_skb_crc32c(const struct sk_buff *skb, u32 offset);
bool rvs_helper_skb_csum_checked(const struct sk_buff *skb);
bool rvs_helper_skb_is_gso(const struct sk_buff *skb);
bool rvs_helper_skb_replace(struct sk_buff *skb, bool v6, u32 l4, u32 at, u32 old, const u8 *text, u32 len);

/* rvs_helper_tunnel_begin() */
#define RVS_TUN_V6 1		/* the outer header is IPv6 */
#define RVS_TUN_UDP 2
#define RVS_TUN_UDP_CSUM 4
#define RVS_TUN_REMCSUM 8
#define RVS_TUN_GRE 16
#define RVS_TUN_GRE_CSUM 32
void rvs_helper_tunnel_pmtu(struct sk_buff *skb, u32 mtu);
struct sk_buff *rvs_helper_tunnel_room(struct sk_buff *skb, u32 extra);
bool rvs_helper_tunnel_begin(struct sk_buff *skb, u32 gso, u8 proto);
u8 *rvs_helper_tunnel_push(struct sk_buff *skb, u32 len);
void rvs_helper_tunnel_transport(struct sk_buff *skb);
__be16 rvs_helper_tunnel_port(struct net *net, struct sk_buff *skb);
void rvs_helper_tunnel_csum_place(const struct sk_buff *skb, u16 *start, u16 *offset);
void rvs_helper_tunnel_remcsum(struct sk_buff *skb);
void rvs_helper_tunnel_udp_csum(struct sk_buff *skb, bool v6, bool none, const u32 *saddr, const u32 *daddr);
bool rvs_helper_tunnel_gre(struct sk_buff *skb, bool inner_v6, bool csum);
void rvs_helper_tunnel_out(struct sk_buff *skb, struct net *net, bool v6);

/* ---- shim_ct.c ---- */

enum {
#ifdef CONFIG_IP_VS_NFCT
	RVS_NFCT = 1,		/* the kernel's own IPVS would keep conntrack informed */
#else
	RVS_NFCT = 0,
#endif
};

void rvs_helper_skb_untrack(struct sk_buff *skb);
bool rvs_helper_ct_confirmed(const struct sk_buff *skb);
bool rvs_helper_ct_there(const struct sk_buff *skb);
void rvs_helper_ct_alter_reply(struct sk_buff *skb, bool source, const u32 *addr, __be16 port, bool shifts);
int rvs_helper_ct_confirm(struct sk_buff *skb);
void rvs_helper_ct_kill(struct net *net, bool v6, u8 proto, const u32 *caddr, __be16 cport, const u32 *vaddr,
			__be16 vport);
bool rvs_helper_ct_track(struct net *net, bool v6);
void rvs_helper_ct_untrack(struct net *net, bool v6);
void rvs_helper_ct_shifted(struct sk_buff *skb, __be32 seq, s32 by);

/* An expected flow as its first packet has it. The answer's address and port come back as its source. */
struct rvs_ct_flow {
	u32 saddr[4];
	u32 daddr[4];
	__be16 sport;
	__be16 dport;
	u8 proto;
	bool v6;
};
/* The answer. */
#define RVS_CT_UNKNOWN 0	/* nobody knows the flow, or its replies are as they seem */
#define RVS_CT_REQUEST 1	/* replies come from here */
#define RVS_CT_REPLY 2		/* replies go there */
typedef u32 (*rvs_expected_fn)(void *data, struct net *net, struct rvs_ct_flow *flow);
void rvs_helper_ct_expect(struct sk_buff *skb, u8 proto, const u32 *saddr, const u32 *daddr, __be16 dport);
void rvs_helper_ct_expect_begin(rvs_expected_fn expected, void *data);
void rvs_helper_ct_expect_end(void);

/* For other modules. */
#define RVS_APP_PORTS 8
struct module;
int rvs_app_register(struct module *owner, const u16 *ports, unsigned int count);
void rvs_app_unregister(void);

/* ---- shim_fullnat.c ---- */

u64 rvs_helper_now_ns(void);
u32 rvs_helper_ifindex(struct net *net, const char *name);
u32 rvs_helper_dst_ifindex(const struct dst_entry *dst);
void rvs_helper_skb_notrack(struct sk_buff *skb);
struct dst_entry *rvs_helper_route_from4(struct net *net, __be32 saddr, __be32 daddr, u32 mark);
struct dst_entry *rvs_helper_route_from6(struct net *net, const u32 *saddr, const u32 *daddr, u32 mark);
bool rvs_helper_port_reserved(const struct net *net, u16 port);
bool rvs_helper_port_used4(struct net *net, u8 proto, __be32 raddr, __be16 rport, __be32 laddr, u16 lport);
bool rvs_helper_port_used6(struct net *net, u8 proto, const u32 *raddr, __be16 rport, const u32 *laddr, u16 lport);
void rvs_helper_tcp_reset(struct net *net, bool v6, const u32 *saddr, const u32 *daddr, __be16 sport, __be16 dport, u32 seq,
			  u32 ack);
struct sk_buff *rvs_helper_skb_like(const struct sk_buff *skb, u32 head, const u8 *data, u32 len);
bool rvs_helper_skb_gap(struct sk_buff *skb, u32 at, u32 n);
bool rvs_helper_skb_may_grow(struct sk_buff *skb, u32 mtu, u32 n);

/* ---- shim_sync.c ---- */

struct socket;
struct task_struct;
struct wait_queue_head;

struct task_struct *rvs_helper_thread_start(int (*func)(void *data), void *data, const char *name);
void rvs_helper_thread_stop(struct task_struct *task);
void rvs_helper_bell_init(struct wait_queue_head *bell, const char *name, struct lock_class_key *key);
void rvs_helper_bell_ring(struct wait_queue_head *bell, u32 *rung);
void rvs_helper_bell_wait(struct wait_queue_head *bell, u32 *rung, unsigned long timeout);
void rvs_helper_rtnl_lock(void);
void rvs_helper_rtnl_unlock(void);
u32 rvs_helper_device(struct net *net, const char *name, u32 *mtu, __be32 *addr);
int rvs_helper_udp_open(struct net *net, bool v6, struct socket **sock);
void rvs_helper_udp_close(struct socket *sock);
void rvs_helper_udp_multicast(struct socket *sock, u32 ifindex, u8 ttl);
void rvs_helper_udp_buffer(struct socket *sock, bool send, int bytes);
void rvs_helper_udp_on_device(struct socket *sock, u32 ifindex);
int rvs_helper_udp_bind(struct socket *sock, const u32 *addr, u16 port);
int rvs_helper_udp_connect(struct socket *sock, const u32 *addr, u16 port);
int rvs_helper_udp_join(struct socket *sock, const u32 *addr, u32 ifindex);
int rvs_helper_udp_send(struct socket *sock, const void *data, size_t len);
int rvs_helper_udp_receive(struct socket *sock, void *data, size_t room);
void rvs_helper_udp_wait_room(struct socket *sock);
void rvs_helper_udp_wait_data(struct socket *sock);
unsigned long rvs_helper_free_buffer_pages(void);

/* ---- shim_ctl.c ---- */

struct cpumask;
struct ctl_table;
struct delayed_work;
struct genl_family;
struct genl_info;
struct netlink_callback;
struct netlink_ext_ack;
struct nla_policy;
struct nlattr;
struct nlmsghdr;
struct seq_file;
struct sock;
struct work_struct;

enum {
	RVS_CAP_NET_ADMIN = CAP_NET_ADMIN,
	RVS_PF_INET = PF_INET,
	RVS_NETDEV_DOWN = NETDEV_DOWN,
	RVS_NETDEV_UNREGISTER = NETDEV_UNREGISTER,
	RVS_NOTIFY_DONE = NOTIFY_DONE,
	RVS_NOTIFY_PRIORITY = ADDRCONF_NOTIFY_PRIORITY + 5,
	RVS_NOTIFY_REFUSE = NOTIFY_STOP_MASK | (NOTIFY_OK + EBUSY),
	RVS_GENL_MCAST_ADMIN = GENL_MCAST_CAP_NET_ADMIN,
	RVS_NLA_PADDED = !IS_ENABLED(CONFIG_HAVE_EFFICIENT_UNALIGNED_ACCESS),
};

bool rvs_helper_genl_has_listeners(const struct genl_family *family, struct net *net, u32 group);
struct sk_buff *rvs_helper_genl_event_new(void);
void *rvs_helper_genl_event_put(struct sk_buff *skb, const struct genl_family *family, int cmd);
int rvs_helper_genl_multicast(const struct genl_family *family, struct net *net, struct sk_buff *skb, u32 group);
struct net *rvs_helper_genl_info_net(const struct genl_info *info);
const struct genl_info *rvs_helper_genl_info_dump(const struct netlink_callback *cb);
void *rvs_helper_genl_dump_put(struct sk_buff *skb, const struct netlink_callback *cb, int cmd);
void *rvs_helper_genl_reply_put(struct sk_buff *skb, const struct genl_info *info, int cmd);
struct sk_buff *rvs_helper_genlmsg_new(void);
int rvs_helper_genlmsg_parse(const struct nlmsghdr *nlh, struct nlattr **tb, int max, const struct nla_policy *policy,
			     struct netlink_ext_ack *extack);
int rvs_helper_genlmsg_reply(struct sk_buff *skb, const struct genl_info *info);
int rvs_helper_nla_parse_nested(struct nlattr **tb, int max, const struct nlattr *nla, const struct nla_policy *policy,
				struct netlink_ext_ack *extack);
int rvs_helper_nla_parse_strict(struct nlattr **tb, int max, const struct nlattr *nla, const struct nla_policy *policy,
				struct netlink_ext_ack *extack);
u8 *rvs_helper_skb_tailroom(struct sk_buff *skb, u32 *room);

struct net *rvs_helper_sock_net(const struct sock *sk);
bool rvs_helper_copy_from_sockptr(void *to, const sockptr_t *from, size_t len);

struct net *rvs_helper_current_net(void);
void *rvs_helper_net_generic(struct net *net, unsigned int id);
bool rvs_helper_net_is_init(const struct net *net);
bool rvs_helper_net_is_unprivileged(const struct net *net);
bool rvs_helper_net_admin(const struct net *net);
bool rvs_helper_port_is_privileged(struct net *net, u16 port);
bool rvs_helper_v4_is_local_or_unicast(struct net *net, __be32 addr);
bool rvs_helper_v6_is_local(struct net *net, const u8 *addr);
bool rvs_helper_v6_enabled(void);
int rvs_helper_v6_defrag_enable(struct net *net);

bool rvs_helper_cpu_possible(u32 cpu);
int rvs_helper_cpulist_parse(const char *text, struct cpumask **out);
void rvs_helper_cpulist_free(struct cpumask *cpus);
size_t rvs_helper_cpulist_show(const struct cpumask *cpus, char *buf, size_t len);
bool rvs_helper_cpulist_empty(const struct cpumask *cpus);
void rvs_helper_run_on(const struct cpumask *cpus, int nice, void (*func)(void *arg), void *arg);
void rvs_helper_job_init(struct delayed_work *job, void (*func)(struct work_struct *work));
void rvs_helper_job_start(struct delayed_work *job, unsigned long delay);
bool rvs_helper_net_ratelimit(void);
struct net *rvs_helper_notifier_net(const void *info);
void *rvs_helper_seq_data(struct seq_file *seq);
u64 rvs_helper_available_pages(void);
u64 rvs_helper_total_memory(void);
bool rvs_helper_module_is_coming(const void *module, unsigned long state, const char *name);

#endif
