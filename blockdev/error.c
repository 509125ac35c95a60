/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The error module: does by rule what a bad device does. Rules are tried in the order in which they were added; a rule
 * that still skips lets later ones have the I/O; the first that acts decides.
 *
 * An I/O is either in the base (it comes back through error_base_done) or held here: hanging, or waiting for its delay
 * to pass. Removal fails what is held. Rules are read by every reactor without a lock: change them in simulated groups
 * or while nothing runs.
 */
#include <errno.h>
#include <stdlib.h>

#include "blockdev/stack.h"

struct error_device {
	struct stack stack;
	struct error_rule rules[ERROR_RULES_MAX];
	uint64_t seen[ERROR_RULES_MAX];    /* matching I/Os so far, per rule */
	unsigned rule_count;
	uint64_t io_count[IO_OP_COUNT];    /* atomic */
	struct cds_list_head corrupting;   /* bdev_io by node: writes whose copy is in the base */
};

struct error_channel {
	struct bdev_channel *base;
	struct cds_list_head held; /* bdev_io by node: hanging or delayed */
	bool failing;              /* removal: nothing is held any more */
};

struct error_context {
	struct io base;
	struct timer timer;
	struct error_rule rule; /* what acts on this I/O, as it was then; ops == 0: nothing */
	uint8_t *copy;          /* of a write to corrupt */
	int result;
};

enum { CORRUPT_STRIDE = 512, CORRUPT_MASK = 0x5a };

static struct error_device *error_of(struct bdev *bdev)
{
	return bdev_private(bdev);
}

/* ---- rules ---- */

int bdev_error_add_rule(struct bdev *bdev, const struct error_rule *rule)
{
	struct error_device *device = error_of(bdev);
	if (device->rule_count == ERROR_RULES_MAX)
		return -ENOSPC;
	device->rules[device->rule_count] = *rule;
	device->rules[device->rule_count].hits = 0;
	device->seen[device->rule_count] = 0;
	return (int)device->rule_count++;
}

void bdev_error_clear_rules(struct bdev *bdev)
{
	error_of(bdev)->rule_count = 0;
}

const struct error_rule *bdev_error_rule(struct bdev *bdev, unsigned index)
{
	struct error_device *device = error_of(bdev);
	return index < device->rule_count ? &device->rules[index] : NULL;
}

uint64_t bdev_error_io_count(struct bdev *bdev, enum io_op op)
{
	return __atomic_load_n(&error_of(bdev)->io_count[op], __ATOMIC_RELAXED);
}

static bool error_rule_matches(const struct error_rule *rule, const struct bdev_io *io)
{
	if ((rule->ops & 1u << io->op) == 0)
		return false;
	if (rule->length == 0)
		return true;
	return io->offset < rule->offset + rule->length && rule->offset < io->offset + io->length;
}

static const struct error_rule *error_rule_find(struct error_device *device, const struct bdev_io *io)
{
	for (unsigned i = 0; i < device->rule_count; i++) {
		struct error_rule *rule = &device->rules[i];
		if (!error_rule_matches(rule, io))
			continue;
		if (device->seen[i] < rule->skip) {
			device->seen[i]++;
			continue;
		}
		if (rule->count != 0 && rule->hits == rule->count)
			continue;
		rule->hits++;
		if (rule->on_hit != NULL)
			rule->on_hit(rule->arg, io->op, io->offset, io->iov_count != 0 ? io->iov[0].iov_base : NULL);
		return rule;
	}
	return NULL;
}

/* ---- corruption ---- */

/* Flips bits in one byte of every 512 from the first byte that rule and I/O share. */
static void error_corrupt(const struct error_rule *rule, const struct bdev_io *io, const struct iovec *iov,
	unsigned iov_count)
{
	const uint64_t first = rule->length != 0 ? MAX(rule->offset, io->offset) : io->offset;
	const uint64_t end = rule->length != 0 ? MIN(rule->offset + rule->length, io->offset + io->length) :
						 io->offset + io->length;
	uint64_t next = first, at = io->offset;
	for (unsigned i = 0; i < iov_count; i++) {
		uint8_t *base = iov[i].iov_base;
		for (; next < end && next < at + iov[i].iov_len; next += CORRUPT_STRIDE)
			base[next - at] ^= CORRUPT_MASK;
		at += iov[i].iov_len;
	}
}

/* -ENOMEM when there is none for the copy. */
static int error_corrupt_write(struct error_device *device, struct bdev_io *io)
{
	struct error_context *context = (struct error_context *)io->context;
	context->copy = aligned_alloc(4096, align_up(io->length, 4096));
	if (context->copy == NULL)
		return -ENOMEM;
	uint8_t *to = context->copy;
	for (unsigned i = 0; i < io->iov_count; i++) {
		memcpy(to, io->iov[i].iov_base, io->iov[i].iov_len);
		to += io->iov[i].iov_len;
	}
	context->base.single = (struct iovec){.iov_base = context->copy, .iov_len = io->length};
	context->base.iov = &context->base.single;
	context->base.iov_count = 1;
	error_corrupt(&context->rule, io, context->base.iov, 1);
	cds_list_add_tail(&io->node, &device->corrupting);
	return 0;
}

/* ---- the path of an I/O ---- */

static int rule_error(const struct error_rule *rule)
{
	return rule->error != 0 ? rule->error : -EIO;
}

