/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What AddressSanitizer, ThreadSanitizer and valgrind must be told: that the stack changes, and which memory is out of use.
 * Without them everything here compiles to nothing.
 */
#ifndef LANEFS_REACTOR_SANITIZER_INTERNAL_H
#define LANEFS_REACTOR_SANITIZER_INTERNAL_H

#include "reactor/base.h"

#if defined(__SANITIZE_ADDRESS__)
#define LANEFS_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define LANEFS_ASAN 1
#endif
#if __has_feature(thread_sanitizer)
#define LANEFS_TSAN 1
#endif
#endif
#if defined(__SANITIZE_THREAD__)
#define LANEFS_TSAN 1
#endif

#ifdef LANEFS_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>

/* Frames grow by their red zones. */
enum { SANITIZER_STACK_FACTOR = 4, SANITIZER_WATCHES_MEMORY = 1 };

static inline void sanitizer_switch_start(void **save, const void *bottom, size_t size)
{
	__sanitizer_start_switch_fiber(save, bottom, size);
}
static inline void sanitizer_switch_finish(void *saved, const void **bottom, size_t *size)
{
	__sanitizer_finish_switch_fiber(saved, bottom, size);
}
static inline void sanitizer_poison(const void *memory, size_t size) { __asan_poison_memory_region(memory, size); }
static inline void sanitizer_unpoison(const void *memory, size_t size) { __asan_unpoison_memory_region(memory, size); }
static inline bool sanitizer_poisoned(const void *memory) { return __asan_address_is_poisoned(memory) != 0; }
#else
enum { SANITIZER_STACK_FACTOR = 1, SANITIZER_WATCHES_MEMORY = 0 };

static inline void sanitizer_switch_start(void **save, const void *bottom, size_t size) {}
static inline void sanitizer_switch_finish(void *saved, const void **bottom, size_t *size) {}
static inline void sanitizer_poison(const void *memory, size_t size) {}
static inline void sanitizer_unpoison(const void *memory, size_t size) {}
static inline bool sanitizer_poisoned(const void *memory) { return false; }
#endif

/* ThreadSanitizer takes a fiber for a thread that is never there at the same time as the one that it left. What it keeps of one
 * (a stack of calls above all) lives from the fiber's start to its end. */
#ifdef LANEFS_TSAN
#include <sanitizer/tsan_interface.h>
static inline void *sanitizer_fiber_create(void) { return __tsan_create_fiber(0); }
static inline void sanitizer_fiber_destroy(void *fiber) { __tsan_destroy_fiber(fiber); }
static inline void *sanitizer_fiber_current(void) { return __tsan_get_current_fiber(); }
/* Immediately before the switch. */
static inline void sanitizer_fiber_switch(void *to) { __tsan_switch_to_fiber(to, 0); }
#else
static inline void *sanitizer_fiber_create(void) { return NULL; }
static inline void sanitizer_fiber_destroy(void *fiber) {}
static inline void *sanitizer_fiber_current(void) { return NULL; }
static inline void sanitizer_fiber_switch(void *to) {}
#endif

#if __has_include(<valgrind/valgrind.h>)
#include <valgrind/valgrind.h>
#define STACK_REGISTER(low, high) VALGRIND_STACK_REGISTER(low, high)
#define STACK_DEREGISTER(id) VALGRIND_STACK_DEREGISTER(id)
#else
#define STACK_REGISTER(low, high) 0
#define STACK_DEREGISTER(id) ((void)(id))
#endif

#endif
