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
#include "tests/sim/scrub_machine.h"

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
	uint8_t *bytes = scrubbed_block(machine, block);
	struct block_header *header = (struct block_header *)bytes;
	switch (kind) {
	case DAMAGE_BIT:
		bytes[64 + block % 4000] ^= (uint8_t)(1u << block % 8);
		return true;
	case DAMAGE_ZERO:
		memset(bytes, 0, FS_BLOCK_SIZE);
		return true;
	case DAMAGE_MISDIRECTED:
		memcpy(bytes, scrubbed_block(machine, FS_SUPER_BLOCK), FS_BLOCK_SIZE);
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
	memcpy(saved, scrubbed_block(machine, block), FS_BLOCK_SIZE);
	if (damage(machine, block, kind, warm)) {
		const uint64_t found = scrubbed_findings(machine, false);
		char number[24];
		snprintf(number, sizeof(number), "%llu", (unsigned long long)block);
		if (!found || !strstr(scrubbed.line, number))
			fail_msg("block %llu of type %u, damage %d, %s caches: %llu findings: %s", (unsigned long long)block, type,
				kind, warm ? "warm" : "cold", (unsigned long long)found, scrubbed.line);
		/* An error of a device ends nothing else: one block, one finding, but for what hangs from it. */
		assert_true(found < 40);
	}
	bdev_error_clear_rules(sim_bdev(&machine->sim, "error"));
	memcpy(scrubbed_block(machine, block), saved, FS_BLOCK_SIZE);
}

/* Three blocks of each type, each kind of damage. */
static void each_type(bool warm)
{
	struct machine machine;
	unsigned seen[BLOCK_TYPE_COUNT] = {0}, kinds = 0;
	scrubbed_start(&machine);
	machine.damaged = true;
	if (!warm) { /* read-only: nothing is in the cache, and nothing is written */
		assert_int_equal(sim_unmount(&machine.sim), 0);
		machine.mount.read_only = true;
		assert_int_equal(sim_mount(&machine.sim, &machine.mount), 0);
	}
	assert_int_equal(scrubbed_findings(&machine, true), 0);
	for (uint64_t block = FS_SUPER_BLOCK; block < machine.size / FS_BLOCK_SIZE; block++) {
		const unsigned type = scrubbed_type(&machine, block);
		if (!type || type == BLOCK_STATE || seen[type]++ >= 3)
			continue;
		for (enum damage kind = 0; kind < DAMAGE_COUNT; kind++)
			one_block(&machine, block, type, kind, warm);
	}
	for (unsigned type = BLOCK_SUPER; type < BLOCK_TYPE_COUNT; type++)
		kinds += seen[type] > 0;
	/* All but state blocks, which are looked at below. */
	assert_int_equal(kinds, BLOCK_TYPE_COUNT - 2);
	assert_int_equal(scrubbed_findings(&machine, true), 0);
	machine_stop(&machine);
}

static void test_every_type_of_block_is_read_from_the_device(void **state) { each_type(true); }
static void test_every_type_of_block_with_cold_caches(void **state) { each_type(false); }

static void test_state_blocks_are_read(void **state)
{
	struct machine machine;
	scrubbed_start(&machine);
	for (uint64_t block = FS_STATE_BLOCK_A; block <= FS_STATE_BLOCK_B; block++) {
		assert_int_equal(scrubbed_findings(&machine, false), 0);
		scrubbed_block(&machine, block)[100] ^= 1;
		assert_int_equal(scrubbed_findings(&machine, false), 1);
		assert_non_null(strstr(scrubbed.line, "state block"));
		/* That was recorded; and both are written again. */
		call_sleep(&machine, NS_PER_SEC);
		for (unsigned i = 0; i < 2; i++) {
			char name[] = {'s', (char)('0' + block), (char)('0' + i), '\0'};
			scrubbed_make(&machine, ROOT, name, S_IFREG | 0600);
			scrubbed_home(&machine);
		}
	}
	assert_int_equal(scrubbed_findings(&machine, false), 0);
	machine_stop(&machine);
}

/* ---- data, the record, the end ---- */

static void test_unreadable_data_is_found_if_wanted(void **state)
{
	struct machine machine;
	scrubbed_start(&machine);
	const struct tree_node *node = scrubbed_leaf(&machine, scrubbed.fragmented);
	const uint64_t data = le64_get(((const struct disk_extent *)node->payload)[7].physical);
	rule_unreadable(&machine, data);
	assert_int_equal(scrubbed_findings(&machine, false), 0);
	assert_int_equal(scrubbed_findings(&machine, true), 1);
	assert_non_null(strstr(scrubbed.line, "file data at byte 57344"));
	assert_int_equal(scrubbed.ino, scrubbed.fragmented);
	bdev_error_clear_rules(sim_bdev(&machine.sim, "error"));
	machine.damaged = true; /* an error is on record */
	machine_stop(&machine);
}

