// SPDX-License-Identifier: GPL-2.0-only
/*
 * The packet path's C helpers; see shim.h.
 */
#include <linux/bitmap.h>
#include <linux/hash.h>
#include <linux/if_arp.h>
#include <linux/list.h>
#include <linux/netfilter.h>
#include <linux/netfilter_ipv4.h>
#include <linux/netfilter_ipv6.h>
#include <linux/percpu.h>
#include <linux/random.h>
#include <linux/skbuff.h>
#include <linux/slab.h>
#include <linux/tcp.h>
#include <linux/spinlock.h>
#include <net/addrconf.h>
#include <net/gso.h>
#include <net/icmp.h>
#include <net/inet_sock.h>
#include <net/ip.h>
#include <net/ip6_checksum.h>
#include <net/ip6_fib.h>
#include <linux/crc32.h>
#include <linux/sctp.h>
#include <net/gre.h>
#include <net/ip6_checksum.h>
#include <net/ip6_route.h>
#include <net/ip_tunnels.h>
#include <net/ipv6.h>
#include <net/route.h>
#include <net/udp.h>
#include <net/udp_tunnel.h>
#include <net/xfrm.h>

#include "shim.h"

#if !IS_ENABLED(CONFIG_IP_VS)
#error "rvs needs sk_buff::ipvs_property: a kernel with CONFIG_IP_VS=m"
#endif

/* ---- memory, locks, counters ---- */

/* Rust holds a per-CPU pointer as a plain one and only hands it back. */
#define RVS_PERCPU(c) ((struct rvs_counters __percpu *)(__force unsigned long)(c))

/*
 * A per-CPU allocation costs more than everything else about a new destination, so that counters share one by the
 * hundred. Which of them are taken is written in front of them, in the first CPU's copy.
 */
#define RVS_SHARE 4096
#define RVS_SHARE_HEAD 64
#define RVS_SHARE_SLOTS ((RVS_SHARE - RVS_SHARE_HEAD) / sizeof(struct rvs_counters))

struct rvs_share {
	struct list_head list;		/* in rvs_shares, while there is room */
	void __percpu *base;
	DECLARE_BITMAP(used, RVS_SHARE_SLOTS);
};

static LIST_HEAD(rvs_shares);
static DEFINE_SPINLOCK(rvs_shares_lock);	/* a leaf; around the list and all bitmaps */

static void *rvs_first_copy(void __percpu *ptr)
{
	return per_cpu_ptr(ptr, cpumask_first(cpu_possible_mask));
}

static struct rvs_share *rvs_share_new(void)
{
	void __percpu *base = __alloc_percpu(RVS_SHARE, RVS_SHARE);
	struct rvs_share *share;

	BUILD_BUG_ON(sizeof(struct rvs_share) > RVS_SHARE_HEAD);
	if (!base)
		return NULL;
	share = rvs_first_copy(base);
	share->base = base;
	INIT_LIST_HEAD(&share->list);
	return share;
}

struct rvs_counters *rvs_helper_counters_alloc(void)
{
	struct rvs_share *share, *fresh = NULL;
	struct rvs_counters __percpu *c;
	unsigned int slot;
	int cpu;

	spin_lock_bh(&rvs_shares_lock);
	share = list_first_entry_or_null(&rvs_shares, struct rvs_share, list);
	if (!share) {
		spin_unlock_bh(&rvs_shares_lock);
		fresh = rvs_share_new();
		if (!fresh)
			return NULL;
		spin_lock_bh(&rvs_shares_lock);
		share = fresh;
		list_add(&share->list, &rvs_shares);
	}
	slot = find_first_zero_bit(share->used, RVS_SHARE_SLOTS);
	__set_bit(slot, share->used);
	if (bitmap_full(share->used, RVS_SHARE_SLOTS))
		list_del_init(&share->list);
	spin_unlock_bh(&rvs_shares_lock);

	c = share->base + RVS_SHARE_HEAD + slot * sizeof(*c);
	for_each_possible_cpu(cpu)
		memset(per_cpu_ptr(c, cpu), 0, sizeof(*c));
	return (struct rvs_counters *)(__force unsigned long)c;
}

