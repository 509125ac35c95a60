/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The bench: medium, driver by hand, and running things on the right reactor.
 */
#include "emu_bench.h"

#include <errno.h>
#include <signal.h>

enum { WAIT_STEP_NS = 1000, COMMAND_TIMEOUT_S = 60 };

/* ---- the medium ---- */

static uint64_t bench_random(struct bench *bench)
{
	bench->random ^= bench->random << 13;
	bench->random ^= bench->random >> 7;
	bench->random ^= bench->random << 17;
	return bench->random;
}

struct medium_io {
	struct cds_list_head node;
	struct bench *bench;
	struct timer timer;
	bool moved;
};
_Static_assert(sizeof(struct medium_io) <= sizeof(((struct emu_io *)0)->context), "");

static void medium_copy(struct bench *bench, struct emu_io *io)
{
	uint8_t *at = bench->medium + io->offset;
	uint64_t length = 0;
	for (unsigned i = 0; i < io->iov_count; i++) {
		uint8_t *host = io->iov[i].iov_base;
		const size_t size = io->iov[i].iov_len;
		memcpy(io->op == EMU_READ ? host : at, io->op == EMU_READ ? at : host, size);
		at += size;
		length += size;
	}
	assert_int_equal(length, io->length);
}

static int medium_do(struct bench *bench, struct emu_io *io)
{
	assert_true(io->offset + io->length <= BENCH_MEDIUM_BYTES);
	assert_int_equal((io->offset | io->length) % 512, 0);
	bench->reads += io->op == EMU_READ;
	bench->writes += io->op == EMU_WRITE;
	bench->flushes += io->op == EMU_FLUSH;
	bench->zeroes += io->op == EMU_ZERO;
	bench->discards += io->op == EMU_DISCARD;
	if (bench->error && io->op == bench->error_op)
		return bench->error;
	if (io->op == EMU_READ || io->op == EMU_WRITE)
		medium_copy(bench, io);
	else if (io->op == EMU_FLUSH)
		memcpy(bench->durable, bench->medium, BENCH_MEDIUM_BYTES);
	else
		memset(bench->medium + io->offset, 0, io->length);
	return 0;
}

static void medium_answer(struct timer *timer)
{
	struct medium_io *state = CONTAINER_OF(timer, struct medium_io, timer);
	struct emu_io *io = CONTAINER_OF(state, struct emu_io, context);
	if (state->bench->hold) {
		cds_list_add_tail(&state->node, &state->bench->held);
		return;
	}
	if (!state->moved)
		io->result = medium_do(state->bench, io);
	io->done(io);
}

static void medium_submit(void *arg, struct emu_io *io)
{
	struct bench *bench = arg;
	struct medium_io *state = (struct medium_io *)io->context;
	assert_ptr_equal(reactor_self(), bench->model);
	state->bench = bench;
	state->timer = (struct timer){0};
	state->moved = bench->mixed && bench_random(bench) >> 32 & 1;
	if (state->moved)
		io->result = medium_do(bench, io);
	timer_start(&state->timer, 1 + bench_random(bench) % bench->delay_ns_max, medium_answer);
}

static int unhold(void *arg)
{
	struct bench *bench = arg;
	struct medium_io *state, *next;
	bench->hold = false;
	cds_list_for_each_entry_safe(state, next, &bench->held, node) {
		cds_list_del(&state->node);
		timer_start(&state->timer, 1 + bench_random(bench) % bench->delay_ns_max, medium_answer);
	}
	return 0;
}

void bench_unhold(struct bench *bench) { reactor_call_nowait(bench->model, unhold, bench); }

/* ---- life ---- */

struct fiber_arg {
	struct bench *bench;
	MAY_WAIT void (*fn)(struct bench *bench);
};

MAY_WAIT static int run_fiber(void *arg)
{
	const struct fiber_arg *run = arg;
	run->fn(run->bench);
	return 0;
}

void bench_run(struct bench *bench, MAY_WAIT void (*fn)(struct bench *bench))
{
	struct fiber_arg run = {.bench = bench, .fn = fn};
	assert_int_equal(reactor_group_run(bench->home, run_fiber, &run), 0);
}

MAY_WAIT int bench_on_model(struct bench *bench, MAY_WAIT int (*fn)(void *arg))
{
	return reactor_call(bench->model, fn, bench);
}

static int create(void *arg)
{
	struct bench *bench = arg;
	const struct emu_backing backing = {.size_bytes = BENCH_MEDIUM_BYTES, .read_only = bench->read_only,
		.zeroes_by_discard = true, .submit = medium_submit, .arg = bench};
	return emu_create("emu:test", &bench->options, &backing, bench->model, &bench->emu);
}

