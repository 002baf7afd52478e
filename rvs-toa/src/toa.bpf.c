// SPDX-License-Identifier: GPL-2.0-only
/*
 * The reader of TOA: what a director says of the client, in a TCP option, is what a server hears that asks who its peer is.
 *
 *   sockops          a connection is accepted: the option of the segment that ends the handshake is remembered with the
 *                    socket. If there is none, later segments with options that TCP does not know are looked at, too.
 *   getpeername4/6   getpeername(), accept() and all else that asks a socket for its peer's address
 *
 * What is remembered goes with the socket. The option: kind, length, port, address; 8 bytes long with IPv4, 20 with IPv6.
 */
#include <linux/bpf.h>

#define SEC(name) __attribute__((section(name), used))
#define __uint(name, value) int (*name)[value]
#define __type(name, value) typeof(value) *name

#define AF_INET6	10
#define TCP_HEADER	20
/* As many options as a header has room for, and a number that no place in one exceeds: a power of two less one. */
#define MOST_OPTIONS	40
#define PLACES		63

#define OPTION_END	0
#define OPTION_NOP	1
#define LEN_V4		8
#define LEN_V6		20

/* The third word of ::ffff:0:0/96. */
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define MAPPED		0xffff0000
#else
#define MAPPED		0x0000ffff
#endif

static void *(*const bpf_map_lookup_elem)(void *map, const void *key) = (void *)BPF_FUNC_map_lookup_elem;
static void *(*const bpf_sk_storage_get)(void *map, void *sk, void *value, __u64 flags) = (void *)BPF_FUNC_sk_storage_get;
static long (*const bpf_sock_ops_cb_flags_set)(struct bpf_sock_ops *ops, int flags) = (void *)BPF_FUNC_sock_ops_cb_flags_set;

/* A client; IPv4 addresses are mapped ones. All of it in network order. */
struct client {
	__u32 addr[4];
	__u16 port;
	/* Whether this is filled in. */
	__u16 known;
};

struct prefix {
	__u32 bits;
	__u32 addr[4];
};

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct client);
} clients SEC(".maps");

/* Whose options are believed. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1024);
	__type(key, struct prefix);
	__type(value, __u32);
} directors SEC(".maps");

/* As `Counts` in lib.rs has them. */
enum count {
	CONNECTIONS,	/* whose client is known */
	ANSWERS,	/* clients' addresses given to who asked */
	WITHOUT,	/* connections from directors that began without the option */
	REFUSED,	/* connections from others that began with it */
	NO_MEMORY,	/* options that there was no memory for */
	COUNTS,
};
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, COUNTS);
	__type(key, __u32);
	__type(value, __u64);
} counts SEC(".maps");

/* The option's kind, set before this is loaded. */
volatile const __u8 KIND = 254;

/* Nothing, which the verifier does not know: it need not follow each way through the options by itself then. */
static volatile __u32 nothing;

static __attribute__((always_inline)) void count(enum count which)
{
	__u32 key = which;
	__u64 *value = bpf_map_lookup_elem(&counts, &key);

	if (value)
		__sync_fetch_and_add(value, 1);
}

/* Whether the segment has the option; `to` becomes what it says. */
static __attribute__((always_inline)) int find(struct bpf_sock_ops *ops, struct client *to)
{
	__u8 *header = ops->skb_data, *end = ops->skb_data_end;
	__u32 at = (TCP_HEADER + nothing) & PLACES;
	__u8 kind = KIND;

	for (int i = 0; i < MOST_OPTIONS; i++) {
		__u8 *option = header + at;
		__u32 len = 1;

		if (option + 2 > end || option[0] == OPTION_END)
			return 0;
		if (option[0] != OPTION_NOP) {
			len = option[1];
			if (len < 2)
				return 0;
			if (option[0] == kind && len == LEN_V4 && option + LEN_V4 <= end) {
				to->addr[0] = 0;
				to->addr[1] = 0;
				to->addr[2] = MAPPED;
				__builtin_memcpy(&to->port, option + 2, 2);
				__builtin_memcpy(&to->addr[3], option + 4, 4);
				return 1;
			}
			if (option[0] == kind && len == LEN_V6 && option + LEN_V6 <= end) {
				__builtin_memcpy(&to->port, option + 2, 2);
				__builtin_memcpy(to->addr, option + 4, 16);
				return 1;
			}
		}
		if (at + len > PLACES)
			return 0;
		at = (at + len + nothing) & PLACES;
	}
	return 0;
}

