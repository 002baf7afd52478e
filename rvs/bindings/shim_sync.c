// SPDX-License-Identifier: GPL-2.0-only
/* Helpers of the synchronisation daemons: threads and their sockets; see shim.h. */
#include <linux/igmp.h>
#include <linux/inetdevice.h>
#include <linux/kthread.h>
#include <linux/mm.h>
#include <linux/net.h>
#include <linux/netdevice.h>
#include <linux/rtnetlink.h>
#include <linux/sched.h>
#include <linux/swap.h>
#include <linux/udp.h>
#include <linux/wait.h>
#include <net/addrconf.h>
#include <net/inet_sock.h>
#include <net/ip.h>
#include <net/ipv6.h>
#include <net/sock.h>

#include "shim.h"

/* Threads */

/* The task stays, also when its function has returned, until rvs_helper_thread_stop(). */
struct task_struct *rvs_helper_thread_start(int (*func)(void *data), void *data, const char *name)
{
	struct task_struct *task = kthread_create(func, data, "%s", name);

	if (!IS_ERR(task)) {
		get_task_struct(task);
		wake_up_process(task);
	}
	return task;
}

void rvs_helper_thread_stop(struct task_struct *task)
{
	kthread_stop(task);
	put_task_struct(task);
}

void rvs_helper_bell_init(struct wait_queue_head *bell, const char *name, struct lock_class_key *key)
{
	__init_waitqueue_head(bell, name, key);
}

void rvs_helper_bell_ring(struct wait_queue_head *bell, u32 *rung)
{
	WRITE_ONCE(*rung, 1);
	wake_up(bell);
}

/* In a thread of ours: until the bell was rung since the last time, or the thread shall stop, or so many jiffies are over. */
void rvs_helper_bell_wait(struct wait_queue_head *bell, u32 *rung, unsigned long timeout)
{
	/* Interruptible keeps it out of the load average; nobody sends signals to kernel threads. */
	wait_event_interruptible_timeout(*bell, xchg(rung, 0) || kthread_should_stop(), timeout);
}

/* Sockets. Addresses are as IPv6 ones, IPv4 in the first word, in network order; ports in host order. */

void rvs_helper_rtnl_lock(void)
{
	rtnl_lock();
}

void rvs_helper_rtnl_unlock(void)
{
	rtnl_unlock();
}

/* With RTNL. Returns the interface's number, 0 if there is none of that name. */
u32 rvs_helper_device(struct net *net, const char *name, u32 *mtu, __be32 *addr)
{
	struct net_device *dev = __dev_get_by_name(net, name);

	if (!dev)
		return 0;
	*mtu = dev->mtu;
	*addr = inet_select_addr(dev, 0, RT_SCOPE_UNIVERSE);
	return dev->ifindex;
}

int rvs_helper_udp_open(struct net *net, bool v6, struct socket **sock)
{
	return sock_create_kern(net, v6 ? AF_INET6 : AF_INET, SOCK_DGRAM, IPPROTO_UDP, sock);
}

void rvs_helper_udp_close(struct socket *sock)
{
	sock_release(sock);
}

/* IP_MULTICAST_IF, IP_MULTICAST_TTL, IP_MULTICAST_LOOP off, IP_MTU_DISCOVER off, and the same for IPv6. */
void rvs_helper_udp_multicast(struct socket *sock, u32 ifindex, u8 ttl)
{
	struct sock *sk = sock->sk;

	lock_sock(sk);
	inet_sk(sk)->mc_index = ifindex;
	WRITE_ONCE(inet_sk(sk)->mc_ttl, ttl);
	WRITE_ONCE(inet_sk(sk)->pmtudisc, IP_PMTUDISC_DONT);
	inet_clear_bit(MC_LOOP, sk);
#if IS_ENABLED(CONFIG_IPV6)
	if (sk->sk_family == AF_INET6) {
		WRITE_ONCE(inet6_sk(sk)->mcast_oif, ifindex);
		WRITE_ONCE(inet6_sk(sk)->mcast_hops, ttl);
		WRITE_ONCE(inet6_sk(sk)->pmtudisc, IP_PMTUDISC_DONT);
		inet6_clear_bit(MC6_LOOP, sk);
	}
#endif
	release_sock(sk);
}

