/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The operations of the fault sweep on names, attributes and the whole; those on data and extended attributes stand in
 * fault_ops_data.c. Each may be tried again when it has failed, and says so when an answer was a success and not true.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

#include "fs/journal.h"
#include "tests/sim/fault_ops.h"

#ifndef RENAME_EXCHANGE
#define RENAME_NOREPLACE (1 << 0)
#define RENAME_EXCHANGE (1 << 1)
#endif

/* ---- looking up ---- */

static int look(struct fault_run *run, uint64_t directory, const char *name)
{
	struct fs_entry entry;
	const int error = call_lookup(M, directory, name, &entry);
	if (!error)
		call_forget(M, entry.ino, 1);
	return error;
}

static int expected(struct fault_run *run, int error, int wanted)
{
	if (!error)
		run->wrong = true;
	return error == wanted ? 0 : error;
}

static int lookup_tree(struct fault_run *run) { return look(run, AT(P_TREE), fault_long_name(17)); }
static int lookup_block(struct fault_run *run) { return look(run, AT(P_BLOCK), "entry-of-a-block-7"); }
static int lookup_inline(struct fault_run *run) { return look(run, AT(P_INLINE_DIR), "i"); }
static int lookup_absent(struct fault_run *run) { return expected(run, look(run, AT(P_TREE), "no such name"), -ENOENT); }
static int lookup_root(struct fault_run *run) { return look(run, ROOT, "plain"); }

static int parent(struct fault_run *run)
{
	struct fs_entry entry;
	const int error = call_parent(M, AT(P_TREE), &entry);
	if (!error) {
		CHECK(entry.ino == ROOT);
		call_forget(M, entry.ino, 1);
	}
	return error;
}

struct listing {
	struct fault_run *run;
	unsigned count;
	bool plus;
};

static bool count_entry(const struct fs_dirent *dirent, void *arg)
{
	struct listing *listing = arg;
	listing->count++;
	if (dirent->entry)
		fs_forget(listing->run->machine.sim.fs, dirent->entry->ino, 1);
	return true;
}

static int list(struct fault_run *run, enum place place, bool plus, unsigned wanted)
{
	struct listing listing = {.run = run};
	const int error = call_readdir(M, AT(place), 0, plus, count_entry, &listing);
	CHECK(error || listing.count == wanted);
	return error;
}

static int readdir_tree(struct fault_run *run) { return list(run, P_TREE, false, TREE_NAMES + 3); }
static int readdir_plus(struct fault_run *run) { return list(run, P_TREE, true, TREE_NAMES + 3); }
static int readdir_inline(struct fault_run *run) { return list(run, P_INLINE_DIR, true, 3); }

static int read_link(struct fault_run *run, enum place place, unsigned wanted)
{
	char target[FS_SYMLINK_MAX + 1];
	unsigned length;
	const int error = call_readlink(M, AT(place), target, &length);
	CHECK(error || length == wanted);
	return error;
}

static int readlink_short(struct fault_run *run) { return read_link(run, P_LINK, 5); }
static int readlink_long(struct fault_run *run) { return read_link(run, P_LONG_LINK, 3000); }

static int statfs_run(struct fault_run *run)
{
	const struct fs_statfs statfs = call_statfs(M);
	CHECK(statfs.free_blocks && statfs.blocks > statfs.free_blocks);
	return 0;
}

/* ---- making ---- */

static int make(struct fault_run *run, enum place directory, const char *name, uint32_t mode)
{
	struct fs_entry entry;
	const struct fs_create create = {.name = {.bytes = name, .length = (unsigned)strlen(name)}, .mode = mode, .rdev_major = 7,
		.rdev_minor = 9};
	const int error = call_make(M, directory < PLACE_COUNT ? AT(directory) : ROOT, &create, &entry);
	if (!error)
		call_forget(M, entry.ino, 1);
	return error;
}

static int create_inline(struct fault_run *run) { return make(run, P_INLINE_DIR, "new", S_IFREG | 0644); }
static int create_spills(struct fault_run *run) { return make(run, P_INLINE_DIR, fault_long_name(3), S_IFREG | 0644); }
static int create_block(struct fault_run *run) { return make(run, P_BLOCK, "new", S_IFREG | 0644); }
static int create_tree(struct fault_run *run) { return make(run, P_TREE, "new", S_IFREG | 0644); }
static int create_acl(struct fault_run *run) { return make(run, P_ACL, "new", S_IFREG | 0664); }
static int mkdir_root(struct fault_run *run) { return make(run, PLACE_COUNT, "new", S_IFDIR | 0755); }
static int mkdir_acl(struct fault_run *run) { return make(run, P_ACL, "new", S_IFDIR | 0755); }
static int mknod_run(struct fault_run *run) { return make(run, P_BLOCK, "new", S_IFCHR | 0600); }

