/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The inode table of one owner, shared by inode*.c, orphan.c and reap.c. Everything is the owner's alone, but for the
 * figures that inode_stats_read looks at.
 */
#ifndef LANEFS_FS_INODE_INTERNAL_H
#define LANEFS_FS_INODE_INTERNAL_H

#include "fs/inode.h"

/* ---- lookup counts, and other numbers by number: open addressing, linear probing, no tombstones ---- */
struct lookup_entry {
	uint64_t ino;                   /* 0: empty */
	uint64_t count;                 /* LOOKUP_UNLINKED | count */
};
#define LOOKUP_UNLINKED (1ull << 63)    /* the inode has no links: reap it at zero */
struct lookup_table {
	struct lookup_entry *entries;
	uint64_t capacity;              /* power of two, or 0 */
	uint64_t used, reserved;
	uint64_t unlinked;              /* entries with LOOKUP_UNLINKED */
};
int lookup_table_add(struct lookup_table *table, uint64_t ino, uint64_t count) MUST_CHECK;
/* The entry is there, and has this count; -ENOMEM: it is not there. */
int lookup_table_set(struct lookup_table *table, uint64_t ino, uint64_t count) MUST_CHECK;
int lookup_table_reserve(struct lookup_table *table) MUST_CHECK;
struct lookup_entry *lookup_table_find(const struct lookup_table *table, uint64_t ino);
void lookup_table_remove(struct lookup_table *table, struct lookup_entry *entry);

/* ---- forgets for another owner: collected while a batch is on its way ---- */
enum { FORGET_BATCH = 62 };
struct forget_batch {
	struct message message;
	struct forget_batch *next;
	struct inode_table *from;
	unsigned to;                    /* owner */
	unsigned count;
	struct { uint64_t ino, count; } entries[FORGET_BATCH];
};
struct forget_line {
	struct forget_batch *first, *last; /* filled, and being filled */
	struct forget_batch *spare;
	bool in_flight;                 /* one batch at a time is under way */
};

/* ---- inode slots of one AG ---- */
enum { SLOT_BLOCKS_MAX = 16 };
struct slot_block {                     /* an inode block that has, or may get, free slots */
	uint32_t ag_block;
	uint16_t free_mask;             /* free on disk, as the cached block says */
	uint16_t reserved_mask;         /* of these: given to a transaction that is being prepared */
	bool freeing;                   /* a transaction is about to free a slot of it */
	bool claimed;                   /* and the block with it */
};
struct ag_inodes {
	struct slot_block *blocks;      /* SLOT_BLOCKS_MAX; NULL until first used */
	unsigned block_count;
	uint32_t scan_next;             /* where the free map is to be searched on */
	bool scanned;                   /* nothing is left to find */
	bool busy;                      /* somebody scans, or makes a new inode block */
	bool chain_busy;                /* somebody changes the chain of orphan blocks */
	uint64_t chain_removing;        /* the block that leaves it, 0: none */
	unsigned chain_reserved;        /* places promised to transactions that are being prepared */
	struct fiber_cond idle;         /* busy or chain_busy ended */
};

/* ---- reaping ---- */
enum { REAPERS_MAX = 4 };
enum { REAPER_BYTES = 2048 };
struct reaper {
	struct inode_table *table;
	struct fiber_start start;
	bool running;
	_Alignas(16) uint8_t memory[REAPER_BYTES]; /* for changes */
};
struct reap_queue {
	uint64_t *inos;                 /* a ring */
	unsigned capacity, first, count;
	unsigned running;
	bool paused;
	uint64_t queued, done;          /* since mount; to wait for what was queued before */
	struct fiber_cond progress;
	struct reaper reapers[REAPERS_MAX];
};