/* SO_SNDBUF or SO_RCVBUF. */
void rvs_helper_udp_buffer(struct socket *sock, bool send, int bytes)
{
	struct sock *sk = sock->sk;

	lock_sock(sk);
	if (send) {
		bytes = clamp_t(int, bytes, (SOCK_MIN_SNDBUF + 1) / 2, READ_ONCE(sysctl_wmem_max));
		WRITE_ONCE(sk->sk_sndbuf, bytes * 2);
		sk->sk_userlocks |= SOCK_SNDBUF_LOCK;
	} else {
		bytes = clamp_t(int, bytes, (SOCK_MIN_RCVBUF + 1) / 2, READ_ONCE(sysctl_rmem_max));
		WRITE_ONCE(sk->sk_rcvbuf, bytes * 2);
		sk->sk_userlocks |= SOCK_RCVBUF_LOCK;
	}
	release_sock(sk);
}

/* SO_REUSEADDR and SO_BINDTODEVICE. */
void rvs_helper_udp_on_device(struct socket *sock, u32 ifindex)
{
	sock->sk->sk_reuse = SK_CAN_REUSE;
	sock->sk->sk_bound_dev_if = ifindex;
}

union rvs_sockaddr {
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
};

static int rvs_sockaddr(union rvs_sockaddr *to, const struct socket *sock, const u32 *addr, u16 port)
{
	memset(to, 0, sizeof(*to));
	if (sock->sk->sk_family == AF_INET6) {
		to->v6.sin6_family = AF_INET6;
		to->v6.sin6_port = htons(port);
		memcpy(&to->v6.sin6_addr, addr, sizeof(to->v6.sin6_addr));
		return sizeof(to->v6);
	}
	to->v4.sin_family = AF_INET;
	to->v4.sin_port = htons(port);
	to->v4.sin_addr.s_addr = (__force __be32)addr[0];
	return sizeof(to->v4);
}

int rvs_helper_udp_bind(struct socket *sock, const u32 *addr, u16 port)
{
	union rvs_sockaddr to;
	int len = rvs_sockaddr(&to, sock, addr, port);

	return kernel_bind(sock, (void *)&to, len);
}

int rvs_helper_udp_connect(struct socket *sock, const u32 *addr, u16 port)
{
	union rvs_sockaddr to;
	int len = rvs_sockaddr(&to, sock, addr, port);

	return kernel_connect(sock, (void *)&to, len, 0);
}

/* IP_ADD_MEMBERSHIP, IPV6_JOIN_GROUP; with RTNL. */
int rvs_helper_udp_join(struct socket *sock, const u32 *addr, u32 ifindex)
{
	struct sock *sk = sock->sk;
	int err;

	lock_sock(sk);
#if IS_ENABLED(CONFIG_IPV6)
	if (sk->sk_family == AF_INET6) {
		struct in6_addr group;

		memcpy(&group, addr, sizeof(group));
		err = ipv6_sock_mc_join(sk, ifindex, &group);
	} else
#endif
	{
		struct ip_mreqn group = { .imr_ifindex = ifindex };

		group.imr_multiaddr.s_addr = (__force __be32)addr[0];
		err = ip_mc_join_group(sk, &group);
	}
	release_sock(sk);
	return err;
}

int rvs_helper_udp_send(struct socket *sock, const void *data, size_t len)
{
	struct msghdr msg = { .msg_flags = MSG_DONTWAIT | MSG_NOSIGNAL };
	struct kvec iov = { (void *)data, len };

	return kernel_sendmsg(sock, &msg, &iov, 1, len);
}

int rvs_helper_udp_receive(struct socket *sock, void *data, size_t room)
{
	struct msghdr msg = {};
	struct kvec iov = { data, room };

	return kernel_recvmsg(sock, &msg, &iov, 1, room, MSG_DONTWAIT);
}

/* In a thread of ours: until there is room for another datagram, or the thread shall stop. */
void rvs_helper_udp_wait_room(struct socket *sock)
{
	struct sock *sk = sock->sk;

	wait_event_interruptible(*sk_sleep(sk), sock_writeable(sk) || kthread_should_stop());
}

static bool rvs_udp_has_data(const struct sock *sk)
{
	return !skb_queue_empty_lockless(&sk->sk_receive_queue) ||
	       !skb_queue_empty_lockless(&udp_sk(sk)->reader_queue);
}

/* In a thread of ours: until there is a datagram, or the thread shall stop. */
void rvs_helper_udp_wait_data(struct socket *sock)
{
	struct sock *sk = sock->sk;

	wait_event_interruptible(*sk_sleep(sk), rvs_udp_has_data(sk) || kthread_should_stop());
}

unsigned long rvs_helper_free_buffer_pages(void)
{
	return nr_free_buffer_pages();
}
