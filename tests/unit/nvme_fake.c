/* SPDX-License-Identifier: BSD-3-Clause */
/* The fake controller's registers and queues, see nvme_fake.h. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "nvme_fake_internal.h"

enum { DUE_NEVER_HELD = 1 }; /* UINT64_MAX - this: until fake_release */

void fake_complain(struct nvme_fake *fake, const char *format, ...)
{
	va_list arguments;
	if (fake->complaint[0])
		return;
	va_start(arguments, format);
	vsnprintf(fake->complaint, sizeof(fake->complaint), format, arguments);
	va_end(arguments);
}

uint64_t fake_random(struct nvme_fake *fake, uint64_t bound)
{
	uint64_t z = fake->random += 0x9e3779b97f4a7c15;
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
	return (z ^ (z >> 31)) % bound;
}

/* ---- registers ---- */

static volatile uint32_t *reg_at(const struct nvme_fake *fake, uint32_t reg)
{
	return (volatile uint32_t *)(fake->transport.bar + reg);
}
uint32_t fake_get(const struct nvme_fake *fake, uint32_t reg) { return le32toh(*reg_at(fake, reg)); }
void fake_set(struct nvme_fake *fake, uint32_t reg, uint32_t value) { *reg_at(fake, reg) = htole32(value); }

static uint64_t get64(const struct nvme_fake *fake, uint32_t reg)
{
	return fake_get(fake, reg) | (uint64_t)fake_get(fake, reg + 4) << 32;
}

unsigned fake_dstrd(const struct nvme_fake *fake) { return (unsigned)FIELD_GET(CAP_DSTRD, fake->cap); }

static void show_status(struct nvme_fake *fake)
{
	uint32_t csts = fake_get(fake, NVME_REG_CSTS) & (uint32_t)FIELD_SET(CSTS_SHST, 3);
	csts |= (uint32_t)(FIELD_SET(CSTS_RDY, fake->ready) | FIELD_SET(CSTS_CFS, fake->fatal));
	fake_set(fake, NVME_REG_CSTS, csts);
}

/* With shadow doorbells the registers of I/O queues are but a bell. */
static uint16_t doorbell_value(const struct nvme_fake *fake, uint16_t qid, uint32_t reg)
{
	if (fake->shadow && qid != 0)
		return (uint16_t)le32toh(fake->shadow[(reg - NVME_REG_DOORBELLS) / 4]);
	return (uint16_t)fake_get(fake, reg);
}

uint16_t fake_sq_tail(const struct nvme_fake *fake, uint16_t qid)
{
	return doorbell_value(fake, qid, nvme_sq_doorbell(qid, fake_dstrd(fake)));
}

uint16_t fake_cq_head(const struct nvme_fake *fake, uint16_t qid)
{
	return doorbell_value(fake, qid, nvme_cq_doorbell(qid, fake_dstrd(fake)));
}

/* The doorbell hook: counts; the model sees everything else when it runs. */
void fake_wrote(struct nvme_transport *transport)
{
	struct nvme_fake *fake = CONTAINER_OF(transport, struct nvme_fake, transport);
	fake->wrote++;
	fake->told = true;
	if (nvme_transport_gone(transport))
		fake_complain(fake, "registers are written, though the device is known to be gone");
	for (uint16_t qid = 0; qid <= FAKE_QUEUES_MAX && !fake->gone && !fake->doorbells_out_of_sight; qid++) {
		struct fake_sq *sq = &fake->sqs[qid];
		struct fake_cq *cq = &fake->cqs[qid];
		const uint16_t tail = (uint16_t)fake_get(fake, nvme_sq_doorbell(qid, fake_dstrd(fake)));
		const uint16_t head = (uint16_t)fake_get(fake, nvme_cq_doorbell(qid, fake_dstrd(fake)));
		if (sq->on && tail != sq->seen)
			sq->rings++;
		if (cq->on && head != cq->seen)
			cq->rings++;
		if ((!sq->on && tail != sq->seen) || (!cq->on && head != cq->seen))
			fake_complain(fake, "doorbell of queue %u, which does not exist", qid);
		sq->seen = tail;
		cq->seen = head;
	}
}

