/* SPDX-License-Identifier: BSD-3-Clause */
/* The load, see nvme_load.h. */
#include "nvme_load.h"

#include <errno.h>

enum { BLOCK = 512, PAGES_PER_WORKER = 2 };

uint64_t load_random(struct load *load, uint64_t bound)
{
	uint64_t z = load->random += 0x9e3779b97f4a7c15;
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
	return (z ^ (z >> 31)) % bound;
}

static void fill(uint8_t *block, uint64_t stamp)
{
	for (unsigned i = 0; i < BLOCK / 8; i++)
		memcpy(block + 8 * i, &stamp, 8);
}

/* What a block holds; half of one and half of another is a failure. */
static uint64_t stamp_of(const uint8_t *block)
{
	uint64_t stamp, other;
	memcpy(&stamp, block, 8);
	for (unsigned i = 1; i < BLOCK / 8; i++) {
		memcpy(&other, block + 8 * i, 8);
		assert_int_equal(other, stamp);
	}
	return stamp;
}

static bool may_hold(const struct load_block *block, uint64_t stamp)
{
	for (unsigned i = 0; i < block->count; i++)
		if (block->may_hold[i] == stamp)
			return true;
	return block->count == 0;
}

static void now_holds(struct load_block *block, uint64_t stamp)
{
	*block = (struct load_block){.may_hold = {stamp}, .count = 1};
}

static void may_now_hold(struct load_block *block, uint64_t stamp)
{
	if (block->count == 0 || may_hold(block, stamp))
		return;
	if (block->count == LOAD_GUESSES_MAX)
		block->count = 0;
	else
		block->may_hold[block->count++] = stamp;
}

/* ---- a worker ---- */

static uint64_t worker_lba(const struct load_worker *worker)
{
	return (uint64_t)(worker - worker->load->workers) * LOAD_BLOCKS;
}

static void worker_account(struct load_worker *worker)
{
	const int result = worker->io.request.result;
	const bool changes = worker->op == NVME_CMD_WRITE || worker->op == NVME_CMD_WRITE_ZEROES || worker->op == NVME_CMD_DSM;
	for (unsigned i = 0; i < worker->block_count; i++) {
		struct load_block *block = &worker->blocks[worker->first + i];
		if (changes && result == 0)
			now_holds(block, worker->stamp);
		else if (changes)
			may_now_hold(block, worker->stamp);
		else if (worker->op == NVME_CMD_READ && result == 0) {
			const uint64_t stamp = stamp_of(worker->io.buffer + (size_t)i * BLOCK);
			if (!may_hold(block, stamp))
				fail_msg("block %u of worker %zu holds %llu", worker->first + i, (size_t)(worker - worker->load->workers),
					(unsigned long long)stamp);
			now_holds(block, stamp);
		}
	}
}

static void worker_submit(struct load_worker *worker)
{
	static const enum nvme_opcode ops[] = {NVME_CMD_READ, NVME_CMD_READ, NVME_CMD_READ, NVME_CMD_WRITE, NVME_CMD_WRITE,
		NVME_CMD_WRITE, NVME_CMD_FLUSH, NVME_CMD_WRITE_ZEROES, NVME_CMD_DSM};
	struct load *load = worker->load;
	worker->op = ops[load_random(load, ARRAY_SIZE(ops))];
	worker->first = (unsigned)load_random(load, LOAD_BLOCKS);
	worker->block_count = 1 + (unsigned)load_random(load, LOAD_BLOCKS - worker->first);
	worker->stamp = worker->op == NVME_CMD_WRITE ? ++load->stamps : 0;
	worker->io.buffer = worker->pages + load_random(load, FAKE_PAGE / 4) * 4;
	for (unsigned i = 0; i < worker->block_count; i++)
		fill(worker->io.buffer + (size_t)i * BLOCK, worker->op == NVME_CMD_WRITE ? worker->stamp : UINT64_MAX);
	worker->since_ns = reactor_now_ns();
	rig_io_submit(&worker->io, worker->op, worker_lba(worker) + worker->first, worker->block_count);
}

static void worker_done(struct rig_io *io)
{
	struct load_worker *worker = CONTAINER_OF(io, struct load_worker, io);
	struct load *load = worker->load;
	const int result = io->request.result;
	if (result != 0 && result != -ENODEV && result != -EIO && result != -ETIMEDOUT && result != -ECANCELED)
		fail_msg("answered with %d", result);
	worker_account(worker);
	load->done++;
	load->failed += result != 0 && result != -ENODEV;
	load->longest_ns = MAX(load->longest_ns, reactor_now_ns() - worker->since_ns);
	if (!load->quit && result != -ENODEV) {
		worker_submit(worker);
		return;
	}
	worker->running = false;
	load->running--;
}

/* ---- all of them ---- */

void load_init(struct load *load, struct rig *rig, unsigned workers, uint64_t seed)
{
	assert_in_range(workers, 1, LOAD_WORKERS_MAX);
	memset(load, 0, sizeof(*load));
	load->rig = rig;
	load->random = seed;
	load->reactors = reactor_group_count(rig->group);
	load->worker_count = workers;
	for (unsigned i = 0; i < workers; i++) {
		struct load_worker *worker = &load->workers[i];
		rig_io_init(&worker->io, rig, PAGES_PER_WORKER * FAKE_PAGE);
		worker->load = load;
		worker->pages = worker->io.buffer;
		worker->io.then = worker_done;
		for (unsigned j = 0; j < LOAD_BLOCKS; j++)
			now_holds(&worker->blocks[j], 0);
	}
}

struct share {
	struct load *load;
	unsigned reactor;
};
MAY_WAIT static int start_share(void *arg)
{
	const struct share *share = arg;
	for (unsigned i = share->reactor; i < share->load->worker_count; i += share->load->reactors) {
		share->load->workers[i].running = true;
		share->load->running++;
		worker_submit(&share->load->workers[i]);
	}
	return 0;
}

void load_start(struct load *load)
{
	for (unsigned i = 0; i < load->reactors; i++) {
		struct share share = {.load = load, .reactor = i};
		rig_run(load->rig, i, start_share, &share);
	}
}

static bool has_ended(struct rig *rig, void *arg)
{
	const struct load *load = arg;
	return load->running == 0;
}

void load_expect_end(struct load *load, uint64_t limit_ns) { rig_until(load->rig, has_ended, load, limit_ns); }

MAY_WAIT static int abort_one(void *arg)
{
	struct load_worker *worker = arg;
	if (worker->running)
		nvme_abort(worker->io.qpair, &worker->io.request);
	return 0;
}

void load_abort_one(struct load *load)
{
	const unsigned index = (unsigned)load_random(load, load->worker_count);
	rig_run(load->rig, index % load->reactors, abort_one, &load->workers[index]);
}

void load_verify(const struct load *load)
{
	const uint8_t *data = fake_ns_data(fake_ns(&load->rig->fake, 1));
	for (unsigned i = 0; i < load->worker_count; i++)
		for (unsigned j = 0; j < LOAD_BLOCKS; j++) {
			const uint64_t stamp = stamp_of(data + (worker_lba(&load->workers[i]) + j) * BLOCK);
			if (!may_hold(&load->workers[i].blocks[j], stamp))
				fail_msg("at the end block %u of worker %u holds %llu", j, i, (unsigned long long)stamp);
		}
}

void load_fini(struct load *load)
{
	for (unsigned i = 0; i < load->worker_count; i++) {
		load->workers[i].io.buffer = load->workers[i].pages;
		rig_io_fini(&load->workers[i].io);
	}
}
