/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* For tests: a packet as the tunnel device hands it over. The VNI comes as the packet's priority. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} ist_t_next SEC(".maps");

SEC("tc")
int with_tunnel_key(struct __sk_buff *skb)
{
	struct bpf_tunnel_key key = {.tunnel_id = skb->priority, .tunnel_ttl = 64};

	bpf_skb_set_tunnel_key(skb, &key, sizeof(key), 0);
	skb->priority = 0;
	bpf_tail_call(skb, &ist_t_next, 0);
	return 2;
}

char _license[] SEC("license") = "Dual BSD/GPL";
