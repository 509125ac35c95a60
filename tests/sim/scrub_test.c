/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A scrub of a mounted filesystem finds what is damaged on its device, block by block and kind by kind, and says nothing of
 * an intact one; it ends when it is cancelled, and changes nothing. Method: a filesystem with one of everything, home on its
 * device (a checkpoint); its metadata blocks are found by their headers; each is damaged while mounted, and a mount with
 * cold caches and one with warm ones are scrubbed. Beside other work: ops_stress_test. scrub_test [OWNERS].
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "fs/verify.h"
#include "reactor/memory.h"
#include "tests/sim/calls.h"

enum { FILES = 120, EXTENTS = 400, BIG_DIRECTORY = 400 };
#define ROOT FS_ROOT_INODE

static unsigned owners, bits_bytes; /* bits_bytes: an option of scrubs */

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

static int scrub(struct machine *machine, bool data)
{
	struct scrub_call call = {.fs = machine->sim.fs, .options = {.data = data, .bits_bytes = bits_bytes}};
	return sim_on(&machine->sim, ROOT, scrub_run, &call);
}

static struct fs_scrub_status status_of(const struct machine *machine)
{
	struct fs_scrub_status status;
	fs_scrub_get_status(machine->sim.fs, &status);
	return status;
}

/* Number of findings of a scrub, which must come to its end; the first one stays in first_line. */
static char first_line[256];
static uint64_t first_ino;

static uint64_t findings(struct machine *machine, bool data)
{
	assert_int_equal(scrub(machine, data), 0);
	first_line[0] = '\0';
	fs_scrub_finding(machine->sim.fs, 0, &first_ino, first_line, sizeof(first_line));
	return status_of(machine).findings;
}

/* ---- one of everything ---- */

static uint64_t fragmented, with_xattrs, big_directory;

static uint64_t make(struct machine *machine, uint64_t parent, const char *name, uint32_t mode)
{
	struct fs_entry entry;
	assert_int_equal(call_create(machine, parent, name, mode, &entry), 0);
	return entry.ino;
}

static void populate(struct machine *machine)
{
	char name[64], value[4000];
	memset(value, 'v', sizeof(value));
	fragmented = make(machine, ROOT, "fragmented", S_IFREG | 0600);
	for (unsigned i = 0; i < EXTENTS; i++)
		assert_int_equal(call_write(machine, fragmented, value, (uint64_t)i * 2 * FS_BLOCK_SIZE, 4000), 0);
	with_xattrs = make(machine, ROOT, "with-xattrs", S_IFREG | 0600);
	for (unsigned i = 0; i < 8; i++) {
		snprintf(name, sizeof(name), "user.name%u", i);
		assert_int_equal(call_setxattr(machine, with_xattrs, name, value, 900 + 400 * i), 0);
	}
	big_directory = make(machine, ROOT, "big", S_IFDIR | 0700);
	for (unsigned i = 0; i < BIG_DIRECTORY; i++) {
		snprintf(name, sizeof(name), "a-name-of-some-length-%04u", i);
		const uint64_t ino = make(machine, big_directory, name, i % 9 ? S_IFREG | 0600 : S_IFDIR | 0700);
		if (i % 9 && i % 7 == 1)
			assert_int_equal(call_write(machine, ino, value, 0, 3000), 0);
	}
	/* Unlinked and in use: it stands in an orphan block. */
	const uint64_t orphan = make(machine, ROOT, "orphan", S_IFREG | 0600);
	assert_int_equal(call_write(machine, orphan, value, 0, 4000), 0);
	assert_int_equal(call_unlink(machine, ROOT, "orphan"), 0);
	/* In every group, by its number. */
	for (unsigned i = 0; i < FILES; i++) {
		snprintf(name, sizeof(name), "directory%u", i);
		make(machine, ROOT, name, S_IFDIR | 0700);
	}
}

static void home(struct machine *machine)
{
	assert_int_equal(call_sync(machine), 0);
	assert_int_equal(sim_on(&machine->sim, ROOT, checkpoint_run, machine->sim.fs), 0);
}

