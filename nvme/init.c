/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * From whatever state a controller is in to working I/O queues (NVMe Base 2.0, 3.5.1), and back.
 *
 *   CC.EN = 0, wait CSTS.RDY = 0  ->  AQA, ASQ, ACQ  ->  CC.EN = 1, wait CSTS.RDY = 1 (both waits: CAP.TO)
 *   Identify Controller  ->  Number of Queues  ->  volatile cache off, if asked  ->  Doorbell Buffer Config
 *   ->  per I/O queue pair: Create CQ, Create SQ  ->  namespaces  ->  Asynchronous Event Configuration and requests
 */
#include <errno.h>

#include "nvme/nvme_internal.h"
#include "reactor/log.h"
#include "reactor/memory.h"

enum { POLL_READY_US = 500 };

/* Until CSTS.RDY is @ready. When it stops, a fatal status is waited for too: it ends with the reset, and when RDY was 0
 * all along nothing else tells when that is over; but one that stays is no reason to call a stopped controller running. */
static MAY_WAIT int await_ready(struct nvme_ctrlr *ctrlr, bool ready)
{
	const uint64_t deadline_ns = reactor_now_ns() + ctrlr->ready_timeout_ns;
	for (;;) {
		const uint32_t csts = nvme_read32(ctrlr->transport, NVME_REG_CSTS);
		const bool fatal = FIELD_GET(CSTS_CFS, csts), there = FIELD_GET(CSTS_RDY, csts) == ready;
		const bool late = reactor_now_ns() >= deadline_ns;
		if (csts == NVME_CSTS_GONE)
			return -ENODEV;
		if (there && (ready || !fatal || late))
			return 0;
		if (ready && fatal)
			return -EIO;
		if (late)
			return -ETIMEDOUT;
		if (!ctrlr_pause(ctrlr, POLL_READY_US * NS_PER_US))
			return nvme_transport_gone(ctrlr->transport) ? -ENODEV : -ECANCELED;
	}
}

static MAY_WAIT int wait_ready(struct nvme_ctrlr *ctrlr, bool ready)
{
	const int err = await_ready(ctrlr, ready);
	switch (err) {
	case 0:
		return 0;
	case -EIO:
		return ctrlr_complain(ctrlr, err, "controller fatal status while it starts: power-cycle the device");
	case -ETIMEDOUT:
		return ctrlr_complain(ctrlr, err, "not %s within the %llu ms that it asks for: power-cycle the device",
			ready ? "ready" : "stopped", (unsigned long long)(ctrlr->ready_timeout_ns / NS_PER_MS));
	case -ECANCELED:
		return ctrlr_complain(ctrlr, -ENODEV, "the deadline of its stop has passed");
	default:
		return ctrlr_complain(ctrlr, err, "the device has vanished");
	}
}

MAY_WAIT int ctrlr_disable(struct nvme_ctrlr *ctrlr)
{
	uint32_t cc = nvme_read32(ctrlr->transport, NVME_REG_CC);
	if (cc == NVME_CSTS_GONE)
		return ctrlr_complain(ctrlr, -ENODEV, "the device has vanished");
	if (FIELD_GET(CC_EN, cc)) {
		/* A change of EN before RDY has followed the last one is undefined (3.1.3.5), unless the status is fatal. */
		const uint32_t csts = nvme_read32(ctrlr->transport, NVME_REG_CSTS);
		if (!FIELD_GET(CSTS_RDY, csts) && !FIELD_GET(CSTS_CFS, csts) && await_ready(ctrlr, true) == -ENODEV)
			return ctrlr_complain(ctrlr, -ENODEV, "the device has vanished");
		cc &= ~(uint32_t)(FIELD_SET(CC_EN, 1) | FIELD_SET(CC_SHN, 3));
		nvme_write32(ctrlr->transport, NVME_REG_CC, cc);
		ctrlr_wrote(ctrlr);
		/* One that was never ready shows no change: it gets a moment to see it before it may be enabled again. */
		fiber_sleep(POLL_READY_US * NS_PER_US);
	}
	return wait_ready(ctrlr, false);
}

