/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Operations on names, on the whole filesystem: every one, its errors, and what it leaves behind, with 1, 2 and 4
 * owners. Each test ends with an unmount and a clean fsck.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "tests/sim/calls.h"

static unsigned owners;
#define ROOT FS_ROOT_INODE

static uint64_t make(struct machine *machine, uint64_t parent, const char *name, uint32_t mode)
{
	struct fs_entry entry;
	assert_int_equal(call_create(machine, parent, name, mode, &entry), 0);
	return entry.ino;
}

static struct fs_attr attr_of(struct machine *machine, uint64_t ino)
{
	struct fs_attr attr;
	assert_int_equal(call_getattr(machine, ino, &attr), 0);
	return attr;
}

static uint64_t find(struct machine *machine, uint64_t parent, const char *name)
{
	struct fs_entry entry;
	assert_int_equal(call_lookup(machine, parent, name, &entry), 0);
	call_forget(machine, entry.ino, 1);
	return entry.ino;
}

static void test_create_fills_the_inode(void **state)
{
	struct machine m;
	struct fs_entry entry;
	machine_start(&m, owners, 0);
	assert_int_equal(call_create(&m, ROOT, "file", S_IFREG | 0666, &entry), 0);
	assert_int_equal(entry.attr.mode, S_IFREG | 0644);
	assert_int_equal(entry.attr.uid, 1000);
	assert_int_equal(entry.attr.nlink, 1);
	assert_int_equal(entry.attr.size, 0);
	assert_true(entry.generation);
	assert_int_equal(entry.attr.generation, entry.generation);
	const struct fs_attr attr = attr_of(&m, entry.ino);
	assert_memory_equal(&attr, &entry.attr, sizeof(attr));
	assert_int_equal(find(&m, ROOT, "file"), entry.ino);
	const struct fs_create device = {
		.name = {"device", 6}, .mode = S_IFBLK | 0600, .rdev_major = 8, .rdev_minor = 0x12345};
	assert_int_equal(call_make(&m, ROOT, &device, &entry), 0);
	assert_int_equal(entry.attr.rdev_major, 8);
	assert_int_equal(entry.attr.rdev_minor, 0x12345);
	make(&m, ROOT, "fifo", S_IFIFO | 0600);
	make(&m, ROOT, "socket", S_IFSOCK | 0600);
	const uint64_t dir = make(&m, ROOT, "dir", S_IFDIR | 0777);
	assert_int_equal(attr_of(&m, dir).nlink, 2);
	assert_int_equal(attr_of(&m, ROOT).nlink, 3);
	machine_remount(&m);
	assert_int_equal(attr_of(&m, find(&m, ROOT, "device")).rdev_minor, 0x12345);
	assert_int_equal(find(&m, ROOT, "dir"), dir);
	machine_stop(&m);
}

static void test_create_errors(void **state)
{
	struct machine m;
	struct fs_entry entry;
	char name[300];
	machine_start(&m, owners, 0);
	const uint64_t file = make(&m, ROOT, "file", S_IFREG | 0600);
	assert_int_equal(call_create(&m, ROOT, "file", S_IFREG | 0600, &entry), -EEXIST);
	assert_int_equal(call_create(&m, ROOT, "file", S_IFDIR | 0700, &entry), -EEXIST);
	assert_int_equal(call_create(&m, ROOT, ".", S_IFDIR | 0700, &entry), -EEXIST);
	assert_int_equal(call_create(&m, file, "x", S_IFREG | 0600, &entry), -ENOTDIR);
	assert_int_equal(call_create(&m, ROOT, "a/b", S_IFREG | 0600, &entry), -EINVAL);
	assert_int_equal(call_create(&m, ROOT, "type", 0600, &entry), -EINVAL);
	assert_int_equal(call_create(&m, 12345678, "x", S_IFREG | 0600, &entry), -ESTALE);
	memset(name, 'n', sizeof(name));
	name[256] = '\0';
	assert_int_equal(call_create(&m, ROOT, name, S_IFREG | 0600, &entry), -ENAMETOOLONG);
	name[255] = '\0';
	assert_int_equal(call_create(&m, ROOT, name, S_IFREG | 0600, &entry), 0);
	assert_int_equal(call_lookup(&m, ROOT, "missing", &entry), -ENOENT);
	assert_int_equal(call_lookup(&m, file, "x", &entry), -ENOTDIR);
	const uint64_t dir = make(&m, ROOT, "dir", S_IFDIR | 0700);
	assert_int_equal(call_rmdir(&m, ROOT, "dir"), 0);
	assert_int_equal(call_create(&m, dir, "x", S_IFREG | 0600, &entry), -ENOENT);
	machine_stop(&m);
}

