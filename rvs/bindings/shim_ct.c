// SPDX-License-Identifier: GPL-2.0-only
/*
 * Connection tracking, where the kernel's own IPVS would have it (CONFIG_IP_VS_NFCT); see shim.h. As there, a module for such a
 * kernel needs nf_conntrack, and one for another kernel does not.
 */
#include <linux/export.h>
#include <linux/netfilter.h>
#include <linux/skbuff.h>
#if IS_ENABLED(CONFIG_NF_CONNTRACK)
#include <net/netfilter/nf_conntrack.h>
#include <net/netfilter/nf_conntrack_core.h>
#include <net/netfilter/nf_conntrack_expect.h>
#include <net/netfilter/nf_conntrack_seqadj.h>
#include <net/netfilter/nf_conntrack_zones.h>
#endif

#include "shim.h"

void rvs_helper_skb_untrack(struct sk_buff *skb)
{
#if IS_ENABLED(CONFIG_NF_CONNTRACK)
	enum ip_conntrack_info ctinfo;
	struct nf_conn *ct = nf_ct_get(skb, &ctinfo);

	if (ct) {
		/* Before it gets another one: that is checked. */
		nf_reset_ct(skb);
		nf_ct_set(skb, NULL, IP_CT_UNTRACKED);
	}
#endif
}

/* Whether the packet belongs to an entry that others can see. */
bool rvs_helper_ct_confirmed(const struct sk_buff *skb)
{
#ifdef CONFIG_IP_VS_NFCT
	enum ip_conntrack_info ctinfo;
	const struct nf_conn *ct = nf_ct_get(skb, &ctinfo);

	return ct && nf_ct_is_confirmed(ct);
#else
	return false;
#endif
}

/* Whether the packet belongs to an entry at all. */
bool rvs_helper_ct_there(const struct sk_buff *skb)
{
#if IS_ENABLED(CONFIG_NF_CONNTRACK)
	enum ip_conntrack_info ctinfo;

	return nf_ct_get(skb, &ctinfo) != NULL;
#else
	return false;
#endif
}

#ifdef CONFIG_IP_VS_NFCT
static void rvs_ct_alter_reply(struct nf_conn *ct, bool source, const u32 *addr, __be16 port)
{
	struct nf_conntrack_tuple reply = ct->tuplehash[IP_CT_DIR_REPLY].tuple;
	bool ports;

	ports = reply.dst.protonum != IPPROTO_ICMP && reply.dst.protonum != IPPROTO_ICMPV6;
	if (source) {
		memcpy(&reply.src.u3, addr, sizeof(reply.src.u3));
		if (ports)
			reply.src.u.all = port;
	} else {
		memcpy(&reply.dst.u3, addr, sizeof(reply.dst.u3));
		if (ports)
			reply.dst.u.all = port;
	}
	nf_conntrack_alter_reply(ct, &reply);
}
#endif

/*
 * Replies to the new flow that this packet began will come from, or go to, another address than its own say. An entry that
 * others can see stays as it is. With `shifts`, payload of this TCP connection may change its length.
 */
void rvs_helper_ct_alter_reply(struct sk_buff *skb, bool source, const u32 *addr, __be16 port, bool shifts)
{
#ifdef CONFIG_IP_VS_NFCT
	enum ip_conntrack_info ctinfo;
	struct nf_conn *ct = nf_ct_get(skb, &ctinfo);

	if (!ct || nf_ct_is_confirmed(ct) || nf_ct_is_dying(ct) || CTINFO2DIR(ctinfo) != IP_CT_DIR_ORIGINAL)
		return;
	if (shifts && nf_ct_protonum(ct) == IPPROTO_TCP && !nfct_seqadj(ct) && !nfct_seqadj_ext_add(ct))
		return;
	rvs_ct_alter_reply(ct, source, addr, port);
#endif
}

/* NF_ACCEPT, or else what becomes of the packet. */
int rvs_helper_ct_confirm(struct sk_buff *skb)
{
#ifdef CONFIG_IP_VS_NFCT
	return nf_conntrack_confirm(skb);
#else
	return NF_ACCEPT;
#endif
}

/* Ends the entry of a flow in the default zone, if there is one. */
void rvs_helper_ct_kill(struct net *net, bool v6, u8 proto, const u32 *caddr, __be16 cport, const u32 *vaddr,
			__be16 vport)
{
#ifdef CONFIG_IP_VS_NFCT
	struct nf_conntrack_tuple tuple = { };
	struct nf_conntrack_tuple_hash *found;
	struct nf_conn *ct;

	tuple.src.l3num = v6 ? AF_INET6 : AF_INET;
	memcpy(&tuple.src.u3, caddr, sizeof(tuple.src.u3));
	tuple.src.u.all = cport;
	memcpy(&tuple.dst.u3, vaddr, sizeof(tuple.dst.u3));
	tuple.dst.u.all = vport;
	tuple.dst.protonum = proto;
	tuple.dst.dir = IP_CT_DIR_ORIGINAL;
	found = nf_conntrack_find_get(net, &nf_ct_zone_dflt, &tuple);
	if (!found)
		return;
	ct = nf_ct_tuplehash_to_ctrack(found);
	nf_ct_kill(ct);
	nf_ct_put(ct);
#endif
}