/* ---- answers ---- */

void fake_forget(struct fake_command *held)
{
	cds_list_del(&held->node);
	free(held);
}

static bool cq_is_full(const struct nvme_fake *fake, uint16_t qid)
{
	const struct fake_cq *cq = &fake->cqs[qid];
	return (cq->tail + 1) % cq->entries == fake_cq_head(fake, qid);
}

static void post(struct nvme_fake *fake, uint16_t sqid, uint16_t cid, uint16_t status, uint32_t dw0)
{
	const uint16_t qid = fake->sqs[sqid].cqid;
	struct fake_cq *cq = &fake->cqs[qid];
	if (cq_is_full(fake, qid)) {
		fake_complain(fake, "completion queue %u overflows", qid);
		return;
	}
	volatile struct nvme_completion *entry = (struct nvme_completion *)(uintptr_t)cq->iova + cq->tail;
	struct nvme_completion completion = {
		.dw0 = le32_set(dw0),
		.sq_head = le16_set(fake->sqs[sqid].head),
		.sq_id = le16_set(sqid),
		.cid = le16_set(cid),
		.status = le16_set((uint16_t)(status << 1 | cq->phase)),
	};
	if (fake->twist)
		fake->twist(fake, &completion);
	*entry = completion;
	cq->tail = (uint16_t)((cq->tail + 1) % cq->entries);
	if (cq->tail == 0)
		cq->phase = !cq->phase;
}

/* What nobody reckons with must not overflow the ring; what is due after it waits for room. */
void fake_post(struct nvme_fake *fake, uint16_t qid, uint16_t cid, uint16_t status)
{
	fake->nonsense = true;
	if (!cq_is_full(fake, fake->sqs[qid].cqid))
		post(fake, qid, cid, status, 0);
}

void fake_answer(struct nvme_fake *fake, struct fake_command *held)
{
	const uint16_t qid = held->qid, cid = le16_get(held->command.cid);
	if (!held->verdict)
		fake_command_do(fake, held);
	post(fake, qid, cid, held->status, held->dw0);
	if (held->twice)
		fake_post(fake, qid, cid, held->status);
	fake_forget(held);
}

static unsigned answer_due(struct nvme_fake *fake)
{
	struct fake_command *held, *next;
	unsigned count = 0;
	cds_list_for_each_entry_safe(held, next, &fake->commands, node)
		if (held->due_ns <= reactor_now_ns() && !(fake->nonsense && cq_is_full(fake, fake->sqs[held->qid].cqid))) {
			fake_answer(fake, held);
			count++;
		}
	return count;
}

unsigned fake_release(struct nvme_fake *fake, unsigned count, bool newest_first)
{
	unsigned released = 0;
	while (released < count) {
		struct fake_command *held, *chosen = NULL;
		cds_list_for_each_entry(held, &fake->commands, node)
			if (held->due_ns == UINT64_MAX - DUE_NEVER_HELD && (!chosen || newest_first))
				chosen = held;
		if (!chosen)
			break;
		fake_answer(fake, chosen);
		released++;
	}
	return released;
}

bool fake_event(struct nvme_fake *fake, uint32_t dw0)
{
	struct fake_command *held;
	cds_list_for_each_entry(held, &fake->commands, node)
		if (held->event) {
			held->verdict = true;
			held->dw0 = dw0;
			fake_answer(fake, held);
			return true;
		}
	return false;
}

unsigned fake_under_way(const struct nvme_fake *fake, bool admin)
{
	struct fake_command *held;
	unsigned count = 0;
	cds_list_for_each_entry(held, &fake->commands, node)
		count += admin == (held->qid == 0);
	return count;
}

/* ---- commands ---- */

