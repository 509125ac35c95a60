/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What lies under good checksums is found by a scrub of a mounted filesystem: blocks, names, links, parents and maps that contradict
 * each other. Method: a filesystem with one of everything is unmounted, one thing in its image is changed and sealed, it is mounted
 * again; it is scrubbed with cold caches and with warm ones, in one round and in one for each allocation group.
 * scrub_lies_test [OWNERS].
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "fs/verify.h"
#include "tests/sim/scrub_machine.h"

/* ---- how it is found ---- */

static bool ignore_entry(const struct fs_dirent *dirent, void *arg)
{
	(void)dirent;
	(void)arg;
	return true;
}

/* All inodes and directories are in memory. Some of it fails, as it should. */
static void warm_up(struct machine *machine)
{
	for (uint64_t block = FS_SUPER_BLOCK; block < machine->size / FS_BLOCK_SIZE; block++) {
		if (scrubbed_type(machine, block) != BLOCK_INODES)
			continue;
		const struct fs_super *super = scrubbed_super(machine);
		const uint64_t at = block - le64_get(super->first_ag_block);
		const uint32_t ag_blocks = le32_get(super->ag_blocks);
		for (unsigned slot = 0; slot < FS_INODES_PER_BLOCK; slot++) {
			const uint64_t place = ino_make((uint32_t)(at / ag_blocks), (uint32_t)(at % ag_blocks), slot);
			const uint64_t ino = place == le64_get(super->root_place) ? ROOT : place;
			struct fs_attr attr;
			if (!call_getattr(machine, ino, &attr) && S_ISDIR(attr.mode))
				(void)call_readdir(machine, ino, 0, false, ignore_entry, NULL);
		}
	}
}

/* Unmounted, changed by @lie, mounted again: the scrub says @what. */
static void lie_is_found_once(void (*lie)(struct machine *machine), const char *what, bool warm)
{
	struct machine machine;
	scrubbed_start(&machine);
	machine.damaged = true;
	assert_int_equal(sim_unmount(&machine.sim), 0);
	lie(&machine);
	if (sim_mount(&machine.sim, &machine.mount))
		fail_msg("%s", machine.sim.message);
	if (warm)
		warm_up(&machine);
	const uint64_t found = scrubbed_findings(&machine, false);
	bool said = false;
	for (unsigned i = 0; i < found && !said; i++)
		said = fs_scrub_finding(machine.sim.fs, i, &scrubbed.ino, scrubbed.line, sizeof(scrubbed.line)) && strstr(scrubbed.line, what);
	if (!said || found > 40)
		fail_msg("%s, %s caches: %llu findings: %s", what, warm ? "warm" : "cold", (unsigned long long)found, scrubbed.line);
	machine_stop(&machine);
}

static void lie_is_found(void (*lie)(struct machine *machine), const char *what)
{
	/* Two of the four will do for 1 and 4 owners. */
	for (unsigned i = 0; i < 4; i += scrubbed.owners == 2 ? 1 : 3) {
		scrubbed.memory_bytes = i / 2;
		lie_is_found_once(lie, what, i % 2);
	}
	scrubbed.memory_bytes = 0;
}

/* ---- entries ---- */

static void entry_without_inode(struct machine *machine)
{
	const struct fs_super *super = scrubbed_super(machine);
	/* The last file of the big directory loses its slot. */
	for (uint64_t block = le64_get(super->first_ag_block); block < machine->size / FS_BLOCK_SIZE; block++) {
		struct inode_block *inodes = (struct inode_block *)scrubbed_block(machine, block);
		if (scrubbed_type(machine, block) != BLOCK_INODES)
			continue;
		for (unsigned slot = 0; slot < FS_INODES_PER_BLOCK; slot++) {
			struct disk_inode *inode = &inodes->inode[slot];
			if (!S_ISREG(le16_get(inode->mode)) || inode->format != FORK_INLINE || le64_get(inode->size) || inode->xattr_bytes)
				continue;
			inode->mode = le16_set(0);
			inode->format = FORK_NONE;
			inodes->used_mask = le32_set(le32_get(inodes->used_mask) & ~(1u << slot));
			scrubbed_seal(inodes);
			return;
		}
	}
	fail_msg("no file to be lost");
}

static void entry_of_another_type(struct machine *machine)
{
	struct tree_node *node = scrubbed_leaf(machine, scrubbed.big_directory);
	struct disk_dirent *entry = (struct disk_dirent *)node->payload;
	entry->type = entry->type == 8 ? 4 : 8;
	scrubbed_seal(node);
}

static void wrong_hash(struct machine *machine)
{
	struct tree_node *node = scrubbed_leaf(machine, scrubbed.big_directory);
	((struct disk_dirent *)node->payload)->name[0] = 'X';
	scrubbed_seal(node);
}

