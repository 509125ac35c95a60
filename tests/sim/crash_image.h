/* SPDX-License-Identifier: BSD-3-Clause */
/* Inside tests/sim/crash*.c: images that differ from a base in some blocks. */
#ifndef LANEFS_TESTS_SIM_CRASH_IMAGE_H
#define LANEFS_TESTS_SIM_CRASH_IMAGE_H

#include "tests/sim/crash.h"

enum { CRASH_SECTOR = 512 };

/* Which sectors of a write arrive. */
enum crash_tear { CRASH_UNTORN, CRASH_TEAR_512, CRASH_TEAR_4096 };

/* When the entry became durable; UINT64_MAX: not before the end. */
uint64_t crash_durable_at(const struct record_entry *entries, size_t count, size_t index);
bool crash_is_change(const struct record_entry *entry);
/* Writes the entry to @image (torn: a random part of it). */
void crash_apply(uint8_t *image, const struct record_entry *entry, enum crash_tear tear, uint64_t *random);
/* Notes the entry's blocks as touched. */
void crash_touch(struct crash *crash, const struct record_entry *entry);
/* Sum over the entry's sectors of what they contribute to an image's hash. */
uint64_t crash_hash(const uint8_t *image, const struct record_entry *entry);
/* Hash of the memory, which differs from the level's base in touched blocks only. */
uint64_t crash_memory_hash(const struct crash *crash, unsigned depth);
/* The memory is the level's base again. */
void crash_restore(struct crash *crash, unsigned depth);
/* The base of the next level is the memory as it stands. */
void crash_descend(struct crash *crash, unsigned depth, uint64_t hash);

#endif
