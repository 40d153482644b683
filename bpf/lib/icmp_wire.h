/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* ICMP as it is on the wire; the kernel's header would bring in the C library. */
#pragma once

#include "compat.h"

enum icmp4_type {
	ICMP4_ECHO_REPLY = 0,
	ICMP4_UNREACHABLE = 3,
	ICMP4_ECHO = 8,
	ICMP4_TIME_EXCEEDED = 11,
	ICMP4_PARAMETER_PROBLEM = 12,
};

enum icmp6_type {
	ICMP6_UNREACHABLE = 1,
	ICMP6_PACKET_TOO_BIG = 2,
	ICMP6_TIME_EXCEEDED = 3,
	ICMP6_FIRST_INFORMATIONAL = 128,
	ICMP6_ECHO = 128,
	ICMP6_ECHO_REPLY = 129,
	ICMP6_ROUTER_SOLICITATION = 133,
	ICMP6_SOLICITATION = 135,
	ICMP6_ADVERTISEMENT = 136,
	ICMP6_REDIRECT = 137,
};

enum icmp_code {
	ICMP4_CODE_PORT = 3,
	ICMP4_CODE_FRAGMENTATION_NEEDED = 4,
	ICMP6_CODE_PORT = 4,
};

struct icmp_header {
	__u8 type;
	__u8 code;
	__sum16 checksum;
	__be16 id;	 /* echo */
	__be16 sequence; /* echo; next-hop MTU of fragmentation needed */
};