/* ---- blocks ---- */

static void block_of_two(struct machine *machine)
{
	struct tree_node *node = scrubbed_leaf(machine, scrubbed.fragmented);
	struct disk_extent *extents = (struct disk_extent *)node->payload;
	extents[1].physical = extents[0].physical;
	scrubbed_seal(node);
}

static struct map_block *map_with(const struct machine *machine, struct ag_header **out_header)
{
	*out_header = NULL;
	const struct fs_super *super = scrubbed_super(machine);
	for (uint32_t ag = 0; ag < le32_get(super->ag_count); ag++) {
		*out_header = (struct ag_header *)scrubbed_block(machine, ag_first_block(super, ag));
		if (le64_get((*out_header)->block_map_ready) && le32_get((*out_header)->free_blocks) > 100)
			return (struct map_block *)scrubbed_block(machine, ag_first_block(super, ag) + FS_AG_MAPS_FIRST);
	}
	fail_msg("no group is in use");
	return NULL;
}

static void used_by_nobody(struct machine *machine)
{
	struct ag_header *header;
	struct map_block *map = map_with(machine, &header);
	unsigned at = 0;
	while (map->bits[at])
		at++;
	map->bits[at] = 0xff;
	header->free_blocks = le32_set(le32_get(header->free_blocks) - 8);
	scrubbed_seal(map);
	scrubbed_seal(header);
}

static void marked_free(struct machine *machine)
{
	struct ag_header *header;
	struct map_block *map = map_with(machine, &header);
	const unsigned fixed = ag_fixed_blocks(scrubbed_super(machine));
	map->bits[fixed / 8] &= (uint8_t)~(1u << fixed % 8);
	scrubbed_seal(map);
}

static void wrong_blocks(struct machine *machine)
{
	struct disk_inode *inode = scrubbed_inode(machine, scrubbed.fragmented);
	inode->blocks = le64_set(le64_get(inode->blocks) + 1);
	scrubbed_seal(inode);
}

static void wrong_entries(struct machine *machine)
{
	struct disk_inode *inode = scrubbed_inode(machine, scrubbed.big_directory);
	inode->rdev_or_entries = le64_set(le64_get(inode->rdev_or_entries) + 1);
	scrubbed_seal(inode);
}

static void wrong_free_count(struct machine *machine)
{
	struct ag_header *header;
	map_with(machine, &header);
	header->free_blocks = le32_set(le32_get(header->free_blocks) - 1);
	scrubbed_seal(header);
}

/* ---- links ---- */

/* Of the first leaf of the big directory. */
static struct disk_dirent *entry_with(const struct machine *machine, unsigned type, unsigned number)
{
	struct tree_node *node = scrubbed_leaf(machine, scrubbed.big_directory);
	for (unsigned at = 0; at < le16_get(node->bytes);) {
		struct disk_dirent *entry = (struct disk_dirent *)(node->payload + at);
		if (entry->type == type && !number--)
			return entry;
		at += dirent_bytes(entry->name_length);
	}
	fail_msg("no entry of type %u", type);
	return NULL;
}

static void links_set(const struct machine *machine, uint64_t ino, uint32_t links)
{
	struct disk_inode *inode = scrubbed_inode(machine, ino);
	inode->nlink = le32_set(links);
	scrubbed_seal(inode);
}

static void one_link_more(struct machine *machine) { links_set(machine, scrubbed.linked, 3); }
static void many_links(struct machine *machine) { links_set(machine, scrubbed.linked, 70000); }
static void no_links(struct machine *machine) { links_set(machine, scrubbed.linked, 0); }
static void one_directory_more(struct machine *machine) { links_set(machine, scrubbed.outer, 4); }
static void root_with_more(struct machine *machine) { links_set(machine, ROOT, 9999); }

/* One file loses its name to another. */
static void file_renamed(struct machine *machine)
{
	struct disk_dirent *entry = entry_with(machine, S_IFREG >> 12, 0);
	entry->ino = entry_with(machine, S_IFREG >> 12, 1)->ino;
	scrubbed_seal(entry);
}

static void directory_named_twice(struct machine *machine)
{
	struct disk_dirent *entry = entry_with(machine, S_IFDIR >> 12, 0);
	entry->ino = le64_set(scrubbed.inner);
	scrubbed_seal(entry);
}

static void parent_set(const struct machine *machine, uint64_t ino, uint64_t parent)
{
	struct disk_inode *inode = scrubbed_inode(machine, ino);
	inode->parent = le64_set(parent);
	scrubbed_seal(inode);
}