static int plug(void *arg)
{
	struct bench *bench = arg;
	return emu_plug(bench->emu, &bench->transport);
}

MAY_WAIT void bench_plug(struct bench *bench) { assert_int_equal(bench_on_model(bench, plug), 0); }

MAY_WAIT static int pull(void *arg)
{
	emu_pull(((struct bench *)arg)->emu);
	return 0;
}

MAY_WAIT void bench_pull(struct bench *bench) { bench_on_model(bench, pull); }

MAY_WAIT static int power_cut(void *arg)
{
	emu_power_cut(((struct bench *)arg)->emu);
	return 0;
}

MAY_WAIT void bench_power_cut(struct bench *bench) { bench_on_model(bench, power_cut); }

MAY_WAIT static int destroy(void *arg)
{
	struct bench *bench = arg;
	emu_pull(bench->emu);
	assert_true(emu_idle(bench->emu));
	emu_destroy(bench->emu);
	return 0;
}

static void *host_alloc(size_t size)
{
	void *memory = aligned_alloc(EMU_PAGE, size);
	assert_non_null(memory);
	memset(memory, 0, size);
	return memory;
}

MAY_WAIT static void create_and_plug(struct bench *bench)
{
	assert_int_equal(bench_on_model(bench, create), 0);
	bench_plug(bench);
}

/* cmocka takes SIGBUS at the start of each test; the guard's handler is installed once. */
static void guard_again(void)
{
	static struct sigaction guarding;
	if (guarding.sa_sigaction)
		sigaction(SIGBUS, &guarding, NULL);
	else
		sigaction(SIGBUS, NULL, &guarding);
}

static void init(struct bench *bench, const struct emu_options *options, uint64_t seed)
{
	const struct reactor_options group = {.count = 2, .simulate = !bench->threads, .seed = seed,
		.fiber_count = BENCH_FIBERS};
	if (options)
		bench->options = *options;
	bench->random = seed * 2 + 1;
	bench->delay_ns_max = 10000;
	CDS_INIT_LIST_HEAD(&bench->held);
	bench->pages = host_alloc(BENCH_PAGES * EMU_PAGE);
	bench->medium = host_alloc(BENCH_MEDIUM_BYTES);
	bench->durable = host_alloc(BENCH_MEDIUM_BYTES);
	for (unsigned i = 0; i <= BENCH_QUEUES; i++) {
		bench->queue[i].id = (uint16_t)i;
		bench->queue[i].sq = host_alloc(BENCH_QUEUE_BYTES);
		bench->queue[i].cq = host_alloc(BENCH_QUEUE_BYTES);
	}
	assert_int_equal(reactor_group_create(&group, &bench->group), 0);
	bench->home = reactor_group_get(bench->group, 0);
	bench->model = reactor_group_get(bench->group, 1);
	assert_int_equal(reactor_group_start(bench->group), 0);
	bench_run(bench, create_and_plug);
	guard_again();
}

void bench_init(struct bench *bench, const struct emu_options *options, uint64_t seed)
{
	memset(bench, 0, sizeof(*bench));
	init(bench, options, seed);
}

void bench_init_threads(struct bench *bench, const struct emu_options *options)
{
	memset(bench, 0, sizeof(*bench));
	bench->threads = true;
	init(bench, options, 1);
}

void bench_test(const struct emu_options *options, MAY_WAIT void (*fn)(struct bench *bench))
{
	static struct bench bench;
	bench_init(&bench, options, 1);
	bench_run(&bench, fn);
	bench_fini(&bench);
}

void bench_test_read_only(const struct emu_options *options, MAY_WAIT void (*fn)(struct bench *bench))
{
	static struct bench bench;
	memset(&bench, 0, sizeof(bench));
	bench.read_only = true;
	init(&bench, options, 1);
	bench_run(&bench, fn);
	bench_fini(&bench);
}

void bench_release(struct bench *bench)
{
	if (bench->transport)
		bench->transport->ops->release(bench->transport);
	bench->transport = NULL;
}

MAY_WAIT static void destroy_all(struct bench *bench)
{
	bench->hold = false;
	bench_unhold(bench);
	bench_on_model(bench, destroy);
	bench_release(bench);
}

void bench_fini(struct bench *bench)
{
	bench_run(bench, destroy_all);
	bench_free(bench);
}

void bench_free(struct bench *bench)
{
	reactor_group_destroy(bench->group);
	for (unsigned i = 0; i <= BENCH_QUEUES; i++) {
		free(bench->queue[i].sq);
		free(bench->queue[i].cq);
	}
	free(bench->pages);
	free(bench->medium);
	free(bench->durable);
}