static void test_setgid_directory_is_inherited(void **state)
{
	struct machine m;
	machine_start(&m, owners, 0);
	const uint64_t dir = make(&m, ROOT, "dir", S_IFDIR | 0777);
	const struct fs_attr want = {.mode = S_ISGID | 0755, .gid = 77};
	struct fs_attr attr;
	assert_int_equal(call_setattr(&m, dir, &want, FS_SET_MODE | FS_SET_GID, &attr), 0);
	attr = attr_of(&m, make(&m, dir, "sub", S_IFDIR | 0755));
	assert_int_equal(attr.gid, 77);
	assert_true(attr.mode & S_ISGID);
	attr = attr_of(&m, make(&m, dir, "file", S_IFREG | 0644));
	assert_int_equal(attr.gid, 77);
	assert_false(attr.mode & S_ISGID);
	machine_stop(&m);
}

static void test_symlink_short_and_long(void **state)
{
	struct machine m;
	struct fs_entry entry;
	char target[FS_SYMLINK_MAX + 2], buffer[FS_SYMLINK_MAX + 1];
	unsigned length;
	machine_start(&m, owners, 0);
	const unsigned lengths[] = {1, 128, 129, FS_SYMLINK_MAX};
	for (unsigned i = 0; i < ARRAY_SIZE(lengths); i++) {
		char name[8];
		snprintf(name, sizeof(name), "l%u", i);
		memset(target, 'a' + (int)i, lengths[i]);
		target[lengths[i]] = '\0';
		assert_int_equal(call_symlink(&m, ROOT, name, target, &entry), 0);
		assert_int_equal(entry.attr.size, lengths[i]);
	}
	memset(target, 'x', FS_SYMLINK_MAX + 1);
	target[FS_SYMLINK_MAX + 1] = '\0';
	assert_int_equal(call_symlink(&m, ROOT, "long", target, &entry), -ENAMETOOLONG);
	assert_int_equal(call_symlink(&m, ROOT, "empty", "", &entry), -EINVAL);
	machine_remount(&m);
	for (unsigned i = 0; i < ARRAY_SIZE(lengths); i++) {
		char name[8];
		snprintf(name, sizeof(name), "l%u", i);
		assert_int_equal(call_readlink(&m, find(&m, ROOT, name), buffer, &length), 0);
		assert_int_equal(length, lengths[i]);
		assert_int_equal(buffer[0], 'a' + (int)i);
		assert_int_equal(buffer[length - 1], 'a' + (int)i);
		assert_int_equal(call_unlink(&m, ROOT, name), 0);
	}
	assert_int_equal(call_readlink(&m, ROOT, buffer, &length), -EINVAL);
	machine_settle(&m);
	machine_stop(&m);
}

static void test_link_counts(void **state)
{
	struct machine m;
	struct fs_entry entry;
	machine_start(&m, owners, 0);
	const uint64_t dir = make(&m, ROOT, "dir", S_IFDIR | 0700), file = make(&m, ROOT, "file", S_IFREG | 0600);
	assert_int_equal(call_link(&m, dir, "second", file, &entry), 0);
	assert_int_equal(entry.ino, file);
	assert_int_equal(entry.attr.nlink, 2);
	assert_int_equal(call_link(&m, dir, "second", file, &entry), -EEXIST);
	assert_int_equal(call_link(&m, ROOT, "dirlink", dir, &entry), -EPERM);
	assert_int_equal(call_link(&m, dir, "self", dir, &entry), -EPERM);
	assert_int_equal(call_unlink(&m, ROOT, "file"), 0);
	assert_int_equal(attr_of(&m, file).nlink, 1);
	assert_int_equal(find(&m, dir, "second"), file);
	assert_int_equal(call_unlink(&m, dir, "second"), 0);
	assert_int_equal(attr_of(&m, file).nlink, 0);
	assert_int_equal(call_link(&m, ROOT, "back", file, &entry), 0);
	assert_int_equal(call_unlink(&m, ROOT, "back"), 0);
	machine_stop(&m);
}

