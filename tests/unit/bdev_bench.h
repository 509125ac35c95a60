/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the block-device tests share: a group with a registry, and the probe, a module that does nothing by itself. It
 * writes down every piece that reaches it and completes it as the test says: at once, when released, with scripted
 * results, or refused for lack of memory. Its pieces read and write plain memory.
 */
#ifndef LANEFS_TESTS_BDEV_BENCH_H
#define LANEFS_TESTS_BDEV_BENCH_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "blockdev/bdev_module.h"

struct bench {
	struct reactor_group *group;
	struct bdev_registry *registry;
};

void bench_init(struct bench *bench, unsigned reactors, bool simulate, uint64_t seed);
void bench_fini(struct bench *bench);
/* Runs fn(bench) as a fiber of that reactor and expects 0. */
void bench_run(struct bench *bench, unsigned reactor, int (*fn)(void *bench));
/* Opens a bdev for writing, without events, with this reactor's channel; and the reverse. */
MAY_WAIT struct bdev_desc *bench_open(struct bench *bench, const char *name, struct bdev_channel **channel);
MAY_WAIT void bench_close(struct bdev_desc *desc, struct bdev_channel *channel);
/* Open channel and descriptor, call, close: for bodies that need no more. */
MAY_WAIT void bench_with(struct bench *bench, const char *name, void (*fn)(struct bdev_channel *channel));

enum { PROBE_LOG_MAX = 8192, PROBE_SCRIPT_MAX = 16 };

struct probe_entry {
	enum io_op op;
	uint32_t flags;
	uint64_t offset, length;
	unsigned iov_count;
	const void *first_base;
};

struct probe {
	struct bdev *bdev;
	uint8_t *memory;
	bool hold;                     /* keep pieces until probe_release */
	unsigned depth_max;            /* refuse beyond that many held pieces; 0: never */
	unsigned refuse;               /* refuse that many submissions, whatever is held */
	int script[PROBE_SCRIPT_MAX];  /* results of the next pieces */
	unsigned script_count, script_next;
	struct probe_entry log[PROBE_LOG_MAX];
	unsigned log_count;
	struct cds_list_head held;
	unsigned held_count, held_peak;
	unsigned quiesced, released, destroyed;
	bool never_quiesce;
};

/* Limits of a probe of 1 MiB with 4096-byte blocks that can do everything. */
struct bdev_limits probe_limits(const char *name);
struct probe *probe_create(struct bench *bench, const struct bdev_limits *limits);
/* After the bdev is gone. */
void probe_free(struct probe *probe);
/* Completes up to @count held pieces, oldest first, with @result (0: and does them). Their reactor. */
void probe_release(struct probe *probe, unsigned count, int result);

#endif
