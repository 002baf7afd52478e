// SPDX-License-Identifier: GPL-2.0-only
/* Helpers for packets whose both ends are rewritten; see shim.h. */
#include <linux/netfilter.h>
#include <linux/skbuff.h>
#include <linux/tcp.h>
#include <linux/timekeeping.h>
#include <net/inet6_hashtables.h>
#include <net/inet_hashtables.h>
#include <net/ip.h>
#include <net/ip6_checksum.h>
#include <net/ip6_fib.h>
#include <net/ip6_route.h>
#include <net/ipv6.h>
#include <net/netfilter/nf_conntrack.h>
#include <net/route.h>
#include <net/tcp.h>
#include <net/udp.h>

#include "shim.h"

u64 rvs_helper_now_ns(void)
{
	return ktime_get_ns();
}

u32 rvs_helper_ifindex(struct net *net, const char *name)
{
	const struct net_device *dev;
	u32 index = 0;

	rcu_read_lock();
	dev = dev_get_by_name_rcu(net, name);
	if (dev)
		index = dev->ifindex;
	rcu_read_unlock();
	return index;
}

u32 rvs_helper_dst_ifindex(const struct dst_entry *dst)
{
	return dst->dev ? dst->dev->ifindex : 0;
}

/* Nobody shall track the packet, whether somebody does by now or not. */
void rvs_helper_skb_notrack(struct sk_buff *skb)
{
#if IS_ENABLED(CONFIG_NF_CONNTRACK)
	nf_reset_ct(skb);
	nf_ct_set(skb, NULL, IP_CT_UNTRACKED);
#endif
}

/* ---- routes of packets that go out under a source address which need not be ours ---- */

struct dst_entry *rvs_helper_route_from4(struct net *net, __be32 saddr, __be32 daddr, u32 mark)
{
	struct flowi4 fl4 = {
		.saddr = saddr, .daddr = daddr, .flowi4_mark = mark, .flowi4_flags = FLOWI_FLAG_ANYSRC
	};
	struct rtable *rt = ip_route_output_key(net, &fl4);

	return IS_ERR(rt) ? NULL : &rt->dst;
}

struct dst_entry *rvs_helper_route_from6(struct net *net, const u32 *saddr, const u32 *daddr, u32 mark)
{
#if IS_ENABLED(CONFIG_IPV6)
	struct flowi6 fl6 = { .flowi6_mark = mark, .flowi6_flags = FLOWI_FLAG_ANYSRC };
	struct dst_entry *dst;

	memcpy(&fl6.saddr, saddr, sizeof(fl6.saddr));
	memcpy(&fl6.daddr, daddr, sizeof(fl6.daddr));
	dst = ip6_route_output(net, NULL, &fl6);
	if (dst->error) {
		dst_release(dst);
		return NULL;
	}
	return dst;
#else
	return NULL;
#endif
}

/* ---- sockets ---- */

/* Whether the host reserves a local port. */
bool rvs_helper_port_reserved(const struct net *net, u16 port)
{
	return inet_is_local_reserved_port((struct net *)net, port);
}

/* Whether a socket of this host would get what raddr:rport sends to laddr:lport. RCU held. */
bool rvs_helper_port_used4(struct net *net, u8 proto, __be32 raddr, __be16 rport, __be32 laddr, u16 lport)
{
	struct sock *sk;

	if (proto == IPPROTO_UDP)
		return __udp4_lib_lookup(net, raddr, rport, laddr, htons(lport), 0, 0, NULL);
	if (proto != IPPROTO_TCP)
		return false;
	sk = __inet_lookup_established(net, raddr, rport, laddr, lport, 0, 0);
	if (sk) {
		sock_gen_put(sk);
		return true;
	}
	return __inet_lookup_listener(net, NULL, 0, raddr, rport, laddr, lport, 0, 0);
}

bool rvs_helper_port_used6(struct net *net, u8 proto, const u32 *raddr, __be16 rport, const u32 *laddr, u16 lport)
{
#if IS_ENABLED(CONFIG_IPV6)
	const struct in6_addr *remote = (const struct in6_addr *)raddr, *local = (const struct in6_addr *)laddr;
	struct sock *sk;

	if (proto == IPPROTO_UDP)
		return __udp6_lib_lookup(net, remote, rport, local, htons(lport), 0, 0, NULL);
	if (proto != IPPROTO_TCP)
		return false;
	sk = __inet6_lookup_established(net, remote, rport, local, lport, 0, 0);
	if (sk) {
		sock_gen_put(sk);
		return true;
	}
	return inet6_lookup_listener(net, NULL, 0, remote, rport, local, lport, 0, 0);
#else
	return false;
#endif
}

/* ---- packets of our own ---- */