static void test_unlinked_file_lives_until_it_is_forgotten(void **state)
{
	struct machine m;
	struct fs_attr attr;
	uint32_t length;
	char buffer[8];
	machine_start(&m, owners, 0);
	const uint64_t used = call_statfs(&m).files - call_statfs(&m).free_files;
	const uint64_t file = make(&m, ROOT, "file", S_IFREG | 0600);
	assert_int_equal(call_write(&m, file, "content", 0, 8), 0);
	assert_int_equal(call_unlink(&m, ROOT, "file"), 0);
	assert_int_equal(call_read(&m, file, buffer, 0, 8, &length), 0);
	assert_memory_equal(buffer, "content", 8);
	assert_int_equal(call_statfs(&m).files - call_statfs(&m).free_files, used + 1);
	call_forget(&m, file, 1);
	machine_settle(&m);
	assert_int_equal(call_getattr(&m, file, &attr), -ESTALE);
	assert_int_equal(call_statfs(&m).files - call_statfs(&m).free_files, used);
	machine_stop(&m);
}

static void test_number_is_reused_with_a_new_generation(void **state)
{
	struct machine m;
	struct fs_entry first, second;
	machine_start(&m, owners, 0);
	assert_int_equal(call_create(&m, ROOT, "a", S_IFREG | 0600, &first), 0);
	assert_int_equal(call_unlink(&m, ROOT, "a"), 0);
	call_forget(&m, first.ino, 1);
	machine_settle(&m);
	assert_int_equal(call_create(&m, ROOT, "b", S_IFREG | 0600, &second), 0);
	assert_int_equal(second.ino, first.ino);
	assert_int_not_equal(second.generation, first.generation);
	machine_stop(&m);
}

static void test_tmpfile_can_be_linked(void **state)
{
	struct machine m;
	struct fs_entry entry, lost;
	machine_start(&m, owners, 0);
	assert_int_equal(call_create(&m, ROOT, NULL, S_IFREG | 0600, &entry), 0);
	assert_int_equal(entry.attr.nlink, 0);
	assert_int_equal(call_write(&m, entry.ino, "x", 0, 1), 0);
	assert_int_equal(call_create(&m, ROOT, NULL, S_IFREG | 0600, &lost), 0);
	const uint64_t ino = entry.ino;
	assert_int_equal(call_link(&m, ROOT, "named", ino, &entry), 0);
	assert_int_equal(entry.attr.nlink, 1);
	machine_remount(&m);
	assert_int_equal(find(&m, ROOT, "named"), ino);
	assert_int_equal(call_getattr(&m, lost.ino, &entry.attr), -ESTALE);
	machine_stop(&m);
}

static void test_unlink_and_rmdir_errors(void **state)
{
	struct machine m;
	machine_start(&m, owners, 0);
	const uint64_t dir = make(&m, ROOT, "dir", S_IFDIR | 0700);
	make(&m, ROOT, "file", S_IFREG | 0600);
	make(&m, dir, "inside", S_IFREG | 0600);
	assert_int_equal(call_unlink(&m, ROOT, "dir"), -EISDIR);
	assert_int_equal(call_rmdir(&m, ROOT, "file"), -ENOTDIR);
	assert_int_equal(call_rmdir(&m, ROOT, "dir"), -ENOTEMPTY);
	assert_int_equal(call_rmdir(&m, ROOT, "missing"), -ENOENT);
	assert_int_equal(call_unlink(&m, ROOT, "missing"), -ENOENT);
	assert_int_equal(call_rmdir(&m, dir, "."), -EINVAL);
	assert_int_equal(call_rmdir(&m, dir, ".."), -ENOTEMPTY);
	assert_int_equal(call_unlink(&m, dir, "inside"), 0);
	assert_int_equal(call_rmdir(&m, ROOT, "dir"), 0);
	assert_int_equal(attr_of(&m, ROOT).nlink, 2);
	assert_int_equal(attr_of(&m, dir).nlink, 0);
	machine_stop(&m);
}