static struct fake_rule *rule_match(struct nvme_fake *fake, const struct fake_command *held)
{
	for (unsigned i = 0; i < fake->rule_count; i++) {
		struct fake_rule *rule = &fake->rules[i];
		const uint8_t selector = (uint8_t)le32_get(held->command.cdw10);
		if (rule->admin != (held->qid == 0) || (rule->opcode != FAKE_ANY && rule->opcode != held->command.opcode) ||
		    (rule->selector != FAKE_ANY && rule->selector != selector))
			continue;
		rule->seen++;
		if (rule->seen <= rule->skip || (rule->count != 0 && rule->hits == rule->count))
			continue;
		rule->hits++;
		return rule;
	}
	return NULL;
}

static void rule_apply(struct nvme_fake *fake, struct fake_command *held, const struct fake_rule *rule)
{
	held->resists_abort = rule->resists_abort;
	switch (rule->action) {
	case FAKE_ANSWER:
		held->verdict = rule->status != 0;
		held->status = rule->status;
		held->due_ns = reactor_now_ns() + rule->delay_ns;
		break;
	case FAKE_SILENT:
		held->due_ns = UINT64_MAX;
		break;
	case FAKE_TWICE:
		held->twice = true;
		break;
	case FAKE_STRANGER:
		fake_post(fake, held->qid, (uint16_t)(le16_get(held->command.cid) ^ 0x5a5), NVME_SC_SUCCESS);
		break;
	case FAKE_FATAL:
		held->due_ns = UINT64_MAX;
		fake_fatal(fake);
		break;
	case FAKE_VANISH:
		held->due_ns = UINT64_MAX;
		fake_vanish(fake);
		break;
	}
}

static void check_cid(struct nvme_fake *fake, uint16_t qid, const struct nvme_command *command)
{
	struct fake_command *other;
	cds_list_for_each_entry(other, &fake->commands, node)
		if (other->qid == qid && le16_get(other->command.cid) == le16_get(command->cid))
			fake_complain(fake, "queue %u: command id %u is under way already", qid, le16_get(command->cid));
	if (command->flags != 0)
		fake_complain(fake, "queue %u: command with flags %02x", qid, command->flags);
}

static void take_command(struct nvme_fake *fake, uint16_t qid, const struct nvme_command *command)
{
	/* Not calloc (nor malloc and memset, which compilers take for it): tests make that fail for the driver. */
	struct fake_command *held = aligned_alloc(_Alignof(struct fake_command), sizeof(*held));
	assert(held);
	memset(held, 0, sizeof(*held));
	check_cid(fake, qid, command);
	held->command = *command;
	held->qid = qid;
	held->due_ns = reactor_now_ns();
	if (qid != 0 && fake->hold)
		held->due_ns = UINT64_MAX - DUE_NEVER_HELD;
	else if (qid != 0 && fake->latency_max_ns)
		held->due_ns += fake_random(fake, fake->latency_max_ns + 1);
	fake_command_begin(fake, held);
	const struct fake_rule *rule = rule_match(fake, held);
	cds_list_add_tail(&held->node, &fake->commands);
	if (rule)
		rule_apply(fake, held, rule);
}

static unsigned fetch(struct nvme_fake *fake, uint16_t qid)
{
	struct fake_sq *sq = &fake->sqs[qid];
	const struct nvme_command *ring = (const struct nvme_command *)(uintptr_t)sq->iova;
	unsigned count = 0;
	const uint16_t tail = fake_sq_tail(fake, qid);
	if (tail >= sq->entries) {
		fake_complain(fake, "queue %u: doorbell %u of %u entries", qid, tail, sq->entries);
		return 0;
	}
	while (sq->head != tail && !fake->gone && !fake->fatal) {
		const struct nvme_command command = ring[sq->head];
		sq->head = (uint16_t)((sq->head + 1) % sq->entries);
		take_command(fake, qid, &command);
		count++;
	}
	if (fake->shadow && qid != 0 && !fake->gone && !fake->shadow_awake)
		fake->events[(nvme_sq_doorbell(qid, fake_dstrd(fake)) - NVME_REG_DOORBELLS) / 4] = htole32(sq->head);
	return count;
}

