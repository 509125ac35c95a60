/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * POSIX ACLs on the whole filesystem, with 1, 2 and 4 owners. A table of cases worked out by hand; random ACLs, modes,
 * umasks and changes against a model of acl(5), which share no code with the filesystem; who keeps setgid; and every
 * error, those of damaged ACLs, of failing reads and of a full filesystem included. Each test ends with a clean fsck.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/xattr.h>

#include <cmocka.h>

#include "fs/xattr.h"
#include "reactor/log.h"
#include "tests/sim/acl_model.h"
#include "tests/sim/calls.h"

static unsigned owners;
#define ROOT FS_ROOT_INODE
#define ACCESS "system." XATTR_ACL_ACCESS
#define DEFAULT "system." XATTR_ACL_DEFAULT

static uint64_t make(struct machine *machine, uint64_t parent, const char *name, uint32_t mode)
{
	struct fs_entry entry;
	assert_int_equal(call_create(machine, parent, name, mode, &entry), 0);
	return entry.ino;
}

static uint32_t mode_of(struct machine *machine, uint64_t ino)
{
	struct fs_attr attr;
	assert_int_equal(call_getattr(machine, ino, &attr), 0);
	return attr.mode;
}

static int set_acl(struct machine *machine, uint64_t ino, const char *name, const struct acl *acl)
{
	static uint8_t bytes[ACL_BYTES_MAX];
	const uint32_t length = acl_encode(acl, bytes);
	return call_setxattr(machine, ino, name, bytes, length);
}

static int set_mode(struct machine *machine, uint64_t ino, uint32_t mode)
{
	const struct fs_attr attr = {.mode = mode};
	struct fs_attr out;
	return call_setattr(machine, ino, &attr, FS_SET_MODE, &out);
}

/* The inode has exactly this ACL; not present: none. */
static void expect_acl(struct machine *machine, uint64_t ino, const char *name, const struct acl *acl)
{
	static uint8_t wanted[ACL_BYTES_MAX], got[ACL_BYTES_MAX];
	uint32_t length;
	const int error = call_getxattr(machine, ino, name, got, sizeof(got), &length);
	assert_int_equal(error, acl->present ? 0 : -ENODATA);
	if (error)
		return;
	assert_int_equal(length, acl_encode(acl, wanted));
	assert_memory_equal(got, wanted, length);
}

/* ---- the table ---- */

static void test_new_inodes_as_worked_out_by_hand(void **state)
{
	static const struct acl none = {0},
		plain = {.present = true, .owner = 7, .group = 5, .other = 0},
		named = {.present = true, .owner = 7, .group = 5, .has_mask = true, .mask = 7, .other = 5,
			.user_count = 1, .users = {{1001, 7}}},
		narrow = {.present = true, .owner = 6, .group = 7, .has_mask = true, .mask = 4, .other = 1,
			.group_count = 2, .groups = {{7, 7}, {9, 2}}},
		masked = {.present = true, .owner = 7, .group = 7, .has_mask = true, .mask = 5, .other = 7};
	static const struct {
		const struct acl *directory;
		uint32_t umask, wanted, mode;
		bool access;
		unsigned owner, group, mask, other; /* of the access ACL */
	} cases[] = {
		{&none, 022, 0666, 0644, false, 0, 0, 0, 0},
		{&none, 077, 0777, 0700, false, 0, 0, 0, 0},
		{&none, 0, 0666, 0666, false, 0, 0, 0, 0},
		{&none, 0777, 07777, 07000, false, 0, 0, 0, 0},
		{&plain, 077, 0666, 0640, false, 0, 0, 0, 0},
		{&plain, 0, 0777, 0750, false, 0, 0, 0, 0},
		{&named, 077, 0666, 0664, true, 6, 5, 6, 4},
		{&named, 0, 0777, 0775, true, 7, 5, 7, 5},
		{&named, 022, 0600, 0600, true, 6, 5, 0, 0},
		{&named, 022, 04711, 04711, true, 7, 5, 1, 1},
		{&narrow, 022, 0666, 0640, true, 6, 7, 4, 0},
		{&narrow, 022, 0777, 0641, true, 6, 7, 4, 1},
		{&masked, 027, 0666, 0646, true, 6, 7, 4, 6},
	};
	struct machine m;
	machine_start(&m, owners, 0);
	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		static struct acl access;
		char name[16];
		snprintf(name, sizeof(name), "d%u", i);
		m.cred.umask = 0;
		const uint64_t dir = make(&m, ROOT, name, S_IFDIR | 0777);
		if (cases[i].directory->present)
			assert_int_equal(set_acl(&m, dir, DEFAULT, cases[i].directory), 0);
		m.cred.umask = cases[i].umask;
		access = *cases[i].directory;
		access.present = cases[i].access;
		access.owner = cases[i].owner;
		access.group = cases[i].group;
		access.mask = cases[i].mask;
		access.other = cases[i].other;
		const uint64_t file = make(&m, dir, "file", S_IFREG | cases[i].wanted);
		const uint64_t sub = make(&m, dir, "sub", S_IFDIR | cases[i].wanted);
		assert_int_equal(mode_of(&m, file), S_IFREG | cases[i].mode);
		assert_int_equal(mode_of(&m, sub), S_IFDIR | cases[i].mode);
		expect_acl(&m, file, ACCESS, &access);
		expect_acl(&m, file, DEFAULT, &none);
		expect_acl(&m, sub, ACCESS, &access);
		expect_acl(&m, sub, DEFAULT, cases[i].directory);
	}
	machine_stop(&m);
}