static void test_rename_within_and_between(void **state)
{
	struct machine m;
	struct fs_entry entry;
	machine_start(&m, owners, 0);
	const uint64_t a = make(&m, ROOT, "a", S_IFDIR | 0700), b = make(&m, ROOT, "b", S_IFDIR | 0700);
	const uint64_t file = make(&m, a, "file", S_IFREG | 0600), sub = make(&m, a, "sub", S_IFDIR | 0700);
	assert_int_equal(call_rename(&m, a, "file", a, "other", 0), 0);
	assert_int_equal(call_lookup(&m, a, "file", &entry), -ENOENT);
	assert_int_equal(call_rename(&m, a, "other", b, "file", 0), 0);
	assert_int_equal(find(&m, b, "file"), file);
	assert_int_equal(call_rename(&m, a, "sub", b, "sub", 0), 0);
	assert_int_equal(attr_of(&m, a).nlink, 2);
	assert_int_equal(attr_of(&m, b).nlink, 3);
	assert_int_equal(call_parent(&m, sub, &entry), 0);
	assert_int_equal(entry.ino, b);
	assert_int_equal(call_lookup(&m, sub, "..", &entry), 0);
	assert_int_equal(entry.ino, b);
	assert_int_equal(call_rename(&m, a, "missing", b, "x", 0), -ENOENT);
	machine_remount(&m);
	assert_int_equal(find(&m, b, "sub"), sub);
	machine_stop(&m);
}

static void test_rename_replaces(void **state)
{
	struct machine m;
	struct fs_attr attr;
	machine_start(&m, owners, 0);
	const uint64_t a = make(&m, ROOT, "a", S_IFDIR | 0700), b = make(&m, ROOT, "b", S_IFDIR | 0700);
	const uint64_t f = make(&m, a, "f", S_IFREG | 0600), g = make(&m, b, "g", S_IFREG | 0600);
	assert_int_equal(call_rename(&m, a, "f", b, "g", RENAME_NOREPLACE), -EEXIST);
	assert_int_equal(call_rename(&m, a, "f", b, "g", 0), 0);
	assert_int_equal(find(&m, b, "g"), f);
	assert_int_equal(attr_of(&m, g).nlink, 0);
	call_forget(&m, g, 1);
	machine_settle(&m);
	assert_int_equal(call_getattr(&m, g, &attr), -ESTALE);
	/* Directories: only an empty one is replaced, and only by one. */
	const uint64_t d = make(&m, a, "d", S_IFDIR | 0700), e = make(&m, b, "e", S_IFDIR | 0700);
	make(&m, e, "inside", S_IFREG | 0600);
	assert_int_equal(call_rename(&m, a, "d", b, "e", 0), -ENOTEMPTY);
	assert_int_equal(call_rename(&m, b, "g", b, "e", 0), -EISDIR);
	assert_int_equal(call_rename(&m, b, "e", b, "g", 0), -ENOTDIR);
	assert_int_equal(call_unlink(&m, e, "inside"), 0);
	assert_int_equal(call_rename(&m, a, "d", b, "e", 0), 0);
	assert_int_equal(find(&m, b, "e"), d);
	assert_int_equal(attr_of(&m, a).nlink, 2);
	assert_int_equal(attr_of(&m, b).nlink, 3);
	/* Two names of one file: nothing happens. */
	struct fs_entry entry;
	assert_int_equal(call_link(&m, a, "again", f, &entry), 0);
	assert_int_equal(call_rename(&m, b, "g", a, "again", 0), 0);
	assert_int_equal(find(&m, b, "g"), f);
	assert_int_equal(attr_of(&m, f).nlink, 2);
	machine_stop(&m);
}

static void test_rename_exchange(void **state)
{
	struct machine m;
	struct fs_entry entry;
	machine_start(&m, owners, 0);
	const uint64_t a = make(&m, ROOT, "a", S_IFDIR | 0700), b = make(&m, ROOT, "b", S_IFDIR | 0700);
	const uint64_t f = make(&m, a, "f", S_IFREG | 0600), d = make(&m, b, "d", S_IFDIR | 0700);
	const uint64_t g = make(&m, a, "g", S_IFREG | 0600);
	assert_int_equal(call_rename(&m, a, "f", b, "missing", RENAME_EXCHANGE), -ENOENT);
	assert_int_equal(call_rename(&m, a, "f", b, "d", RENAME_EXCHANGE | RENAME_NOREPLACE), -EINVAL);
	assert_int_equal(call_rename(&m, a, "f", b, "d", RENAME_EXCHANGE), 0);
	assert_int_equal(find(&m, a, "f"), d);
	assert_int_equal(find(&m, b, "d"), f);
	assert_int_equal(attr_of(&m, a).nlink, 3);
	assert_int_equal(attr_of(&m, b).nlink, 2);
	assert_int_equal(call_parent(&m, d, &entry), 0);
	assert_int_equal(entry.ino, a);
	assert_int_equal(call_rename(&m, a, "f", a, "g", RENAME_EXCHANGE), 0);
	assert_int_equal(find(&m, a, "f"), g);
	assert_int_equal(find(&m, a, "g"), d);
	machine_stop(&m);
}

