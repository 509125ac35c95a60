/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a filesystem takes over from the one before it on the same device: see struct fs_legacy.
 */
#ifndef LANEFS_FS_LEGACY_H
#define LANEFS_FS_LEGACY_H

#include "fs/fs_internal.h"

/* Lookup counts into the owners' tables; before anything is reaped. @durable_sequence is what this mount found. -ESTALE: it
 * is not what was left; -ENOMEM; one line in @message. */
MAY_WAIT int legacy_take(struct fs *fs, uint64_t durable_sequence, char *message, size_t message_size) MUST_CHECK;

#endif