/* ---- at random ---- */

enum { NODES = 40 };
struct node {
	uint64_t ino, parent;
	char name[16];
	uint32_t mode;
	struct acl access, directory_default;
};
struct world {
	struct machine machine;
	uint64_t random;
	unsigned count;
	struct node nodes[NODES];       /* the first is the root */
};

static unsigned draw(struct world *world, unsigned below) { return (unsigned)(sim_rand(&world->random) % below); }

static void node_expect(struct world *world, const struct node *node)
{
	assert_int_equal(mode_of(&world->machine, node->ino), node->mode);
	expect_acl(&world->machine, node->ino, ACCESS, &node->access);
	expect_acl(&world->machine, node->ino, DEFAULT, &node->directory_default);
}

static struct node *draw_directory(struct world *world)
{
	for (;;) {
		struct node *node = &world->nodes[draw(world, world->count)];
		if (S_ISDIR(node->mode))
			return node;
	}
}

static void world_create(struct world *world)
{
	static const uint32_t types[] = {S_IFREG, S_IFREG, S_IFDIR, S_IFDIR, S_IFIFO, S_IFSOCK, S_IFCHR, S_IFLNK};
	struct machine *machine = &world->machine;
	struct node *parent = draw_directory(world), *node = &world->nodes[world->count];
	if (world->count == NODES)
		return;
	const uint32_t type = types[draw(world, ARRAY_SIZE(types))], wanted = draw(world, 2) ? 0777 : draw(world, 010000);
	const bool nameless = type == S_IFREG && !draw(world, 4);
	struct fs_entry entry;
	*node = (struct node){.parent = parent->ino};
	snprintf(node->name, sizeof(node->name), "n%u", world->count);
	const struct fs_create create = {.name = {node->name, nameless ? 0 : (unsigned)strlen(node->name)},
		.mode = type | wanted, .target = "target", .target_length = 6, .rdev_major = 1, .rdev_minor = 3};
	machine->cred.umask = draw(world, 2) ? 022 : draw(world, 01000);
	assert_int_equal(call_make(machine, parent->ino, &create, &entry), 0);
	node->ino = entry.ino;
	if (nameless)
		assert_int_equal(call_link(machine, parent->ino, node->name, entry.ino, &entry), 0);
	node->mode = S_IFLNK | 0777;
	if (type != S_IFLNK)
		node->mode = type | acl_for_new(&parent->directory_default, wanted, machine->cred.umask, &node->access);
	if (type == S_IFDIR) {
		node->directory_default = parent->directory_default;
		node->mode |= parent->mode & S_ISGID;
	}
	assert_int_equal(entry.attr.mode, node->mode);
	node_expect(world, node);
	world->count++;
}