void rvs_helper_counters_free(struct rvs_counters *c)
{
	unsigned long first = (unsigned long)rvs_first_copy(RVS_PERCPU(c));
	struct rvs_share *share = (struct rvs_share *)ALIGN_DOWN(first, RVS_SHARE);
	bool last;

	spin_lock_bh(&rvs_shares_lock);
	__clear_bit((first % RVS_SHARE - RVS_SHARE_HEAD) / sizeof(*c), share->used);
	last = bitmap_empty(share->used, RVS_SHARE_SLOTS);
	if (last)
		list_del_init(&share->list);
	else if (list_empty(&share->list))
		list_add(&share->list, &rvs_shares);
	spin_unlock_bh(&rvs_shares_lock);
	if (last)
		free_percpu(share->base);
}

void rvs_helper_counters_cpu(struct rvs_counters *c, u32 cpu, u64 *out)
{
	const struct rvs_counters *p;

	if (cpu >= nr_cpu_ids || !cpu_possible(cpu))
		return;
	p = per_cpu_ptr(RVS_PERCPU(c), cpu);
	out[0] = READ_ONCE(p->conns);
	out[1] = READ_ONCE(p->inpkts);
	out[2] = READ_ONCE(p->outpkts);
	out[3] = READ_ONCE(p->inbytes);
	out[4] = READ_ONCE(p->outbytes);
}

void rvs_helper_counters_sum(struct rvs_counters *c, u64 *out)
{
	int cpu, i;

	for_each_possible_cpu(cpu) {
		u64 one[5] = { };

		rvs_helper_counters_cpu(c, cpu, one);
		for (i = 0; i < 5; i++)
			out[i] += one[i];
	}
}

#define RVS_ADD(set, field, n) this_cpu_add(RVS_PERCPU(set)->field, n)

void rvs_helper_count_in(struct rvs_counters *dest, struct rvs_counters *svc, struct rvs_counters *total, u32 bytes)
{
	RVS_ADD(dest, inpkts, 1);
	RVS_ADD(dest, inbytes, bytes);
	RVS_ADD(svc, inpkts, 1);
	RVS_ADD(svc, inbytes, bytes);
	RVS_ADD(total, inpkts, 1);
	RVS_ADD(total, inbytes, bytes);
}

void rvs_helper_count_out(struct rvs_counters *dest, struct rvs_counters *svc, struct rvs_counters *total, u32 bytes)
{
	RVS_ADD(dest, outpkts, 1);
	RVS_ADD(dest, outbytes, bytes);
	RVS_ADD(svc, outpkts, 1);
	RVS_ADD(svc, outbytes, bytes);
	RVS_ADD(total, outpkts, 1);
	RVS_ADD(total, outbytes, bytes);
}

void rvs_helper_count_conn(struct rvs_counters *dest, struct rvs_counters *svc, struct rvs_counters *total)
{
	RVS_ADD(dest, conns, 1);
	RVS_ADD(svc, conns, 1);
	RVS_ADD(total, conns, 1);
}

struct kmem_cache *rvs_helper_cache_create(const char *name, u32 size, u32 align)
{
	return kmem_cache_create(name, size, align, SLAB_NO_MERGE, NULL);
}

void *rvs_helper_cache_alloc(struct kmem_cache *cache)
{
	return kmem_cache_alloc(cache, GFP_ATOMIC | __GFP_NOWARN);
}

void rvs_helper_cond_resched(void)
{
	cond_resched();
}

/* The kernel crate's own warn_on!() needs a generated file that kernel packages do not have. */
void rvs_helper_warn_once(void)
{
	WARN_ON_ONCE(1);
}

u64 rvs_helper_uptime_ms(void)
{
	return ktime_to_ms(ktime_get_coarse());
}

void rvs_helper_random(void *buf, size_t len)
{
	get_random_bytes(buf, len);
}

u32 rvs_helper_random_up_to(u32 max)
{
	return get_random_u32_inclusive(0, max);
}

void rvs_helper_spin_lock_bh(spinlock_t *lock)
{
	spin_lock_bh(lock);
}

void rvs_helper_spin_unlock_bh(spinlock_t *lock)
{
	spin_unlock_bh(lock);
}

/*
 * Locks for what is locked rarely and is there too often for a lock of its own: its address tells which one it is. They are
 * leaves, and nobody holds two.
 */
#define RVS_SHARED_BITS 6