static void test_rename_makes_no_loop(void **state)
{
	struct machine m;
	machine_start(&m, owners, 0);
	const uint64_t a = make(&m, ROOT, "a", S_IFDIR | 0700), b = make(&m, a, "b", S_IFDIR | 0700);
	const uint64_t c = make(&m, b, "c", S_IFDIR | 0700);
	assert_int_equal(call_rename(&m, ROOT, "a", c, "x", 0), -EINVAL);
	assert_int_equal(call_rename(&m, ROOT, "a", a, "x", 0), -EINVAL);
	assert_int_equal(call_rename(&m, b, "c", ROOT, "a", RENAME_EXCHANGE), -EINVAL);
	assert_int_equal(call_rename(&m, ROOT, "a", b, "c", RENAME_EXCHANGE), -EINVAL);
	assert_int_equal(call_rename(&m, b, "c", ROOT, "a", 0), -ENOTEMPTY);
	assert_int_equal(call_rename(&m, ROOT, ".", ROOT, "x", 0), -EBUSY);
	assert_int_equal(call_rename(&m, b, "c", ROOT, "c", 0), 0);
	assert_int_equal(call_rename(&m, ROOT, "a", c, "a", 0), 0);
	machine_stop(&m);
}

/* ---- readdir ---- */

struct listing {
	unsigned count, limit, entries, dots;
	uint64_t last;
	uint64_t sum;                   /* of inode numbers */
	uint64_t inos[64];              /* with plus: counts to give back */
};

static bool list_emit(const struct fs_dirent *dirent, void *arg)
{
	struct listing *listing = arg;
	if (listing->count == listing->limit)
		return false;
	assert_true(dirent->cookie > listing->last);
	if (dirent->entry) {
		assert_int_equal(dirent->entry->ino, dirent->ino);
		listing->inos[listing->entries++ % 64] = dirent->ino;
	}
	if (dirent->name.bytes[0] == '.')
		listing->dots++;
	else
		listing->sum += dirent->ino;
	listing->last = dirent->cookie;
	listing->count++;
	return true;
}

static void test_readdir_returns_everything_once(void **state)
{
	enum { FILES = 700 };
	struct machine m;
	machine_start(&m, owners, 0);
	const uint64_t dir = make(&m, ROOT, "dir", S_IFDIR | 0700);
	uint64_t sum = 0;
	for (unsigned i = 0; i < FILES; i++) {
		char name[32];
		snprintf(name, sizeof(name), "entry-%u", i);
		sum += make(&m, dir, name, i % 50 ? S_IFREG | 0600 : S_IFDIR | 0700);
	}
	machine_remount(&m);
	for (unsigned plus = 0; plus < 2; plus++) {
		uint64_t found = 0, last = 0;
		unsigned count = 0;
		for (;;) {
			struct listing listing = {.limit = 23, .last = last};
			assert_int_equal(call_readdir(&m, dir, last, plus, list_emit, &listing), 0);
			for (unsigned i = 0; i < listing.entries; i++)
				call_forget(&m, listing.inos[i], 1);
			found += listing.sum;
			count += listing.count;
			last = listing.last;
			if (!listing.count)
				break;
		}
		assert_int_equal(count, FILES + 2);
		assert_int_equal(found, sum);
	}
	/* All counts were given back: what is unlinked goes at once. */
	for (unsigned i = 0; i < FILES; i++) {
		char name[32];
		snprintf(name, sizeof(name), "entry-%u", i);
		assert_int_equal(i % 50 ? call_unlink(&m, dir, name) : call_rmdir(&m, dir, name), 0);
	}
	machine_settle(&m);
	struct fs_status status;
	fs_get_status(m.sim.fs, &status);
	assert_int_equal(status.used_inodes, 2);
	struct listing listing = {.limit = 10};
	assert_int_equal(call_readdir(&m, dir, 0, false, list_emit, &listing), 0);
	assert_int_equal(listing.count, 2);
	assert_int_equal(call_rmdir(&m, ROOT, "dir"), 0);
	machine_stop(&m);
}