static void world_set(struct world *world, struct node *node)
{
	static struct acl acl;
	const unsigned named_max = draw(world, 8) ? 6 : ACL_ENTRIES_MAX - 4;
	acl_random(&acl, &world->random, named_max);
	if (S_ISDIR(node->mode) && draw(world, 2)) {
		assert_int_equal(set_acl(&world->machine, node->ino, DEFAULT, &acl), 0);
		node->directory_default = acl;
		return;
	}
	const int error = S_ISLNK(node->mode) ? -EOPNOTSUPP : 0;
	assert_int_equal(set_acl(&world->machine, node->ino, ACCESS, &acl), error);
	if (error)
		return;
	node->mode = (node->mode & ~0777u) | acl_permissions(&acl);
	node->access = acl;
	node->access.present = !acl_says_only_mode(&acl);
}

static void world_remove(struct world *world, struct node *node)
{
	const bool access = draw(world, 2);
	const int error = S_ISLNK(node->mode) ? -EOPNOTSUPP : 0;
	assert_int_equal(call_removexattr(&world->machine, node->ino, access ? ACCESS : DEFAULT), error);
	if (error)
		return;
	*(access ? &node->access.present : &node->directory_default.present) = false;
}

static void world_chmod(struct world *world, struct node *node)
{
	const uint32_t mode = draw(world, 010000);
	assert_int_equal(set_mode(&world->machine, node->ino, mode), 0);
	node->mode = (node->mode & S_IFMT) | mode;
	if (node->access.present)
		acl_after_chmod(&node->access, mode);
}

/* Other attributes and content share the room with the ACLs. */
static void world_crowd(struct world *world, struct node *node)
{
	static const uint8_t bytes[200];
	char name[16];
	snprintf(name, sizeof(name), "trusted.%u", draw(world, 3));
	assert_int_equal(call_setxattr(&world->machine, node->ino, name, bytes, 1 + draw(world, 90)), 0);
	if (S_ISREG(node->mode))
		assert_int_equal(call_write(&world->machine, node->ino, bytes, 0, 1 + draw(world, 190)), 0);
}

static void world_change(struct world *world)
{
	struct node *node = &world->nodes[draw(world, world->count)];
	switch (draw(world, 5)) {
	case 0:
		world_crowd(world, node);
		break;
	case 1:
		if (!S_ISLNK(node->mode))
			world_chmod(world, node);
		break;
	case 2:
		world_remove(world, node);
		break;
	default:
		world_set(world, node);
	}
	node_expect(world, node);
}

static void world_remount(struct world *world)
{
	machine_remount(&world->machine);
	for (unsigned i = 1; i < world->count; i++) {
		struct fs_entry entry;
		struct node *node = &world->nodes[i];
		assert_int_equal(call_lookup(&world->machine, node->parent, node->name, &entry), 0);
		assert_int_equal(entry.ino, node->ino);
	}
}

static void world_empty(struct world *world)
{
	struct machine *machine = &world->machine;
	for (unsigned i = world->count; --i > 0;) {
		const struct node *node = &world->nodes[i];
		const int error = S_ISDIR(node->mode) ? call_rmdir(machine, node->parent, node->name) :
			call_unlink(machine, node->parent, node->name);
		assert_int_equal(error, 0);
	}
	assert_int_equal(call_removexattr(machine, ROOT, DEFAULT), 0);
	assert_int_equal(call_removexattr(machine, ROOT, ACCESS), 0);
	for (unsigned i = 0; i < 3; i++) {
		char name[16];
		snprintf(name, sizeof(name), "trusted.%u", i);
		const int error = call_removexattr(machine, ROOT, name);
		assert_true(!error || error == -ENODATA);
	}
	machine_remount(machine); /* forgets them */
	machine_settle(machine);
}

static void test_random_acls_match_a_model(void **state)
{
	static struct world world;
	for (unsigned seed = 1; seed <= 6; seed++) {
		world = (struct world){.random = seed * 10 + owners, .count = 1};
		machine_start(&world.machine, owners, 0);
		world.machine.cred.sgid = FS_SGID_KEEP;
		world.nodes[0] = (struct node){.ino = ROOT, .mode = mode_of(&world.machine, ROOT)};
		const uint64_t free_blocks = call_statfs(&world.machine).free_blocks;
		for (unsigned step = 0; step < 250; step++) {
			if (step % 4 == 0)
				world_create(&world);
			else
				world_change(&world);
		}
		world_remount(&world);
		for (unsigned i = 0; i < world.count; i++)
			node_expect(&world, &world.nodes[i]);
		world_empty(&world);
		/* One inode block of each AG stays, and maps that were used first. */
		const uint64_t now = call_statfs(&world.machine).free_blocks;
		assert_true(free_blocks - now <= 3 * 16);
		machine_stop(&world.machine);
	}
}