struct inode_table {
	struct owner *owner;
	struct inode *slab;             /* count_max, touched lazily */
	unsigned count_max, slab_used;
	struct cds_hlist_head *buckets;
	unsigned bucket_mask;
	struct cds_list_head unused;    /* through lru: structs that were given back */
	struct cds_list_head lru;       /* oldest first */
	struct cds_list_head times;     /* times_dirty, oldest first */
	unsigned times_count;
	struct timer times_timer;       /* runs while there are some and nobody logs them */
	struct fiber_start times_start;
	bool times_running;             /* the fiber that logs them */
	bool closing;                   /* unmount: neither is started any more */
	unsigned cached, referenced;
	uint64_t evicted_part; /* highest last_part of inodes that left memory: a reloaded one starts with it */
	struct lookup_table lookups;
	struct forget_line forget[REACTOR_COUNT_MAX];
	struct fiber_cond forget_idle;
	struct ag_inodes **ags;         /* of this owner, by ag / owner_count; what it points to never moves */
	unsigned ag_count, ag_room;     /* ag_room: with those that are made for a filesystem that grows */
	struct reap_queue reap;
	/* Where the entries of evicted inodes are in their chain, by number, and which block of a chain is in front of a
	 * block. Best effort: what is not in here is searched for in the chain. */
	struct lookup_table orphan_places, chain_before;
	uint64_t chain_steps;           /* blocks of chains that were looked at for it, since mount */
	uint64_t chained;               /* entries in the orphan chains of this owner's AGs */
	struct op_pool *ops;
	struct fiber_mutex flushing;    /* of times */
	struct fiber_mutex rename;      /* on owner 0: directories change their parents */
	struct fiber_mutex copying;     /* of the buffers of fs_copy_range */
	uint8_t *copy_buffer;
	unsigned create_turn;           /* spreads new directories over owners */
};

static inline uint64_t inode_block_of(const struct fs *fs, uint64_t ino)
{
	const uint64_t place = ino_place(fs, ino);
	return ag_first_block(&fs->super, ino_ag(place)) + ino_ag_block(place);
}
static inline uint32_t inode_ag(const struct fs *fs, uint64_t ino) { return ino_ag(ino_place(fs, ino)); }
static inline struct ag_inodes *inode_ag_state(struct inode_table *table, uint32_t ag)
{
	return table->ags[ag / table->owner->fs->owner_count];
}

/* A struct with one reference, not in the hash. NULL: all are in use. */
struct inode *inode_take(struct inode_table *table, uint64_t ino);
/* Makes a taken inode findable; one of the same number that is still being loaded is made dead. */
void inode_publish(struct inode *inode);
/* The slot is free: nobody finds the inode any more; the struct goes with the last reference. */
void inode_bury(struct inode *inode, int error);
struct inode *inode_find(struct inode_table *table, uint64_t ino);
/* The times are in the log, or do not matter any more. */
void inode_times_clean(struct inode *inode);
/* Unmount: nothing is logged by itself any more. */
MAY_WAIT void inode_times_stop(struct inode_table *table);

/* ---- inode_slot.c ---- */
/* A slot for a new inode near @ag. A new inode block (slot->new_block) is allocated for the part, not pinned yet.
 * The slot is the caller's until slot_used or slot_cancel; meanwhile nobody else makes an inode block in that AG.
 * -ENOSPC. */
MAY_WAIT int slot_reserve(struct tx_part *part, uint32_t ag, struct inode_slot *out) MUST_CHECK;
void slot_cancel(struct inode_table *table, const struct inode_slot *slot);
/* In apply: the block's used mask is now @used_mask. */
void slot_used(struct inode_table *table, const struct inode_slot *slot, uint32_t used_mask);
void slot_freed(struct inode_table *table, uint32_t ag, uint32_t ag_block, uint32_t used_mask);
/* One slot of the block is about to be freed. Waits for whoever is freeing another. SLOT_FREEING_BLOCK: it is the last one
 * used, and the block goes with it: nobody gets a slot of it until slot_free_end. An AG keeps one block that has free
 * slots. After slot_free_begin (in a prepare step), slot_free_end: in apply, behind slot_freed, or to call it off. */
MAY_WAIT enum slot_freeing slot_free_begin(struct inode_table *table, uint32_t ag, uint32_t ag_block,
	const struct inode_block *inodes) MUST_CHECK;
void slot_free_end(struct inode_table *table, uint32_t ag, uint32_t ag_block, enum slot_freeing freeing, bool block_gone);

/* ---- orphan.c ---- */
/* The inode stands in the chain: keeps it in memory if that could not be seen from its record. */
void orphan_hold(struct inode *inode);
/* The struct leaves memory, or was loaded: where the entry is stays known. */
void orphan_evicted(const struct inode *inode);
void orphan_loaded(struct inode *inode);
/* Read or changed: @block is the next of @before in a chain; 0: it is the head, or in no chain. */
void orphan_chain_before(struct inode_table *table, uint64_t block, uint64_t before);

/* ---- reap.c ---- */
int reap_queue_create(struct inode_table *table) MUST_CHECK;

#endif
