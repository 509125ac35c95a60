/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The registers: what the driver writes to CC, and what CSTS answers (Base 2.0, 3.1.3 and 3.5).
 *
 *             EN=1             a moment                EN=0                 host memory out of use
 *   OFF -----------> ENABLING ---------> READY ----------------> RESETTING ----------------> OFF
 *                       |     RDY=1        |                                     RDY=0
 *                       | bad values       | rule
 *                       +----> FATAL <-----+           FATAL and ENABLING leave with EN=0 likewise
 *                              CFS=1
 *
 * RDY stays 1 in FATAL when it was 1 before: it goes only when the host's memory is out of use.
 *
 * A shutdown notification stops the queues, empties the write cache and then shows SHST = complete. Other registers may
 * be written by the driver at will: the model never reads them back, or only when EN rises.
 */
#include "nvme/emu_internal.h"
#include "reactor/log.h"

enum {
	READY_DELAY_US = 20,
	READY_TIMEOUT = 10, /* CAP.TO, 500 ms each: a reset waits for the backing */
	VERSION_1_4 = 0x00010400,
};

void emu_registers_init(struct emu *emu)
{
	const uint64_t cap = FIELD_SET(CAP_MQES, emu->options.depth_max - 1) | FIELD_SET(CAP_CQR, 1) |
		FIELD_SET(CAP_TO, READY_TIMEOUT) | FIELD_SET(CAP_CSS_NVM, 1);
	for (uint32_t at = 0; at < EMU_BAR_BYTES; at += sizeof(uint32_t))
		emu_bar_store(emu, at, 0);
	emu_bar_store(emu, NVME_REG_CAP, (uint32_t)cap);
	emu_bar_store(emu, NVME_REG_CAP + 4, (uint32_t)(cap >> 32));
	emu_bar_store(emu, NVME_REG_VS, VERSION_1_4);
	emu->cc = 0;
	emu->ready = emu->shutting_down = emu->shut_down = false;
	emu->state = EMU_OFF;
}

static void status_show(struct emu *emu)
{
	const unsigned shutdown = emu->shut_down ? CSTS_SHST_COMPLETE : emu->shutting_down ? CSTS_SHST_OCCURRING : 0;
	emu_bar_store(emu, NVME_REG_CSTS, (uint32_t)(FIELD_SET(CSTS_RDY, emu->ready) |
		FIELD_SET(CSTS_CFS, emu->state == EMU_FATAL) | FIELD_SET(CSTS_SHST, shutdown)));
}

/* All stops until a reset. */
void emu_fatal(struct emu *emu)
{
	emu->state = EMU_FATAL;
	status_show(emu);
}

/* ---- enabling ---- */

static void features_default(struct emu *emu)
{
	emu->queues_granted = emu->options.queues_max;
	emu->cache_on = !emu->options.no_volatile_cache;
	emu->event_config = 0;
	emu_events_forget(emu);
}

static uint64_t register_pair(const struct emu *emu, uint32_t at)
{
	return emu_bar_load(emu, at) | (uint64_t)emu_bar_load(emu, at + 4) << 32;
}

static bool admin_queues_create(struct emu *emu)
{
	const uint32_t aqa = emu_bar_load(emu, NVME_REG_AQA);
	struct emu_queue_setup sq = {.entries = FIELD_GET(AQA_ASQS, aqa) + 1};
	struct emu_queue_setup cq = {.entries = FIELD_GET(AQA_ACQS, aqa) + 1, .interrupts = true};
	if (sq.entries < 2 || cq.entries < 2)
		return false;
	const uint64_t sq_bytes = sq.entries * sizeof(struct nvme_command);
	const uint64_t cq_bytes = cq.entries * sizeof(struct nvme_completion);
	if (emu_dma_page(emu, register_pair(emu, NVME_REG_ASQ), sq_bytes, &sq.ring) ||
		emu_dma_page(emu, register_pair(emu, NVME_REG_ACQ), cq_bytes, &cq.ring))
		return false;
	emu_cq_create(emu, &cq);
	return emu_sq_create(emu, &sq) == 0;
}

static void ready(struct timer *timer)
{
	struct emu *emu = CONTAINER_OF(timer, struct emu, ready_timer);
	const uint32_t cc = emu->cc;
	const bool served = FIELD_GET(CC_MPS, cc) == 0 && FIELD_GET(CC_CSS, cc) == 0 && FIELD_GET(CC_AMS, cc) == 0;
	if (emu_rule_not_ready(emu))
		return;
	features_default(emu);
	emu->ready = served && admin_queues_create(emu);
	emu->state = emu->ready ? EMU_READY : EMU_FATAL;
	status_show(emu);
}

static void enable(struct emu *emu)
{
	emu->shutting_down = emu->shut_down = false;
	emu->state = EMU_ENABLING;
	status_show(emu);
	timer_start(&emu->ready_timer, READY_DELAY_US * NS_PER_US, ready);
}

/* ---- reset ---- */

static void reset(struct emu *emu)
{
	emu->state = EMU_RESETTING;
	emu->stats.resets++;
	timer_stop(&emu->ready_timer);
	emu_commands_drop(emu);
	emu_settle(emu);
}

/* What the driver reads as RDY = 0 promises that its memory is its own again. */
void emu_reset_finish(struct emu *emu)
{
	emu_queues_clear(emu);
	for (uint32_t at = NVME_REG_DOORBELLS; at < EMU_BAR_BYTES; at += sizeof(uint32_t))
		emu_bar_store(emu, at, 0);
	emu->ready = emu->shutting_down = emu->shut_down = false;
	emu->state = EMU_OFF;
	emu->cc &= ~(uint32_t)FIELD_SET(CC_EN, 1);
	status_show(emu);
}

/* ---- shutdown ---- */

static void shutdown_flushed(struct emu_command *command, int error)
{
	struct emu *emu = command->emu;
	if (error)
		log_warn("%s: not everything was written at shutdown: %s", emu->name, strerror(-error));
	if (emu->shutting_down && (emu->state == EMU_READY || emu->state == EMU_OFF)) {
		emu->shut_down = true;
		status_show(emu);
	}
	emu_settle(emu);
}

static void shutdown(struct emu *emu)
{
	emu->shutting_down = true;
	status_show(emu);
	emu_flush_run(&emu->own, shutdown_flushed);
}

/* While RDY is 0 a driver need not wait between EN = 0 and EN = 1: then we see only the last, and the port has seen the
 * first. At other times a late doorbell could have been taken for it. */
static bool disabled_unseen(struct emu *emu)
{
	return atomic_load_explicit(&emu->port->disabled, memory_order_relaxed) &&
		atomic_exchange(&emu->port->disabled, false) && !emu->ready &&
		(emu->state == EMU_ENABLING || emu->state == EMU_FATAL);
}

unsigned emu_registers_poll(struct emu *emu)
{
	const bool unseen = disabled_unseen(emu);
	const uint32_t cc = emu_bar_load(emu, NVME_REG_CC);
	if (UNLIKELY(unseen))
		reset(emu);
	const uint32_t before = emu->cc;
	if (LIKELY(cc == before))
		return unseen;
	emu->cc = cc;
	if (FIELD_GET(CC_SHN, cc) && !FIELD_GET(CC_SHN, before) && (emu->state == EMU_READY || emu->state == EMU_OFF))
		shutdown(emu);
	if (FIELD_GET(CC_EN, cc) && emu->state == EMU_OFF)
		enable(emu);
	else if (!FIELD_GET(CC_EN, cc) && emu->state != EMU_OFF && emu->state != EMU_RESETTING)
		reset(emu);
	return 1;
}
