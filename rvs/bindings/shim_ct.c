// SPDX-License-Identifier: GPL-2.0-only
/*
 * Connection tracking, where the kernel's own IPVS would have it (CONFIG_IP_VS_NFCT); see shim.h. As there, a module for such a
 * kernel needs nf_conntrack, and one for another kernel does not.
 */
#include <linux/netfilter.h>
#include <linux/skbuff.h>
#if IS_ENABLED(CONFIG_NF_CONNTRACK)
#include <net/netfilter/nf_conntrack.h>
#include <net/netfilter/nf_conntrack_core.h>
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

/*
 * Replies to the new flow that this packet began will come from, or go to, another address than its own say. An entry that
 * others can see stays as it is.
 */
void rvs_helper_ct_alter_reply(struct sk_buff *skb, bool source, const u32 *addr, __be16 port)
{
#ifdef CONFIG_IP_VS_NFCT
	enum ip_conntrack_info ctinfo;
	struct nf_conn *ct = nf_ct_get(skb, &ctinfo);
	struct nf_conntrack_tuple reply;
	bool ports;

	if (!ct || nf_ct_is_confirmed(ct) || nf_ct_is_dying(ct) || CTINFO2DIR(ctinfo) != IP_CT_DIR_ORIGINAL)
		return;
	reply = ct->tuplehash[IP_CT_DIR_REPLY].tuple;
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