MAY_WAIT int ctrlr_enable(struct nvme_ctrlr *ctrlr)
{
	struct nvme_transport *transport = ctrlr->transport;
	const struct nvme_qpair *admin = ctrlr->admin;
	const uint32_t entries = admin->depth - 1u;
	qpair_clear(ctrlr->admin);
	qpair_restart(ctrlr->admin);
	nvme_write32(transport, NVME_REG_AQA, (uint32_t)(FIELD_SET(AQA_ASQS, entries) | FIELD_SET(AQA_ACQS, entries)));
	nvme_write64(transport, NVME_REG_ASQ, admin->sq_iova);
	nvme_write64(transport, NVME_REG_ACQ, admin->cq_iova);
	nvme_write32(transport, NVME_REG_CC, (uint32_t)(FIELD_SET(CC_EN, 1) | FIELD_SET(CC_IOSQES, 6) | FIELD_SET(CC_IOCQES, 4)));
	ctrlr_wrote(ctrlr);
	return wait_ready(ctrlr, true);
}

/* ---- identify ---- */

/* ASCII padded with spaces -> a string without what may not be printed. */
static void text_copy(char *to, const char *from, size_t length)
{
	while (length > 0 && (from[length - 1] == ' ' || from[length - 1] == '\0'))
		length--;
	for (size_t i = 0; i < length; i++)
		to[i] = from[i] >= ' ' && from[i] <= '~' ? from[i] : '?';
	to[length] = '\0';
}

static MAY_WAIT int identify_controller(struct nvme_ctrlr *ctrlr)
{
	struct nvme_id_ctrlr *id = ctrlr->identify;
	struct nvme_ctrlr_info *info = &ctrlr->info;
	const int err = admin_identify(ctrlr, NVME_CNS_CTRLR, 0, id);
	if (err)
		return ctrlr_complain(ctrlr, err, "Identify Controller failed: %s", strerror(-err));
	text_copy(info->model, id->mn, sizeof(id->mn));
	text_copy(info->serial, id->sn, sizeof(id->sn));
	text_copy(info->firmware, id->fr, sizeof(id->fr));
	info->vendor = le16_get(id->vid);
	info->version = nvme_read32(ctrlr->transport, NVME_REG_VS);
	info->cache_present = id->vwc & NVME_VWC_PRESENT;
	info->dsm = le16_get(id->oncs) & NVME_ONCS_DSM;
	info->write_zeroes = le16_get(id->oncs) & NVME_ONCS_WRITE_ZEROES;
	const uint64_t mdts = id->mdts && id->mdts < 32 ? (uint64_t)PAGE_BYTES << id->mdts : UINT64_MAX;
	info->transfer_bytes_max = (uint32_t)MIN(mdts, (uint64_t)TRANSFER_BYTES_MAX);
	/* Minimum entry sizes are fixed by the specification; a controller that wants more is none of ours. */
	if ((id->sqes & 15) > 6 || (id->cqes & 15) > 4)
		return ctrlr_complain(ctrlr, -EOPNOTSUPP, "wants queue entries larger than 64 and 16 bytes: not supported");
	return 0;
}

static MAY_WAIT int set_feature(struct nvme_ctrlr *ctrlr, enum nvme_feature feature, uint32_t value, uint32_t *dw0, bool quiet)
{
	const struct nvme_admin admin = {
		.command = {.opcode = NVME_ADMIN_SET_FEATURES, .cdw10 = le32_set(feature), .cdw11 = le32_set(value)},
		.quiet = quiet,
	};
	return admin_run(ctrlr, &admin, dw0);
}