/* Whether the peer is one whose options are believed. */
static __attribute__((always_inline)) int is_director(struct bpf_sock_ops *ops)
{
	struct prefix peer = { .bits = 128 };

	if (ops->family == AF_INET6) {
		peer.addr[0] = ops->remote_ip6[0];
		peer.addr[1] = ops->remote_ip6[1];
		peer.addr[2] = ops->remote_ip6[2];
		peer.addr[3] = ops->remote_ip6[3];
	} else {
		__u32 addr = ops->remote_ip4;

		/* Or else the compiler makes one load of this and the last above, of a field chosen at run time: not allowed. */
		asm volatile("" : "+r"(addr));
		peer.addr[2] = MAPPED;
		peer.addr[3] = addr;
	}
	return !!bpf_map_lookup_elem(&directors, &peer);
}

enum remembered { NO_OPTION, FORGOTTEN, REMEMBERED };

/* Remembers what the segment says of the client, unless an earlier one has said it. */
static __attribute__((always_inline)) enum remembered remember(struct bpf_sock_ops *ops)
{
	struct bpf_sock *sk = ops->sk;
	struct client client = {};
	struct client *known;

	if (!sk || !find(ops, &client))
		return NO_OPTION;
	known = bpf_sk_storage_get(&clients, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!known) {
		count(NO_MEMORY);
		return FORGOTTEN;
	}
	if (!known->known) {
		client.known = 1;
		*known = client;
		count(CONNECTIONS);
	}
	return REMEMBERED;
}

SEC("sockops")
int toa_read(struct bpf_sock_ops *ops)
{
	struct client ignored = {};
	enum remembered done;

	switch (ops->op) {
	case BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB:
		if (!is_director(ops)) {
			if (find(ops, &ignored))
				count(REFUSED);
			break;
		}
		done = remember(ops);
		if (done == NO_OPTION)
			count(WITHOUT);
		if (done != REMEMBERED)
			bpf_sock_ops_cb_flags_set(ops, ops->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_PARSE_UNKNOWN_HDR_OPT_CB_FLAG);
		break;
	case BPF_SOCK_OPS_PARSE_HDR_OPT_CB:
		/* Others may have asked for this. */
		if (is_director(ops))
			remember(ops);
		break;
	}
	return 1;
}

SEC("cgroup/getpeername4")
int toa_name4(struct bpf_sock_addr *ctx)
{
	struct client *client = bpf_sk_storage_get(&clients, ctx->sk, 0, 0);

	if (client && client->known && client->addr[2] == MAPPED && !client->addr[0] && !client->addr[1]) {
		ctx->user_ip4 = client->addr[3];
		ctx->user_port = client->port;
		count(ANSWERS);
	}
	return 1;
}

SEC("cgroup/getpeername6")
int toa_name6(struct bpf_sock_addr *ctx)
{
	struct client *client = bpf_sk_storage_get(&clients, ctx->sk, 0, 0);

	if (client && client->known) {
		ctx->user_ip6[0] = client->addr[0];
		ctx->user_ip6[1] = client->addr[1];
		ctx->user_ip6[2] = client->addr[2];
		ctx->user_ip6[3] = client->addr[3];
		ctx->user_port = client->port;
		count(ANSWERS);
	}
	return 1;
}

char toa_license[] SEC("license") = "GPL";
