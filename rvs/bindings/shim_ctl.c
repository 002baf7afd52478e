// SPDX-License-Identifier: GPL-2.0-only
/* Helpers of the control plane; see shim.h. */

#include <linux/cpumask.h>
#include <linux/export.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/net.h>
#include <linux/proc_fs.h>
#include <linux/seq_file.h>
#include <linux/sockptr.h>
#include <linux/workqueue.h>
#include <net/addrconf.h>
#include <net/genetlink.h>
#include <net/ip.h>
#include <net/ip6_route.h>
#include <net/ipv6.h>
#include <net/net_namespace.h>
#include <net/netfilter/ipv6/nf_defrag_ipv6.h>
#include <net/netns/generic.h>
#include <net/route.h>

#include "shim.h"

/* Generic netlink */

struct net *rvs_helper_genl_info_net(const struct genl_info *info)
{
	return genl_info_net(info);
}

const struct genl_info *rvs_helper_genl_info_dump(const struct netlink_callback *cb)
{
	return genl_info_dump((struct netlink_callback *)cb);
}

void *rvs_helper_genl_dump_put(struct sk_buff *skb, const struct netlink_callback *cb, int cmd)
{
	return genlmsg_put(skb, NETLINK_CB(cb->skb).portid, cb->nlh->nlmsg_seq, rvs_helper_genl_info_dump(cb)->family,
			   NLM_F_MULTI, cmd);
}

void *rvs_helper_genl_reply_put(struct sk_buff *skb, const struct genl_info *info, int cmd)
{
	return genlmsg_put(skb, info->snd_portid, info->snd_seq, info->family, 0, cmd);
}

struct sk_buff *rvs_helper_genlmsg_new(void)
{
	return genlmsg_new(GENLMSG_DEFAULT_SIZE, GFP_KERNEL);
}

int rvs_helper_genlmsg_parse(const struct nlmsghdr *nlh, struct nlattr **tb, int max, const struct nla_policy *policy,
			     struct netlink_ext_ack *extack)
{
	return nlmsg_parse_deprecated(nlh, GENL_HDRLEN, tb, max, policy, extack);
}

int rvs_helper_genlmsg_reply(struct sk_buff *skb, const struct genl_info *info)
{
	return genlmsg_reply(skb, (struct genl_info *)info);
}

int rvs_helper_nla_parse_nested(struct nlattr **tb, int max, const struct nlattr *nla, const struct nla_policy *policy,
				struct netlink_ext_ack *extack)
{
	return nla_parse_nested_deprecated(tb, max, nla, policy, extack);
}

struct nlattr *rvs_helper_nla_nest_start(struct sk_buff *skb, int type)
{
	return nla_nest_start_noflag(skb, type);
}

void rvs_helper_nla_nest_end(struct sk_buff *skb, struct nlattr *start)
{
	nla_nest_end(skb, start);
}

void rvs_helper_nla_nest_cancel(struct sk_buff *skb, struct nlattr *start)
{
	nla_nest_cancel(skb, start);
}

u8 *rvs_helper_nla_reserve(struct sk_buff *skb, int type, int len)
{
	struct nlattr *nla = nla_reserve(skb, type, len);

	return nla ? nla_data(nla) : NULL;
}

int rvs_helper_nla_put_u64(struct sk_buff *skb, int type, u64 value, int pad)
{
	return nla_put_u64_64bit(skb, type, value, pad);
}

/* Socket options */

struct net *rvs_helper_sock_net(const struct sock *sk)
{
	return sock_net(sk);
}

bool rvs_helper_copy_from_sockptr(void *to, const sockptr_t *from, size_t len)
{
	return copy_from_sockptr(to, *from, len) != 0;
}

/* Network namespaces */

void *rvs_helper_net_generic(struct net *net, unsigned int id)
{
	return net_generic(net, id);
}

bool rvs_helper_net_is_init(const struct net *net)
{
	return net_eq(net, &init_net);
}

bool rvs_helper_net_is_unprivileged(const struct net *net)
{
	return net->user_ns != &init_user_ns;
}

bool rvs_helper_net_admin(const struct net *net)
{
	return ns_capable(net->user_ns, CAP_NET_ADMIN);
}

bool rvs_helper_port_is_privileged(struct net *net, u16 port)
{
	return inet_port_requires_bind_service(net, port);
}

bool rvs_helper_v4_is_local_or_unicast(struct net *net, __be32 addr)
{
	unsigned int type = inet_addr_type(net, addr);

	return type == RTN_LOCAL || type == RTN_UNICAST;
}

#if IS_ENABLED(CONFIG_IPV6)
bool rvs_helper_v6_is_local(struct net *net, const u8 *addr)
{
	struct flowi6 key = {};
	struct dst_entry *dst;
	bool local;

	memcpy(&key.daddr, addr, sizeof(key.daddr));
	dst = ip6_route_output(net, NULL, &key);
	local = !dst->error && dst->dev && (dst->dev->flags & IFF_LOOPBACK);
	dst_release(dst);
	return local;
}

bool rvs_helper_v6_enabled(void)
{
	return ipv6_mod_enabled();
}

int rvs_helper_v6_defrag_enable(struct net *net)
{
#if IS_REACHABLE(CONFIG_NF_DEFRAG_IPV6)
	return nf_defrag_ipv6_enable(net);
#else
	return -EAFNOSUPPORT;
#endif
}
#else
bool rvs_helper_v6_is_local(struct net *net, const u8 *addr)
{
	return false;
}

bool rvs_helper_v6_enabled(void)
{
	return false;
}

int rvs_helper_v6_defrag_enable(struct net *net)
{
	return -EAFNOSUPPORT;
}
#endif

/* Work, proc, the rest */

void rvs_helper_job_init(struct delayed_work *job, void (*func)(struct work_struct *work))
{
	INIT_DELAYED_WORK(job, func);
}

void rvs_helper_job_start(struct delayed_work *job, unsigned long delay)
{
	queue_delayed_work(system_dfl_wq, job, delay);
}

void *rvs_helper_seq_data(struct seq_file *seq)
{
	return pde_data(file_inode(seq->file));
}

bool rvs_helper_cpu_possible(u32 cpu)
{
	return cpu_possible(cpu);
}

bool rvs_helper_net_ratelimit(void)
{
	return net_ratelimit();
}

struct net *rvs_helper_notifier_net(const void *info)
{
	return dev_net(netdev_notifier_info_to_dev(info));
}

u64 rvs_helper_available_pages(void)
{
	struct sysinfo info;

	si_meminfo(&info);
	return (u64)info.freeram + info.bufferram;
}

u64 rvs_helper_total_memory(void)
{
	return (u64)totalram_pages() << PAGE_SHIFT;
}

bool rvs_helper_module_is_coming(const void *module, unsigned long state, const char *name)
{
	const struct module *mod = module;

	return state == MODULE_STATE_COMING && !strcmp(mod->name, name);
}
