/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What every program needs of the kernel's and libbpf's headers. */
#pragma once

#include <linux/bpf.h>
#include <linux/types.h>
#include <stdbool.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>

enum tc_action {
	TC_NEXT = -1,	 /* as if this program were not there */
	TC_OK = 0,	 /* on to the stack */
	TC_SHOT = 2,	 /* drop */
	TC_REDIRECT = 7, /* as a redirecting helper said */
};

#define likely(x)   __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)