/* ---- setgid ---- */

static void test_who_keeps_setgid(void **state)
{
	static const struct {
		enum fs_sgid sgid;
		uint32_t gid;
		bool privileged, keeps;
	} cases[] = {
		{FS_SGID_BY_IDS, 77, false, true}, {FS_SGID_BY_IDS, 78, false, false}, {FS_SGID_BY_IDS, 78, true, true},
		{FS_SGID_KEEP, 78, false, true}, {FS_SGID_DROP, 77, true, false},
	};
	static const struct acl acl = {.present = true, .owner = 7, .group = 5, .other = 5};
	const struct fs_attr group = {.mode = S_ISGID | 0777, .gid = 77};
	struct fs_attr attr;
	struct machine m;
	machine_start(&m, owners, 0);
	const uint64_t dir = make(&m, ROOT, "dir", S_IFDIR | 0777);
	assert_int_equal(call_setattr(&m, dir, &group, FS_SET_MODE | FS_SET_GID, &attr), 0);
	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		char name[16];
		m.cred.sgid = cases[i].sgid;
		m.cred.gid = cases[i].gid;
		m.cred.privileged = cases[i].privileged;
		const uint32_t bit = cases[i].keeps ? S_ISGID : 0;
		snprintf(name, sizeof(name), "f%u", i);
		const uint64_t file = make(&m, dir, name, S_IFREG | S_ISGID | 0755);
		assert_int_equal(mode_of(&m, file), S_IFREG | bit | 0755);
		/* Without group execution setgid means something else, and stays. */
		snprintf(name, sizeof(name), "g%u", i);
		assert_int_equal(mode_of(&m, make(&m, dir, name, S_IFREG | S_ISGID | 0745)), S_IFREG | S_ISGID | 0745);
		snprintf(name, sizeof(name), "d%u", i);
		assert_int_equal(mode_of(&m, make(&m, dir, name, S_IFDIR | 0755)), S_IFDIR | S_ISGID | 0755);
		assert_int_equal(set_mode(&m, file, S_ISGID | 0711), 0);
		assert_int_equal(set_acl(&m, file, ACCESS, &acl), 0);
		assert_int_equal(mode_of(&m, file), S_IFREG | bit | 0755);
	}
	machine_stop(&m);
}

/* ---- errors ---- */

static void test_what_is_refused(void **state)
{
	static struct acl acl;
	static uint8_t bytes[ACL_BYTES_MAX];
	struct fs_entry entry;
	struct machine m;
	machine_start(&m, owners, 0);
	const uint64_t file = make(&m, ROOT, "file", S_IFREG | 0600), dir = make(&m, ROOT, "dir", S_IFDIR | 0700);
	assert_int_equal(call_symlink(&m, ROOT, "link", "target", &entry), 0);
	acl = (struct acl){.present = true, .owner = 7, .has_mask = true, .mask = 7, .user_count = ACL_ENTRIES_MAX - 4};
	for (unsigned i = 0; i < ACL_ENTRIES_MAX; i++)
		acl.users[i].id = i;
	assert_int_equal(set_acl(&m, dir, DEFAULT, &acl), 0);
	assert_int_equal(set_acl(&m, file, DEFAULT, &acl), -EACCES);
	assert_int_equal(call_removexattr(&m, file, DEFAULT), 0);
	assert_int_equal(set_acl(&m, entry.ino, ACCESS, &acl), -EOPNOTSUPP);
	assert_int_equal(set_acl(&m, entry.ino, DEFAULT, &acl), -EOPNOTSUPP);
	assert_int_equal(call_removexattr(&m, entry.ino, DEFAULT), -EOPNOTSUPP);
	acl.user_count++;
	assert_int_equal(set_acl(&m, dir, ACCESS, &acl), -E2BIG);
	assert_int_equal(set_acl(&m, dir, DEFAULT, &acl), -E2BIG);
	acl.user_count = 2;
	acl.users[1].id = UINT32_MAX;
	assert_int_equal(set_acl(&m, dir, ACCESS, &acl), -EINVAL);
	acl.users[1].permissions = 8;
	assert_int_equal(set_acl(&m, dir, DEFAULT, &acl), -EINVAL);
	assert_int_equal(call_setxattr(&m, file, ACCESS, bytes, 0), -EINVAL);
	assert_int_equal(call_setxattr(&m, dir, DEFAULT, bytes, 4), -EINVAL);
	assert_int_equal(mode_of(&m, dir), S_IFDIR | 0700);
	machine_stop(&m);
}

