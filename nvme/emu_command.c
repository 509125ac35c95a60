/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A command's way: taken from its queue (emu_command_start), checked, perhaps delayed, executed, answered
 * (emu_command_complete). Commands come from two pools that are made once: nothing on this way allocates memory.
 */
#include <errno.h>
#include <stdlib.h>

#include "nvme/emu_internal.h"

int emu_commands_init(struct emu *emu)
{
	CDS_INIT_LIST_HEAD(&emu->free);
	CDS_INIT_LIST_HEAD(&emu->admin_free);
	CDS_INIT_LIST_HEAD(&emu->used);
	emu->own.emu = emu;
	CDS_INIT_LIST_HEAD(&emu->own.wait);
	emu->pool = calloc(EMU_COMMANDS + EMU_ADMIN_COMMANDS, sizeof(*emu->pool));
	if (!emu->pool)
		return -ENOMEM;
	for (unsigned i = 0; i < EMU_COMMANDS + EMU_ADMIN_COMMANDS; i++) {
		struct emu_command *command = &emu->pool[i];
		command->emu = emu;
		command->admin = i >= EMU_COMMANDS;
		CDS_INIT_LIST_HEAD(&command->wait);
		cds_list_add_tail(&command->node, command->admin ? &emu->admin_free : &emu->free);
	}
	return 0;
}

void emu_commands_fini(struct emu *emu) { free(emu->pool); }

struct emu_command *emu_command_get(struct emu *emu, bool admin)
{
	struct cds_list_head *list = admin ? &emu->admin_free : &emu->free;
	if (cds_list_empty(list))
		return NULL;
	struct emu_command *command = cds_list_first_entry(list, struct emu_command, node);
	cds_list_del(&command->node);
	cds_list_add_tail(&command->node, &emu->used);
	command->place = EMU_AT_WORK;
	command->dropped = command->owns_cid = command->lie = command->durable = false;
	command->dw0 = 0;
	command->position = 0;
	command->index = 0;
	return command;
}

/* ---- identifiers in use ---- */

static uint64_t *cid_word(struct emu_sq *sq, uint16_t cid) { return &sq->cids[cid / 64]; }
static uint64_t cid_bit(uint16_t cid) { return 1ull << cid % 64; }

static uint16_t cid_of(const struct emu_command *command) { return le16_get(command->entry.cid); }

/* ---- the end ---- */

static void sq_command_ended(struct emu_sq *sq)
{
	struct emu_command *deleter = sq->deleter;
	if (--sq->running > 0 || !deleter)
		return;
	deleter->place = EMU_AT_WORK;
	deleter->resume(deleter);
}

void emu_command_free(struct emu_command *command)
{
	struct emu *emu = command->emu;
	struct emu_sq *sq = command->sq;
	cds_list_del(&command->node);
	cds_list_add(&command->node, command->admin ? &emu->admin_free : &emu->free);
	command->sq = NULL;
	if (command->dropped || !sq)
		return;
	if (command->owns_cid)
		*cid_word(sq, cid_of(command)) &= ~cid_bit(cid_of(command));
	sq_command_ended(sq);
}

void emu_command_complete(struct emu_command *command, uint16_t status)
{
	if (command->emu->state == EMU_FATAL) {
		command->place = EMU_AT_STUCK_HARD;
		return;
	}
	if (status)
		emu_error_record(command, status);
	emu_cq_push(command, status);
}

uint16_t emu_status_of(int error, bool write)
{
	switch (error) {
	case 0: return NVME_SC_SUCCESS;
	case -ENOSPC: return NVME_SC_CAPACITY_EXCEEDED | EMU_DNR;
	case -EROFS: return NVME_SC_NS_WRITE_PROTECTED | EMU_DNR;
	case -EILSEQ: return (write ? NVME_SC_WRITE_FAULT : NVME_SC_UNRECOVERED_READ) | EMU_DNR;
	case -EOPNOTSUPP: return NVME_SC_INTERNAL_ERROR | EMU_DNR;
	default: return NVME_SC_INTERNAL_ERROR;
	}
}

/* ---- waits ---- */

static void delay_over(struct timer *timer)
{
	struct emu_command *command = CONTAINER_OF(timer, struct emu_command, timer);
	command->place = EMU_AT_WORK;
	command->resume(command);
}

void emu_command_delay(struct emu_command *command, uint64_t delay_ns, void (*resume)(struct emu_command *))
{
	command->place = EMU_AT_TIMER;
	command->resume = resume;
	timer_start(&command->timer, delay_ns, delay_over);
}