static MAY_WAIT int ask_for_queues(struct nvme_ctrlr *ctrlr)
{
	const uint32_t wanted = ctrlr->qpair_count - 1;
	uint32_t granted;
	const int err = set_feature(ctrlr, NVME_FEATURE_NUMBER_OF_QUEUES, wanted << 16 | wanted, &granted, false);
	if (err)
		return ctrlr_complain(ctrlr, err, "refuses to say how many queues it has: %s", strerror(-err));
	ctrlr->info.io_queues = MIN(granted & 0xffff, granted >> 16) + 1;
	if (ctrlr->info.io_queues < ctrlr->qpair_count)
		return ctrlr_complain(ctrlr, -EMFILE, "has %u I/O queue pairs for %u reactors: use -o reactors=%u",
			ctrlr->info.io_queues, ctrlr->qpair_count, ctrlr->info.io_queues);
	return 0;
}

/* A drive may come up with its cache as it was saved, so it is asked, and told again after every reset. */
static MAY_WAIT int set_cache(struct nvme_ctrlr *ctrlr)
{
	struct nvme_ctrlr_info *info = &ctrlr->info;
	info->cache_on = false;
	if (!info->cache_present)
		return 0;
	uint32_t on = 1;
	if (ctrlr->options.write_cache_off) {
		const int err = set_feature(ctrlr, NVME_FEATURE_VOLATILE_CACHE, 0, NULL, true);
		if (err == -ENODEV || err == -ETIMEDOUT)
			return err;
		if (err)
			log_info("%s: its volatile write cache cannot be turned off: writes go with FUA", ctrlr->transport->name);
	}
	const struct nvme_admin get = {
		.command = {.opcode = NVME_ADMIN_GET_FEATURES, .cdw10 = le32_set(NVME_FEATURE_VOLATILE_CACHE)},
		.quiet = true,
	};
	const int err = admin_run(ctrlr, &get, &on);
	if (err == -ENODEV || err == -ETIMEDOUT)
		return err;
	/* One that does not say is taken to have it on: a flush too many does no harm. */
	info->cache_on = err != 0 || (on & 1);
	if (info->cache_on && ctrlr->cache_off)
		return ctrlr_complain(ctrlr, -EIO, "its volatile write cache was off and is on after a reset: what is written would not "
			"be durable");
	return 0;
}

/* A drive that lost power since the last time has lost what its cache held: then a reset is not enough to go on. Drives
 * that do not say are believed. */
static MAY_WAIT int check_power(struct nvme_ctrlr *ctrlr, bool first)
{
	struct nvme_log_smart smart;
	const struct nvme_admin admin = {
		.command = {.opcode = NVME_ADMIN_GET_LOG_PAGE, .nsid = le32_set(UINT32_MAX),
			.cdw10 = le32_set(NVME_LOG_SMART | (sizeof(smart) / 4 - 1) << 16)},
		.data = &smart,
		.length = sizeof(smart),
		.quiet = true,
	};
	const int err = admin_run(ctrlr, &admin, NULL);
	if (err)
		return err == -ENODEV || err == -ETIMEDOUT ? err : 0;
	le64_t cycles;
	memcpy(&cycles, smart.power_cycles, sizeof(cycles));
	const uint64_t before = ctrlr->power_cycles;
	ctrlr->power_cycles = le64_get(cycles);
	const bool cached = ctrlr->cache_was_on; /* until now: what it came up with is no matter */
	ctrlr->cache_was_on = ctrlr->info.cache_on;
	if (first || before == ctrlr->power_cycles || !cached)
		return 0;
	ctrlr->power_lost = true;
	return ctrlr_complain(ctrlr, -ENODEV, "the drive lost power while it was in use, and what its write cache held");
}

/* After a reset a controller reports what it likes; some report nothing unless asked. One that refuses is no worse than
 * one that has nothing to report. */