/* So many names that leaves of the directory split. */
static int create_many(struct fault_run *run)
{
	int error = 0;
	for (unsigned i = 0; i < 20 && !error; i++) {
		error = make(run, P_TREE, fault_long_name(40 + i), S_IFREG | 0644);
		error = error == -EEXIST ? 0 : error;
	}
	return error;
}

static int create_exists(struct fault_run *run)
{
	return expected(run, make(run, P_TREE, fault_long_name(4), S_IFREG | 0644), -EEXIST);
}

static int link_to(struct fault_run *run, unsigned length)
{
	char target[FS_SYMLINK_MAX + 1];
	struct fs_entry entry;
	memset(target, 't', length);
	target[length] = '\0';
	const int error = call_symlink(M, AT(P_BLOCK), "new", target, &entry);
	if (!error)
		call_forget(M, entry.ino, 1);
	return error;
}

static int symlink_short(struct fault_run *run) { return link_to(run, 20); }
static int symlink_long(struct fault_run *run) { return link_to(run, 3500); }

static int tmpfile_gone(struct fault_run *run)
{
	struct fs_entry entry;
	const struct fs_create create = {.mode = S_IFREG | 0600};
	const int error = call_make(M, AT(P_TREE), &create, &entry);
	if (!error)
		call_forget(M, entry.ino, 1);
	return error;
}

static int tmpfile_linked(struct fault_run *run)
{
	struct fs_entry entry, linked;
	const struct fs_create create = {.mode = S_IFREG | 0600};
	int error = call_make(M, AT(P_TREE), &create, &entry);
	if (error)
		return error;
	error = call_link(M, AT(P_BLOCK), "new", entry.ino, &linked);
	call_forget(M, entry.ino, error ? 1 : 2);
	return error;
}

static int link_run(struct fault_run *run)
{
	struct fs_entry entry;
	const int error = call_link(M, AT(P_TREE), "new", AT(P_PLAIN), &entry);
	if (!error)
		call_forget(M, entry.ino, 1);
	return error;
}

/* ---- removing ---- */

static int unlink_inline(struct fault_run *run) { return call_unlink(M, ROOT, "inline"); }
static int unlink_big(struct fault_run *run) { return call_unlink(M, ROOT, "big"); }
static int unlink_fragments(struct fault_run *run) { return call_unlink(M, ROOT, "fragments"); }
static int unlink_xattrs(struct fault_run *run) { return call_unlink(M, ROOT, "large-xattr"); }
static int unlink_chain(struct fault_run *run) { return call_unlink(M, ROOT, "many-xattrs"); }
static int unlink_linked(struct fault_run *run) { return call_unlink(M, AT(P_BLOCK), "other-name"); }
static int unlink_tree(struct fault_run *run) { return call_unlink(M, AT(P_TREE), fault_long_name(11)); }
static int rmdir_run(struct fault_run *run) { return call_rmdir(M, ROOT, "empty"); }
static int rmdir_full(struct fault_run *run) { return expected(run, call_rmdir(M, ROOT, "tree"), -ENOTEMPTY); }

static int hold_big(struct fault_run *run)
{
	struct fs_entry entry;
	const int error = call_lookup(M, ROOT, "big", &entry);
	run->held = error ? 0 : entry.ino;
	return error;
}

/* Unlinked while in use: freed when it is forgotten. */
static int unlink_held(struct fault_run *run)
{
	const int error = call_unlink(M, ROOT, "big");
	if (!error) {
		uint8_t bytes[100], wanted[100];
		uint32_t length;
		fault_pattern(wanted, 'b', 700000, 100);
		CHECK(call_read(M, run->held, bytes, 700000, 100, &length) || (length == 100 && !memcmp(bytes, wanted, 100)));
		call_forget(M, run->held, 1);
	}
	return error;
}

static int remove_many(struct fault_run *run)
{
	int error = 0;
	for (unsigned i = 0; i < 30 && !error; i++) {
		error = call_unlink(M, AT(P_TREE), fault_long_name(i));
		error = error == -ENOENT ? 0 : error;
	}
	return error;
}

/* ---- renaming ---- */

static int ren(struct fault_run *run, enum place from, const char *name, enum place to, const char *to_name, unsigned flags)
{
	return call_rename(M, from < PLACE_COUNT ? AT(from) : ROOT, name, to < PLACE_COUNT ? AT(to) : ROOT, to_name, flags);
}