struct smuggle {
	struct machine *machine;
	uint64_t ino;
	struct xattr_name name;
	const uint8_t *value;
	uint32_t length;
};

/* Stores as an ACL what no operation would. */
static MAY_WAIT int smuggle_here(void *arg)
{
	const struct smuggle *smuggle = arg;
	struct fs *fs = smuggle->machine->sim.fs;
	struct inode_lock lock = {.ino = smuggle->ino, .exclusive = true};
	struct xattr_change change;
	struct tx *tx;
	int error = tx_begin(fs->owners[reactor_index(reactor_self())], XATTR_LARGE_BLOCKS, &tx);
	assert_int_equal(error, 0);
	assert_int_equal(inode_lock_many(fs, &lock, 1), 0);
	xattr_change_init(&change, lock.inode, smuggle->name, fs_now());
	change.value = smuggle->value;
	change.length = smuggle->length;
	tx_change(tx_home(tx), &change.change);
	error = tx_prepare(tx);
	if (!error)
		tx_apply(tx);
	inode_unlock_many(fs, &lock, 1);
	tx_end(tx);
	return error;
}

static void log_nothing(enum log_level level, const char *line, void *arg) {}

static void test_damaged_acls_are_found(void **state)
{
	static const uint8_t bytes[ACL_BYTES_MAX + 1];
	static const uint32_t lengths[] = {12, ACL_BYTES_MAX + 1};
	struct fs_entry entry;
	struct fs_status status;
	struct machine m;
	machine_start(&m, owners, 0);
	log_set_sink(log_nothing, NULL);
	for (unsigned i = 0; i < ARRAY_SIZE(lengths); i++) {
		char name[16];
		snprintf(name, sizeof(name), "d%u", i);
		struct smuggle smuggle = {.machine = &m, .ino = make(&m, ROOT, name, S_IFDIR | 0700),
			.name = XATTR_ACL_NAME(XATTR_ACL_DEFAULT), .value = bytes, .length = lengths[i]};
		assert_int_equal(sim_on(&m.sim, smuggle.ino, smuggle_here, &smuggle), 0);
		assert_int_equal(call_create(&m, smuggle.ino, "f", S_IFREG | 0600, &entry), -EUCLEAN);
		assert_int_equal(call_lookup(&m, smuggle.ino, "f", &entry), -ENOENT);
		assert_int_equal(set_mode(&m, smuggle.ino, 0711), 0);
		smuggle.name = XATTR_ACL_NAME(XATTR_ACL_ACCESS);
		assert_int_equal(sim_on(&m.sim, smuggle.ino, smuggle_here, &smuggle), 0);
		assert_int_equal(set_mode(&m, smuggle.ino, 0755), -EUCLEAN);
		assert_int_equal(mode_of(&m, smuggle.ino), S_IFDIR | 0711);
		/* The way out: without the ACLs all is well. */
		assert_int_equal(call_removexattr(&m, smuggle.ino, ACCESS), 0);
		assert_int_equal(call_removexattr(&m, smuggle.ino, DEFAULT), 0);
		assert_int_equal(set_mode(&m, smuggle.ino, 0755), 0);
		make(&m, smuggle.ino, "f", S_IFREG | 0600);
	}
	fs_get_status(m.sim.fs, &status);
	assert_int_equal(status.corrupt_blocks, 4);
	log_set_sink(NULL, NULL);
	machine_stop(&m);
}