static spinlock_t rvs_shared_locks[1 << RVS_SHARED_BITS] = {
	[0 ... (1 << RVS_SHARED_BITS) - 1] = __SPIN_LOCK_UNLOCKED(rvs_shared_locks),
};

void rvs_helper_shared_lock_bh(const void *of)
{
	spin_lock_bh(&rvs_shared_locks[hash_ptr(of, RVS_SHARED_BITS)]);
}

void rvs_helper_shared_unlock_bh(const void *of)
{
	spin_unlock_bh(&rvs_shared_locks[hash_ptr(of, RVS_SHARED_BITS)]);
}

/* ---- the packet ---- */

u32 rvs_helper_skb_facts(const struct sk_buff *skb)
{
	const struct net_device *dev = skb->dev;
	const struct sock *sk = skb->sk;
	u32 facts = 0;

	if (skb->ipvs_property)
		return RVS_SKB_SEEN;
	if (skb->pkt_type == PACKET_HOST)
		facts |= RVS_SKB_TO_HOST;
	if (skb_dst(skb))
		facts |= RVS_SKB_ROUTED;
	if (!dev)
		facts |= RVS_SKB_NO_DEV;
	else if (dev->flags & IFF_LOOPBACK)
		facts |= RVS_SKB_LOOPBACK;
	if (skb->ip_summed == CHECKSUM_PARTIAL)
		facts |= RVS_SKB_PARTIAL;
	else if (skb->ip_summed == CHECKSUM_COMPLETE)
		facts |= RVS_SKB_COMPLETE;
	if (unlikely(sk)) {
		sk = skb_to_full_sk(skb);
		if (sk && sk->sk_family == PF_INET && inet_test_bit(NODEFRAG, sk))
			facts |= RVS_SKB_NODEFRAG;
	}
	return facts;
}

u32 rvs_helper_skb_mark(const struct sk_buff *skb)
{
	return skb->mark;
}

void rvs_helper_skb_set_seen(struct sk_buff *skb)
{
	skb->ipvs_property = 1;
}

void rvs_helper_skb_csum_none(struct sk_buff *skb)
{
	skb->ip_summed = CHECKSUM_NONE;
}

void rvs_helper_skb_csum_unnecessary(struct sk_buff *skb)
{
	skb->ip_summed = CHECKSUM_UNNECESSARY;
}

void rvs_helper_skb_csum_partial(struct sk_buff *skb, u32 start, u16 offset)
{
	skb->csum_start = skb_headroom(skb) + start;
	skb->csum_offset = offset;
	skb->ip_summed = CHECKSUM_PARTIAL;
}

u32 rvs_helper_skb_checksum(const struct sk_buff *skb, u32 offset, u32 len, u32 sum)
{
	return (__force u32)skb_checksum(skb, offset, len, (__force __wsum)sum);
}

/* Whether the checksum of the message at `offset` holds: nf_checksum() would trust and write more than we want. */
bool rvs_helper_skb_csum_ok(struct sk_buff *skb, u32 offset, u8 proto, u8 af)
{
	u32 len;
	__wsum sum;

	if (skb->ip_summed == CHECKSUM_UNNECESSARY || skb->ip_summed == CHECKSUM_PARTIAL || offset > skb->len)
		return offset <= skb->len;
	len = skb->len - offset;
	sum = skb_checksum(skb, offset, len, 0);
	if (af == AF_INET6)
		return !csum_ipv6_magic(&ipv6_hdr(skb)->saddr, &ipv6_hdr(skb)->daddr, len, proto, sum);
	if (proto == IPPROTO_ICMP)
		return !csum_fold(sum);
	return !csum_tcpudp_magic(ip_hdr(skb)->saddr, ip_hdr(skb)->daddr, len, proto, sum);
}

/* What sctp_compute_cksum() leaves out: the field itself, four zeros in its place. */
u32 rvs_helper_skb_crc32c(const struct sk_buff *skb, u32 offset)
{
	static const u8 zeros[4];
	u32 crc = ~0U, len = skb->len - offset;

	if (len < sizeof(struct sctphdr))
		return 0;
	crc = skb_crc32c(skb, offset, offsetof(struct sctphdr, checksum), crc);
	crc = crc32c(crc, zeros, sizeof(zeros));
	crc = skb_crc32c(skb, offset + sizeof(struct sctphdr), len - sizeof(struct sctphdr), crc);
	return (__force u32)cpu_to_le32(~crc);
}

