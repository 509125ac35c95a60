/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The words that every layer uses: markers for functions, little-endian integers that do not mix with host
 * integers, and small arithmetic. Nothing here has state.
 */
#ifndef LANEFS_REACTOR_BASE_H
#define LANEFS_REACTOR_BASE_H

#include <assert.h>
#include <endian.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* A function that may suspend the running fiber; so may every caller of it. Checked by scripts/check. */
#define MAY_WAIT
#define MUST_CHECK __attribute__((warn_unused_result))
#define PRINTF_LIKE(format_at, first) __attribute__((format(printf, format_at, first)))
#define LIKELY(x) __builtin_expect(!!(x), 1)
#define UNLIKELY(x) __builtin_expect(!!(x), 0)

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define CONTAINER_OF(pointer, type, member) ((type *)((char *)(pointer)-offsetof(type, member)))
/* What they are given is evaluated twice: no clock, no system call, nothing that somebody else changes. */
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))
#define KIB(n) ((uint64_t)(n) << 10)
#define MIB(n) ((uint64_t)(n) << 20)
#define GIB(n) ((uint64_t)(n) << 30)
#define NS_PER_US 1000ull
#define NS_PER_MS 1000000ull
#define NS_PER_SEC 1000000000ull

static inline uint64_t align_down(uint64_t value, uint64_t power_of_two) { return value & ~(power_of_two - 1); }
static inline uint64_t align_up(uint64_t value, uint64_t power_of_two)
{
	return (value + power_of_two - 1) & ~(power_of_two - 1);
}
static inline uint64_t div_round_up(uint64_t value, uint64_t divisor) { return (value + divisor - 1) / divisor; }

/* Little-endian integers as they stand on disk and on the wire: only these functions open them. */
typedef struct { uint16_t raw; } le16_t;
typedef struct { uint32_t raw; } le32_t;
typedef struct { uint64_t raw; } le64_t;

static inline uint16_t le16_get(le16_t v) { return le16toh(v.raw); }
static inline uint32_t le32_get(le32_t v) { return le32toh(v.raw); }
static inline uint64_t le64_get(le64_t v) { return le64toh(v.raw); }
static inline le16_t le16_set(uint16_t v) { return (le16_t){htole16(v)}; }
static inline le32_t le32_set(uint32_t v) { return (le32_t){htole32(v)}; }
static inline le64_t le64_set(uint64_t v) { return (le64_t){htole64(v)}; }

#endif