static int rename_same(struct fault_run *run) { return ren(run, P_TREE, fault_long_name(5), P_TREE, "renamed", 0); }
static int rename_cross(struct fault_run *run) { return ren(run, PLACE_COUNT, "plain", P_TREE, "moved", 0); }
static int rename_over(struct fault_run *run) { return ren(run, PLACE_COUNT, "plain", PLACE_COUNT, "big", 0); }
static int rename_over_linked(struct fault_run *run) { return ren(run, PLACE_COUNT, "inline", P_BLOCK, "other-name", 0); }
static int rename_dir(struct fault_run *run) { return ren(run, P_TREE, "sub", P_BLOCK, "sub", 0); }
static int rename_over_dir(struct fault_run *run) { return ren(run, PLACE_COUNT, "inline-dir", PLACE_COUNT, "empty", 0); }
static int rename_noreplace(struct fault_run *run)
{
	return ren(run, PLACE_COUNT, "hole", P_INLINE_DIR, "hole", RENAME_NOREPLACE);
}
static int rename_exists(struct fault_run *run)
{
	return expected(run, ren(run, PLACE_COUNT, "hole", P_TREE, fault_long_name(9), RENAME_NOREPLACE), -EEXIST);
}
static int rename_exchange(struct fault_run *run)
{
	return ren(run, PLACE_COUNT, "plain", P_BLOCK, "entry-of-a-block-3", RENAME_EXCHANGE);
}
static int rename_exchange_dirs(struct fault_run *run)
{
	return ren(run, P_TREE, "sub", PLACE_COUNT, "empty", RENAME_EXCHANGE);
}
static int rename_loop(struct fault_run *run) { return expected(run, ren(run, PLACE_COUNT, "tree", P_TREE, "x", 0), -EINVAL); }

/* ---- attributes ---- */

static int getattr(struct fault_run *run)
{
	struct fs_attr attr;
	const int error = call_getattr(M, AT(P_PLAIN), &attr);
	CHECK(error || attr.size == PLAIN_BYTES);
	return error;
}

static int set(struct fault_run *run, enum place place, struct fs_attr attr, uint32_t mask)
{
	struct fs_attr out;
	return call_setattr(M, AT(place), &attr, mask, &out);
}

static int chmod_run(struct fault_run *run) { return set(run, P_PLAIN, (struct fs_attr){.mode = S_IFREG | 0751}, FS_SET_MODE); }
static int chown_run(struct fault_run *run)
{
	return set(run, P_SUID, (struct fs_attr){.uid = 5, .gid = 6}, FS_SET_UID | FS_SET_GID | FS_SET_KILL_SUIDGID);
}
static int utimes(struct fault_run *run)
{
	return set(run, P_BIG, (struct fs_attr){.mtime.tv_sec = 4711, .atime.tv_sec = 4712}, FS_SET_MTIME | FS_SET_ATIME);
}
static int set_flags(struct fault_run *run) { return set(run, P_PLAIN, (struct fs_attr){.flags = 0x40}, FS_SET_FLAGS); }

/* ---- the whole ---- */

static int sync_run(struct fault_run *run)
{
	struct fs_entry entry;
	int error = call_create(M, AT(P_BLOCK), "new", S_IFREG | 0644, &entry);
	if (!error)
		call_forget(M, entry.ino, 1);
	error = error == -EEXIST ? 0 : error;
	return error ? error : call_sync(M);
}

static MAY_WAIT int checkpoint_here(void *arg) { return fs_checkpoint(arg); }

static int checkpoint_run(struct fault_run *run)
{
	const int error = make(run, P_BLOCK, "new", S_IFREG | 0644);
	return error && error != -EEXIST ? error : sim_on(&M->sim, ROOT, checkpoint_here, M->sim.fs);
}

static int mount_run(struct fault_run *run)
{
	if (M->sim.fs)
		return 0;
	const int error = sim_mount(&M->sim, &M->mount);
	CHECK(!error == !M->sim.message[0]);
	if (error)
		M->sim.fs = NULL;
	return error;
}

/* Unmounting with work in the log; what counts is that the next mount goes well. */
static int unmount_run(struct fault_run *run)
{
	int error = make(run, P_BLOCK, "new", S_IFREG | 0644);
	if (error && error != -EEXIST)
		return error;
	error = sim_unmount(&M->sim);
	if (error)
		return error;
	return mount_run(run);
}

struct remount {
	struct fault_run *run;
	struct fs_remount wanted;
	char message[256];
};

static MAY_WAIT int remount_here(void *arg)
{
	struct remount *remount = arg;
	return fs_remount(remount->run->machine.sim.fs, &remount->wanted, remount->message, sizeof(remount->message));
}

static int remount(struct fault_run *run, bool read_only)
{
	struct remount call = {.run = run, .wanted.read_only = read_only};
	const int error = reactor_group_run(reactor_group_get(M->sim.group, 0), remount_here, &call);
	CHECK(!error == !call.message[0]);
	return error;
}

static int remount_run(struct fault_run *run)
{
	if (!fs_read_only(M->sim.fs)) {
		const int error = make(run, P_BLOCK, "new", S_IFREG | 0644);
		if (error && error != -EEXIST)
			return error;
	}
	const int error = remount(run, true);
	return error ? error : remount(run, false);
}