static MAY_WAIT int set_events(struct nvme_ctrlr *ctrlr)
{
	const uint32_t offered = le32_get(ctrlr->identify->oaes) & NVME_OAES_NS_ATTRIBUTE;
	const uint32_t wanted = NVME_EVENTS_SMART | (offered ? NVME_EVENTS_NS_ATTRIBUTE : 0u);
	const int err = set_feature(ctrlr, NVME_FEATURE_ASYNC_EVENTS, wanted, NULL, true);
	if (err == -ENODEV || err == -ETIMEDOUT)
		return err;
	if (err)
		log_info("%s: refuses to report health and changes of its namespaces", ctrlr->transport->name);
	return 0;
}

/* ---- queues ---- */

static MAY_WAIT void set_shadow_doorbells(struct nvme_ctrlr *ctrlr)
{
	ctrlr->info.shadow_doorbells = false;
	if (!(le16_get(ctrlr->identify->oacs) & NVME_OACS_DOORBELL_BUFFER) || ctrlr->dstrd != 0)
		return;
	if (!ctrlr->shadow)
		ctrlr->shadow = dma_alloc(2 * (size_t)PAGE_BYTES, PAGE_BYTES);
	if (!ctrlr->shadow)
		return;
	memset(ctrlr->shadow, 0, 2 * (size_t)PAGE_BYTES);
	uint32_t *const events = ctrlr->shadow + PAGE_BYTES / 4;
	const struct nvme_admin admin = {
		.command = {.opcode = NVME_ADMIN_DOORBELL_BUFFER, .prp1 = le64_set(dma_iova(ctrlr->shadow)),
			.prp2 = le64_set(dma_iova(events))},
		.quiet = true,
	};
	ctrlr->info.shadow_doorbells = admin_run(ctrlr, &admin, NULL) == 0;
}

static void use_shadow(struct nvme_ctrlr *ctrlr, struct doorbell *doorbell)
{
	const uint32_t slot = (doorbell->reg - NVME_REG_DOORBELLS) / 4;
	const bool fits = ctrlr->info.shadow_doorbells && slot < PAGE_BYTES / 4;
	doorbell->shadow = fits ? ctrlr->shadow + slot : NULL;
	doorbell->event = fits ? ctrlr->shadow + PAGE_BYTES / 4 + slot : NULL;
}

static MAY_WAIT int create_queue(struct nvme_ctrlr *ctrlr, struct nvme_qpair *qpair, bool submission)
{
	const uint32_t interrupts = qpair->interrupt_fd >= 0 ? (uint32_t)qpair->qid << 16 | NVME_CQ_INTERRUPTS : 0;
	const struct nvme_admin admin = {
		.command = {
			.opcode = submission ? NVME_ADMIN_CREATE_SQ : NVME_ADMIN_CREATE_CQ,
			.prp1 = le64_set(submission ? qpair->sq_iova : qpair->cq_iova),
			.cdw10 = le32_set((qpair->depth - 1u) << 16 | qpair->qid),
			.cdw11 = le32_set(NVME_QUEUE_CONTIGUOUS | (submission ? (uint32_t)qpair->qid << 16 : interrupts)),
		},
	};
	const int err = admin_run(ctrlr, &admin, NULL);
	return err ? ctrlr_complain(ctrlr, err, "I/O queue %u is refused: %s", qpair->qid, strerror(-err)) : 0;
}

static MAY_WAIT int create_queues(struct nvme_ctrlr *ctrlr)
{
	for (unsigned i = 0; i < ctrlr->qpair_count; i++) {
		struct nvme_qpair *qpair = ctrlr->qpairs[i];
		use_shadow(ctrlr, &qpair->sq_doorbell);
		use_shadow(ctrlr, &qpair->cq_doorbell);
		/* The rings are cleared before the controller knows of them. */
		reactor_call_nowait(qpair->reactor, qpair_clear, qpair);
		int err = create_queue(ctrlr, qpair, false);
		if (!err)
			err = create_queue(ctrlr, qpair, true);
		if (err)
			return err;
	}
	return 0;
}

