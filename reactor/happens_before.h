/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * An order between threads that ThreadSanitizer cannot see by itself: whatever came before give(key) in one thread has happened
 * for whoever calls take(key) later. Outside of such builds nothing is left of it. Where it is needed:
 *
 *   messages    DPDK's ring; give: the sender; take: the receiver, each message for itself
 *   rcu         liburcu is not instrumented; give: a reactor's quiescent state; take: the callback after the grace period
 *   doorbells   driver and emulated controller see one register at two addresses; give: the write; take: the model's look
 */
#ifndef LANEFS_REACTOR_HAPPENS_BEFORE_H
#define LANEFS_REACTOR_HAPPENS_BEFORE_H

#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define LANEFS_HAPPENS_BEFORE 1
#endif
#endif
#if defined(__SANITIZE_THREAD__)
#define LANEFS_HAPPENS_BEFORE 1
#endif

extern const char happens_before_rcu; /* the key */

#ifdef LANEFS_HAPPENS_BEFORE
enum { BUILT_FOR_THREAD_SANITIZER = 1 };
#include <sanitizer/tsan_interface.h>
static inline void happens_before_give(const void *key) { __tsan_release((void *)key); }
static inline void happens_before_take(const void *key) { __tsan_acquire((void *)key); }
#else
enum { BUILT_FOR_THREAD_SANITIZER = 0 };
static inline void happens_before_give(const void *key) {}
static inline void happens_before_take(const void *key) {}
#endif

#endif
