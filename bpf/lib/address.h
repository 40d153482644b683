/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Addresses of 16 bytes, word by word. */
#pragma once

#include "abi/types.h"
#include "compat.h"

static __always_inline void address_from_ip4(struct address *address, __be32 ip4)
{
	address->words[0] = 0;
	address->words[1] = 0;
	address->words[2] = bpf_htonl(0xFFFF);
	address->words[3] = ip4;
}

static __always_inline bool address_is_ip4(const struct address *a)
{
	return !a->words[0] && !a->words[1] && a->words[2] == bpf_htonl(0xFFFF);
}

static __always_inline bool address_is_zero(const struct address *a)
{
	return !(a->words[0] | a->words[1] | a->words[2] | a->words[3]);
}

static __always_inline bool address_equal(const struct address *a, const struct address *b)
{
	return !((a->words[0] ^ b->words[0]) | (a->words[1] ^ b->words[1]) |
		 (a->words[2] ^ b->words[2]) | (a->words[3] ^ b->words[3]));
}

/* ff02::/16 */
static __always_inline bool address_is_link_multicast(const struct address *a)
{
	return a->bytes[0] == 0xFF && a->bytes[1] == 0x02;
}

/* What a pod appears as when it reaches itself through a service. */
static __always_inline void address_loopback(struct address *address, bool is_ip4)
{
	if (is_ip4) {
		address_from_ip4(address, bpf_htonl(0xA9FE2A01)); /* 169.254.42.1 */
	} else {
		address->words[0] = bpf_htonl(0xFE800000);
		address->words[1] = 0;
		address->words[2] = 0;
		address->words[3] = bpf_htonl(0xA9FE2A01);
	}
}

/* Without a copy of it: the stack is short where this is asked. */
static __always_inline bool address_is_loopback(const struct address *a, bool is_ip4)
{
	if (a->words[3] != bpf_htonl(0xA9FE2A01))
		return false;
	return is_ip4 ? address_is_ip4(a)
		      : a->words[0] == bpf_htonl(0xFE800000) && !a->words[1] && !a->words[2];
}