static bool dotdot_emit(const struct fs_dirent *dirent, void *arg)
{
	assert_int_equal(dirent->cookie, FS_COOKIE_DOTDOT);
	*(uint64_t *)arg = dirent->ino;
	return false;
}

static uint64_t dotdot(struct machine *machine, uint64_t dir)
{
	uint64_t ino = 0;
	assert_int_equal(call_readdir(machine, dir, FS_COOKIE_DOT, false, dotdot_emit, &ino), 0);
	return ino;
}

static void assert_moved(const struct machine *machine, uint64_t first, uint64_t second)
{
	assert_int_equal(machine->moved.directory[0], first);
	assert_int_equal(machine->moved.directory[1], second);
}

/* And rename says whose entries the front end has to have forgotten. */
static void test_readdir_follows_a_moved_directory(void **state)
{
	struct machine m;
	machine_start(&m, owners, 0);
	const uint64_t a = make(&m, ROOT, "a", S_IFDIR | 0700), b = make(&m, ROOT, "b", S_IFDIR | 0700);
	const uint64_t d = make(&m, a, "d", S_IFDIR | 0700), e = make(&m, b, "e", S_IFDIR | 0700);
	make(&m, a, "file", S_IFREG | 0600);
	assert_int_equal(dotdot(&m, d), a);
	assert_int_equal(call_rename(&m, a, "d", a, "d2", 0), 0);
	assert_moved(&m, 0, 0);
	assert_int_equal(call_rename(&m, a, "d2", b, "d", 0), 0);
	assert_moved(&m, d, 0);
	assert_int_equal(dotdot(&m, d), b);
	assert_int_equal(call_rename(&m, b, "d", ROOT, "d", 0), 0);
	assert_moved(&m, d, 0);
	assert_int_equal(dotdot(&m, d), ROOT);
	machine_remount(&m);
	assert_int_equal(dotdot(&m, d), ROOT);
	assert_int_equal(call_rename(&m, ROOT, "d", b, "e", RENAME_EXCHANGE | RENAME_NOREPLACE), -EINVAL);
	assert_moved(&m, 0, 0);
	assert_int_equal(call_rename(&m, ROOT, "d", b, "e", RENAME_EXCHANGE), 0);
	assert_moved(&m, d, e);
	assert_int_equal(dotdot(&m, d), b);
	assert_int_equal(dotdot(&m, e), ROOT);
	assert_int_equal(call_rename(&m, b, "e", a, "file", RENAME_EXCHANGE), 0);
	assert_moved(&m, d, 0);
	assert_int_equal(dotdot(&m, d), a);
	/* What it replaces has no ".." any more. */
	assert_int_equal(call_rename(&m, ROOT, "d", a, "file", 0), 0);
	assert_moved(&m, e, 0);
	machine_remount(&m);
	assert_int_equal(dotdot(&m, e), a);
	machine_stop(&m);
}

static void test_readdir_errors(void **state)
{
	struct machine m;
	struct listing listing = {.limit = 10};
	machine_start(&m, owners, 0);
	const uint64_t file = make(&m, ROOT, "file", S_IFREG | 0600);
	assert_int_equal(call_readdir(&m, file, 0, false, list_emit, &listing), -ENOTDIR);
	const uint64_t dir = make(&m, ROOT, "dir", S_IFDIR | 0700);
	assert_int_equal(call_rmdir(&m, ROOT, "dir"), 0);
	assert_int_equal(call_readdir(&m, dir, 0, false, list_emit, &listing), 0);
	assert_int_equal(listing.count, 0);
	machine_stop(&m);
}