static void another_parent(struct machine *machine) { parent_set(machine, scrubbed.inner, scrubbed.outer); }
static void parent_is_a_file(struct machine *machine) { parent_set(machine, scrubbed.inner, scrubbed.linked); }

/* The root names the outermost still; its parent is the innermost. */
static void circle(struct machine *machine) { parent_set(machine, scrubbed.outer, scrubbed.inner); }

static void test_links_that_lie_are_found(void **state)
{
	lie_is_found(one_link_more, "nlink is 3, but it has 2 names");
	lie_is_found(many_links, "nlink is 70000, but it has another number of names");
	lie_is_found(no_links, "nlink is 0, but it has 2 names");
	lie_is_found(one_directory_more, "nlink is 4, but it has 1 directories");
	lie_is_found(root_with_more, "inode 1: nlink is 9999");
	lie_is_found(file_renamed, "nlink is 1, but no name leads to it");
	lie_is_found(file_renamed, "nlink is 1, but it has 2 names");
	lie_is_found(directory_named_twice, "names a directory whose parent is another one");
	lie_is_found(directory_named_twice, "a directory with 2 names");
	lie_is_found(directory_named_twice, "nlink is 2, but no name leads to it");
	lie_is_found(another_parent, "'inner' (");
	lie_is_found(another_parent, "names a directory whose parent is another one");
	lie_is_found(parent_is_a_file, "is no directory");
	lie_is_found(circle, "does not lead to the root");
}

/* ---- orphans ---- */

/* A block of the chain of some group: empty since the unmount. */
static struct orphan_block *orphans_pick(const struct machine *machine)
{
	for (uint64_t block = FS_SUPER_BLOCK; block < machine->size / FS_BLOCK_SIZE; block++)
		if (scrubbed_type(machine, block) == BLOCK_ORPHANS)
			return (struct orphan_block *)scrubbed_block(machine, block);
	fail_msg("no orphan block");
	return NULL;
}

static void orphan_put(const struct machine *machine, uint64_t ino)
{
	struct orphan_block *block = orphans_pick(machine);
	const uint64_t first = ag_first_block(scrubbed_super(machine), (uint32_t)le64_get(block->header.owner));
	struct ag_header *header = (struct ag_header *)scrubbed_block(machine, first);
	assert_int_equal(le32_get(block->count), 0);
	block->inode[5] = le64_set(ino);
	block->count = header->orphan_count = le32_set(1);
	scrubbed_seal(block);
	scrubbed_seal(header);
}

static void orphan_of_another_group(struct machine *machine)
{
	const uint64_t ag = le64_get(orphans_pick(machine)->header.owner);
	orphan_put(machine, ino_ag(scrubbed.outer) == ag ? scrubbed.middle : scrubbed.outer);
}

/* In the slots of inode blocks of that group one is free. */
static void orphan_that_is_free(struct machine *machine)
{
	const uint64_t ag = le64_get(orphans_pick(machine)->header.owner);
	const uint64_t first = ag_first_block(scrubbed_super(machine), (uint32_t)ag);
	for (uint32_t at = 0; at < le32_get(scrubbed_super(machine)->ag_blocks); at++) {
		const struct inode_block *block = (const struct inode_block *)scrubbed_block(machine, first + at);
		const uint32_t used = le32_get(block->used_mask);
		if (scrubbed_type(machine, first + at) != BLOCK_INODES || used == (1u << FS_INODES_PER_BLOCK) - 1)
			continue;
		orphan_put(machine, ino_make((uint32_t)ag, at, (unsigned)__builtin_ctz(~used)));
		return;
	}
	fail_msg("no free slot");
}

static void wrong_orphan_count(struct machine *machine)
{
	const uint64_t ag = le64_get(orphans_pick(machine)->header.owner);
	struct ag_header *header =
		(struct ag_header *)scrubbed_block(machine, ag_first_block(scrubbed_super(machine), (uint32_t)ag));
	header->orphan_count = le32_set(7);
	scrubbed_seal(header);
}

static void test_orphans_that_lie_are_found(void **state)
{
	lie_is_found(no_links, "nlink is 0, but it stands in no orphan block");
	lie_is_found(orphan_of_another_group, "bad inode");
	lie_is_found(orphan_that_is_free, "which is not in use");
	lie_is_found(wrong_orphan_count, "orphan_count is 7, its orphan block has 0");
}

/* ---- inode maps ---- */

static bool has_directories(const struct inode_block *block)
{
	for (unsigned slot = 0; slot < FS_INODES_PER_BLOCK; slot++)
		if (S_ISDIR(le16_get(block->inode[slot].mode)) && le64_get(block->inode[slot].rdev_or_entries))
			return true;
	return false;
}