static void start(struct machine *machine)
{
	machine_start(machine, owners, 0);
	populate(machine);
	home(machine);
}

static uint8_t *block_of(const struct machine *machine, uint64_t block) { return machine->memory + block * FS_BLOCK_SIZE; }

static const struct fs_super *super_of(const struct machine *machine)
{
	return (const struct fs_super *)block_of(machine, FS_SUPER_BLOCK);
}

static bool is_marked(const struct machine *machine, uint64_t block)
{
	const struct fs_super *super = super_of(machine);
	const uint64_t first = le64_get(super->first_ag_block);
	if (block < first)
		return block <= FS_STATE_BLOCK_B;
	const uint32_t ag = (uint32_t)((block - first) / le32_get(super->ag_blocks));
	if (ag >= le32_get(super->ag_count))
		return true; /* the last superblock */
	const uint32_t at = (uint32_t)(block - ag_first_block(super, ag));
	const struct map_block *map = (const struct map_block *)block_of(machine, ag_first_block(super, ag) + FS_AG_MAPS_FIRST);
	const struct ag_header *header = (const struct ag_header *)block_of(machine, ag_first_block(super, ag));
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
static unsigned type_at(const struct machine *machine, uint64_t block)
{
	const struct block_header *header = (const struct block_header *)block_of(machine, block);
	const bool ours = le32_get(header->magic) == FS_BLOCK_MAGIC && le64_get(header->block) == block &&
		le64_get(header->fsid) == le64_get(super_of(machine)->fsid);
	return ours && is_marked(machine, block) ? le16_get(header->type) : 0;
}

/* ---- damage ---- */

enum damage { DAMAGE_BIT, DAMAGE_ZERO, DAMAGE_MISDIRECTED, DAMAGE_UNREADABLE, DAMAGE_LOST_WRITE, DAMAGE_COUNT };

static void rule_unreadable(struct machine *machine, uint64_t block)
{
	const struct error_rule rule = {.ops = 1u << IO_READ, .offset = block * FS_BLOCK_SIZE, .length = FS_BLOCK_SIZE,
		.action = ERROR_FAIL, .error = -EIO};
	bdev_error_add_rule(sim_bdev(&machine->sim, "error"), &rule);
}

/* False: this kind does not apply to this block. */
static bool damage(struct machine *machine, uint64_t block, enum damage kind, bool warm)
{
	uint8_t *bytes = block_of(machine, block);
	struct block_header *header = (struct block_header *)bytes;
	switch (kind) {
	case DAMAGE_BIT:
		bytes[64 + block % 4000] ^= (uint8_t)(1u << block % 8);
		return true;
	case DAMAGE_ZERO:
		memset(bytes, 0, FS_BLOCK_SIZE);
		return true;
	case DAMAGE_MISDIRECTED:
		memcpy(bytes, block_of(machine, FS_SUPER_BLOCK), FS_BLOCK_SIZE);
		return block != FS_SUPER_BLOCK;
	case DAMAGE_UNREADABLE:
		rule_unreadable(machine, block);
		return true;
	case DAMAGE_LOST_WRITE: /* an earlier state under a good checksum; only memory knows better */
	case DAMAGE_COUNT:
		if (!warm || le16_get(header->type) != BLOCK_INODES)
			return false;
		((struct inode_block *)bytes)->inode[0].mtime_nsec = le32_set(1);
		block_seal(bytes, le64_get(header->sequence));
		return true;
	}
	return false;
}

static void one_block(struct machine *machine, uint64_t block, unsigned type, enum damage kind, bool warm)
{
	uint8_t saved[FS_BLOCK_SIZE];
	memcpy(saved, block_of(machine, block), FS_BLOCK_SIZE);
	if (damage(machine, block, kind, warm)) {
		const uint64_t found = findings(machine, false);
		char number[24];
		snprintf(number, sizeof(number), "%llu", (unsigned long long)block);
		if (!found || !strstr(first_line, number))
			fail_msg("block %llu of type %u, damage %d, %s caches: %llu findings: %s", (unsigned long long)block, type,
				kind, warm ? "warm" : "cold", (unsigned long long)found, first_line);
		/* An error of a device ends nothing else: one block, one finding, but for what hangs from it. */
		assert_true(found < 40);
	}
	bdev_error_clear_rules(sim_bdev(&machine->sim, "error"));
	memcpy(block_of(machine, block), saved, FS_BLOCK_SIZE);
}

/* Three blocks of each type, each kind of damage. */
static void each_type(bool warm)
{
	struct machine machine;
	unsigned seen[BLOCK_TYPE_COUNT] = {0}, kinds = 0;
	start(&machine);
	machine.damaged = true;
	if (!warm) { /* read-only: nothing is in the cache, and nothing is written */
		assert_int_equal(sim_unmount(&machine.sim), 0);
		machine.mount.read_only = true;
		assert_int_equal(sim_mount(&machine.sim, &machine.mount), 0);
	}
	assert_int_equal(findings(&machine, true), 0);
	for (uint64_t block = FS_SUPER_BLOCK; block < machine.size / FS_BLOCK_SIZE; block++) {
		const unsigned type = type_at(&machine, block);
		if (!type || type == BLOCK_STATE || seen[type]++ >= 3)
			continue;
		for (enum damage kind = 0; kind < DAMAGE_COUNT; kind++)
			one_block(&machine, block, type, kind, warm);
	}
	for (unsigned type = BLOCK_SUPER; type < BLOCK_TYPE_COUNT; type++)
		kinds += seen[type] > 0;
	/* All but state blocks, which are looked at below. */
	assert_int_equal(kinds, BLOCK_TYPE_COUNT - 2);
	assert_int_equal(findings(&machine, true), 0);
	machine_stop(&machine);
}

static void test_every_type_of_block_is_read_from_the_device(void **state) { each_type(true); }
static void test_every_type_of_block_with_cold_caches(void **state) { each_type(false); }

static void test_state_blocks_are_read(void **state)
{
	struct machine machine;
	start(&machine);
	for (uint64_t block = FS_STATE_BLOCK_A; block <= FS_STATE_BLOCK_B; block++) {
		assert_int_equal(findings(&machine, false), 0);
		block_of(&machine, block)[100] ^= 1;
		assert_int_equal(findings(&machine, false), 1);
		assert_non_null(strstr(first_line, "state block"));
		/* That was recorded; and both are written again. */
		call_sleep(&machine, NS_PER_SEC);
		for (unsigned i = 0; i < 2; i++) {
			char name[] = {'s', (char)('0' + block), (char)('0' + i), '\0'};
			make(&machine, ROOT, name, S_IFREG | 0600);
			home(&machine);
		}
	}
	assert_int_equal(findings(&machine, false), 0);
	machine_stop(&machine);
}

/* ---- what lies under good checksums ---- */

static struct disk_inode *record_of(const struct machine *machine, uint64_t ino)
{
	const struct fs_super *super = super_of(machine);
	const uint64_t place = ino == ROOT ? le64_get(super->root_place) : ino;
	struct inode_block *block =
		(struct inode_block *)block_of(machine, ag_first_block(super, ino_ag(place)) + ino_ag_block(place));
	return &block->inode[ino_slot(place)];
}

static void seal(void *inside)
{
	uint8_t *block = (uint8_t *)((uintptr_t)inside & ~(uintptr_t)(FS_BLOCK_SIZE - 1));
	block_seal(block, le64_get(((struct block_header *)block)->sequence));
}

static void cold(struct machine *machine)
{
	if (sim_mount(&machine->sim, &machine->mount))
		fail_msg("%s", machine->sim.message);
}

/* Unmounted, changed by @lie, mounted again: the scrub says @what. */
static void lie_is_found(void (*lie)(struct machine *machine), const char *what)
{
	struct machine machine;
	start(&machine);
	machine.damaged = true;
	assert_int_equal(sim_unmount(&machine.sim), 0);
	lie(&machine);
	cold(&machine);
	const uint64_t found = findings(&machine, false);
	bool said = false;
	for (unsigned i = 0; i < found && !said; i++)
		said = fs_scrub_finding(machine.sim.fs, i, &first_ino, first_line, sizeof(first_line)) && strstr(first_line, what);
	if (!said)
		fail_msg("%s: %llu findings: %s", what, (unsigned long long)found, first_line);
	machine_stop(&machine);
}

static void entry_without_inode(struct machine *machine)
{
	const struct fs_super *super = super_of(machine);
	/* The last file of the big directory loses its slot. */
	for (uint64_t block = le64_get(super->first_ag_block); block < machine->size / FS_BLOCK_SIZE; block++) {
		struct inode_block *inodes = (struct inode_block *)block_of(machine, block);
		if (type_at(machine, block) != BLOCK_INODES)
			continue;
		for (unsigned slot = 0; slot < FS_INODES_PER_BLOCK; slot++) {
			struct disk_inode *inode = &inodes->inode[slot];
			if (!S_ISREG(le16_get(inode->mode)) || inode->format != FORK_INLINE || le64_get(inode->size) || inode->xattr_bytes)
				continue;
			inode->mode = le16_set(0);
			inode->format = FORK_NONE;
			inodes->used_mask = le32_set(le32_get(inodes->used_mask) & ~(1u << slot));
			seal(inodes);
			return;
		}
	}
	fail_msg("no file to be lost");
}

/* The first leaf of a tree of the big directory, or of the fragmented file. */
static struct tree_node *leaf_of(struct machine *machine, uint64_t owner)
{
	for (uint64_t block = FS_SUPER_BLOCK; block < machine->size / FS_BLOCK_SIZE; block++) {
		struct tree_node *node = (struct tree_node *)block_of(machine, block);
		const unsigned type = type_at(machine, block);
		if ((type == BLOCK_DIR_NODE || type == BLOCK_EXTENT_NODE) && !le16_get(node->level) &&
			le64_get(node->header.owner) == owner)
			return node;
	}
	fail_msg("no leaf of inode %llu", (unsigned long long)owner);
	return NULL;
}

static void entry_of_another_type(struct machine *machine)
{
	struct tree_node *node = leaf_of(machine, big_directory);
	struct disk_dirent *entry = (struct disk_dirent *)node->payload;
	entry->type = entry->type == 8 ? 4 : 8;
	seal(node);
}

static void wrong_hash(struct machine *machine)
{
	struct tree_node *node = leaf_of(machine, big_directory);
	((struct disk_dirent *)node->payload)->name[0] = 'X';
	seal(node);
}

static void block_of_two(struct machine *machine)
{
	struct tree_node *node = leaf_of(machine, fragmented);
	struct disk_extent *extents = (struct disk_extent *)node->payload;
	extents[1].physical = extents[0].physical;
	seal(node);
}

static struct map_block *map_with(const struct machine *machine, struct ag_header **out_header)
{
	*out_header = NULL;
	const struct fs_super *super = super_of(machine);
	for (uint32_t ag = 0; ag < le32_get(super->ag_count); ag++) {
		*out_header = (struct ag_header *)block_of(machine, ag_first_block(super, ag));
		if (le64_get((*out_header)->block_map_ready) && le32_get((*out_header)->free_blocks) > 100)
			return (struct map_block *)block_of(machine, ag_first_block(super, ag) + FS_AG_MAPS_FIRST);
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
	seal(map);
	seal(header);
}

static void marked_free(struct machine *machine)
{
	struct ag_header *header;
	struct map_block *map = map_with(machine, &header);
	const unsigned fixed = ag_fixed_blocks(super_of(machine));
	map->bits[fixed / 8] &= (uint8_t)~(1u << fixed % 8);
	seal(map);
}

static void wrong_blocks(struct machine *machine)
{
	struct disk_inode *inode = record_of(machine, fragmented);
	inode->blocks = le64_set(le64_get(inode->blocks) + 1);
	seal(inode);
}

static void wrong_entries(struct machine *machine)
{
	struct disk_inode *inode = record_of(machine, big_directory);
	inode->rdev_or_entries = le64_set(le64_get(inode->rdev_or_entries) + 1);
	seal(inode);
}

static void wrong_free_count(struct machine *machine)
{
	struct ag_header *header;
	map_with(machine, &header);
	header->free_blocks = le32_set(le32_get(header->free_blocks) - 1);
	seal(header);
}

static void test_lies_under_good_checksums_are_found(void **state)
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

/* ---- data, the record, the end ---- */

static void test_unreadable_data_is_found_if_wanted(void **state)
{
	struct machine machine;
	start(&machine);
	const struct tree_node *node = leaf_of(&machine, fragmented);
	const uint64_t data = le64_get(((const struct disk_extent *)node->payload)[7].physical);
	rule_unreadable(&machine, data);
	assert_int_equal(findings(&machine, false), 0);
	assert_int_equal(findings(&machine, true), 1);
	assert_non_null(strstr(first_line, "file data at byte 57344"));
	assert_int_equal(first_ino, fragmented);
	bdev_error_clear_rules(sim_bdev(&machine.sim, "error"));
	machine.damaged = true; /* an error is on record */
	machine_stop(&machine);
}

static void test_a_finding_is_on_record_and_a_clean_scrub_is_not(void **state)
{
	struct machine machine;
	struct fs_errors errors;
	start(&machine);
	bits_bytes = 1; /* too little to note anything */
	assert_int_equal(findings(&machine, false), 0);
	assert_true(status_of(&machine).groups_unjudged > 0);
	bits_bytes = 0;
	assert_int_equal(findings(&machine, false), 0);
	fs_get_errors(machine.sim.fs, &errors);
	assert_int_equal(errors.count, 0);
	uint8_t *bytes = block_of(&machine, ag_first_block(super_of(&machine), 3));
	bytes[2000] ^= 1;
	assert_int_equal(findings(&machine, false), 1);
	call_sleep(&machine, NS_PER_SEC);
	bytes[2000] ^= 1;
	assert_int_equal(findings(&machine, false), 0);
	machine_remount(&machine);
	fs_get_errors(machine.sim.fs, &errors);
	assert_int_equal(errors.error, -EUCLEAN);
	assert_int_equal(errors.count, 1);
	assert_true(errors.earlier);
	assert_non_null(strstr(errors.text, "scrub"));
	machine_stop(&machine);
}

struct background {
	struct machine *machine;
	struct fs_scrub_options options;
	int result;
	bool ended;
	struct fiber_start_remote start;
};

static MAY_WAIT void background_main(void *arg)
{
	struct background *background = arg;
	background->result = fs_scrub(background->machine->sim.fs, &background->options);
	background->ended = true;
}

static bool background_ended(void *arg) { return ((struct background *)arg)->ended; }

static void background_start(struct background *background, struct machine *machine, uint64_t rate)
{
	*background = (struct background){.machine = machine, .options = {.rate_bytes = rate}};
	background->start.start = (struct fiber_start){.fn = background_main, .arg = background, .name = "scrub"};
	fiber_start_on(reactor_group_get(machine->sim.group, 0), &background->start);
	call_sleep(machine, 50 * NS_PER_MS);
	assert_false(background->ended);
}

static void test_it_keeps_to_its_rate_and_can_be_cancelled(void **state)
{
	struct machine machine;
	struct background background;
	start(&machine);
	assert_int_equal(findings(&machine, false), 0);
	const uint64_t blocks = status_of(&machine).blocks;
	background_start(&background, &machine, 20 * FS_BLOCK_SIZE);
	assert_int_equal(scrub(&machine, false), -EBUSY); /* one at a time */
	call_sleep(&machine, 5 * NS_PER_SEC);
	assert_in_range(status_of(&machine).blocks, 60, 140);
	assert_true(status_of(&machine).blocks < blocks && status_of(&machine).running);
	fs_scrub_cancel(machine.sim.fs);
	assert_true(reactor_group_sim_run(machine.sim.group, background_ended, &background));
	assert_int_equal(background.result, -EINTR);
	assert_int_equal(status_of(&machine).result, -EINTR);
	assert_int_equal(findings(&machine, false), 0); /* the next one is not */
	background_start(&background, &machine, 20 * FS_BLOCK_SIZE);
	fs_call_off(machine.sim.fs);
	assert_true(reactor_group_sim_run(machine.sim.group, background_ended, &background));
	assert_int_equal(background.result, -EINTR);
	machine_stop(&machine);
}

static void test_a_filesystem_that_stops_ends_it(void **state)
{
	struct machine machine;
	struct background background;
	start(&machine);
	machine.damaged = true;
	background_start(&background, &machine, 20 * FS_BLOCK_SIZE);
	fs_shutdown(machine.sim.fs);
	assert_true(reactor_group_sim_run(machine.sim.group, background_ended, &background));
	assert_int_equal(background.result, -ESHUTDOWN);
	assert_int_equal(scrub(&machine, false), -ESHUTDOWN);
	machine_stop(&machine);
}

static void test_a_device_that_fails_everywhere_ends_it(void **state)
{
	struct machine machine;
	start(&machine);
	machine.damaged = true;
	const struct error_rule rule = {.ops = 1u << IO_READ, .action = ERROR_FAIL, .error = -ENODEV};
	bdev_error_add_rule(sim_bdev(&machine.sim, "error"), &rule);
	assert_int_equal(scrub(&machine, false), -ENODEV);
	bdev_error_clear_rules(sim_bdev(&machine.sim, "error"));
	machine_stop(&machine);
}

/* The power goes while it runs: what is left is what would be left without it. */
static void test_a_power_cut_meanwhile_changes_nothing(void **state)
{
	for (unsigned i = 1; i <= 20; i++) {
		struct machine machine;
		struct background background;
		machine_start(&machine, owners, 0);
		populate(&machine);
		background_start(&background, &machine, 100 * FS_BLOCK_SIZE);
		call_sleep(&machine, i * 37 * NS_PER_MS);
		make(&machine, ROOT, "meanwhile", S_IFREG | 0600);
		reactor_group_sim_abandon(machine.sim.group);
		fs_abandon(machine.sim.fs);
		bdev_registry_abandon(machine.sim.registry);
		reactor_group_destroy(machine.sim.group);
		assert_int_equal(sim_fsck(machine.memory, machine.size, true, "after the cut"), 0);
		munmap(machine.memory, machine.size);
	}
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_type_of_block_is_read_from_the_device),
		cmocka_unit_test(test_every_type_of_block_with_cold_caches),
		cmocka_unit_test(test_state_blocks_are_read),
		cmocka_unit_test(test_lies_under_good_checksums_are_found),
		cmocka_unit_test(test_unreadable_data_is_found_if_wanted),
		cmocka_unit_test(test_a_finding_is_on_record_and_a_clean_scrub_is_not),
		cmocka_unit_test(test_it_keeps_to_its_rate_and_can_be_cancelled),
		cmocka_unit_test(test_a_filesystem_that_stops_ends_it),
		cmocka_unit_test(test_a_device_that_fails_everywhere_ends_it),
		cmocka_unit_test(test_a_power_cut_meanwhile_changes_nothing),
	};
	static const unsigned counts[] = {1, 2, 4};
	int failed = 0;
	for (unsigned i = 0; i < ARRAY_SIZE(counts); i++) {
		owners = counts[i];
		if (argc < 2 || strtoul(argv[1], NULL, 0) == owners)
			failed += cmocka_run_group_tests(tests, NULL, NULL);
	}
	return failed;
}