/* ---- data connections ---- */

/* Netfilter sees the packets of a family in a namespace, also without rules, until as many calls of the other. May sleep. */
bool rvs_helper_ct_track(struct net *net, bool v6)
{
#ifdef CONFIG_IP_VS_NFCT
	return nf_ct_netns_get(net, v6 ? NFPROTO_IPV6 : NFPROTO_IPV4) >= 0;
#else
	return false;
#endif
}

void rvs_helper_ct_untrack(struct net *net, bool v6)
{
#ifdef CONFIG_IP_VS_NFCT
	nf_ct_netns_put(net, v6 ? NFPROTO_IPV6 : NFPROTO_IPV4);
#endif
}

/*
 * The payload of the packet with the number `seq` has become longer by `by`: netfilter puts the numbers of those that follow, and
 * of those that answer, right.
 */
void rvs_helper_ct_shifted(struct sk_buff *skb, __be32 seq, s32 by)
{
#ifdef CONFIG_IP_VS_NFCT
	enum ip_conntrack_info ctinfo;
	struct nf_conn *ct = nf_ct_get(skb, &ctinfo);

	if (ct)
		nf_ct_seqadj_set(ct, ctinfo, seq, by);
#endif
}

#ifdef CONFIG_IP_VS_NFCT
/* Who knows what an expected flow is a part of; packets read both under RCU, rvs_helper_ct_expect_end() waits for them. */
static rvs_expected_fn rvs_expected;
static void *rvs_expected_data;

/* The first packet of an expected flow: its entry is nobody else's yet. Under RCU, as all hooks. */
static void rvs_ct_expected(struct nf_conn *ct, struct nf_conntrack_expect *exp)
{
	const struct nf_conntrack_tuple *orig = &ct->tuplehash[IP_CT_DIR_ORIGINAL].tuple;
	rvs_expected_fn expected = READ_ONCE(rvs_expected);
	struct rvs_ct_flow flow = { };

	if (!expected)
		return;
	flow.v6 = exp->tuple.src.l3num == AF_INET6;
	flow.proto = orig->dst.protonum;
	memcpy(flow.saddr, &orig->src.u3, sizeof(flow.saddr));
	memcpy(flow.daddr, &orig->dst.u3, sizeof(flow.daddr));
	flow.sport = orig->src.u.all;
	flow.dport = orig->dst.u.all;
	switch (expected(READ_ONCE(rvs_expected_data), nf_ct_net(ct), &flow)) {
	case RVS_CT_REQUEST:
		rvs_ct_alter_reply(ct, true, flow.saddr, flow.sport);
		break;
	case RVS_CT_REPLY:
		rvs_ct_alter_reply(ct, false, flow.saddr, flow.sport);
		break;
	}
}

static bool rvs_ct_is_ours(struct nf_conntrack_expect *exp, void *data)
{
	return exp->expectfn == rvs_ct_expected;
}
#endif

/*
 * A flow from `saddr` (any port) to `daddr` and `dport` is going to belong to the flow of this packet. Netfilter takes it where a
 * helper of its own looks at that, too.
 */
void rvs_helper_ct_expect(struct sk_buff *skb, u8 proto, const u32 *saddr, const u32 *daddr, __be16 dport)
{
#ifdef CONFIG_IP_VS_NFCT
	enum ip_conntrack_info ctinfo;
	struct nf_conn *ct = nf_ct_get(skb, &ctinfo);
	struct nf_conntrack_expect *exp;

	if (!ct)
		return;
	exp = nf_ct_expect_alloc(ct);
	if (!exp)
		return;
	nf_ct_expect_init(exp, NF_CT_EXPECT_CLASS_DEFAULT, nf_ct_l3num(ct), (const union nf_inet_addr *)saddr,
			  (const union nf_inet_addr *)daddr, proto, NULL, &dport);
	exp->expectfn = rvs_ct_expected;
	nf_ct_expect_related(exp, 0);
	nf_ct_expect_put(exp);
#endif
}

/* From here on `expected` is asked, with `data`. */
void rvs_helper_ct_expect_begin(rvs_expected_fn expected, void *data)
{
#ifdef CONFIG_IP_VS_NFCT
	WRITE_ONCE(rvs_expected_data, data);
	/* Nobody reads the data before. */
	smp_store_release(&rvs_expected, expected);
#endif
}

/* Nobody asks any more, and nothing is expected. No packet may make new expectations meanwhile. Sleeps. */
void rvs_helper_ct_expect_end(void)
{
#ifdef CONFIG_IP_VS_NFCT
	nf_ct_expect_iterate_destroy(rvs_ct_is_ours, NULL);
	WRITE_ONCE(rvs_expected, NULL);
	synchronize_rcu();
#endif
}

/* ---- the module rvs_ftp ---- */

/* Written in Rust (rvs/kernel/app.rs). */
EXPORT_SYMBOL_GPL(rvs_app_register);
EXPORT_SYMBOL_GPL(rvs_app_unregister);
