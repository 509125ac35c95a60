/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a running operation needs besides its stack: memory for its changes and I/O objects (frames stay under 1 KiB),
 * and a few blocks of DMA memory for unaligned edges. A pool per owner; its size bounds the operations that run at
 * once. Taken first of all, before any lock or transaction, and one per operation: functions that need it get it from
 * their caller.
 */
#ifndef LANEFS_FS_OP_H
#define LANEFS_FS_OP_H

#include "fs/inode.h"

enum { OP_BYTES = 5120, OP_BOUNCE_COUNT = 2 };

struct op {
	struct owner *owner;
	struct op *next, *all_next;     /* in the pool */
	uint8_t *bounce[OP_BOUNCE_COUNT]; /* FS_BLOCK_SIZE each; NULL until op_bounce */
	unsigned enospc_attempts;
	bool enospc_news, enospc_orphans; /* of the last one of them */
	uint64_t enospc_reaped;         /* files freed, when it looked */
	unsigned turn;                  /* of the owner, when it began */
	_Alignas(16) uint8_t memory[OP_BYTES];
};

struct op_pool;
int op_pool_create(struct owner *owner, unsigned count) MUST_CHECK;
void op_pool_destroy(struct owner *owner);

/* Waits for one to be free. NULL: no memory. */
MAY_WAIT struct op *op_begin(struct owner *owner) MUST_CHECK;
void op_end(struct op *op);
/* The same for op_drain alone, around a change that needs no memory; what comes back is for op_leave. */
unsigned op_enter(struct owner *owner);
void op_leave(struct owner *owner, unsigned turn);
/* Returns when every operation that this owner has begun before the call has ended. One caller at a time. */
MAY_WAIT void op_drain(struct owner *owner);
/* The operation's memory as one struct, zeroed: OP_MEMORY(op, struct rename). */
void *op_memory(struct op *op, size_t bytes);
#define OP_MEMORY(op, type) ((type *)op_memory((op), sizeof(type)))
/* A block of DMA memory until op_end; its content is undefined. NULL: no memory. */
uint8_t *op_bounce(struct op *op, unsigned index) MUST_CHECK;

/* Before the first change that could be seen (a transaction asks by itself): 0, and from now on the operation cannot be
 * called off; or -EINTR: it was, and must not change anything. See fs_ticket in fs.h. */
int op_claim(void) MUST_CHECK;

/* Called with -ENOSPC in hand and nothing held (no lock, range or transaction): waits for space that is on its way
 * back (inodes to be reaped, freed blocks that are not yet reusable, what is lent to other owners). True: worth one more try;
 * four times at most for an operation, after the first only when there is or was something new. */
MAY_WAIT bool op_retry_enospc(struct op *op) MUST_CHECK;

/* The end of a changing operation that went well, all locks given back: makes it durable when the mount option or the
 * inode's flags ask for it. @inode_flags: enum inode_flags of the inodes that have a say. */
MAY_WAIT int op_finish(struct owner *owner, uint32_t inode_flags) MUST_CHECK;

#endif
