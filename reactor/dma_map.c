/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Mappers and the pages of EAL. Hugepages are mapped one by one, because EAL gives them back one by one, and the kernel
 * unmaps only what it was asked to map. Memory without hugepages never changes: it is mapped in one piece, since the
 * kernel limits the number of mappings (65,535).
 *
 * EAL announces pages under its memory lock, so `mutex` is taken inside that lock and EAL is never called under
 * `mutex`. A mapper is put on the list first and shown the present pages then; a page that arrives in between is
 * offered twice.
 */
#include "reactor/dma_map.h"

#include <errno.h>
#include <pthread.h>
#include <rte_errno.h>
#include <rte_memory.h>
#include <stdatomic.h>

#include "reactor/dma_map_internal.h"
#include "reactor/log.h"
#include "reactor/memory.h"

/* Refused stretches at one time: each makes the dma_alloc that caused it fail, and goes when EAL gives the pages back
 * after that. When there is no room for one more, dma_alloc fails for good. */
enum { REFUSED_MAX = 64 };

struct range {
	uintptr_t start, end;
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER; /* guards all below */
static struct dma_mapper *mappers;
static bool registered; /* with EAL; stays */
static struct range refused[REFUSED_MAX];
static atomic_uint refused_count; /* written under the mutex; read without it by dma_map_allows */
static bool refused_overflow;

/* ---- pages come and go ---- */
static void refuse(uintptr_t start, uintptr_t end, int err)
{
	static bool said; /* every allocation that fails comes here */
	const unsigned count = atomic_load_explicit(&refused_count, memory_order_relaxed);
	if (!said)
		log_error("memory: more of it cannot be made reachable for a device: %s%s", strerror(-err),
			err == -ENOMEM ? ": raise the memlock limit (ulimit -l)" : "");
	said = true;
	if (count && refused[count - 1].end == start) {
		refused[count - 1].end = end;
	} else if (count < REFUSED_MAX) {
		refused[count] = (struct range){start, end};
		atomic_store_explicit(&refused_count, count + 1, memory_order_release);
	} else {
		refused_overflow = true;
	}
}

/* A piece out of the middle of a refused range stays refused: what is lost is memory, not data. */
static void refused_trim(uintptr_t start, uintptr_t end)
{
	unsigned count = atomic_load_explicit(&refused_count, memory_order_relaxed);
	for (unsigned i = 0; i < count && !refused_overflow;) {
		struct range *range = &refused[i];
		if (start <= range->start && end > range->start)
			range->start = MIN(end, range->end);
		else if (start < range->end && end >= range->end)
			range->end = start;
		if (range->start == range->end)
			*range = refused[--count];
		else
			i++;
	}
	atomic_store_explicit(&refused_count, count, memory_order_release);
}

static void page_unmap(void *page, size_t size, const struct dma_mapper *up_to)
{
	for (struct dma_mapper *mapper = mappers; mapper != up_to; mapper = mapper->next)
		mapper->unmap(mapper, dma_iova(page), size);
}

static int page_map(void *page, size_t size)
{
	for (struct dma_mapper *mapper = mappers; mapper; mapper = mapper->next) {
		const int err = mapper->map(mapper, page, dma_iova(page), size);
		if (err) {
			page_unmap(page, size, mapper);
			return err;
		}
	}
	return 0;
}

static void pages_changed(enum rte_mem_event event, const void *start, size_t size, void *arg)
{
	const size_t page = rte_mem_virt2memseg_list(start)->page_sz;
	char *const first = (char *)(uintptr_t)start;
	pthread_mutex_lock(&mutex);
	for (size_t at = 0; at < size; at += page) {
		const int err = event == RTE_MEM_EVENT_ALLOC ? page_map(first + at, page) : 0;
		if (err)
			refuse((uintptr_t)first + at, (uintptr_t)first + at + page, err);
		if (event == RTE_MEM_EVENT_FREE)
			page_unmap(first + at, page, NULL);
	}
	if (event == RTE_MEM_EVENT_FREE)
		refused_trim((uintptr_t)start, (uintptr_t)start + size);
	pthread_mutex_unlock(&mutex);
}

bool dma_map_allows(const void *buffer, size_t size)
{
	if (LIKELY(atomic_load_explicit(&refused_count, memory_order_acquire) == 0))
		return true;
	const uintptr_t start = (uintptr_t)buffer;
	pthread_mutex_lock(&mutex);
	bool allowed = !refused_overflow;
	for (unsigned i = 0; i < atomic_load_explicit(&refused_count, memory_order_relaxed); i++)
		allowed &= start >= refused[i].end || start + size <= refused[i].start;
	pthread_mutex_unlock(&mutex);
	return allowed;
}

/* ---- what is there already ---- */
struct walk {
	struct dma_mapper *mapper;
	int err;
};

static int piece_map(const struct rte_memseg_list *list, const struct rte_memseg *first, size_t size, void *arg)
{
	struct walk *walk = arg;
	if (!list->external && first->iova != RTE_BAD_IOVA)
		walk->err = walk->mapper->map(walk->mapper, first->addr, first->iova, size);
	return walk->err ? -1 : 0;
}

static int segment_map(const struct rte_memseg_list *list, const struct rte_memseg *segment, void *arg)
{
	return piece_map(list, segment, segment->len, arg);
}

static int present_map(struct dma_mapper *mapper)
{
	struct walk walk = {.mapper = mapper};
	const int result = memory_has_hugepages() ?
		rte_memseg_walk(segment_map, &walk) : rte_memseg_contig_walk(piece_map, &walk);
	return result && !walk.err ? -EIO : walk.err;
}

static int announcements_ask(void)
{
	if (registered)
		return 0;
	/* ENOTSUP: memory that never changes. */
	if (rte_mem_event_callback_register("lanefs", pages_changed, NULL) && rte_errno != ENOTSUP)
		return -rte_errno;
	registered = true;
	return 0;
}

int dma_mapper_add(struct dma_mapper *mapper)
{
	static pthread_mutex_t adding = PTHREAD_MUTEX_INITIALIZER;
	if (!memory_has_eal())
		return -ENOTSUP;
	pthread_mutex_lock(&adding);
	int err = announcements_ask();
	pthread_mutex_unlock(&adding);
	if (err)
		return err;
	pthread_mutex_lock(&mutex);
	mapper->next = mappers;
	mappers = mapper;
	pthread_mutex_unlock(&mutex);
	err = present_map(mapper);
	if (err)
		dma_mapper_remove(mapper);
	return err;
}

void dma_mapper_remove(struct dma_mapper *mapper)
{
	pthread_mutex_lock(&mutex);
	struct dma_mapper **link = &mappers;
	while (*link && *link != mapper)
		link = &(*link)->next;
	if (*link)
		*link = mapper->next;
	pthread_mutex_unlock(&mutex);
}

uint64_t dma_mapped_bytes(void) { return memory_has_eal() ? rte_eal_get_physmem_size() : 0; }
