/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * ACLs after a power cut. Inodes are made in directories that hand down short, middling and long ACLs, and their modes
 * and ACLs are changed, on a recording device. At any later cut an inode is there with the mode and the ACLs that it was
 * made with or had after a change, all of one moment, or it is not there; fsck is clean; what was synced is there.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "fs/xattr.h"
#include "reactor/log.h"
#include "tests/sim/acl_model.h"
#include "tests/sim/calls.h"
#include "tests/sim/cut.h"

#define ROOT FS_ROOT_INODE
#define ACCESS "system." XATTR_ACL_ACCESS
#define DEFAULT "system." XATTR_ACL_DEFAULT
enum { SIZE = MIB(32), INODES = 48, MOMENTS = 3, CUTS = 60 };

/* What an inode was at some moment. */
struct moment {
	uint32_t mode;
	uint32_t access_length, default_length; /* 0: none */
	uint8_t access[ACL_BYTES_MAX], inherited[ACL_BYTES_MAX];
};
struct life {
	uint64_t synced_at;             /* mark of a sync behind the first moment; 0: none */
	unsigned moments;
	struct moment moment[MOMENTS];
};
static struct life lives[INODES];

static void machine_on(struct machine *machine, uint8_t *memory, unsigned owners, bool record)
{
	const struct sim_options options = {.owners = owners, .seed = owners, .memory = memory, .size = SIZE,
		.asynchronous = true, .record = record};
	*machine = (struct machine){.size = SIZE, .memory = memory, .owners = owners, .mount = {.commit_ms = 1}};
	machine->cred = (struct fs_cred){.uid = 1000, .gid = 1000, .sgid = FS_SGID_KEEP};
	sim_create(&machine->sim, &options);
	if (sim_mount(&machine->sim, &machine->mount))
		fail_msg("mount: %s", machine->sim.message);
}

static void look(struct machine *machine, uint64_t ino, struct moment *moment)
{
	struct fs_attr attr;
	memset(moment, 0, sizeof(*moment));
	assert_int_equal(call_getattr(machine, ino, &attr), 0);
	moment->mode = attr.mode;
	int error = call_getxattr(machine, ino, ACCESS, moment->access, ACL_BYTES_MAX, &moment->access_length);
	assert_true(!error || error == -ENODATA);
	error = call_getxattr(machine, ino, DEFAULT, moment->inherited, ACL_BYTES_MAX, &moment->default_length);
	assert_true(!error || error == -ENODATA);
}

static void remember(struct machine *machine, uint64_t ino, struct life *life)
{
	look(machine, ino, &life->moment[life->moments++]);
}

static const char *name_of(char name[16], unsigned number)
{
	snprintf(name, 16, "n%u", number);
	return name;
}

static void directories_make(struct machine *machine, uint64_t directories[3])
{
	static const unsigned named[3] = {1, 20, 480}; /* in the inode, in its block, in blocks of their own */
	for (unsigned i = 0; i < 3; i++) {
		static struct acl acl;
		static uint8_t bytes[ACL_BYTES_MAX];
		char name[16];
		struct fs_entry entry;
		acl = (struct acl){.present = true, .owner = 7, .group = 5, .has_mask = true, .mask = 7, .other = 1,
			.user_count = named[i]};
		for (unsigned j = 0; j < named[i]; j++)
			acl.users[j] = (struct acl_named){.id = j, .permissions = j % 8};
		assert_int_equal(call_create(machine, ROOT, name_of(name, i), S_IFDIR | 0777, &entry), 0);
		directories[i] = entry.ino;
		const uint32_t length = acl_encode(&acl, bytes);
		assert_int_equal(call_setxattr(machine, entry.ino, DEFAULT, bytes, length), 0);
	}
	assert_int_equal(call_sync(machine), 0);
}

static uint64_t life_begin(struct machine *machine, uint64_t directory, unsigned number)
{
	struct fs_entry entry;
	char name[16];
	const uint32_t mode = number % 2 ? S_IFDIR | 0755 : S_IFREG | 0640;
	if (number % 8 == 2) {
		const struct fs_create nameless = {.mode = S_IFREG | 0666};
		assert_int_equal(call_make(machine, directory, &nameless, &entry), 0);
		assert_int_equal(call_link(machine, directory, name_of(name, number), entry.ino, &entry), 0);
	} else {
		assert_int_equal(call_create(machine, directory, name_of(name, number), mode, &entry), 0);
	}
	remember(machine, entry.ino, &lives[number]);
	return entry.ino;
}

