/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the tests of the nvme module share: a group with a registry, drives that are made by their target, I/O that
 * goes on while the test does something else, and a count of what a device told.
 */
#ifndef LANEFS_TESTS_NVME_MODULE_BENCH_H
#define LANEFS_TESTS_NVME_MODULE_BENCH_H

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "bdev_bench.h"
#include "blockdev/nvme.h"

enum { BLOCK = 4096, SHOT_PENDING = 1 };

extern struct bench bench;
extern char made[128], message[256];   /* of the last drive_create: name, why not */
extern unsigned told[NVME_DEVICE_HEALTH + 1];
/* Log lines that contain the text since module_init. Lines are not shown unless NVME_MODULE_LOG is set. */
unsigned logged(const char *text);
void log_forget(void);

void module_init(unsigned reactors);   /* simulated; another order of events with each NVME_MODULE_SEED */
void module_init_threads(unsigned reactors);
/* Everything must be gone. */
void module_fini(void);
/* Runs fn(arg) as a fiber of that reactor and expects 0. */
void module_on(unsigned reactor, int (*fn)(void *arg), void *arg);

MAY_WAIT int drive_create(const char *target, enum nvme_policy policy);
/* Expects 0. */
MAY_WAIT void drive_make(const char *target, enum nvme_policy policy);
/* A medium; @delay_us: its I/O takes up to that long, 0: none. */
MAY_WAIT void ram_make(const char *name, uint64_t size_bytes, unsigned delay_us);
/* bdev_remove, which must succeed. */
MAY_WAIT void gone(const char *name);
struct nvme_device *device_of(const char *name);
struct emu *emu_of(const char *name);
MAY_WAIT void rule_add(const char *name, const char *rule);

/* An opener, told of what happens to the bdev. */
struct user {
	struct bdev_desc *desc;
	struct bdev_channel *channel;
	unsigned removed, resized;
};
MAY_WAIT void user_open(struct user *user, const char *name);
MAY_WAIT void user_close(struct user *user);
/* Makes the drive under NVME_HOLD, opens its bdev, and pulls it out. */
MAY_WAIT struct nvme_device *held_drive(const char *target, struct user *user);
MAY_WAIT int reattach(struct nvme_device *device, const char *target, nvme_accept_fn accept, void *arg);
/* In a fiber of the home reactor, for background_start: the device of the bdev @name_text, which may be gone. */
MAY_WAIT int give_up_run(void *name_text);
MAY_WAIT int pull_run(void *name_text);
MAY_WAIT int lost_run(void *name_text);
MAY_WAIT int detach_run(void *name_text);
MAY_WAIT int remove_run(void *name_text); /* any reactor; may be late */

/* An I/O that is under way. Zeroed, or over, before shot_start. */
struct shot {
	struct io io;
	uint8_t *buffer;               /* DMA memory of SHOT_BYTES, of the shot */
	int result;                    /* SHOT_PENDING until done */
	unsigned answers, order;       /* order: how many shots were over before */
};
enum { SHOT_BYTES = 64 << 10 };
void shot_start(struct shot *shot, struct bdev_channel *channel, enum io_op op, uint64_t offset, uint64_t length);
void shot_write(struct shot *shot, struct bdev_channel *channel, uint64_t offset, uint64_t length, uint8_t fill);
void shot_abort(struct shot *shot, struct shot *target);
MAY_WAIT int shot_wait(struct shot *shot);
/* BLOCK bytes there are all @fill. One caller per reactor. */
MAY_WAIT bool filled(struct bdev_channel *channel, uint64_t offset, uint8_t fill);
void shot_free(struct shot *shot);

/* A fiber that goes on by itself. */
struct background {
	struct fiber_start_remote remote;
	int (*fn)(void *arg);
	void *arg;
	int result;
	bool done;                     /* atomic */
};
void background_start(struct background *background, unsigned reactor, int (*fn)(void *arg), void *arg);
MAY_WAIT int background_wait(struct background *background);

uint64_t random_next(uint64_t *state);

#endif