/* A group with inode blocks, and a block of it that is one without directories that hold something, or (@inodes false) is free. */
static uint32_t block_pick(const struct machine *machine, bool inodes, uint32_t *out_ag)
{
	const struct fs_super *super = scrubbed_super(machine);
	for (uint32_t ag = 0; ag < le32_get(super->ag_count); ag++) {
		const struct ag_header *header = (const struct ag_header *)scrubbed_block(machine, ag_first_block(super, ag));
		for (uint32_t at = ag_fixed_blocks(super); le32_get(header->inode_blocks) && at < ag_block_count(super, ag); at++) {
			const uint64_t block = ag_first_block(super, ag) + at;
			const unsigned type = scrubbed_type(machine, block);
			*out_ag = ag;
			if (inodes ? type == BLOCK_INODES && !has_directories((struct inode_block *)scrubbed_block(machine, block)) : !type)
				return at;
		}
	}
	fail_msg("no such block");
	return 0;
}

static void map_flip(const struct machine *machine, unsigned map, uint32_t ag, uint32_t at)
{
	const struct fs_super *super = scrubbed_super(machine);
	struct map_block *block = (struct map_block *)scrubbed_block(machine,
		ag_first_block(super, ag) + FS_AG_MAPS_FIRST + map * le32_get(super->map_blocks));
	block->bits[at / 8] ^= (uint8_t)(1u << at % 8);
	scrubbed_seal(block);
}

static void inode_block_unmarked(struct machine *machine)
{
	uint32_t ag;
	const uint32_t at = block_pick(machine, true, &ag);
	map_flip(machine, 1, ag, at);
}

static void other_block_marked(struct machine *machine)
{
	uint32_t ag;
	const uint32_t at = block_pick(machine, false, &ag);
	map_flip(machine, 1, ag, at);
}

static void free_slots_hidden(struct machine *machine)
{
	uint32_t ag;
	const uint32_t at = block_pick(machine, true, &ag);
	map_flip(machine, 2, ag, at);
}

static void free_slots_nowhere(struct machine *machine)
{
	uint32_t ag;
	const uint32_t at = block_pick(machine, false, &ag);
	map_flip(machine, 2, ag, at);
}

static struct ag_header *header_pick(const struct machine *machine)
{
	uint32_t ag;
	block_pick(machine, true, &ag);
	return (struct ag_header *)scrubbed_block(machine, ag_first_block(scrubbed_super(machine), ag));
}

static void wrong_used_inodes(struct machine *machine)
{
	struct ag_header *header = header_pick(machine);
	header->used_inodes = le32_set(le32_get(header->used_inodes) - 1);
	scrubbed_seal(header);
}

static void wrong_inode_blocks(struct machine *machine)
{
	struct ag_header *header = header_pick(machine);
	header->inode_blocks = le32_set(le32_get(header->inode_blocks) + 1);
	scrubbed_seal(header);
}

static void test_inode_maps_that_lie_are_found(void **state)
{
	lie_is_found(inode_block_unmarked, "names no inode in use");
	lie_is_found(inode_block_unmarked, "inode_blocks is");
	lie_is_found(other_block_marked, "inode block");
	lie_is_found(other_block_marked, "inode_blocks is");
	lie_is_found(free_slots_hidden, "the inode free map says otherwise");
	lie_is_found(free_slots_nowhere, "is marked as one with free inodes");
	lie_is_found(wrong_used_inodes, "used_inodes is");
	lie_is_found(wrong_inode_blocks, "inode_blocks is");
}

static void test_blocks_and_entries_that_lie_are_found(void **state)
{
	lie_is_found(entry_without_inode, "names no inode in use");
	lie_is_found(entry_of_another_type, "its type is not that of the inode");
	lie_is_found(wrong_hash, "its key has not the hash");
	lie_is_found(block_of_two, "belongs to something else, too");
	lie_is_found(used_by_nobody, "nothing refers to");
	lie_is_found(marked_free, "the block map says free");
	lie_is_found(wrong_blocks, "blocks is");
	lie_is_found(wrong_entries, "entries is");
	lie_is_found(wrong_free_count, "free_blocks is");
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_blocks_and_entries_that_lie_are_found),
		cmocka_unit_test(test_links_that_lie_are_found),
		cmocka_unit_test(test_orphans_that_lie_are_found),
		cmocka_unit_test(test_inode_maps_that_lie_are_found),
	};
	static const unsigned counts[] = {1, 2, 4};
	int failed = 0;
	for (unsigned i = 0; i < ARRAY_SIZE(counts); i++) {
		scrubbed.owners = counts[i];
		if (argc < 2 || strtoul(argv[1], NULL, 0) == scrubbed.owners)
			failed += cmocka_run_group_tests(tests, NULL, NULL);
	}
	return failed;
}