static void work(struct machine *machine)
{
	uint64_t directories[3], marks = 0;
	directories_make(machine, directories);
	for (unsigned i = 0; i < INODES; i++) {
		struct fs_attr attr = {.mode = 0710 + i % 8};
		const uint64_t ino = life_begin(machine, directories[i % 3], i);
		assert_int_equal(call_setattr(machine, ino, &attr, FS_SET_MODE, &attr), 0);
		remember(machine, ino, &lives[i]);
		if (i % 4 == 1) {
			assert_int_equal(call_removexattr(machine, ino, i % 8 == 1 ? ACCESS : DEFAULT), 0);
			remember(machine, ino, &lives[i]);
		}
		if (i % 5 == 0) {
			assert_int_equal(call_sync(machine), 0);
			bdev_record_mark(sim_bdev(&machine->sim, "record"), ++marks);
			lives[i].synced_at = marks;
		}
	}
}

/* What the cut must have kept: the greatest mark before it. */
static uint64_t marks_before(const struct cut_plan *plan)
{
	uint64_t mark = 0;
	for (size_t i = 0; i < plan->position; i++)
		if (plan->entries[i].kind == RECORD_MARK)
			mark = plan->entries[i].mark;
	return mark;
}

static unsigned check_lives(struct machine *machine, uint64_t marks)
{
	static struct moment found;
	unsigned present = 0;
	for (unsigned i = 0; i < INODES; i++) {
		struct fs_entry directory, entry;
		char name[16];
		bool one_of_them = false;
		int error = call_lookup(machine, ROOT, name_of(name, i % 3), &directory);
		if (!error)
			error = call_lookup(machine, directory.ino, name_of(name, i), &entry);
		if (error == -ENOENT && (!lives[i].synced_at || lives[i].synced_at > marks))
			continue;
		assert_int_equal(error, 0);
		look(machine, entry.ino, &found);
		for (unsigned j = 0; j < lives[i].moments; j++)
			one_of_them |= !memcmp(&found, &lives[i].moment[j], sizeof(found));
		if (!one_of_them)
			fail_msg("inode %u has mode %o with ACLs of another moment", i, found.mode);
		present++;
	}
	return present;
}

static void cut_and_check(const struct cut_plan *plan, const uint8_t *before, uint8_t *image, unsigned owners)
{
	struct machine machine;
	memcpy(image, before, SIZE);
	cut_make(plan, image);
	assert_int_equal(sim_fsck(image, SIZE, true, "after the cut"), 0);
	machine_on(&machine, image, owners, false);
	check_lives(&machine, marks_before(plan));
	assert_int_equal(sim_unmount(&machine.sim), 0);
	sim_destroy(&machine.sim);
	assert_int_equal(sim_fsck(image, SIZE, false, "after recovery"), 0);
}

static void cuts(unsigned owners)
{
	uint8_t *memory = calloc(1, SIZE), *before = malloc(SIZE), *image = malloc(SIZE);
	const struct sim_format format = {.size = SIZE, .journal_bytes = MIB(1), .ag_bytes = MIB(2), .seed = 11};
	static const unsigned keep[] = {100, 0, 50};
	struct machine machine;
	memset(lives, 0, sizeof(lives));
	sim_mkfs(memory, &format);
	memcpy(before, memory, SIZE);
	machine_on(&machine, memory, owners, true);
	work(&machine);
	assert_int_equal(check_lives(&machine, UINT64_MAX), INODES);
	assert_int_equal(sim_unmount(&machine.sim), 0);
	struct record_log *log = bdev_record_log(sim_bdev(&machine.sim, "record"));
	record_log_get(log);
	sim_destroy(&machine.sim);
	struct cut_plan plan;
	plan.entries = record_log_entries(log, &plan.count);
	for (unsigned i = 0; i < CUTS; i++) {
		plan.position = (i + 1) * plan.count / CUTS;
		plan.keep_percent = keep[i % ARRAY_SIZE(keep)];
		plan.random = i;
		cut_and_check(&plan, before, image, owners);
	}
	record_log_put(log);
	free(memory);
	free(before);
	free(image);
}

static void log_nothing(enum log_level level, const char *line, void *arg) {}

static void test_cuts_with_one_owner(void **state) { cuts(1); }
static void test_cuts_with_two_owners(void **state) { cuts(2); }
static void test_cuts_with_four_owners(void **state) { cuts(4); }

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_cuts_with_one_owner),
		cmocka_unit_test(test_cuts_with_two_owners),
		cmocka_unit_test(test_cuts_with_four_owners),
	};
	log_set_sink(log_nothing, NULL);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