bool rvs_helper_skb_csum_checked(const struct sk_buff *skb)
{
	return skb->ip_summed == CHECKSUM_UNNECESSARY;
}

bool rvs_helper_skb_is_gso(const struct sk_buff *skb)
{
	return skb_is_gso(skb);
}

/*
 * Puts `len` bytes in the place of the `old` ones `at` bytes into the packet, in the payload of the TCP header at `l4`. Lengths and
 * checksums stay right. False: the packet is too short, would be too long, or there is no memory; it is as it was, but for
 * that it may be linear now.
 */
bool rvs_helper_skb_replace(struct sk_buff *skb, bool v6, u32 l4, u32 at, u32 old, const u8 *text, u32 len)
{
	u32 was = skb->len, now, most = v6 ? IPV6_MAXPLEN + sizeof(struct ipv6hdr) : IP_MAX_MTU;
	struct tcphdr *th;

	if (was > most || at < l4 + sizeof(*th) || at > was || old > was - at || len > most - (was - old))
		return false;
	if (skb_ensure_writable(skb, was))
		return false;
	now = was - old + len;
	if (now > was && now - was > skb_tailroom(skb) &&
	    pskb_expand_head(skb, 0, now - was - skb_tailroom(skb), GFP_ATOMIC))
		return false;
	if (now > was)
		skb_put(skb, now - was);
	memmove(skb->data + at + len, skb->data + at + old, was - at - old);
	memcpy(skb->data + at, text, len);
	if (now < was)
		__skb_trim(skb, now);

	if (v6) {
		ipv6_hdr(skb)->payload_len = htons(now - sizeof(struct ipv6hdr));
	} else {
		ip_hdr(skb)->tot_len = htons(now);
		ip_send_check(ip_hdr(skb));
	}
	th = (struct tcphdr *)(skb->data + l4);
	if (skb->ip_summed == CHECKSUM_PARTIAL) {
		/* The device sums up the payload. */
		inet_proto_csum_replace2(&th->check, skb, htons(was - l4), htons(now - l4), true);
		return true;
	}
	th->check = 0;
	skb->csum = csum_partial(th, now - l4, 0);
	if (v6)
		th->check = csum_ipv6_magic(&ipv6_hdr(skb)->saddr, &ipv6_hdr(skb)->daddr, now - l4, IPPROTO_TCP, skb->csum);
	else
		th->check = csum_tcpudp_magic(ip_hdr(skb)->saddr, ip_hdr(skb)->daddr, now - l4, IPPROTO_TCP, skb->csum);
	/* The device's sum is not that of the packet any more. */
	if (skb->ip_summed == CHECKSUM_COMPLETE)
		skb->ip_summed = CHECKSUM_UNNECESSARY;
	return true;
}

void rvs_helper_skb_free(struct sk_buff *skb)
{
	kfree_skb_reason(skb, SKB_DROP_REASON_NETFILTER_DROP);
}

bool rvs_helper_skb_too_big(const struct sk_buff *skb, u32 mtu, bool v6)
{
	if (v6 && IP6CB(skb)->frag_max_size)
		return IP6CB(skb)->frag_max_size > mtu;
	if (skb->len <= mtu)
		return false;
	return !(skb_is_gso(skb) && skb_gso_validate_network_len(skb, mtu));
}

void rvs_helper_skb_orphan(struct sk_buff *skb)
{
	/* With a device the packet came in: its socket is an early demux guess. */
	if (skb->dev)
		skb_orphan(skb);
}

void rvs_helper_skb_dev_loopback(struct sk_buff *skb, struct net *net)
{
	if (!skb->dev)
		skb->dev = net->loopback_dev;
}

/* ---- routes ---- */

static bool rvs_dst_is_local(const struct dst_entry *dst, bool v6)
{
	if (v6)
		return dst->dev && dst->dev->flags & IFF_LOOPBACK;
	return dst_rtable(dst)->rt_flags & RTCF_LOCAL;
}