/* ---- registers ---- */

uint8_t *bench_page(struct bench *bench, unsigned index) { return bench->pages + (size_t)index * EMU_PAGE; }
uint64_t bench_address(const void *memory) { return (uintptr_t)memory; }

void bench_write32(struct bench *bench, uint32_t at, uint32_t value)
{
	nvme_write32(bench->transport, at, value);
	bench->transport->ops->wrote(bench->transport);
}

static void queue_reset(struct bench_queue *queue, uint32_t entries)
{
	queue->entries = entries;
	queue->sq_tail = queue->cq_head = 0;
	queue->phase = true;
	memset(queue->cq, 0, BENCH_QUEUE_BYTES);
}

void bench_start_enabling(struct bench *bench, uint32_t admin_entries)
{
	queue_reset(&bench->queue[0], admin_entries);
	nvme_write32(bench->transport, NVME_REG_AQA,
		(uint32_t)(FIELD_SET(AQA_ASQS, admin_entries - 1) | FIELD_SET(AQA_ACQS, admin_entries - 1)));
	nvme_write64(bench->transport, NVME_REG_ASQ, bench_address(bench->queue[0].sq));
	nvme_write64(bench->transport, NVME_REG_ACQ, bench_address(bench->queue[0].cq));
	bench_write32(bench, NVME_REG_CC,
		(uint32_t)(FIELD_SET(CC_EN, 1) | FIELD_SET(CC_IOSQES, 6) | FIELD_SET(CC_IOCQES, 4)));
}

MAY_WAIT bool bench_wait_status(struct bench *bench, uint32_t mask, uint32_t value, uint64_t timeout_ns)
{
	const uint64_t end_ns = reactor_now_ns() + timeout_ns;
	while ((nvme_read32(bench->transport, NVME_REG_CSTS) & mask) != value) {
		if (reactor_now_ns() > end_ns)
			return false;
		fiber_sleep(WAIT_STEP_NS);
	}
	return true;
}

MAY_WAIT void bench_enable(struct bench *bench, uint32_t admin_entries)
{
	bench_start_enabling(bench, admin_entries);
	assert_true(bench_wait_status(bench, 3, 1, NS_PER_SEC));
}

MAY_WAIT void bench_disable(struct bench *bench)
{
	bench_write32(bench, NVME_REG_CC, 0);
	assert_true(bench_wait_status(bench, 1, 0, NS_PER_SEC));
}

MAY_WAIT void bench_create_queue(struct bench *bench, uint16_t id, uint32_t entries)
{
	struct bench_queue *queue = &bench->queue[id];
	queue_reset(queue, entries);
	struct nvme_command command = bench_command(NVME_ADMIN_CREATE_CQ, 0);
	command.cdw10 = le32_set((entries - 1) << 16 | id);
	command.cdw11 = le32_set((uint32_t)id << 16 | NVME_QUEUE_CONTIGUOUS |
		(bench->transport->interrupts_max ? NVME_CQ_INTERRUPTS : 0));
	command.prp1 = le64_set(bench_address(queue->cq));
	assert_int_equal(bench_do(bench, 0, command, NULL), 0);
	command.opcode = NVME_ADMIN_CREATE_SQ;
	command.cdw11 = le32_set((uint32_t)id << 16 | NVME_QUEUE_CONTIGUOUS);
	command.prp1 = le64_set(bench_address(queue->sq));
	assert_int_equal(bench_do(bench, 0, command, NULL), 0);
}

MAY_WAIT void bench_bring_up(struct bench *bench)
{
	bench_enable(bench, 16);
	bench_create_queue(bench, 1, 64);
}

/* ---- commands ---- */

struct nvme_command bench_command(uint8_t opcode, uint32_t nsid)
{
	return (struct nvme_command){.opcode = opcode, .nsid = le32_set(nsid)};
}

struct nvme_command bench_rw(uint8_t opcode, uint64_t lba, uint32_t blocks, const void *data)
{
	struct nvme_command command = bench_command(opcode, 1);
	command.cdw10 = le32_set((uint32_t)lba);
	command.cdw11 = le32_set((uint32_t)(lba >> 32));
	command.cdw12 = le32_set(blocks - 1);
	command.prp1 = le64_set(bench_address(data));
	return command;
}

