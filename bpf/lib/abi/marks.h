/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Packet mark: IIIIIIII IIIIIIII KKKK MMMM CCCCCCCC (identity, key, magic, cluster). Only the mark
 * survives the host stack; a pod cannot set it, a namespace crossing clears it.
 */
#pragma once

enum mark_bits {
	MARK_MAGIC_MASK = 0x0F00,
	MARK_MAGIC_TO_PROXY = 0x0200,
	MARK_MAGIC_OVERLAY = 0x0400,
	MARK_MAGIC_HOST = 0x0C00,
	MARK_MAGIC_DECRYPT = 0x0D00,
	MARK_MAGIC_ENCRYPT = 0x0E00,
	MARK_MAGIC_IDENTITY = 0x0F00,
	MARK_WIREGUARD = 0x1E00, /* the whole mark of what WireGuard itself sends */
};
