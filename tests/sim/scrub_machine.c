/* SPDX-License-Identifier: BSD-3-Clause */
#include "tests/sim/scrub_machine.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "fs/verify.h"

enum { FILES = 120, EXTENTS = 400, BIG_DIRECTORY = 400 };

struct scrubbed scrubbed;

/* ---- calls ---- */
struct scrub_call {
	struct fs *fs;
	struct fs_scrub_options options;
};

static MAY_WAIT int scrub_run(void *arg)
{
	struct scrub_call *call = arg;
	return fs_scrub(call->fs, &call->options);
}

static MAY_WAIT int checkpoint_run(void *arg) { return fs_checkpoint(arg); }

int scrubbed_scrub(struct machine *machine, bool data)
{
	struct scrub_call call = {.fs = machine->sim.fs, .options = {.data = data, .memory_bytes = scrubbed.memory_bytes}};
	return sim_on(&machine->sim, ROOT, scrub_run, &call);
}

struct fs_scrub_status scrubbed_status(const struct machine *machine)
{
	struct fs_scrub_status status;
	fs_scrub_get_status(machine->sim.fs, &status);
	return status;
}

uint64_t scrubbed_findings(struct machine *machine, bool data)
{
	assert_int_equal(scrubbed_scrub(machine, data), 0);
	scrubbed.line[0] = '\0';
	fs_scrub_finding(machine->sim.fs, 0, &scrubbed.ino, scrubbed.line, sizeof(scrubbed.line));
	return scrubbed_status(machine).findings;
}

/* ---- one of everything ---- */

uint64_t scrubbed_make(struct machine *machine, uint64_t parent, const char *name, uint32_t mode)
{
	struct fs_entry entry;
	assert_int_equal(call_create(machine, parent, name, mode, &entry), 0);
	return entry.ino;
}

void scrubbed_populate(struct machine *machine)
{
	char name[64], value[4000];
	memset(value, 'v', sizeof(value));
	scrubbed.fragmented = scrubbed_make(machine, ROOT, "fragmented", S_IFREG | 0600);
	for (unsigned i = 0; i < EXTENTS; i++)
		assert_int_equal(call_write(machine, scrubbed.fragmented, value, (uint64_t)i * 2 * FS_BLOCK_SIZE, 4000), 0);
	scrubbed.with_xattrs = scrubbed_make(machine, ROOT, "with-xattrs", S_IFREG | 0600);
	for (unsigned i = 0; i < 8; i++) {
		snprintf(name, sizeof(name), "user.name%u", i);
		assert_int_equal(call_setxattr(machine, scrubbed.with_xattrs, name, value, 900 + 400 * i), 0);
	}
	scrubbed.big_directory = scrubbed_make(machine, ROOT, "big", S_IFDIR | 0700);
	for (unsigned i = 0; i < BIG_DIRECTORY; i++) {
		snprintf(name, sizeof(name), "a-name-of-some-length-%04u", i);
		const uint64_t ino = scrubbed_make(machine, scrubbed.big_directory, name, i % 9 ? S_IFREG | 0600 : S_IFDIR | 0700);
		if (i % 9 && i % 7 == 1)
			assert_int_equal(call_write(machine, ino, value, 0, 3000), 0);
	}
	struct fs_entry entry;
	scrubbed.linked = scrubbed_make(machine, ROOT, "linked", S_IFREG | 0600);
	scrubbed.outer = scrubbed_make(machine, ROOT, "outer", S_IFDIR | 0700);
	scrubbed.middle = scrubbed_make(machine, scrubbed.outer, "middle", S_IFDIR | 0700);
	scrubbed.inner = scrubbed_make(machine, scrubbed.middle, "inner", S_IFDIR | 0700);
	assert_int_equal(call_link(machine, scrubbed.inner, "link", scrubbed.linked, &entry), 0);
	/* Unlinked and in use: it stands in an orphan block. */
	const uint64_t orphan = scrubbed_make(machine, ROOT, "orphan", S_IFREG | 0600);
	assert_int_equal(call_write(machine, orphan, value, 0, 4000), 0);
	assert_int_equal(call_unlink(machine, ROOT, "orphan"), 0);
	/* In every group, by its number. */
	for (unsigned i = 0; i < FILES; i++) {
		snprintf(name, sizeof(name), "directory%u", i);
		scrubbed_make(machine, ROOT, name, S_IFDIR | 0700);
	}
}