static void error_delay_over(struct timer *timer)
{
	struct error_context *context = CONTAINER_OF(timer, struct error_context, timer);
	struct bdev_io *io = CONTAINER_OF(context, struct bdev_io, context);
	cds_list_del(&io->node);
	bdev_io_complete(io, context->result);
}

static void error_base_done(struct io *base)
{
	struct error_context *context = CONTAINER_OF(base, struct error_context, base);
	struct bdev_io *io = CONTAINER_OF(context, struct bdev_io, context);
	const struct error_rule *rule = &context->rule;
	int result = base->result;
	if (context->copy != NULL) {
		cds_list_del(&io->node);
		free(context->copy);
		context->copy = NULL;
	}
	if (rule->ops == 0) {
		bdev_io_complete(io, result);
		return;
	}
	if (rule->action == ERROR_FAIL_AFTER)
		result = rule_error(rule);
	if (rule->action == ERROR_CORRUPT && io->op == IO_READ && result == 0)
		error_corrupt(rule, io, io->iov, io->iov_count);
	struct error_channel *channel = bdev_channel_state(io->channel);
	if (rule->action == ERROR_DELAY && !channel->failing) {
		context->result = result;
		cds_list_add_tail(&io->node, &channel->held);
		timer_start(&context->timer, rule->delay_ns, error_delay_over);
		return;
	}
	bdev_io_complete(io, result);
}

/* True: the rule has dealt with the I/O, nothing goes to the base. */
static bool error_act_before(struct error_channel *channel, struct bdev_io *io, const struct error_rule *rule)
{
	switch (rule->action) {
	case ERROR_FAIL:
		bdev_io_complete(io, rule_error(rule));
		return true;
	case ERROR_LOSE:
		bdev_io_complete(io, 0);
		return true;
	case ERROR_HANG:
		cds_list_add_tail(&io->node, &channel->held);
		return true;
	default:
		return false;
	}
}

static int error_submit(struct bdev *bdev, void *channel_state, struct bdev_io *io)
{
	struct error_device *device = error_of(bdev);
	struct error_channel *channel = channel_state;
	struct error_context *context = (struct error_context *)io->context;
	const struct error_rule *rule = error_rule_find(device, io);
	if (rule != NULL && rule->action == ERROR_NO_MEMORY)
		return -ENOMEM;
	__atomic_fetch_add(&device->io_count[io->op], 1, __ATOMIC_RELAXED);
	context->copy = NULL;
	context->timer = (struct timer){0};
	context->rule = rule != NULL ? *rule : (struct error_rule){0};
	if (rule != NULL && error_act_before(channel, io, rule))
		return 0;
	stack_prepare(&context->base, channel->base, io, error_base_done);
	if (rule != NULL && rule->action == ERROR_CORRUPT && io->op == IO_WRITE) {
		const int err = error_corrupt_write(device, io);
		if (err != 0)
			return err;
	}
	io_submit(&context->base);
	return 0;
}

/* ---- the module ---- */

static int error_channel_init(struct bdev *bdev, void *channel_state)
{
	struct error_channel *channel = channel_state;
	CDS_INIT_LIST_HEAD(&channel->held);
	return bdev_channel_get(error_of(bdev)->stack.desc, &channel->base);
}

static void error_channel_fini(struct bdev *bdev, void *channel_state)
{
	struct error_channel *channel = channel_state;
	bdev_channel_put(channel->base);
}

static void error_fail_held(struct bdev *bdev, void *channel_state)
{
	struct error_channel *channel = channel_state;
	struct bdev_io *io, *next;
	channel->failing = true;
	cds_list_for_each_entry_safe(io, next, &channel->held, node) {
		timer_stop(&((struct error_context *)io->context)->timer);
		cds_list_del(&io->node);
		bdev_io_complete(io, -ENODEV);
	}
}

static void error_quiesce(struct bdev *bdev)
{
	bdev_drain(bdev, error_fail_held);
}

MAY_WAIT static int error_rescan(struct bdev *bdev) { return stack_rescan(&error_of(bdev)->stack); }

MAY_WAIT static void error_release(struct bdev *bdev)
{
	stack_close(&error_of(bdev)->stack);
}

static void error_destroy(struct bdev *bdev)
{
	struct error_device *device = error_of(bdev);
	struct bdev_io *io;
	cds_list_for_each_entry(io, &device->corrupting, node) /* of an abandoned simulation */
		free(((struct error_context *)io->context)->copy);
	free(device);
}

static const struct bdev_module error_module = {
	.name = "error",
	.context_bytes = sizeof(struct error_context),
	.channel_bytes = sizeof(struct error_channel),
	.channel_init = error_channel_init,
	.channel_fini = error_channel_fini,
	.submit = error_submit,
	.quiesce = error_quiesce,
	.release = error_release,
	.rescan = error_rescan,
	.destroy = error_destroy,
};

MAY_WAIT int bdev_error_create(struct bdev_registry *registry, const char *name, const char *base)
{
	struct error_device *device = calloc(1, sizeof(*device));
	if (device == NULL)
		return -ENOMEM;
	CDS_INIT_LIST_HEAD(&device->corrupting);
	struct bdev_limits limits;
	int err = stack_open(&device->stack, registry, name, base, &limits);
	if (err != 0)
		goto fail;
	err = bdev_register(registry, &error_module, &limits, device, &device->stack.self);
	if (err == 0)
		return 0;
	bdev_close(device->stack.desc);
fail:
	free(device);
	return err;
}
