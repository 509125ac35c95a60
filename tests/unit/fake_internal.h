/* SPDX-License-Identifier: BSD-3-Clause */
/* What the files of the fake share, see fake_tx.h. */
#ifndef LANEFS_TESTS_FAKE_INTERNAL_H
#define LANEFS_TESTS_FAKE_INTERNAL_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "tests/unit/fake_tx.h"

#define CHECK(condition) assert_true(condition)
#define CHECK_NULL(text) do { const char *check_text = (text); if (check_text) fail_msg("%s", check_text); } while (0)

struct fake_block {
	struct buf buf;
	uint8_t *snapshot;              /* content that the log knows: snapshot plus dirtied ranges is data */
	bool free, freed_now;
};
extern struct fake_block *fake_blocks;

int fake_failing(void);
/* Data may differ from the log's view nowhere. */
void fake_block_compare(const struct fake_block *block);
void fake_block_drop(struct fake_block *block);
void fake_inodes_check(void);
void fake_snapshots_take(struct tx_part *part);

#endif