void scrubbed_home(struct machine *machine)
{
	assert_int_equal(call_sync(machine), 0);
	assert_int_equal(sim_on(&machine->sim, ROOT, checkpoint_run, machine->sim.fs), 0);
}

void scrubbed_start(struct machine *machine)
{
	machine_start(machine, scrubbed.owners, 0);
	scrubbed_populate(machine);
	scrubbed_home(machine);
}

uint8_t *scrubbed_block(const struct machine *machine, uint64_t block) { return machine->memory + block * FS_BLOCK_SIZE; }

const struct fs_super *scrubbed_super(const struct machine *machine)
{
	return (const struct fs_super *)scrubbed_block(machine, FS_SUPER_BLOCK);
}

static bool is_marked(const struct machine *machine, uint64_t block)
{
	const struct fs_super *super = scrubbed_super(machine);
	const uint64_t first = le64_get(super->first_ag_block);
	if (block < first)
		return block <= FS_STATE_BLOCK_B;
	const uint32_t ag = (uint32_t)((block - first) / le32_get(super->ag_blocks));
	if (ag >= le32_get(super->ag_count))
		return true; /* the last superblock */
	const uint32_t at = (uint32_t)(block - ag_first_block(super, ag));
	const struct map_block *map = (const struct map_block *)scrubbed_block(machine, ag_first_block(super, ag) + FS_AG_MAPS_FIRST);
	const struct ag_header *header = (const struct ag_header *)scrubbed_block(machine, ag_first_block(super, ag));
	if (at >= FS_AG_MAPS_FIRST && at < ag_fixed_blocks(super)) {
		const uint64_t ready[] = {le64_get(header->block_map_ready), le64_get(header->inode_map_ready),
			le64_get(header->inode_free_map_ready)};
		return ready[(at - FS_AG_MAPS_FIRST) / le32_get(super->map_blocks)] & 1;
	}
	if (at < ag_fixed_blocks(super))
		return true;
	return le64_get(header->block_map_ready) & 1 && map->bits[at / 8] >> (at % 8) & 1;
}

/* The type of a metadata block in use; 0: it is none. */
unsigned scrubbed_type(const struct machine *machine, uint64_t block)
{
	const struct block_header *header = (const struct block_header *)scrubbed_block(machine, block);
	const bool ours = le32_get(header->magic) == FS_BLOCK_MAGIC && le64_get(header->block) == block &&
		le64_get(header->fsid) == le64_get(scrubbed_super(machine)->fsid);
	return ours && is_marked(machine, block) ? le16_get(header->type) : 0;
}

struct disk_inode *scrubbed_inode(const struct machine *machine, uint64_t ino)
{
	const struct fs_super *super = scrubbed_super(machine);
	const uint64_t place = ino == ROOT ? le64_get(super->root_place) : ino;
	struct inode_block *block =
		(struct inode_block *)scrubbed_block(machine, ag_first_block(super, ino_ag(place)) + ino_ag_block(place));
	return &block->inode[ino_slot(place)];
}

void scrubbed_seal(void *inside)
{
	uint8_t *block = (uint8_t *)((uintptr_t)inside & ~(uintptr_t)(FS_BLOCK_SIZE - 1));
	block_seal(block, le64_get(((struct block_header *)block)->sequence));
}

/* The first leaf of a tree of the big directory, or of the scrubbed.fragmented file. */
struct tree_node *scrubbed_leaf(const struct machine *machine, uint64_t owner)
{
	for (uint64_t block = FS_SUPER_BLOCK; block < machine->size / FS_BLOCK_SIZE; block++) {
		struct tree_node *node = (struct tree_node *)scrubbed_block(machine, block);
		const unsigned type = scrubbed_type(machine, block);
		if ((type == BLOCK_DIR_NODE || type == BLOCK_EXTENT_NODE) && !le16_get(node->level) &&
			le64_get(node->header.owner) == owner)
			return node;
	}
	fail_msg("no leaf of inode %llu", (unsigned long long)owner);
	return NULL;
}