u32 rvs_helper_route_facts(const struct sk_buff *skb, struct dst_entry *dst, u32 cookie, u32 families, u32 *mtu)
{
	bool v6 = families & RVS_RT_V6, skb_v6 = families & RVS_RT_SKB_V6;
	const struct dst_entry *old = skb_dst(skb);
	u32 facts = RVS_RT_VALID;

	if (READ_ONCE(dst->obsolete) && !dst->ops->check(dst, cookie))
		return 0;
	if (rvs_dst_is_local(dst, v6)) {
		facts |= RVS_RT_LOCAL;
		if (rvs_dst_is_local(old, skb_v6))
			facts |= RVS_RT_OLD_LOCAL;
	}
	if (skb_v6 ? !!skb->dev : rt_is_input_route(dst_rtable(old)))
		facts |= RVS_RT_OLD_INPUT;
	*mtu = dst_mtu(dst);
	return facts;
}

struct dst_entry *rvs_helper_route4(struct net *net, __be32 daddr, u32 flags, u32 *saddr)
{
	struct flowi4 fl4 = { .daddr = daddr, .flowi4_flags = flags & RVS_RT_NEXT_HOP ? FLOWI_FLAG_KNOWN_NH : 0 };
	struct rtable *rt = ip_route_output_key(net, &fl4);

	/* A tunnel's route is that of the source address that the first lookup chose. */
	if (!IS_ERR(rt) && flags & RVS_RT_TUNNEL) {
		ip_rt_put(rt);
		rt = ip_route_output_key(net, &fl4);
	}
	if (IS_ERR(rt))
		return NULL;
	*saddr = (__force u32)fl4.saddr;
	return &rt->dst;
}

struct dst_entry *rvs_helper_route6(struct net *net, const u32 *daddr, u32 flags, u32 *saddr, u32 *cookie)
{
#if IS_ENABLED(CONFIG_IPV6)
	struct flowi6 fl6 = { .flowi6_flags = flags & RVS_RT_NEXT_HOP ? FLOWI_FLAG_KNOWN_NH : 0 };
	struct dst_entry *dst;

	memcpy(&fl6.daddr, daddr, sizeof(fl6.daddr));
	dst = ip6_route_output(net, NULL, &fl6);
	/* A route to remember needs a source address on its device, as in the C module. */
	if (dst->error ||
	    (ipv6_addr_any(&fl6.saddr) && ipv6_dev_get_saddr(net, ip6_dst_idev(dst)->dev, &fl6.daddr, 0, &fl6.saddr) < 0)) {
		dst_release(dst);
		return NULL;
	}
	if (flags & RVS_RT_TUNNEL) {
		dst = xfrm_lookup(net, dst, flowi6_to_flowi(&fl6), NULL, 0);
		if (IS_ERR(dst))
			return NULL;
	}
	memcpy(saddr, &fl6.saddr, sizeof(fl6.saddr));
	*cookie = rt6_get_cookie(dst_rt6_info(dst));
	return dst;
#else
	return NULL;
#endif
}

bool rvs_helper_is_unicast4(struct net *net, __be32 addr)
{
	return inet_addr_type(net, addr) == RTN_UNICAST;
}

bool rvs_helper_route_dev_down(struct dst_entry *dst)
{
	const struct net_device *dev;
	bool down;

	rcu_read_lock();
	dev = dst_dev_rcu(dst);
	down = dev && !netif_running(dev);
	rcu_read_unlock();
	return down;
}

void rvs_helper_dst_release(struct dst_entry *dst)
{
	dst_release(dst);
}

void rvs_helper_skb_dst_set(struct sk_buff *skb, struct dst_entry *dst, bool ref)
{
	skb_dst_drop(skb);
	if (ref)
		skb_dst_set(skb, dst_clone(dst));
	else
		skb_dst_set_noref(skb, dst);
}

void rvs_helper_link_failure(struct sk_buff *skb)
{
	if (!skb->dev)
		skb->dev = skb_dst(skb)->dev;
	dst_link_failure(skb);
}

void rvs_helper_local_out(struct sk_buff *skb, struct net *net, bool v6)
{
	skb->ignore_df = 1;
	skb_forward_csum(skb);
	if (skb->dev)
		skb_clear_tstamp(skb);
	NF_HOOK(v6 ? NFPROTO_IPV6 : NFPROTO_IPV4, NF_INET_LOCAL_OUT, net, NULL, skb, NULL, skb_dst(skb)->dev, dst_output);
}

