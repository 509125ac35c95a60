/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a target already holds, so that mkfs.lanefs overwrites nothing by mistake.
 */
#ifndef LANEFS_MKFS_MKFS_PROBE_H
#define LANEFS_MKFS_MKFS_PROBE_H

#include "mkfs/mkfs_device.h"

/* Looks for superblocks and partition tables that libblkid knows, and for a lanefs. *out_found: there is something, and
 * @text names it ("a filesystem of type ext4, label \"data\""). On failure @text has the cause. @path is a file or a
 * block device that libblkid can open by itself, or NULL: it gets to see a copy of the device's beginning and end. */
int mkfs_probe(struct mkfs_device *device, const char *path, bool *out_found, char *text, size_t text_size) MUST_CHECK;

#endif
