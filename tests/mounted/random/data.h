/* SPDX-License-Identifier: BSD-3-Clause */
/* The parts of data_exerciser: its model of a file, ranges, comparisons, and the operations. */
#ifndef LANEFS_TESTS_MOUNTED_RANDOM_DATA_H
#define LANEFS_TESTS_MOUNTED_RANDOM_DATA_H

#include "tests/mounted/random/exerciser.h"

enum { BLOCK = 4096, LENGTH_MAX = (2 << 20) + 2 * BLOCK, SHARED_UNIT = 2560, NAME_SIZE = 32, SHARED_FILES = 2 };

/* How a file is shared with the other workers. In a shared file the bytes of unit number u (of SHARED_UNIT bytes) belong
 * to worker u modulo workers; units end in the middle of blocks, so that the workers meet in these. One file sees page
 * cache and mmap only, the other direct I/O only, since Linux promises nothing when two programs mix them. */
enum data_shared { SHARED_NOT, SHARED_CACHED, SHARED_DIRECT };

/* A file and what must be in it. @bytes has zeros from @size on. */
struct data_file {
	uint64_t id;                /* for the log, from 1 */
	enum data_shared shared;
	char name[NAME_SIZE];       /* in the directory of the run */
	int fd, fd_direct;          /* the latter -1 under --no-direct */
	uint8_t *bytes;             /* size_max of them; of a shared file only this worker's count */
	uint64_t size;              /* shared: end of the last byte that this worker wrote */
	uint8_t *allocated;         /* per block up to size_max + what fallocate may add: may have space on the device */
};

struct data_run {
	struct exerciser *exerciser;
	int directory;
	uint64_t size_max;          /* whole blocks */
	struct data_file *files;    /* the last SHARED_FILES of them shared */
	unsigned file_count;
	uint8_t *buffer;            /* LENGTH_MAX + BLOCK, page-aligned */
	uint8_t *second;            /* the same */
	bool reports_holes;         /* SEEK_DATA tells holes from data here */
};

struct data_range {
	uint64_t offset, length;
};
static inline uint64_t range_end(struct data_range range) { return range.offset + range.length; }

/* ---- data_model.c ---- */
/* A range of at most LENGTH_MAX bytes below @limit, in multiples of @align, inside the worker's own units of a shared
 * file. Small and large, at edges of blocks, MiB and the file more often than elsewhere. Length 0 only if @limit is < align. */
struct data_range range_pick(struct data_run *run, const struct data_file *file, uint64_t limit, unsigned align);
/* The model of a write, of zeros, of a new size. */
void model_write(struct data_run *run, struct data_file *file, struct data_range range, const uint8_t *bytes);
void model_zero(struct data_run *run, struct data_file *file, struct data_range range);
void model_resize(struct data_run *run, struct data_file *file, uint64_t size);
/* Blocks that overlap the range may have space; blocks wholly inside have none. */
void model_allocate(struct data_run *run, struct data_file *file, struct data_range range);
void model_deallocate(struct data_run *run, struct data_file *file, struct data_range range);

/* What was read from the range (@got bytes) is what the model says; else the run ends. */
void check_bytes(struct data_run *run, struct data_file *file, struct data_range range, const uint8_t *got, int64_t count,
	const char *how);
/* All of the file by @fd, a big piece at a time. */
void check_file(struct data_run *run, struct data_file *file, int fd, const char *how);
void check_stat(struct data_run *run, struct data_file *file);
/* The map that SEEK_DATA and SEEK_HOLE draw: no data outside of it. */
void check_holes(struct data_run *run, struct data_file *file);

/* ---- data_files.c: names and descriptors ---- */
void file_open(struct data_run *run, struct data_file *file, int flags);
void file_close(struct data_file *file);
void op_reopen(struct data_run *run, struct data_file *file);
void op_rename_over(struct data_run *run, struct data_file *file);
void op_link(struct data_run *run, struct data_file *file);
void op_unlink_open(struct data_run *run, struct data_file *file);
void op_tmpfile(struct data_run *run, struct data_file *file);

/* ---- data_operations.c ---- */
enum data_access { ACCESS_NONE, ACCESS_CACHED, ACCESS_MAPPED, ACCESS_DIRECT };
struct data_operation {
	const char *name;
	unsigned weight;
	bool on_shared;             /* possible within the own units of a shared file */
	enum data_access access;
	void (*run)(struct data_run *run, struct data_file *file);
};
extern const struct data_operation data_operations[];
extern const unsigned data_operation_count;
/* Ends the run: the call failed although nothing speaks against it. */
void call_failed(struct data_run *run, const struct data_file *file, const char *call) __attribute__((noreturn));

#endif