static void ring(struct bench *bench, uint16_t id, uint32_t doorbell, uint32_t value)
{
	__atomic_thread_fence(__ATOMIC_RELEASE); /* the entry first */
	const unsigned index = (doorbell - NVME_REG_DOORBELLS) / 4;
	bool real = true;
	if (bench->shadow && id > 0) {
		const uint32_t before = le32toh(__atomic_exchange_n(&bench->shadow[index], htole32(value), __ATOMIC_SEQ_CST));
		const uint32_t event = le32toh(__atomic_load_n(&bench->event_index[index], __ATOMIC_SEQ_CST));
		real = (uint16_t)(value - event - 1) < (uint16_t)(value - before);
	}
	if (real)
		bench_write32(bench, doorbell, value);
}

uint16_t bench_submit(struct bench *bench, uint16_t id, struct nvme_command command)
{
	struct bench_queue *queue = &bench->queue[id];
	const uint16_t cid = __atomic_fetch_add(&bench->next_cid, 1, __ATOMIC_RELAXED); /* tests have threads */
	command.cid = le16_set(cid);
	queue->sq[queue->sq_tail] = command;
	queue->sq_tail = (queue->sq_tail + 1) % queue->entries;
	ring(bench, id, nvme_sq_doorbell(id, 0), queue->sq_tail);
	return cid;
}

bool bench_poll(struct bench *bench, uint16_t id, struct nvme_completion *out)
{
	struct bench_queue *queue = &bench->queue[id];
	struct nvme_completion *entry = &queue->cq[queue->cq_head];
	if ((__atomic_load_n(&entry->status.raw, __ATOMIC_ACQUIRE) & 1) != queue->phase)
		return false;
	*out = *entry;
	if (++queue->cq_head == queue->entries) {
		queue->cq_head = 0;
		queue->phase = !queue->phase;
	}
	ring(bench, id, nvme_cq_doorbell(id, 0), queue->cq_head);
	return true;
}

MAY_WAIT bool bench_wait(struct bench *bench, uint16_t id, struct nvme_completion *out, uint64_t timeout_ns)
{
	const uint64_t end_ns = reactor_now_ns() + timeout_ns;
	while (!bench_poll(bench, id, out)) {
		if (reactor_now_ns() > end_ns)
			return false;
		fiber_sleep(WAIT_STEP_NS);
	}
	return true;
}

uint16_t bench_status(const struct nvme_completion *completion)
{
	return le16_get(completion->status) >> 1 & 0x7ff;
}

MAY_WAIT uint16_t bench_do(struct bench *bench, uint16_t id, struct nvme_command command, uint32_t *dw0)
{
	struct nvme_completion completion = {0};
	const uint16_t cid = bench_submit(bench, id, command);
	assert_true(bench_wait(bench, id, &completion, COMMAND_TIMEOUT_S * NS_PER_SEC));
	assert_int_equal(le16_get(completion.cid), cid);
	assert_int_equal(le16_get(completion.sq_id), id);
	if (dw0)
		*dw0 = le32_get(completion.dw0);
	return bench_status(&completion);
}

MAY_WAIT uint16_t bench_admin(struct bench *bench, uint8_t opcode, uint32_t cdw10, uint32_t cdw11, uint32_t *dw0)
{
	struct nvme_command command = bench_command(opcode, 0);
	command.cdw10 = le32_set(cdw10);
	command.cdw11 = le32_set(cdw11);
	return bench_do(bench, 0, command, dw0);
}

MAY_WAIT uint16_t bench_write(struct bench *bench, uint64_t lba, uint32_t blocks, uint8_t fill, uint32_t cdw12_flags)
{
	uint8_t *data = bench_page(bench, 0);
	assert_true(blocks <= 2);
	memset(data, fill, 2 * EMU_PAGE);
	struct nvme_command command = bench_rw(NVME_CMD_WRITE, lba, blocks, data);
	command.cdw12 = le32_set((blocks - 1) | cdw12_flags);
	command.prp2 = le64_set(bench_address(data + EMU_PAGE));
	return bench_do(bench, 1, command, NULL);
}

MAY_WAIT int bench_read(struct bench *bench, uint64_t lba)
{
	uint8_t *data = bench_page(bench, 2);
	const uint32_t size = bench->options.lba_bytes ? bench->options.lba_bytes : 4096;
	memset(data, 0x5a, EMU_PAGE);
	assert_int_equal(bench_do(bench, 1, bench_rw(NVME_CMD_READ, lba, 1, data), NULL), 0);
	for (uint32_t i = 1; i < size; i++)
		if (data[i] != data[0])
			return -1;
	return data[0];
}

MAY_WAIT uint16_t bench_flush(struct bench *bench) { return bench_do(bench, 1, bench_command(NVME_CMD_FLUSH, 1), NULL); }