/* Every read of a create and a chmod with large ACLs fails in turn. */
static void test_failing_reads_are_errors_of_the_call(void **state)
{
	static struct acl acl = {.present = true, .owner = 7, .has_mask = true, .mask = 7, .user_count = 500};
	struct fs_entry entry;
	struct machine m;
	unsigned failed = 0;
	machine_start(&m, owners, 0);
	for (unsigned i = 0; i < acl.user_count; i++)
		acl.users[i].id = i;
	const uint64_t dir = make(&m, ROOT, "dir", S_IFDIR | 0700);
	assert_int_equal(set_acl(&m, dir, DEFAULT, &acl), 0);
	assert_int_equal(set_acl(&m, dir, ACCESS, &acl), 0);
	log_set_sink(log_nothing, NULL);
	for (uint64_t skip = 0; skip < 40; skip++) {
		machine_remount(&m); /* an empty cache */
		const struct error_rule rule = {
			.ops = 1u << IO_READ, .skip = skip, .count = 1, .action = ERROR_FAIL, .error = -EIO};
		struct bdev *error_bdev = sim_bdev(&m.sim, "error");
		bdev_error_add_rule(error_bdev, &rule);
		int error = call_create(&m, dir, "f", S_IFREG | 0666, &entry);
		assert_true(!error || error == -EIO);
		failed += error != 0;
		const bool made = !error;
		error = set_mode(&m, dir, 0711);
		assert_true(!error || error == -EIO);
		failed += error != 0;
		bdev_error_clear_rules(error_bdev);
		assert_int_equal(call_lookup(&m, dir, "f", &entry), made ? 0 : -ENOENT);
		if (made) {
			assert_int_equal(call_unlink(&m, dir, "f"), 0);
			call_forget(&m, entry.ino, 2);
		}
		assert_int_equal(set_mode(&m, dir, 0700), 0);
	}
	log_set_sink(NULL, NULL);
	assert_true(failed >= 8);
	machine_stop(&m);
}

static void test_a_full_filesystem(void **state)
{
	static struct acl acl = {.present = true, .owner = 7, .has_mask = true, .mask = 7, .group_count = 500};
	static uint8_t block[65536];
	struct fs_entry entry;
	struct machine m;
	machine_start(&m, owners, 0);
	for (unsigned i = 0; i < acl.group_count; i++)
		acl.groups[i].id = i;
	const uint64_t dir = make(&m, ROOT, "dir", S_IFDIR | 0700), big = make(&m, ROOT, "big", S_IFREG | 0600);
	assert_int_equal(set_acl(&m, dir, DEFAULT, &acl), 0);
	assert_int_equal(set_acl(&m, dir, ACCESS, &acl), 0);
	uint64_t size = 0;
	for (uint32_t step = sizeof(block); step >= 4096;) {
		uint32_t written = 0;
		if (call_write_flags(&m, big, block, size, step, 0, &written))
			step /= 2;
		size += written;
	}
	assert_int_equal(call_create(&m, dir, "d", S_IFDIR | 0700, &entry), -ENOSPC);
	assert_int_equal(call_lookup(&m, dir, "d", &entry), -ENOENT);
	assert_int_equal(set_acl(&m, big, ACCESS, &acl), -ENOSPC);
	acl_after_chmod(&acl, 0711);
	assert_int_equal(set_mode(&m, dir, 0711), 0); /* rights can be taken away all the same */
	expect_acl(&m, dir, ACCESS, &acl);
	assert_int_equal(call_truncate(&m, big, 0), 0);
	make(&m, dir, "d", S_IFDIR | 0700);
	machine_stop(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_new_inodes_as_worked_out_by_hand),
		cmocka_unit_test(test_random_acls_match_a_model),
		cmocka_unit_test(test_who_keeps_setgid),
		cmocka_unit_test(test_what_is_refused),
		cmocka_unit_test(test_damaged_acls_are_found),
		cmocka_unit_test(test_failing_reads_are_errors_of_the_call),
		cmocka_unit_test(test_a_full_filesystem),
	};
	int failed = 0;
	for (owners = 1; owners <= 4; owners *= 2)
		failed += cmocka_run_group_tests_name("acl", tests, NULL, NULL);
	return failed;
}
