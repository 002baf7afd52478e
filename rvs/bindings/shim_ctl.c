// SPDX-License-Identifier: GPL-2.0-only
/* Helpers of the control plane; see shim.h. */

#include <linux/cpumask.h>
#include <linux/export.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/nsproxy.h>
#include <linux/net.h>
#include <linux/proc_fs.h>
#include <linux/sched.h>
#include <linux/sched/isolation.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
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

bool rvs_helper_genl_has_listeners(const struct genl_family *family, struct net *net, u32 group)
{
	return genl_has_listeners(family, net, group) > 0;
}

struct sk_buff *rvs_helper_genl_event_new(void)
{
	return genlmsg_new(GENLMSG_DEFAULT_SIZE, GFP_ATOMIC | __GFP_NOWARN);
}

void *rvs_helper_genl_event_put(struct sk_buff *skb, const struct genl_family *family, int cmd)
{
	return genlmsg_put(skb, 0, 0, family, 0, cmd);
}

int rvs_helper_genl_multicast(const struct genl_family *family, struct net *net, struct sk_buff *skb, u32 group)
{
	return genlmsg_multicast_netns(family, net, skb, 0, group, GFP_ATOMIC);
}

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

int rvs_helper_nla_parse_strict(struct nlattr **tb, int max, const struct nlattr *nla, const struct nla_policy *policy,
				struct netlink_ext_ack *extack)
{
	return nla_parse_nested(tb, max, nla, policy, extack);
}

u8 *rvs_helper_skb_tailroom(struct sk_buff *skb, u32 *room)
{
	*room = max(skb_tailroom(skb), 0);
	return skb_tail_pointer(skb);
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

struct net *rvs_helper_current_net(void)
{
	return current->nsproxy->net_ns;
}

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

/* The CPUs of `text` that the current task may run on. */
int rvs_helper_cpulist_parse(const char *text, struct cpumask **out)
{
	struct cpumask *cpus = kzalloc(cpumask_size(), GFP_KERNEL);
	int err;

	if (!cpus)
		return -ENOMEM;
	err = cpulist_parse(text, cpus);
	if (err) {
		kfree(cpus);
		return err;
	}
	cpumask_and(cpus, cpus, &current->cpus_mask);
	*out = cpus;
	return 0;
}

void rvs_helper_cpulist_free(struct cpumask *cpus)
{
	kfree(cpus);
}

/* No list: the CPUs that kernel threads use. */
size_t rvs_helper_cpulist_show(const struct cpumask *cpus, char *buf, size_t len)
{
	guard(rcu)();
	if (!cpus)
		cpus = housekeeping_cpumask(HK_TYPE_KTHREAD);
	return scnprintf(buf, len, "%*pbl\n", cpumask_pr_args(cpus));
}

bool rvs_helper_cpulist_empty(const struct cpumask *cpus)
{
	return cpumask_empty(cpus);
}

struct rvs_run {
	void (*func)(void *arg);
	void *arg;
	int nice;
};

static long rvs_run_nicely(void *data)
{
	struct rvs_run *run = data;
	int before = task_nice(current);

	if (run->nice != before)
		set_user_nice(current, run->nice);
	run->func(run->arg);
	if (run->nice != before)
		set_user_nice(current, before);
	return 0;
}

/* Runs `func` in a kernel worker on one of `cpus` that is online, or here without a list, with that nice value. */
void rvs_helper_run_on(const struct cpumask *cpus, int nice, void (*func)(void *arg), void *arg)
{
	struct rvs_run run = { func, arg, nice };
	unsigned int cpu = cpus ? cpumask_first_and(cpus, cpu_online_mask) : nr_cpu_ids;

	if (cpu < nr_cpu_ids)
		work_on_cpu(cpu, rvs_run_nicely, &run);
	else
		rvs_run_nicely(&run);
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
