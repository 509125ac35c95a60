/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Stacks for fibers.
 *
 * A reactor has its own pool (struct reactor.idle, no locking). A real reactor fills it when it is created, because the
 * daemon locks its memory afterwards and guards cannot be installed on locked memory; the pages of the stacks are not
 * touched before a fiber runs on them. A simulated reactor takes stacks as it needs them. Both give them back to a
 * process-wide cache, so that thousands of groups can come and go without a system call.
 *
 * Below each stack lies one guard page. MADV_GUARD_INSTALL (Linux 6.13) needs no mapping of its own; with mprotect each
 * stack costs two mappings of the 65,530 that a process may have, so there the pools are made smaller.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "reactor/reactor_internal.h"

enum {
	GUARD_BYTES = 4096,
	LANEFS_MADV_GUARD_INSTALL = 102,       /* newer than Debian 12's headers */
	MPROTECT_FIBERS_MAX = 16384,           /* of a group, when guards cost mappings */
	CACHE_SIZES = 4,                       /* different stack sizes that are cached */
	CACHE_COUNT_MAX = 8192,                /* stacks of one size; more are unmapped */
};

static struct {
	pthread_mutex_t lock;
	struct cache_size {
		size_t stack_bytes;
		struct fiber *head;
		unsigned count;
	} sizes[CACHE_SIZES];
	bool force_mprotect;
} cache = {.lock = PTHREAD_MUTEX_INITIALIZER};

void fiber_pool_force_mprotect(bool force) { cache.force_mprotect = force; }

static int guard_install(void *page)
{
	if (!cache.force_mprotect && madvise(page, GUARD_BYTES, LANEFS_MADV_GUARD_INSTALL) == 0)
		return 0;
	return mprotect(page, GUARD_BYTES, PROT_NONE) == 0 ? 0 : -errno;
}

static bool guards_are_cheap(void)
{
	void *page = mmap(NULL, GUARD_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (page == MAP_FAILED)
		return false;
	const bool cheap = !cache.force_mprotect && madvise(page, GUARD_BYTES, LANEFS_MADV_GUARD_INSTALL) == 0;
	munmap(page, GUARD_BYTES);
	return cheap;
}

static struct fiber *stack_create(size_t stack_bytes)
{
	struct fiber *fiber = calloc(1, sizeof(*fiber));
	if (!fiber)
		return NULL;
	char *low = mmap(NULL, GUARD_BYTES + stack_bytes, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
	if (low == MAP_FAILED)
		goto fail;
	/* Huge pages would make each stack 2 MiB resident. Kernels without them refuse, which is as good. */
	(void)madvise(low, GUARD_BYTES + stack_bytes, MADV_NOHUGEPAGE);
	if (guard_install(low) != 0) {
		munmap(low, GUARD_BYTES + stack_bytes);
		goto fail;
	}
	fiber->stack = low + GUARD_BYTES;
	fiber->stack_bytes = stack_bytes;
	fiber->stack_id = STACK_REGISTER(fiber->stack, fiber->stack + stack_bytes);
	return fiber;
fail:
	free(fiber);
	return NULL;
}

static void stack_destroy(struct fiber *fiber)
{
	STACK_DEREGISTER(fiber->stack_id);
	munmap(fiber->stack - GUARD_BYTES, GUARD_BYTES + fiber->stack_bytes);
	free(fiber);
}

/* The cache's entry for this size, a free one, or NULL. Called with the lock held. */
static struct cache_size *cache_find(size_t stack_bytes)
{
	struct cache_size *unused = NULL;
	for (unsigned i = 0; i < CACHE_SIZES; i++) {
		struct cache_size *size = &cache.sizes[i];
		if (size->stack_bytes == stack_bytes)
			return size;
		if (size->count == 0)
			unused = size;
	}
	return unused;
}

static struct fiber *cache_get(size_t stack_bytes)
{
	struct fiber *fiber = NULL;
	pthread_mutex_lock(&cache.lock);
	struct cache_size *size = cache_find(stack_bytes);
	if (size && size->count > 0) {
		fiber = size->head;
		size->head = fiber->next;
		size->count--;
	}
	pthread_mutex_unlock(&cache.lock);
	return fiber ? fiber : stack_create(stack_bytes);
}

static void cache_put(struct fiber *fiber)
{
	pthread_mutex_lock(&cache.lock);
	struct cache_size *size = cache_find(fiber->stack_bytes);
	const bool keep = size && size->count < CACHE_COUNT_MAX;
	if (keep) {
		size->stack_bytes = fiber->stack_bytes;
		fiber->next = size->head;
		size->head = fiber;
		size->count++;
	}
	pthread_mutex_unlock(&cache.lock);
	if (!keep)
		stack_destroy(fiber);
}

struct fiber *fiber_pool_get(struct reactor *reactor)
{
	struct fiber *fiber = reactor->idle;
	if (LIKELY(fiber != NULL)) {
		reactor->idle = fiber->next;
	} else {
		fiber = cache_get(reactor->group->options.fiber_stack_bytes);
		if (!fiber)
			return NULL;
	}
	fiber->reactor = reactor;
	return fiber;
}

void fiber_pool_put(struct reactor *reactor, struct fiber *fiber)
{
	fiber->next = reactor->idle;
	reactor->idle = fiber;
}

int fiber_pool_init(struct reactor *reactor)
{
	const struct reactor_options *options = &reactor->group->options;
	reactor->fiber_count = options->fiber_count;
	if (options->simulate)
		return 0;
	const unsigned limit = MPROTECT_FIBERS_MAX / options->count;
	if (options->fiber_count > limit && !guards_are_cheap()) {
		reactor->fiber_count = limit;
		log_warn("reactor %u: %u fibers instead of %u: this kernel has no cheap guard pages (Linux 6.13 has)",
			reactor->index, limit, options->fiber_count);
	}
	for (unsigned i = 0; i < reactor->fiber_count; i++) {
		struct fiber *fiber = cache_get(options->fiber_stack_bytes);
		if (!fiber)
			return -ENOMEM;
		fiber_pool_put(reactor, fiber);
	}
	return 0;
}

void fiber_pool_fini(struct reactor *reactor)
{
	while (reactor->idle) {
		struct fiber *fiber = reactor->idle;
		reactor->idle = fiber->next;
		cache_put(fiber);
	}
}