static int open_queues(struct nvme_ctrlr *ctrlr)
{
	const uint64_t entries = FIELD_GET(CAP_MQES, ctrlr->cap) + 1;
	const uint16_t depth = (uint16_t)MIN(entries, (uint64_t)ctrlr->options.queue_depth);
	ctrlr->info.queue_depth = depth;
	ctrlr->info.interrupts = true;
	for (unsigned i = 0; i < ctrlr->qpair_count; i++) {
		struct reactor *reactor = reactor_group_get(ctrlr->options.group, i);
		const int err = qpair_create(ctrlr, (uint16_t)(i + 1), depth, reactor, &ctrlr->qpairs[i]);
		if (err)
			return ctrlr_complain(ctrlr, err, "no DMA memory for %u queue pairs of %u entries: give it more hugepages",
				ctrlr->qpair_count, depth);
		ctrlr->info.interrupts &= ctrlr->qpairs[i]->interrupt_fd >= 0;
	}
	return 0;
}

MAY_WAIT int ctrlr_bring_up(struct nvme_ctrlr *ctrlr, bool first)
{
	int err = ctrlr_enable(ctrlr);
	if (!err)
		err = identify_controller(ctrlr);
	if (!err)
		err = ask_for_queues(ctrlr);
	if (!err)
		err = set_cache(ctrlr);
	if (!err)
		err = check_power(ctrlr, first);
	if (!err && first) {
		ctrlr->cache_off = !ctrlr->info.cache_on;
		err = open_queues(ctrlr);
	}
	if (!err && first)
		err = for_each_qpair(ctrlr, qpair_open);
	if (err)
		return ctrlr_complain(ctrlr, err, "does not start: %s", strerror(-err));
	set_shadow_doorbells(ctrlr);
	err = create_queues(ctrlr);
	if (!err)
		err = namespaces_read(ctrlr, !first);
	if (!err)
		err = set_events(ctrlr);
	if (err)
		return ctrlr_complain(ctrlr, err, "does not start: %s", strerror(-err));
	for (unsigned i = 0; i < EVENT_REQUESTS_MAX; i++)
		ctrlr->events[i].refused = false;
	events_arm(ctrlr);
	return 0;
}

MAY_WAIT void ctrlr_shutdown_notify(struct nvme_ctrlr *ctrlr)
{
	enum { SHUTDOWN_MS_MIN = 1000, SHUTDOWN_MS_MAX = 10000 };
	const uint64_t rtd3e_ms = le32_get(ctrlr->identify->rtd3e) / 1000;
	const uint64_t wait_ms = MIN(MAX(rtd3e_ms, (uint64_t)SHUTDOWN_MS_MIN), (uint64_t)SHUTDOWN_MS_MAX);
	const uint64_t deadline_ns = reactor_now_ns() + wait_ms * NS_PER_MS;
	uint32_t cc = nvme_read32(ctrlr->transport, NVME_REG_CC);
	if (cc == NVME_CSTS_GONE || !FIELD_GET(CC_EN, cc))
		return;
	cc = (cc & ~(uint32_t)FIELD_SET(CC_SHN, 3)) | (uint32_t)FIELD_SET(CC_SHN, CC_SHN_NORMAL);
	nvme_write32(ctrlr->transport, NVME_REG_CC, cc);
	ctrlr_wrote(ctrlr);
	for (;;) {
		const uint32_t csts = nvme_read32(ctrlr->transport, NVME_REG_CSTS);
		if (csts == NVME_CSTS_GONE || FIELD_GET(CSTS_SHST, csts) == CSTS_SHST_COMPLETE)
			return;
		if (reactor_now_ns() >= deadline_ns || !ctrlr_pause(ctrlr, POLL_READY_US * NS_PER_US)) {
			log_warn("%s: does not say that its shutdown is complete", ctrlr->transport->name);
			return;
		}
	}
}
