/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the tests of the emulated controller stand on: a drive with a medium in memory on a simulated group of two
 * reactors (the model on one, the test on the other), and a driver that writes registers and queue entries by hand.
 *
 * The medium answers after a seeded time and moves the data only then (or, if `mixed`, half of the time at once: a
 * read may answer with what has been overwritten meanwhile); it can hold everything back, and fail what comes.
 */
#ifndef LANEFS_TESTS_EMU_BENCH_H
#define LANEFS_TESTS_EMU_BENCH_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "nvme/emu_internal.h"

enum { BENCH_QUEUES = 4 };
#ifndef EMU_BENCH_SMALL
enum { BENCH_ENTRIES_MAX = 1024, BENCH_PAGES = 1100, BENCH_MEDIUM_BYTES = 4 << 20, BENCH_QUEUE_BYTES = 1 << 17, BENCH_FIBERS = 0 };
#else /* a bench that is made and thrown away many times a second */
enum { BENCH_ENTRIES_MAX = 64, BENCH_PAGES = 8, BENCH_MEDIUM_BYTES = 256 << 10, BENCH_QUEUE_BYTES = 4096, BENCH_FIBERS = 16 };
#endif

struct bench_queue {
	uint16_t id;
	uint32_t entries, sq_tail, cq_head;
	bool phase;
	struct nvme_command *sq;
	struct nvme_completion *cq;
};

struct bench {
	struct reactor_group *group;
	struct reactor *home, *model; /* of the test, of the drive */
	bool threads;
	struct emu_options options;
	struct emu *emu;
	struct nvme_transport *transport;
	struct bench_queue queue[BENCH_QUEUES + 1];
	uint8_t *pages;               /* BENCH_PAGES pages of host memory */
	uint16_t next_cid;
	uint32_t *shadow, *event_index; /* when the test uses them */

	/* the medium */
	uint8_t *medium, *durable;    /* durable: as of the last flush */
	uint64_t random, delay_ns_max;
	bool hold, mixed, read_only;
	int error;                    /* answer of everything of error_op */
	enum emu_op error_op;
	struct cds_list_head held;
	uint64_t reads, writes, flushes, zeroes, discards;
};

/* @options may be NULL. */
void bench_init(struct bench *bench, const struct emu_options *options, uint64_t seed);
/* The same on real threads, which sleep. */
void bench_init_threads(struct bench *bench, const struct emu_options *options);
void bench_fini(struct bench *bench);
/* Memory and group only: the drive is gone already. */
void bench_free(struct bench *bench);
/* Runs the test's part as a fiber of the home reactor. */
void bench_run(struct bench *bench, MAY_WAIT void (*fn)(struct bench *bench));
/* init, run, fini */
void bench_test(const struct emu_options *options, MAY_WAIT void (*fn)(struct bench *bench));
void bench_test_read_only(const struct emu_options *options, MAY_WAIT void (*fn)(struct bench *bench));
/* Runs fn on the model's reactor. */
MAY_WAIT int bench_on_model(struct bench *bench, MAY_WAIT int (*fn)(void *arg));
MAY_WAIT void bench_pull(struct bench *bench);
MAY_WAIT void bench_power_cut(struct bench *bench);
MAY_WAIT void bench_plug(struct bench *bench);
void bench_release(struct bench *bench);
void bench_unhold(struct bench *bench);

/* ---- the driver ---- */
uint8_t *bench_page(struct bench *bench, unsigned index);
uint64_t bench_address(const void *memory);
void bench_write32(struct bench *bench, uint32_t at, uint32_t value);
/* Writes AQA, ASQ, ACQ and CC; does not wait. */
void bench_start_enabling(struct bench *bench, uint32_t admin_entries);
/* Until (CSTS & mask) == value; false after @timeout_ns. */
MAY_WAIT bool bench_wait_status(struct bench *bench, uint32_t mask, uint32_t value, uint64_t timeout_ns);
MAY_WAIT void bench_enable(struct bench *bench, uint32_t admin_entries);
MAY_WAIT void bench_disable(struct bench *bench);
/* I/O queue pair @id with @entries. */
MAY_WAIT void bench_create_queue(struct bench *bench, uint16_t id, uint32_t entries);
/* Enabled, one I/O queue pair of 64. */
MAY_WAIT void bench_bring_up(struct bench *bench);

struct nvme_command bench_command(uint8_t opcode, uint32_t nsid);
struct nvme_command bench_rw(uint8_t opcode, uint64_t lba, uint32_t blocks, const void *data);
/* Puts it into the queue and rings. Returns its identifier. */
uint16_t bench_submit(struct bench *bench, uint16_t queue, struct nvme_command command);
/* The next completion if it is there. */
bool bench_poll(struct bench *bench, uint16_t queue, struct nvme_completion *out);
/* The next completion within @timeout_ns. */
MAY_WAIT bool bench_wait(struct bench *bench, uint16_t queue, struct nvme_completion *out, uint64_t timeout_ns);
/* Runs one command and returns its status without DNR and MORE; @dw0 may be NULL. */
MAY_WAIT uint16_t bench_do(struct bench *bench, uint16_t queue, struct nvme_command command, uint32_t *dw0);
MAY_WAIT uint16_t bench_admin(struct bench *bench, uint8_t opcode, uint32_t cdw10, uint32_t cdw11, uint32_t *dw0);
MAY_WAIT uint16_t bench_write(struct bench *bench, uint64_t lba, uint32_t blocks, uint8_t fill, uint32_t cdw12_flags);
/* First byte of each block read, or -1 for a block that is not all the same. */
MAY_WAIT int bench_read(struct bench *bench, uint64_t lba);
MAY_WAIT uint16_t bench_flush(struct bench *bench);
uint16_t bench_status(const struct nvme_completion *completion);

#endif