static void test_flags_forbid_changes(void **state)
{
	struct machine m;
	struct fs_entry entry;
	struct fs_attr attr = {.flags = INODE_IMMUTABLE}, out;
	machine_start(&m, owners, 0);
	const uint64_t dir = make(&m, ROOT, "dir", S_IFDIR | 0700), file = make(&m, dir, "file", S_IFREG | 0600);
	assert_int_equal(call_setattr(&m, file, &attr, FS_SET_FLAGS, &out), -EPERM);
	m.cred.privileged = true;
	assert_int_equal(call_setattr(&m, file, &attr, FS_SET_FLAGS, &out), 0);
	assert_int_equal(call_unlink(&m, dir, "file"), -EPERM);
	assert_int_equal(call_rename(&m, dir, "file", dir, "x", 0), -EPERM);
	assert_int_equal(call_link(&m, dir, "x", file, &entry), -EPERM);
	assert_int_equal(call_write(&m, file, "x", 0, 1), -EPERM);
	assert_int_equal(call_truncate(&m, file, 0), -EPERM);
	assert_int_equal(call_open(&m, file, O_RDWR), -EPERM);
	assert_int_equal(call_open(&m, file, O_RDONLY), 0);
	attr.flags = 0;
	assert_int_equal(call_setattr(&m, file, &attr, FS_SET_FLAGS, &out), 0);
	attr.flags = INODE_APPEND;
	assert_int_equal(call_setattr(&m, dir, &attr, FS_SET_FLAGS, &out), 0);
	assert_int_equal(call_create(&m, dir, "new", S_IFREG | 0600, &entry), 0);
	assert_int_equal(call_unlink(&m, dir, "new"), -EPERM);
	attr.flags = 0x80000000;
	assert_int_equal(call_setattr(&m, dir, &attr, FS_SET_FLAGS, &out), -EOPNOTSUPP);
	machine_stop(&m);
}

/* What the transactions of one owner need on another one's side comes back to where it was taken. */
static void test_moving_files_in_one_direction_takes_no_more_and_more_memory(void **state)
{
	enum { DIRECTORIES = 8, WARM = 200, ROUNDS = 1500 };
	struct machine m;
	uint64_t from = 0, to = 0;
	char name[32];
	machine_start(&m, owners, 0);
	for (unsigned i = 0; i < DIRECTORIES; i++) {
		snprintf(name, sizeof(name), "d%u", i);
		const uint64_t ino = make(&m, ROOT, name, S_IFDIR | 0777);
		if (!from)
			from = ino;
		else if (!to || fs_owner(m.sim.fs, to) == fs_owner(m.sim.fs, from))
			to = ino;
	}
	assert_true(owners == 1 || fs_owner(m.sim.fs, from) != fs_owner(m.sim.fs, to));
	size_t before = 0;
	for (unsigned i = 0; i < WARM + ROUNDS; i++) {
		if (i == WARM)
			before = mallinfo2().uordblks;
		call_forget(&m, make(&m, from, "a", S_IFREG | 0644), 1);
		assert_int_equal(call_rename(&m, from, "a", to, "b", 0), 0);
		assert_int_equal(call_unlink(&m, to, "b"), 0);
	}
	machine_settle(&m);
	assert_true(mallinfo2().uordblks < before + MIB(1));
	machine_stop(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_create_fills_the_inode),
		cmocka_unit_test(test_create_errors),
		cmocka_unit_test(test_setgid_directory_is_inherited),
		cmocka_unit_test(test_symlink_short_and_long),
		cmocka_unit_test(test_link_counts),
		cmocka_unit_test(test_unlinked_file_lives_until_it_is_forgotten),
		cmocka_unit_test(test_number_is_reused_with_a_new_generation),
		cmocka_unit_test(test_tmpfile_can_be_linked),
		cmocka_unit_test(test_unlink_and_rmdir_errors),
		cmocka_unit_test(test_rename_within_and_between),
		cmocka_unit_test(test_rename_replaces),
		cmocka_unit_test(test_rename_exchange),
		cmocka_unit_test(test_rename_makes_no_loop),
		cmocka_unit_test(test_moving_files_in_one_direction_takes_no_more_and_more_memory),
		cmocka_unit_test(test_readdir_returns_everything_once),
		cmocka_unit_test(test_readdir_follows_a_moved_directory),
		cmocka_unit_test(test_readdir_errors),
		cmocka_unit_test(test_flags_forbid_changes),
	};
	int failed = 0;
	for (owners = 1; owners <= 4; owners *= 2)
		failed += cmocka_run_group_tests_name("names", tests, NULL, NULL);
	return failed;
}
