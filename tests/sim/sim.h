/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A whole filesystem in one thread: simulated reactors, a ram device over memory of the caller, optionally the recording
 * device on top. Everything is a function of the seed.
 */
#ifndef LANEFS_TESTS_SIM_SIM_H
#define LANEFS_TESTS_SIM_SIM_H

#include "fs/fs.h"
#include "fs/mkfs.h"
#include "mkfs/fsck.h"

struct sim {
	struct reactor_group *group;
	struct bdev_registry *registry;
	struct fs *fs;
	const char *device;             /* name of the bdev that is mounted */
	bool recording, error_device, nvme_device;
	bool trace;                     /* clients say what they do */
	char message[256];              /* of the last mount */
	int stopped;                    /* error that the filesystem stopped with */
};
struct sim_options {
	unsigned owners;
	uint64_t seed;
	void *memory;
	uint64_t size;
	bool asynchronous;              /* I/O completes late and out of order */
	bool record;
	bool error;                     /* the error device under the filesystem */
	const char *nvme;               /* options of an emulated NVMe drive over the ram device ("cache=1M"); NULL: none */
	bool hold;                      /* its I/O waits for its return */
};
/* Aborts with a line on programmer errors. */
void sim_create(struct sim *sim, const struct sim_options *options);
void sim_destroy(struct sim *sim);
int sim_mount(struct sim *sim, const struct fs_mount_options *options);
int sim_unmount(struct sim *sim);
/* The bdev of the emulated NVMe drive. */
#define SIM_NVME "emu:ram"
/* The bdev named "record" or "error". */
struct bdev *sim_bdev(struct sim *sim, const char *name);
/* Runs fn(arg) as a fiber on the owner of @ino. */
int sim_on(struct sim *sim, uint64_t ino, int (*fn)(void *arg), void *arg);

struct sim_format {
	uint64_t size, journal_bytes, ag_bytes, seed;
};
void sim_mkfs(void *memory, const struct sim_format *format);
/* fsck of an image in memory; prints findings with @prefix when it is not NULL. Returns their number. */
uint64_t sim_fsck(const void *memory, uint64_t size, bool replay, const char *prefix);
/* The same, with all that fsck says. */
uint64_t sim_fsck_result(const void *memory, uint64_t size, bool replay, const char *prefix, struct fsck_result *out);

uint64_t sim_rand(uint64_t *state);
void sim_fail(const char *format, ...) PRINTF_LIKE(1, 2) __attribute__((noreturn));

#endif