static unsigned fetch_all(struct nvme_fake *fake)
{
	unsigned count = 0;
	for (uint16_t qid = 0; qid <= FAKE_QUEUES_MAX && !fake->gone && !fake->fatal; qid++) {
		/* Who sleeps on shadow doorbells sees only what it was told of. */
		if (fake->sqs[qid].on && (!fake->shadow || fake->told || fake->shadow_awake))
			count += fetch(fake, qid);
	}
	fake->told = false;
	return count;
}

/* ---- enabling and what ends it ---- */

static void enable(struct nvme_fake *fake, uint32_t cc)
{
	const uint32_t aqa = fake_get(fake, NVME_REG_AQA);
	fake->enables++;
	fake->enabled = true;
	fake->change_due_ns = fake->never_ready ? 0 : reactor_now_ns() + fake->ready_delay_ns;
	if (FIELD_GET(CC_IOSQES, cc) != 6 || FIELD_GET(CC_IOCQES, cc) != 4 || FIELD_GET(CC_MPS, cc) || FIELD_GET(CC_CSS, cc) ||
	    FIELD_GET(CC_SHN, cc))
		fake_complain(fake, "enabled with CC %08x", cc);
	fake->sqs[0] = (struct fake_sq){.on = true, .iova = get64(fake, NVME_REG_ASQ),
		.entries = (uint16_t)(FIELD_GET(AQA_ASQS, aqa) + 1), .rings = fake->sqs[0].rings};
	fake->cqs[0] = (struct fake_cq){.on = true, .phase = true, .iova = get64(fake, NVME_REG_ACQ),
		.entries = (uint16_t)(FIELD_GET(AQA_ACQS, aqa) + 1), .rings = fake->cqs[0].rings};
	if (fake->sqs[0].entries < 2 || fake->cqs[0].entries < 2 || fake->sqs[0].iova % FAKE_PAGE || fake->cqs[0].iova % FAKE_PAGE)
		fake_complain(fake, "enabled with AQA %08x", aqa);
	fake->fatal = fake->fatal_when_enabled;
	show_status(fake);
}

static void disable(struct nvme_fake *fake)
{
	fake->disables++;
	fake->enabled = false;
	if (fake->change_due_ns && !fake->fatal)
		fake_complain(fake, "disabled before it was ready");
	/* A fatal status takes its time, like a controller that was ready; from one that never was nothing could be seen. */
	fake->change_due_ns = fake->never_stops ? 0 : reactor_now_ns() + (fake->ready || fake->fatal ? fake->stop_delay_ns : 0);
	fake->shutdown_due_ns = 0;
}

/* What it had may or may not have been done: both are right. */
void fake_forget_all(struct nvme_fake *fake, bool maybe_do)
{
	struct fake_command *held, *next;
	cds_list_for_each_entry_safe(held, next, &fake->commands, node) {
		if (maybe_do && held->qid != 0 && !held->verdict && fake_random(fake, 2))
			fake_command_do(fake, held);
		fake_forget(held);
	}
}

static void reset_state(struct nvme_fake *fake)
{
	fake_forget_all(fake, true);
	for (unsigned i = 0; i <= FAKE_QUEUES_MAX; i++) {
		fake->sqs[i] = (struct fake_sq){.rings = fake->sqs[i].rings};
		fake->cqs[i] = (struct fake_cq){.rings = fake->cqs[i].rings};
	}
	memset((void *)(fake->transport.bar + NVME_REG_DOORBELLS), 0, FAKE_BAR_BYTES - NVME_REG_DOORBELLS);
	fake->shadow = fake->events = NULL;
	memset(fake->feature_set, 0, sizeof(fake->feature_set));
	fake->fatal = false;
	fake_set(fake, NVME_REG_CSTS, 0);
}