int rvs_helper_reroute(struct sk_buff *skb, struct net *net, bool v6)
{
	if (v6) {
		const struct dst_entry *dst = skb_dst(skb);

		if (dst->dev && !(dst->dev->flags & IFF_LOOPBACK))
			return ip6_route_me_harder(net, skb->sk, skb);
		return 0;
	}
	if (!(skb_rtable(skb)->rt_flags & RTCF_LOCAL))
		return ip_route_me_harder(net, skb->sk, skb, RTN_LOCAL);
	return 0;
}

/* ---- IP ---- */

int rvs_helper_defrag4(struct sk_buff *skb, struct net *net, u32 hook)
{
	u32 user = hook == NF_INET_FORWARD	 ? IP_DEFRAG_VS_FWD
		   : hook == NF_INET_LOCAL_OUT ? IP_DEFRAG_VS_OUT
					       : IP_DEFRAG_VS_IN;
	int err;

	local_bh_disable();
	err = ip_defrag(net, skb, user);
	local_bh_enable();
	if (!err)
		ip_send_check(ip_hdr(skb));
	return err;
}

int rvs_helper_find_hdr6(const struct sk_buff *skb, u32 *offset, int target, u16 *fragoff, int *flags)
{
	unsigned int off = *offset;
	unsigned short frag = 0;
	int proto = ipv6_find_hdr(skb, &off, target, &frag, flags);

	*offset = off;
	*fragoff = frag;
	return proto;
}

void rvs_helper_icmp_send(struct sk_buff *skb, u8 type, u8 code, u32 info)
{
	icmp_send(skb, type, code, htonl(info));
}

void rvs_helper_icmpv6_send(struct sk_buff *skb, u8 type, u8 code, u32 info)
{
	icmpv6_send(skb, type, code, info);
}

/* Whether an IPv4 packet's route leads to this host. */
bool rvs_helper_route_is_local4(const struct sk_buff *skb)
{
	return skb_rtable(skb)->rt_flags & RTCF_LOCAL;
}

/* Takes `len` bytes off the front: what follows is an IPv4 header of `header` bytes, and whatever is inside. */
bool rvs_helper_skb_strip4(struct sk_buff *skb, u32 len, u32 header)
{
	if (!pskb_pull(skb, len))
		return false;
	skb_reset_network_header(skb);
	memset(&IPCB(skb)->opt, 0, sizeof(IPCB(skb)->opt));
	if (!pskb_may_pull(skb, header))
		return false;
	skb_set_transport_header(skb, header);
	return true;
}

void rvs_helper_skb_consume(struct sk_buff *skb)
{
	consume_skb(skb);
}

void rvs_helper_path_mtu4(struct sk_buff *skb, struct net *net, u32 mtu)
{
	ipv4_update_pmtu(skb, net, mtu, 0, 0);
}

u32 rvs_helper_dst_mtu(const struct dst_entry *dst)
{
	return dst_mtu(dst);
}

void rvs_helper_ttl_exceeded(struct sk_buff *skb, struct net *net, bool v6)
{
	if (v6) {
		struct inet6_dev *idev = __in6_dev_get_safely(skb->dev);

		/* The output device's address is the source. */
		skb->dev = skb_dst(skb)->dev;
		icmpv6_send(skb, ICMPV6_TIME_EXCEED, ICMPV6_EXC_HOPLIMIT, 0);
		IP6_INC_STATS(net, idev, IPSTATS_MIB_INHDRERRORS);
		return;
	}
	IP_INC_STATS(net, IPSTATS_MIB_INHDRERRORS);
	icmp_send(skb, ICMP_TIME_EXCEEDED, ICMP_EXC_TTL, 0);
}

/* ---- tunnels ---- */

/* Tells a local socket's route that a tunnel leaves less room: maybe_update_pmtu(). */
void rvs_helper_tunnel_pmtu(struct sk_buff *skb, u32 mtu)
{
	struct dst_entry *dst = skb_dst(skb);

	if (!skb->dev && skb->sk && sk_fullsock(skb->sk))
		dst->ops->update_pmtu(dst, skb->sk, NULL, mtu, true);
}

/* A private packet with room for `extra` bytes in front, besides those of its route's device. NULL: there is no memory. */
struct sk_buff *rvs_helper_tunnel_room(struct sk_buff *skb, u32 extra)
{
	u32 room = LL_RESERVED_SPACE(skb_dst(skb)->dev) + extra;
	struct sk_buff *new;