static void test_a_finding_is_on_record_and_a_clean_scrub_is_not(void **state)
{
	struct machine machine;
	struct fs_errors errors;
	scrubbed_start(&machine);
	scrubbed.memory_bytes = 1; /* each group has a round for itself */
	assert_int_equal(scrubbed_findings(&machine, false), 0);
	assert_int_equal(scrubbed_status(&machine).rounds, le32_get(scrubbed_super(&machine)->ag_count));
	assert_int_equal(scrubbed_status(&machine).groups_unjudged, 0);
	scrubbed.memory_bytes = 3000; /* some have one together */
	assert_int_equal(scrubbed_findings(&machine, false), 0);
	assert_in_range(scrubbed_status(&machine).rounds, 2, le32_get(scrubbed_super(&machine)->ag_count) - 1);
	scrubbed.memory_bytes = 0;
	assert_int_equal(scrubbed_findings(&machine, false), 0);
	assert_int_equal(scrubbed_status(&machine).rounds, 1);
	fs_get_errors(machine.sim.fs, &errors);
	assert_int_equal(errors.count, 0);
	uint8_t *bytes = scrubbed_block(&machine, ag_first_block(scrubbed_super(&machine), 3));
	bytes[2000] ^= 1;
	assert_int_equal(scrubbed_findings(&machine, false), 1);
	call_sleep(&machine, NS_PER_SEC);
	bytes[2000] ^= 1;
	assert_int_equal(scrubbed_findings(&machine, false), 0);
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

static void background_start(struct background *background, struct machine *machine, uint64_t rate, bool data)
{
	*background = (struct background){.machine = machine, .options = {.rate_bytes = rate, .data = data}};
	background->start.start = (struct fiber_start){.fn = background_main, .arg = background, .name = "scrub"};
	fiber_start_on(reactor_group_get(machine->sim.group, 0), &background->start);
	call_sleep(machine, 50 * NS_PER_MS);
	assert_false(background->ended);
}

static void test_it_keeps_to_its_rate_and_can_be_cancelled(void **state)
{
	struct machine machine;
	struct background background;
	scrubbed_start(&machine);
	assert_int_equal(scrubbed_findings(&machine, false), 0);
	const uint64_t blocks = scrubbed_status(&machine).blocks;
	background_start(&background, &machine, 20 * FS_BLOCK_SIZE, false);
	assert_int_equal(scrubbed_scrub(&machine, false), -EBUSY); /* one at a time */
	call_sleep(&machine, 5 * NS_PER_SEC);
	assert_in_range(scrubbed_status(&machine).blocks, 60, 140);
	assert_true(scrubbed_status(&machine).blocks < blocks && scrubbed_status(&machine).running);
	fs_scrub_cancel(machine.sim.fs);
	assert_true(reactor_group_sim_run(machine.sim.group, background_ended, &background));
	assert_int_equal(background.result, -EINTR);
	assert_int_equal(scrubbed_status(&machine).result, -EINTR);
	assert_int_equal(scrubbed_findings(&machine, false), 0); /* the next one is not */
	background_start(&background, &machine, 20 * FS_BLOCK_SIZE, false);
	fs_call_off(machine.sim.fs);
	assert_true(reactor_group_sim_run(machine.sim.group, background_ended, &background));
	assert_int_equal(background.result, -EINTR);
	machine_stop(&machine);
}

/* In the order of their keys, so that the last one is known. */
static bool entry_keep(const struct fs_dirent *dirent, void *arg)
{
	snprintf(arg, 100, "%.*s", (int)dirent->name.length, dirent->name.bytes);
	return true;
}

/* Between two stretches of its walk a directory loses all but the last of its entries, and its nodes with them: that one is still
 * counted, once. */
static void test_a_directory_that_shrinks_while_it_is_read(void **state)
{
	enum { NAMES = 1500 };
	struct machine machine;
	struct background background;
	char name[100], last[100];
	machine_start(&machine, scrubbed.owners, 0);
	const uint64_t directory = scrubbed_make(&machine, ROOT, "shrinks", S_IFDIR | 0700);
	for (unsigned i = 0; i < NAMES; i++) {
		snprintf(name, sizeof(name), "%090u", i);
		scrubbed_make(&machine, directory, name, S_IFREG | 0600);
	}
	assert_int_equal(call_readdir(&machine, directory, 0, false, entry_keep, last), 0);
	scrubbed_home(&machine);
	background_start(&background, &machine, 5 * FS_BLOCK_SIZE, false);
	while (scrubbed_status(&machine).directories < 2)
		call_sleep(&machine, 10 * NS_PER_MS);
	for (unsigned i = 0; i < NAMES; i++) {
		snprintf(name, sizeof(name), "%090u", i);
		if (strcmp(name, last))
			assert_int_equal(call_unlink(&machine, directory, name), 0);
	}
	assert_false(background.ended);
	assert_true(reactor_group_sim_run(machine.sim.group, background_ended, &background));
	const struct fs_scrub_status status = scrubbed_status(&machine);
	assert_int_equal(background.result, 0);
	assert_int_equal(status.findings, 0);
	assert_in_range(status.inodes_unjudged, 1, NAMES - 1); /* they are marked, the last one is not */
	machine_stop(&machine);
}

/* While the first files of an inode block are read, the last one's slot goes to a directory: its entries are counted once. */
static void test_a_slot_that_becomes_a_directory(void **state)
{
	enum { WHOLE = 10, BYTES = 8 * FS_BLOCK_SIZE };
	static const char data[BYTES] = {1};
	struct machine machine;
	struct background background;
	struct fs_entry entry = {0};
	uint64_t last = 0;
	char name[16];
	machine_start(&machine, scrubbed.owners, 0);
	for (unsigned i = 0; i < WHOLE; i++) {
		snprintf(name, sizeof(name), "file%u", i);
		last = scrubbed_make(&machine, ROOT, name, S_IFREG | 0600);
		assert_int_equal(call_write(&machine, last, data, 0, BYTES), 0);
	}
	scrubbed_make(&machine, ROOT, "other", S_IFREG | 0600);
	scrubbed_home(&machine);
	background_start(&background, &machine, 5 * FS_BLOCK_SIZE, true);
	while (!scrubbed_status(&machine).data_bytes)
		call_sleep(&machine, 10 * NS_PER_MS);
	assert_int_equal(call_unlink(&machine, ROOT, name), 0);
	call_forget(&machine, last, 1);
	machine_settle(&machine);
	for (unsigned i = 0; i < 500 && entry.ino != last; i++) {
		snprintf(name, sizeof(name), "directory%u", i);
		assert_int_equal(call_create(&machine, ROOT, name, S_IFDIR | 0700, &entry), 0);
	}
	assert_int_equal(entry.ino, last);
	assert_int_equal(call_rename(&machine, ROOT, "other", last, "other", 0), 0);
	assert_int_equal(scrubbed_status(&machine).phase, FS_SCRUB_METADATA);
	assert_true(reactor_group_sim_run(machine.sim.group, background_ended, &background));
	assert_int_equal(background.result, 0);
	assert_int_equal(scrubbed_status(&machine).findings, 0);
	machine_stop(&machine);
}

static void test_a_filesystem_that_stops_ends_it(void **state)
{
	struct machine machine;
	struct background background;
	scrubbed_start(&machine);
	machine.damaged = true;
	background_start(&background, &machine, 20 * FS_BLOCK_SIZE, false);
	fs_shutdown(machine.sim.fs);
	assert_true(reactor_group_sim_run(machine.sim.group, background_ended, &background));
	assert_int_equal(background.result, -ESHUTDOWN);
	assert_int_equal(scrubbed_scrub(&machine, false), -ESHUTDOWN);
	machine_stop(&machine);
}

static void test_a_device_that_fails_everywhere_ends_it(void **state)
{
	struct machine machine;
	scrubbed_start(&machine);
	machine.damaged = true;
	const struct error_rule rule = {.ops = 1u << IO_READ, .action = ERROR_FAIL, .error = -ENODEV};
	bdev_error_add_rule(sim_bdev(&machine.sim, "error"), &rule);
	assert_int_equal(scrubbed_scrub(&machine, false), -ENODEV);
	bdev_error_clear_rules(sim_bdev(&machine.sim, "error"));
	machine_stop(&machine);
}

/* The power goes while it runs: what is left is what would be left without it. */
static void test_a_power_cut_meanwhile_changes_nothing(void **state)
{
	for (unsigned i = 1; i <= 20; i++) {
		struct machine machine;
		struct background background;
		machine_start(&machine, scrubbed.owners, 0);
		scrubbed_populate(&machine);
		background_start(&background, &machine, 100 * FS_BLOCK_SIZE, false);
		call_sleep(&machine, i * 37 * NS_PER_MS);
		scrubbed_make(&machine, ROOT, "meanwhile", S_IFREG | 0600);
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
		cmocka_unit_test(test_unreadable_data_is_found_if_wanted),
		cmocka_unit_test(test_a_finding_is_on_record_and_a_clean_scrub_is_not),
		cmocka_unit_test(test_it_keeps_to_its_rate_and_can_be_cancelled),
		cmocka_unit_test(test_a_directory_that_shrinks_while_it_is_read),
		cmocka_unit_test(test_a_slot_that_becomes_a_directory),
		cmocka_unit_test(test_a_filesystem_that_stops_ends_it),
		cmocka_unit_test(test_a_device_that_fails_everywhere_ends_it),
		cmocka_unit_test(test_a_power_cut_meanwhile_changes_nothing),
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