/* A journal that was replayed in memory goes home. */
static int remount_writable(struct fault_run *run) { return remount(run, false); }

struct grow {
	struct fault_run *run;
	struct fs_grown grown;
	char message[256];
};

static MAY_WAIT int grow_here(void *arg)
{
	struct grow *grow = arg;
	return fs_grow(grow->run->machine.sim.fs, 0, &grow->grown, grow->message, sizeof(grow->message));
}

static int grow_run(struct fault_run *run)
{
	struct grow call = {.run = run};
	const int error = reactor_group_run(reactor_group_get(M->sim.group, 0), grow_here, &call);
	CHECK(!error == !call.message[0]);
	return error == -EALREADY ? 0 : error;
}

struct trim {
	struct fault_run *run;
	uint64_t trimmed;
};

static MAY_WAIT int trim_here(void *arg)
{
	struct trim *trim = arg;
	return fs_trim(trim->run->machine.sim.fs, 0, UINT64_MAX, 0, &trim->trimmed);
}

static int trim_run(struct fault_run *run)
{
	struct trim call = {.run = run};
	return sim_on(&M->sim, ROOT, trim_here, &call);
}

/* What a crash has left is freed in the background. */
static int replay_run(struct fault_run *run)
{
	const int error = mount_run(run);
	if (!error)
		call_sleep(M, 5 * NS_PER_SEC);
	return error;
}

const struct fault_op fault_ops_names[] = {
	{"lookup-tree", lookup_tree}, {"lookup-block", lookup_block}, {"lookup-inline", lookup_inline},
	{"lookup-absent", lookup_absent}, {"lookup-root", lookup_root}, {"parent", parent}, {"readdir", readdir_tree},
	{"readdir-plus", readdir_plus}, {"readdir-inline", readdir_inline}, {"readlink", readlink_short},
	{"readlink-long", readlink_long}, {"statfs", statfs_run}, {"create-inline", create_inline},
	{"create-spills", create_spills}, {"create-block", create_block}, {"create-tree", create_tree},
	{"create-many", create_many, OP_PARTIAL}, {"create-acl", create_acl}, {"create-exists", create_exists},
	{"create-sync", create_tree, OP_SYNC | OP_DURABLE}, {"mkdir", mkdir_root}, {"mkdir-acl", mkdir_acl}, {"mknod", mknod_run},
	{"symlink", symlink_short}, {"symlink-long", symlink_long}, {"tmpfile", tmpfile_gone},
	{"tmpfile-link", tmpfile_linked}, {"link", link_run}, {"unlink-inline", unlink_inline}, {"unlink-big", unlink_big},
	{"unlink-fragments", unlink_fragments}, {"unlink-xattrs", unlink_xattrs}, {"unlink-chain", unlink_chain},
	{"unlink-linked", unlink_linked}, {"unlink-tree", unlink_tree}, {"unlink-held", unlink_held, 0, hold_big},
	{"unlink-discard", unlink_big, OP_DISCARD}, {"remove-many", remove_many, OP_PARTIAL}, {"rmdir", rmdir_run},
	{"rmdir-full", rmdir_full}, {"rename", rename_same}, {"rename-cross", rename_cross}, {"rename-over", rename_over},
	{"rename-over-linked", rename_over_linked}, {"rename-dir", rename_dir}, {"rename-over-dir", rename_over_dir},
	{"rename-noreplace", rename_noreplace}, {"rename-exists", rename_exists}, {"rename-exchange", rename_exchange},
	{"rename-exchange-dirs", rename_exchange_dirs}, {"rename-loop", rename_loop}, {"getattr", getattr},
	{"chmod", chmod_run}, {"chown", chown_run, OP_PARTIAL /* privileges go first */}, {"utimes", utimes}, {"flags", set_flags},
	{"sync", sync_run, OP_DURABLE},
	{"checkpoint", checkpoint_run, OP_DURABLE}, {"mount", mount_run, OP_MOUNTS}, {"mount-replay", replay_run, OP_MOUNTS | OP_DIRTY},
	{"mount-discard", replay_run, OP_MOUNTS | OP_DIRTY | OP_DISCARD},
	{"mount-read-only", mount_run, OP_MOUNTS | OP_DIRTY | OP_READ_ONLY}, {"unmount", unmount_run, OP_UNMOUNTS | OP_DURABLE},
	{"remount", remount_run, OP_DURABLE}, {"remount-writable", remount_writable, OP_DIRTY | OP_READ_ONLY | OP_CAREFUL},
	{"grow", grow_run, OP_CAREFUL},
	{"trim", trim_run},
};
const unsigned fault_ops_names_count = ARRAY_SIZE(fault_ops_names);
