/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Memory that runs out: the linker leads every allocation of the program (not those of shared libraries) through here
 * (--wrap, see meson.build). While armed, the n-th one fails, or all from the n-th on.
 */
#include <stdlib.h>

#include "tests/sim/fault_rule.h"

static struct {
	bool counting, always;
	uint64_t count, fail_at, hits;
} state = {.fail_at = UINT64_MAX};

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *memory, size_t size);
void *__real_aligned_alloc(size_t align, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *memory, size_t size);
void *__wrap_aligned_alloc(size_t align, size_t size);

void fault_memory_begin(uint64_t fail_at, bool always)
{
	state.counting = true;
	state.always = always;
	state.count = state.hits = 0;
	state.fail_at = fail_at;
}

void fault_memory_end(void) { state.counting = false; }
uint64_t fault_memory_count(void) { return state.count; }
uint64_t fault_memory_hits(void) { return state.hits; }

static bool fails(void)
{
	if (!state.counting)
		return false;
	const uint64_t number = state.count++;
	const bool hit = state.always ? number >= state.fail_at : number == state.fail_at;
	state.hits += hit;
	return hit;
}

void *__wrap_malloc(size_t size) { return fails() ? NULL : __real_malloc(size); }
void *__wrap_calloc(size_t count, size_t size) { return fails() ? NULL : __real_calloc(count, size); }
void *__wrap_realloc(void *memory, size_t size) { return fails() ? NULL : __real_realloc(memory, size); }
void *__wrap_aligned_alloc(size_t align, size_t size) { return fails() ? NULL : __real_aligned_alloc(align, size); }