	if (skb_headroom(skb) >= room && !skb_cloned(skb))
		return skb;
	new = skb_realloc_headroom(skb, room);
	if (!new) {
		kfree_skb(skb);
		return NULL;
	}
	if (skb->sk)
		skb_set_owner_w(new, skb->sk);
	consume_skb(skb);
	return new;
}

/* The packet as it is becomes the inner one. */
bool rvs_helper_tunnel_begin(struct sk_buff *skb, u32 gso, u8 proto)
{
	int type = gso & RVS_TUN_V6 ? SKB_GSO_IPXIP6 : SKB_GSO_IPXIP4;

	if (gso & RVS_TUN_UDP)
		type |= SKB_GSO_UDP_TUNNEL;
	if (gso & RVS_TUN_UDP_CSUM)
		type |= SKB_GSO_UDP_TUNNEL_CSUM;
	if (gso & RVS_TUN_REMCSUM)
		type |= SKB_GSO_TUNNEL_REMCSUM;
	if (gso & RVS_TUN_GRE)
		type |= SKB_GSO_GRE;
	if (gso & RVS_TUN_GRE_CSUM)
		type |= SKB_GSO_GRE_CSUM;
	if (iptunnel_handle_offloads(skb, type))
		return false;
	skb->transport_header = skb->network_header;
	skb_set_inner_ipproto(skb, proto);
	skb_set_inner_mac_header(skb, skb_inner_network_offset(skb));
	return true;
}

/* Room for a header in front; NULL if there is none. */
u8 *rvs_helper_tunnel_push(struct sk_buff *skb, u32 len)
{
	if (skb_headroom(skb) < len)
		return NULL;
	return skb_push(skb, len);
}

void rvs_helper_tunnel_transport(struct sk_buff *skb)
{
	skb_reset_transport_header(skb);
}

__be16 rvs_helper_tunnel_port(struct net *net, struct sk_buff *skb)
{
	return udp_flow_src_port(net, skb, 0, 0, false);
}

/* Where the device would have summed up from, and where the sum goes. */
void rvs_helper_tunnel_csum_place(const struct sk_buff *skb, u16 *start, u16 *offset)
{
	*start = skb_checksum_start_offset(skb);
	*offset = skb->csum_offset;
}

/* The receiver sums up for us. */
void rvs_helper_tunnel_remcsum(struct sk_buff *skb)
{
	if (skb_is_gso(skb))
		return;
	skb->ip_summed = CHECKSUM_NONE;
	skb->encapsulation = 0;
}

void rvs_helper_tunnel_udp_csum(struct sk_buff *skb, bool v6, bool none, const u32 *saddr, const u32 *daddr)
{
	if (!v6)
		udp_set_csum(none, skb, (__force __be32)*saddr, (__force __be32)*daddr, skb->len);
#if IS_ENABLED(CONFIG_IPV6)
	else
		udp6_set_csum(none, skb, (const struct in6_addr *)saddr, (const struct in6_addr *)daddr, skb->len);
#endif
}

bool rvs_helper_tunnel_gre(struct sk_buff *skb, bool inner_v6, bool csum)
{
	IP_TUNNEL_DECLARE_FLAGS(flags) = { };

	if (csum)
		__set_bit(IP_TUNNEL_CSUM_BIT, flags);
	if (skb_headroom(skb) < gre_calc_hlen(flags))
		return false;
	gre_build_header(skb, gre_calc_hlen(flags), flags, inner_v6 ? htons(ETH_P_IPV6) : htons(ETH_P_IP), 0, 0);
	return true;
}

/* The outer header is the last that was pushed. Sends the packet and forgets it. */
void rvs_helper_tunnel_out(struct sk_buff *skb, struct net *net, bool v6)
{
	skb_reset_network_header(skb);
	memset(&IPCB(skb)->opt, 0, sizeof(IPCB(skb)->opt));
	if (!v6)
		ip_select_ident(net, skb, NULL);
	skb->ignore_df = 1;
	skb->ipvs_property = 1;
	nf_reset_ct(skb);
	skb_forward_csum(skb);
	if (skb->dev)
		skb_clear_tstamp(skb);
	if (!v6)
		ip_local_out(net, skb->sk, skb);
#if IS_ENABLED(CONFIG_IPV6)
	else
		ip6_local_out(net, skb->sk, skb);
#endif
}
