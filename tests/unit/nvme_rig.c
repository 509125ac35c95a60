/* SPDX-License-Identifier: BSD-3-Clause */
/* The rig, see nvme_rig.h. */
#include "nvme_rig.h"

#include <errno.h>
#include <stdio.h>

/* ---- log and events ---- */

static void keep_line(enum log_level level, const char *line, void *arg)
{
	struct rig *rig = arg;
	rig->lines_at[level]++;
	rig->strangers += strstr(line, "which is not under way") != NULL;
	snprintf(rig->lines[rig->line_count++ % RIG_LINES_MAX], RIG_LINE_BYTES, "%s", line);
	if (getenv("RIG_LOG"))
		fprintf(stderr, "%s\n", line);
}

bool rig_logged(const struct rig *rig, const char *part)
{
	for (unsigned i = 0; i < RIG_LINES_MAX; i++)
		if (strstr(rig->lines[i], part))
			return true;
	return false;
}

static void keep_event(struct nvme_ctrlr *ctrlr, enum nvme_event event, uint32_t nsid, void *arg)
{
	struct rig *rig = arg;
	assert_non_null(fiber_self());
	assert_ptr_equal(reactor_self(), reactor_group_get(rig->group, 0));
	rig->events[event]++;
	rig->event_nsid[event] = nsid;
}

/* ---- life ---- */

void rig_init(struct rig *rig, unsigned reactors, uint64_t seed)
{
	const struct reactor_options options = {.count = reactors, .simulate = true, .seed = seed, .fiber_count = 64};
	memset(rig, 0, sizeof(*rig));
	assert_int_equal(reactor_group_create(&options, &rig->group), 0);
	assert_int_equal(reactor_group_start(rig->group), 0);
	fake_init(&rig->fake, "fake:0", seed);
	rig->options = (struct nvme_ctrlr_options){.group = rig->group, .queue_depth = 8, .event = keep_event, .arg = rig};
	log_set_sink(keep_line, rig);
}

void rig_run(struct rig *rig, unsigned reactor, int (*fn)(void *arg), void *arg)
{
	assert_int_equal(reactor_group_run(reactor_group_get(rig->group, reactor), fn, arg), 0);
}

MAY_WAIT static int attach(void *arg)
{
	struct rig *rig = arg;
	fake_start(&rig->fake);
	return nvme_ctrlr_attach(&rig->fake.transport, &rig->options, &rig->ctrlr, rig->message, sizeof(rig->message));
}

int rig_attach(struct rig *rig)
{
	rig->attached_once = true;
	return reactor_group_run(reactor_group_get(rig->group, 0), attach, rig);
}

struct stop {
	struct rig *rig;
	uint64_t deadline_ns;
};
MAY_WAIT static int stop(void *arg)
{
	const struct stop *how = arg;
	nvme_ctrlr_stop(how->rig->ctrlr, how->deadline_ns);
	return 0;
}

void rig_stop(struct rig *rig, uint64_t deadline_ns)
{
	struct stop how = {.rig = rig, .deadline_ns = deadline_ns};
	rig_run(rig, 0, stop, &how);
}

MAY_WAIT static int detach(void *arg)
{
	struct rig *rig = arg;
	nvme_ctrlr_stop(rig->ctrlr, 10 * NS_PER_SEC);
	const int err = nvme_ctrlr_destroy(rig->ctrlr, NS_PER_SEC);
	rig->ctrlr = NULL;
	return err;
}

void rig_detach(struct rig *rig)
{
	if (rig->ctrlr)
		rig_run(rig, 0, detach, rig);
}

MAY_WAIT static int stop_fake(void *arg)
{
	fake_stop(arg);
	return 0;
}

/* No fiber, timer or poller of the driver may be left. */
static void expect_silence(struct rig *rig)
{
	enum { STEPS_MAX = 1000 };
	unsigned steps = 0;
	while (reactor_group_sim_step(rig->group))
		assert_true(++steps < STEPS_MAX);
}

static void fake_end(struct rig *rig)
{
	assert_string_equal(rig->fake.complaint, "");
	assert_int_equal(rig->fake.releases, rig->attached_once);
	if (!rig->fake.nonsense)
		assert_int_equal(rig->strangers, 0);
	rig->strangers = 0;
	rig_run(rig, 0, stop_fake, &rig->fake);
	expect_silence(rig);
	fake_fini(&rig->fake);
}