/* Sends an empty TCP segment with RST and ACK. Any context but hard interrupts. */
void rvs_helper_tcp_reset(struct net *net, bool v6, const u32 *saddr, const u32 *daddr, __be16 sport, __be16 dport, u32 seq,
			  u32 ack)
{
	u32 header = v6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr);
	struct dst_entry *dst;
	struct sk_buff *skb;
	struct tcphdr *th;

	dst = v6 ? rvs_helper_route_from6(net, saddr, daddr, 0)
		 : rvs_helper_route_from4(net, (__force __be32)*saddr, (__force __be32)*daddr, 0);
	if (!dst)
		return;
	skb = alloc_skb(LL_MAX_HEADER + header + sizeof(*th), GFP_ATOMIC | __GFP_NOWARN);
	if (!skb) {
		dst_release(dst);
		return;
	}
	skb_reserve(skb, LL_MAX_HEADER + header);
	skb_dst_set(skb, dst);
	th = skb_put_zero(skb, sizeof(*th));
	skb_reset_transport_header(skb);
	th->source = sport;
	th->dest = dport;
	th->seq = htonl(seq);
	th->ack_seq = htonl(ack);
	th->doff = sizeof(*th) / 4;
	th->rst = 1;
	th->ack = 1;
	skb_push(skb, header);
	skb_reset_network_header(skb);
	if (!v6) {
		struct iphdr *iph = ip_hdr(skb);

		memset(iph, 0, sizeof(*iph));
		iph->version = 4;
		iph->ihl = sizeof(*iph) / 4;
		iph->ttl = ip4_dst_hoplimit(dst);
		iph->protocol = IPPROTO_TCP;
		iph->frag_off = htons(IP_DF);
		iph->saddr = (__force __be32)*saddr;
		iph->daddr = (__force __be32)*daddr;
		skb->protocol = htons(ETH_P_IP);
		th->check = csum_tcpudp_magic(iph->saddr, iph->daddr, sizeof(*th), IPPROTO_TCP,
					      csum_partial(th, sizeof(*th), 0));
#if IS_ENABLED(CONFIG_IPV6)
	} else {
		struct ipv6hdr *iph = ipv6_hdr(skb);

		ip6_flow_hdr(iph, 0, 0);
		iph->payload_len = htons(sizeof(*th));
		iph->nexthdr = IPPROTO_TCP;
		iph->hop_limit = ip6_dst_hoplimit(dst);
		memcpy(&iph->saddr, saddr, sizeof(iph->saddr));
		memcpy(&iph->daddr, daddr, sizeof(iph->daddr));
		skb->protocol = htons(ETH_P_IPV6);
		th->check = csum_ipv6_magic(&iph->saddr, &iph->daddr, sizeof(*th), IPPROTO_TCP,
					    csum_partial(th, sizeof(*th), 0));
#endif
	}
	skb->ip_summed = CHECKSUM_NONE;
	skb->ipvs_property = 1;
	rvs_helper_skb_notrack(skb);
	local_bh_disable();
	if (!v6)
		ip_local_out(net, NULL, skb);
#if IS_ENABLED(CONFIG_IPV6)
	else
		ip6_local_out(net, NULL, skb);
#endif
	local_bh_enable();
}

/* A packet with the same `head` first bytes, that nobody has seen yet, and `data` behind them. NULL: there is no memory. */
struct sk_buff *rvs_helper_skb_like(const struct sk_buff *skb, u32 head, const u8 *data, u32 len)
{
	struct sk_buff *new = alloc_skb(LL_MAX_HEADER + head + len, GFP_ATOMIC | __GFP_NOWARN);

	if (!new)
		return NULL;
	skb_reserve(new, LL_MAX_HEADER);
	if (skb_copy_bits(skb, 0, skb_put(new, head), head)) {
		kfree_skb(new);
		return NULL;
	}
	skb_put_data(new, data, len);
	skb_reset_network_header(new);
	new->protocol = skb->protocol;
	new->mark = skb->mark;
	new->priority = skb->priority;
	new->ip_summed = CHECKSUM_NONE;
	new->ipvs_property = 1;
	rvs_helper_skb_notrack(new);
	return new;
}

/* Opens a gap of `n` bytes `at` bytes into the packet, headers before it moving up. False: nothing has changed. */
bool rvs_helper_skb_gap(struct sk_buff *skb, u32 at, u32 n)
{
	if (skb->len + n > IP_MAX_MTU || !pskb_may_pull(skb, at) || skb_cow_head(skb, LL_MAX_HEADER + n))
		return false;
	skb_push(skb, n);
	memmove(skb->data, skb->data + n, at);
	skb_reset_network_header(skb);
	skb_reset_mac_header(skb);
	skb->mac_len = 0;
	if (skb_transport_header_was_set(skb))
		skb->transport_header -= n;
	if (skb->ip_summed == CHECKSUM_PARTIAL)
		skb->csum_start -= n;
	else if (skb->ip_summed == CHECKSUM_COMPLETE)
		skb->ip_summed = CHECKSUM_NONE;
	return true;
}

/*
 * Whether the packet, or each of its segments, may grow by `n` bytes on a way with this MTU. Segments get less payload for
 * it, where that can be.
 */
bool rvs_helper_skb_may_grow(struct sk_buff *skb, u32 mtu, u32 n)
{
	struct skb_shared_info *shinfo = skb_shinfo(skb);

	if (!skb_is_gso(skb))
		return skb->len + n <= mtu;
	if (!(shinfo->gso_type & (SKB_GSO_TCPV4 | SKB_GSO_TCPV6)) || shinfo->gso_type & SKB_GSO_FRAGLIST)
		return false;
	if (mtu > n && skb_gso_validate_network_len(skb, mtu - n))
		return true;
	if (shinfo->gso_size == GSO_BY_FRAGS || shinfo->gso_size <= n + 88 || skb_unclone(skb, GFP_ATOMIC))
		return false;
	shinfo = skb_shinfo(skb);
	skb_decrease_gso_size(shinfo, n);
	shinfo->gso_type |= SKB_GSO_DODGY;
	shinfo->gso_segs = 0;
	return mtu > n && skb_gso_validate_network_len(skb, mtu - n);
}