static void follow_shutdown(struct nvme_fake *fake, uint32_t cc)
{
	if (FIELD_GET(CC_SHN, cc) == CC_SHN_NONE || fake->never_shuts_down)
		return;
	if (fake->shutdown_due_ns == 0) {
		fake->shutdowns++;
		fake->shutdown_due_ns = reactor_now_ns() + fake->shutdown_delay_ns;
	}
	if (fake->shutdown_due_ns > reactor_now_ns())
		return;
	fake->shutdown_complete = true;
	fake_set(fake, NVME_REG_CSTS, fake_get(fake, NVME_REG_CSTS) | (uint32_t)FIELD_SET(CSTS_SHST, CSTS_SHST_COMPLETE));
}

static void follow_registers(struct nvme_fake *fake)
{
	const uint32_t cc = fake_get(fake, NVME_REG_CC);
	if (FIELD_GET(CC_EN, cc) && !fake->enabled && !fake->change_due_ns)
		enable(fake, cc);
	else if (!FIELD_GET(CC_EN, cc) && fake->enabled)
		disable(fake);
	else if (FIELD_GET(CC_EN, cc) && !fake->enabled)
		fake_complain(fake, "enabled before it had stopped");
	if (fake->enabled)
		follow_shutdown(fake, cc);
	if (fake->change_due_ns == 0 || fake->change_due_ns > reactor_now_ns())
		return;
	fake->change_due_ns = 0;
	fake->ready = fake->enabled;
	if (!fake->enabled)
		reset_state(fake);
	show_status(fake);
}

void fake_fatal(struct nvme_fake *fake)
{
	fake->fatal = true;
	show_status(fake);
}

void fake_vanish(struct nvme_fake *fake)
{
	fake->gone = true;
	fake_forget_all(fake, false);
	memset((void *)fake->transport.bar, fake->vanish_as == FAKE_ALL_ZEROES ? 0 : 0xff, FAKE_BAR_BYTES);
	if (fake->vanish_as == FAKE_SIGBUS)
		atomic_store(&fake->transport.gone, true);
}

/* ---- the poller ---- */

static void timer_fired(struct timer *timer) { (void)timer; }

static void set_timer(struct nvme_fake *fake)
{
	struct fake_command *held;
	uint64_t due_ns = UINT64_MAX - DUE_NEVER_HELD;
	if (fake->change_due_ns)
		due_ns = MIN(due_ns, fake->change_due_ns);
	if (fake->shutdown_due_ns > reactor_now_ns())
		due_ns = MIN(due_ns, fake->shutdown_due_ns);
	cds_list_for_each_entry(held, &fake->commands, node)
		due_ns = MIN(due_ns, held->due_ns);
	if (due_ns == UINT64_MAX - DUE_NEVER_HELD)
		timer_stop(&fake->timer);
	else
		timer_start(&fake->timer, due_ns > reactor_now_ns() ? due_ns - reactor_now_ns() : 0, timer_fired);
}

unsigned fake_poll(struct poller *poller)
{
	struct nvme_fake *fake = CONTAINER_OF(poller, struct nvme_fake, poller);
	unsigned work = 0;
	if (fake->gone)
		return 0;
	follow_registers(fake);
	/* A controller that is told to stop, or does not get ready, goes on with nothing; one that does not stop goes on with all. */
	if (fake->ready && !fake->fatal && !fake->dma_off) {
		work += fetch_all(fake);
		if (!fake->gone && !fake->fatal)
			work += answer_due(fake);
	}
	if (!fake->gone)
		set_timer(fake);
	return work;
}

/* ---- who watches the driver ---- */

struct reach {
	const char *start, *end;
	bool hit;
};
static bool page_reaches(void *memory, uint32_t length, void *arg)
{
	struct reach *reach = arg;
	reach->hit |= (const char *)memory < reach->end && reach->start < (const char *)memory + length;
	return !reach->hit;
}

bool fake_can_reach(const struct nvme_fake *fake, const void *buffer, size_t length)
{
	struct reach reach = {.start = buffer, .end = (const char *)buffer + length};
	struct fake_command *held;
	if (fake->gone || fake->dma_off || length == 0)
		return false;
	cds_list_for_each_entry(held, &fake->commands, node)
		if (held->qid != 0)
			fake_command_pages((struct nvme_fake *)fake, held, page_reaches, &reach);
	return reach.hit;
}