static void backing_done(struct emu_io *io)
{
	struct emu_command *command = CONTAINER_OF(io, struct emu_command, io);
	struct emu *emu = command->emu;
	emu->backing_ios--;
	emu->host_ios -= command->io_host;
	cds_list_del_init(&command->wait);
	command->place = EMU_AT_WORK;
	if (!command->dropped) {
		command->resume(command);
		return;
	}
	emu_command_free(command);
	emu_cache_reclaim(emu);
	emu_settle(emu);
}

void emu_command_backing(struct emu_command *command, enum emu_op op, uint64_t offset, uint64_t length, bool host)
{
	struct emu *emu = command->emu;
	struct emu_io *io = &command->io;
	io->op = op;
	io->offset = offset;
	io->length = length;
	io->iov = host ? command->iov : NULL;
	io->iov_count = host ? command->iov_count : 0;
	io->done = backing_done;
	command->io_host = host;
	command->place = EMU_AT_BACKING;
	emu->backing_ios++;
	emu->host_ios += host;
	emu->backing.submit(emu->backing.arg, io);
}

/* ---- taking back ---- */

struct emu_command *emu_command_find(struct emu *emu, uint16_t sq_id, uint16_t cid)
{
	struct cds_list_head *node;
	cds_list_for_each(node, &emu->used) {
		struct emu_command *command = CONTAINER_OF(node, struct emu_command, node);
		if (command->owns_cid && !command->dropped && command->sq->id == sq_id && cid_of(command) == cid)
			return command;
	}
	return NULL;
}

bool emu_command_abort(struct emu_command *command, bool hard, uint16_t status)
{
	switch (command->place) {
	case EMU_AT_TIMER:
	case EMU_AT_STUCK:
	case EMU_AT_EVENTS:
		break;
	case EMU_AT_STUCK_HARD:
		if (hard)
			break;
		return false;
	default:
		return false;
	}
	timer_stop(&command->timer);
	cds_list_del_init(&command->wait);
	command->place = EMU_AT_WORK;
	emu_command_complete(command, status);
	return true;
}

void emu_commands_drop(struct emu *emu)
{
	struct cds_list_head *node, *next;
	cds_list_for_each_safe(node, next, &emu->used) {
		struct emu_command *command = CONTAINER_OF(node, struct emu_command, node);
		command->dropped = true;
		if (command->place == EMU_AT_BACKING)
			continue;
		timer_stop(&command->timer);
		cds_list_del_init(&command->wait);
		emu_command_free(command);
	}
	if (emu->own.place == EMU_AT_CACHE) {
		cds_list_del_init(&emu->own.wait);
		emu->own.place = EMU_AT_WORK;
	}
}

/* ---- the beginning ---- */

static void command_execute(struct emu_command *command)
{
	if (command->admin)
		emu_admin_execute(command);
	else
		emu_io_execute(command);
}

/* An identifier that is in use is not taken twice. */
static bool cid_take(struct emu_command *command)
{
	uint64_t *word = cid_word(command->sq, cid_of(command));
	command->owns_cid = !(*word & cid_bit(cid_of(command)));
	*word |= cid_bit(cid_of(command));
	return command->owns_cid;
}

static void command_begin(struct emu_command *command, uint64_t delay_ns)
{
	if (delay_ns)
		emu_command_delay(command, delay_ns, command_execute);
	else
		command_execute(command);
}

/* Afterwards the command may be gone, and the controller, too. */
static void rule_apply(struct emu_command *command, const struct emu_rule *rule, uint64_t delay_ns)
{
	switch (rule->action) {
	case EMU_RULE_DELAY:
		command_begin(command, delay_ns + rule->delay_ns);
		break;
	case EMU_RULE_LIE:
		command->lie = true;
		command_begin(command, delay_ns);
		break;
	case EMU_RULE_STATUS:
		emu_command_complete(command, rule->status);
		break;
	case EMU_RULE_STUCK:
		command->place = EMU_AT_STUCK;
		break;
	case EMU_RULE_FATAL:
		emu_fatal(command->emu);
		command->place = EMU_AT_STUCK_HARD;
		break;
	case EMU_RULE_VANISH:
		emu_leave(command->emu);
		break;
	default:
		command->place = EMU_AT_STUCK_HARD;
	}
}

void emu_command_start(struct emu_command *command)
{
	struct emu *emu = command->emu;
	const uint64_t delay_ns = command->admin ? 0 : emu->options.latency_ns;
	if (command->admin)
		emu->stats.admin_commands++;
	else
		emu->stats.io_commands++;
	if (!cid_take(command)) {
		emu_command_complete(command, NVME_SC_CID_CONFLICT);
		return;
	}
	const struct emu_rule *rule = emu_rule_match(command);
	if (rule)
		rule_apply(command, rule, delay_ns);
	else if (command->entry.flags) /* fused commands and SGLs */
		emu_command_complete(command, NVME_SC_INVALID_FIELD | EMU_DNR);
	else
		command_begin(command, delay_ns);
}
