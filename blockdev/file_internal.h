/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the parts of the file module share: file.c (opening, the module), file_step.c (one I/O as a row of kernel
 * calls), file_ring.c (those calls through io_uring).
 */
#ifndef LANEFS_BLOCKDEV_FILE_INTERNAL_H
#define LANEFS_BLOCKDEV_FILE_INTERNAL_H

#include "blockdev/bdev_module.h"
#include "reactor/memory.h"
#include "reactor/uring.h"

enum {
	FILE_RING_ENTRIES = 256,        /* I/Os of a channel in the kernel; more wait in the channel's line */
	FILE_STEP_IOV_MAX = 16,         /* vectors of a continued transfer */
	FILE_ZERO_BYTES = 64 << 10,     /* memory that zeroes are written from where the file cannot zero a range */
	FILE_IO_BYTES_MAX = 1 << 20,
	FILE_IOV_COUNT_MAX = 256,
};

struct file {
	int fd;
	int claim_fd;                   /* block device that was opened again for writing: holds the claim; -1: none */
	bool block_device, direct;
	bool writable, locked;          /* fd is open for writing; a file with a lock */
	bool in_memory;                 /* on tmpfs: a transfer is a copy, and never waits for a device */
	bool no_ring;                   /* simulated group: everything happens in submit */
	bool no_zero_range;             /* atomic; the file refused once */
	uint64_t size_bytes;
	uint8_t *zeroes;                /* FILE_ZERO_BYTES of them, aligned */
	uint64_t fixed_count;           /* atomic; transfers through fixed buffers */
};

/* One I/O in the kernel. */
struct file_context {
	uint64_t done;                  /* bytes transferred so far */
	struct iovec iov[FILE_STEP_IOV_MAX];
};

/* The next kernel call of an I/O. */
struct file_step {
	enum { FILE_STEP_READ, FILE_STEP_WRITE, FILE_STEP_SYNC, FILE_STEP_ALLOCATE } call;
	const struct iovec *iov;
	unsigned iov_count;
	int flags;                      /* write: RWF_; allocate: FALLOC_FL_ */
	uint64_t offset, length;
};

struct file_channel {
	struct uring uring;
	bool has_ring;
	struct poller poller;
	unsigned in_flight;             /* in the kernel or about to be submitted */
	int fd;                         /* of the file: the channel may outlive the module's hold on it */
	/* fixed buffers: DMA regions that the kernel has pinned for this ring, by region number */
	bool fixed;                     /* the ring takes them */
	int fixed_hint;                 /* region that was used last */
	uint64_t fixed_mask[DMA_REGIONS_MAX / 64], refused_mask[DMA_REGIONS_MAX / 64];
};

/* file_step.c */
void file_step_begin(struct bdev_io *io);
void file_step_next(const struct file *file, struct bdev_io *io, struct file_step *step);
/* Takes the kernel's answer. True: the I/O is over with *result; false: there is another step. */
bool file_step_done(struct file *file, struct bdev_io *io, int answer, int *result);
/* Every step on the spot. */
int file_run(struct file *file, struct bdev_io *io);

/* file_fixed.c */
void file_fixed_init(struct file_channel *channel);
/* Index of the fixed buffer that holds the single vector, registered on first use; -1: none does. */
int file_fixed_index(struct file_channel *channel, const struct iovec *iov);

/* file_ring.c */
int file_channel_init(struct bdev *bdev, void *channel_state);
void file_channel_fini(struct bdev *bdev, void *channel_state);
int file_submit(struct bdev *bdev, void *channel_state, struct bdev_io *io);

#endif