void rig_renew(struct rig *rig)
{
	assert_null(rig->ctrlr);
	fake_end(rig);
	fake_init(&rig->fake, "fake:0", 5);
	rig->attached_once = false;
}

void rig_fini(struct rig *rig)
{
	rig_detach(rig);
	fake_end(rig);
	reactor_group_destroy(rig->group);
	log_set_sink(NULL, NULL);
}

/* ---- time ---- */

MAY_WAIT static int sleep_ns(void *arg)
{
	fiber_sleep(*(const uint64_t *)arg);
	return 0;
}

static int now_ns(void *arg)
{
	*(uint64_t *)arg = reactor_now_ns();
	return 0;
}

uint64_t rig_now(struct rig *rig)
{
	uint64_t now;
	rig_run(rig, 0, now_ns, &now);
	return now;
}

void rig_sleep(struct rig *rig, uint64_t ns) { rig_run(rig, 0, sleep_ns, &ns); }

void rig_until(struct rig *rig, bool (*done)(struct rig *rig, void *arg), void *arg, uint64_t limit_ns)
{
	for (uint64_t ns = 0; !done(rig, arg); ns += NS_PER_MS) {
		assert_true(ns < limit_ns);
		rig_sleep(rig, NS_PER_MS);
	}
}

/* ---- requests ---- */

void rig_io_init(struct rig_io *io, struct rig *rig, uint32_t bytes)
{
	*io = (struct rig_io){.rig = rig};
	if (bytes == 0)
		return;
	io->buffer = dma_zalloc(align_up(bytes, FAKE_PAGE), FAKE_PAGE);
	assert_non_null(io->buffer);
}

void rig_io_fini(struct rig_io *io)
{
	if (io->buffer)
		dma_free(io->buffer);
	io->buffer = NULL;
}

static void rig_io_done(struct nvme_request *request)
{
	struct rig_io *io = CONTAINER_OF(request, struct rig_io, request);
	assert_int_equal(++io->answers, 1);
	assert_null(fiber_self());
	assert_ptr_equal(reactor_self(), io->reactor);
	assert_false(io->submitting);
	if (request->iov && !io->rig->hostile && fake_can_reach(&io->rig->fake, io->iov.iov_base, io->iov.iov_len))
		fail_msg("answered with %d while the controller has its buffer", request->result);
	io->done_ns = reactor_now_ns();
	if (io->waiter)
		fiber_wake(io->waiter);
	if (io->then)
		io->then(io);
}

void rig_io_submit(struct rig_io *io, enum nvme_opcode opcode, uint64_t lba, uint32_t blocks)
{
	const bool data = opcode == NVME_CMD_READ || opcode == NVME_CMD_WRITE;
	io->qpair = nvme_ctrlr_qpair(io->rig->ctrlr);
	io->reactor = reactor_self();
	io->iov = (struct iovec){.iov_base = io->buffer, .iov_len = data ? (size_t)blocks << 9 : 0};
	memset(&io->request, 0xee, sizeof(io->request)); /* what the driver needs, it sets */
	io->request.command = (struct nvme_command){
		.opcode = (uint8_t)opcode,
		.nsid = le32_set(1),
		.cdw10 = le32_set(opcode == NVME_CMD_DSM ? 0 : (uint32_t)lba),
		.cdw11 = le32_set(opcode == NVME_CMD_DSM ? NVME_DSM_DEALLOCATE : (uint32_t)(lba >> 32)),
		.cdw12 = le32_set(data || opcode == NVME_CMD_WRITE_ZEROES ? blocks - 1 : 0),
	};
	io->request.iov = data ? &io->iov : NULL;
	io->request.iov_count = data ? 1 : 0;
	io->request.length = (uint32_t)io->iov.iov_len;
	io->request.dsm_blocks = opcode == NVME_CMD_DSM ? blocks : 0;
	io->request.dsm_lba = lba;
	io->request.done = rig_io_done;
	io->answers = 0;
	io->submitting = true;
	nvme_submit(io->qpair, &io->request);
	io->submitting = false;
}

MAY_WAIT int rig_io_wait(struct rig_io *io)
{
	io->waiter = fiber_self();
	while (io->answers == 0)
		fiber_park("a request");
	io->waiter = NULL;
	return io->request.result;
}

MAY_WAIT int rig_io_run(struct rig_io *io, enum nvme_opcode opcode, uint64_t lba, uint32_t blocks)
{
	rig_io_submit(io, opcode, lba, blocks);
	return rig_io_wait(io);
}
