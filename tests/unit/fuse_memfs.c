/* SPDX-License-Identifier: BSD-3-Clause */
/* A filesystem in memory for the tests of the FUSE front end: life and names. See fuse_memfs.h. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

#include "tests/unit/fuse_memfs_internal.h"

/* ---- for the tests ---- */

/* Contents are mapped, not allocated: a heap that fills what is freed would write all of them. */
static void node_fini(struct memnode *node)
{
	if (node->bytes)
		munmap(node->bytes, MEMFS_FILE_BYTES);
	free(node->target);
	free(node->xattr);
	*node = (struct memnode){0};
}

static void node_init(struct memnode *node, uint64_t ino, uint32_t mode)
{
	static uint32_t generation;
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	*node = (struct memnode){.used = true, .attr = {.ino = ino, .mode = mode, .nlink = S_ISDIR(mode) ? 2 : 1}};
	node->attr.generation = ++generation;
	node->attr.atime = node->attr.mtime = node->attr.ctime = node->attr.btime = now;
}

struct fs *memfs_create(struct reactor_group *group)
{
	struct fs *fs = calloc(1, sizeof(*fs));
	assert(fs);
	fs->group = group;
	pthread_mutex_init(&fs->lock, NULL);
	fs->nodes = calloc(MEMFS_INODES, sizeof(*fs->nodes));
	fs->names = calloc(MEMFS_NAMES, sizeof(*fs->names));
	assert(fs->nodes && fs->names);
	node_init(&fs->nodes[1], 1, S_IFDIR | 0755);
	fs->nodes[1].parent = 1;
	return fs;
}

void memfs_destroy(struct fs *fs)
{
	for (unsigned i = 0; i < MEMFS_INODES; i++)
		node_fini(&fs->nodes[i]);
	free(fs->nodes);
	free(fs->names);
	pthread_mutex_destroy(&fs->lock);
	free(fs);
}

struct memfs_calls memfs_get_calls(struct fs *fs)
{
	pthread_mutex_lock(&fs->lock);
	struct memfs_calls calls = fs->calls;
	pthread_mutex_unlock(&fs->lock);
	return calls;
}

uint64_t memfs_lookups(struct fs *fs, uint64_t ino)
{
	pthread_mutex_lock(&fs->lock);
	uint64_t lookups = fs->nodes[ino].lookups;
	pthread_mutex_unlock(&fs->lock);
	return lookups;
}

void memfs_fail(struct fs *fs, int error)
{
	pthread_mutex_lock(&fs->lock);
	fs->error = error;
	pthread_mutex_unlock(&fs->lock);
}

void memfs_delay_reads(struct fs *fs, unsigned count, uint64_t delay_ns)
{
	pthread_mutex_lock(&fs->lock);
	fs->delayed_reads = count;
	fs->delay_ns = delay_ns;
	pthread_mutex_unlock(&fs->lock);
}

void memfs_park(struct fs *fs, unsigned kinds)
{
	atomic_store(&fs->park, kinds);
}

unsigned memfs_parked(struct fs *fs)
{
	return atomic_load(&fs->parked);
}

/* ---- parking ---- */

MAY_WAIT static void park(struct fs *fs, enum memfs_parking kind)
{
	if (!(atomic_load(&fs->park) & kind))
		return;
	atomic_fetch_add(&fs->parked, 1);
	while (atomic_load(&fs->park) & kind)
		fiber_sleep(NS_PER_MS);
	atomic_fetch_sub(&fs->parked, 1);
}

void memfs_look(struct fs *fs)
{
	park(fs, MEMFS_PARK_LOOKS);
}

int memfs_change(struct fs *fs)
{
	struct fs_ticket *ticket = fiber_get_context();
	park(fs, MEMFS_PARK_CHANGES);
	if (ticket && !fs_ticket_claim(ticket))
		return -EINTR;
	park(fs, MEMFS_PARK_CLAIMED);
	return 0;
}

/* ---- inside, with the lock held ---- */

int memfs_enter(struct fs *fs, uint64_t ino, struct memnode **out)
{
	pthread_mutex_lock(&fs->lock);
	if (reactor_self() != fs_owner(fs, ino))
		fs->calls.on_wrong_reactor++;
	int error = fs->error;
	if (!error && (ino >= MEMFS_INODES || !fs->nodes[ino].used))
		error = -ESTALE;
	if (error)
		pthread_mutex_unlock(&fs->lock);
	else
		*out = &fs->nodes[ino];
	return error;
}

int memfs_leave(struct fs *fs, int error)
{
	pthread_mutex_unlock(&fs->lock);
	return error;
}

bool memfs_is(const struct fs *fs, uint64_t ino, uint32_t type)
{
	return ino < MEMFS_INODES && fs->nodes[ino].used && (fs->nodes[ino].attr.mode & S_IFMT) == type;
}

void memfs_touch(struct memnode *node)
{
	clock_gettime(CLOCK_REALTIME, &node->attr.ctime);
}

void memfs_modify(struct memnode *node)
{
	memfs_touch(node);
	node->attr.mtime = node->attr.ctime;
	node->attr.blocks_512 = (node->attr.size + 511) / 512;
}

static struct memname *find(struct fs *fs, uint64_t directory, struct fs_name name)
{
	for (unsigned i = 0; i < MEMFS_NAMES; i++) {
		struct memname *at = &fs->names[i];
		if (at->ino && at->directory == directory && at->length == name.length &&
			memcmp(at->bytes, name.bytes, name.length) == 0)
			return at;
	}
	return NULL;
}

static int add(struct fs *fs, uint64_t directory, struct fs_name name, uint64_t ino)
{
	for (unsigned i = 0; i < MEMFS_NAMES; i++) {
		struct memname *at = &fs->names[i];
		if (at->ino)
			continue;
		*at = (struct memname){.directory = directory, .ino = ino, .length = name.length};
		memcpy(at->bytes, name.bytes, name.length);
		memfs_modify(&fs->nodes[directory]);
		return 0;
	}
	return -ENOSPC;
}

static bool is_empty(struct fs *fs, uint64_t directory)
{
	for (unsigned i = 0; i < MEMFS_NAMES; i++)
		if (fs->names[i].ino && fs->names[i].directory == directory)
			return false;
	return true;
}

static void drop_link(struct fs *fs, uint64_t ino)
{
	struct memnode *node = &fs->nodes[ino];
	node->attr.nlink -= S_ISDIR(node->attr.mode) ? 2 : 1;
	memfs_touch(node);
	if (node->attr.nlink == 0 && node->lookups == 0)
		node_fini(node);
}

static void give(struct fs *fs, uint64_t ino, struct fs_entry *out)
{
	fs->nodes[ino].lookups++;
	*out = (struct fs_entry){ino, fs->nodes[ino].attr.generation, fs->nodes[ino].attr};
}

char *memfs_content(struct memnode *node)
{
	if (!node->bytes)
		node->bytes = mmap(NULL, MEMFS_FILE_BYTES, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	assert(node->bytes != MAP_FAILED);
	return node->bytes;
}

/* ---- fs.h ---- */

struct reactor *fs_owner(const struct fs *fs, uint64_t ino)
{
	return reactor_group_get(fs->group, (unsigned)(ino % reactor_group_count(fs->group)));
}

int fs_lookup(struct fs *fs, uint64_t parent, struct fs_name name, struct fs_entry *out)
{
	struct memnode *node;
	memfs_look(fs);
	int error = memfs_enter(fs, parent, &node);
	if (error)
		return error;
	if (name.length > FS_NAME_MAX)
		return memfs_leave(fs, -ENAMETOOLONG);
	if (name.length == 1 && name.bytes[0] == '.') {
		give(fs, parent, out);
		return memfs_leave(fs, 0);
	}
	struct memname *at = find(fs, parent, name);
	if (!at)
		return memfs_leave(fs, -ENOENT);
	give(fs, at->ino, out);
	return memfs_leave(fs, 0);
}

int fs_parent(struct fs *fs, uint64_t directory, struct fs_entry *out)
{
	struct memnode *node;
	int error = memfs_enter(fs, directory, &node);
	if (error)
		return error;
	give(fs, node->parent, out);
	return memfs_leave(fs, 0);
}

void fs_forget(struct fs *fs, uint64_t ino, uint64_t nlookup)
{
	pthread_mutex_lock(&fs->lock);
	struct memnode *node = &fs->nodes[ino];
	fs->calls.forgotten++;
	assert(ino < MEMFS_INODES && node->used && node->lookups >= nlookup);
	node->lookups -= nlookup;
	if (node->lookups == 0 && node->attr.nlink == 0)
		node_fini(node);
	pthread_mutex_unlock(&fs->lock);
}

int fs_create(struct fs *fs, uint64_t parent, const struct fs_create *create, const struct fs_cred *cred,
	struct fs_entry *out)
{
	struct memnode *directory;
	int error = memfs_change(fs);
	if (!error)
		error = memfs_enter(fs, parent, &directory);
	if (error)
		return error;
	if (create->name.length > FS_NAME_MAX)
		return memfs_leave(fs, -ENAMETOOLONG);
	if (!memfs_is(fs, parent, S_IFDIR))
		return memfs_leave(fs, -ENOTDIR);
	if (create->name.length && find(fs, parent, create->name))
		return memfs_leave(fs, -EEXIST);
	uint64_t ino = 2;
	while (ino < MEMFS_INODES && fs->nodes[ino].used)
		ino++;
	if (ino == MEMFS_INODES)
		return memfs_leave(fs, -ENOSPC);
	struct memnode *node = &fs->nodes[ino];
	node_init(node, ino, create->mode & ~cred->umask);
	node->attr.uid = cred->uid;
	node->attr.gid = cred->gid;
	node->attr.rdev_major = create->rdev_major;
	node->attr.rdev_minor = create->rdev_minor;
	if (S_ISDIR(create->mode)) {
		node->parent = parent;
		directory->attr.nlink++;
	}
	if (S_ISLNK(create->mode)) {
		node->target = strndup(create->target, create->target_length);
		node->attr.size = create->target_length;
	}
	if (create->name.length)
		error = add(fs, parent, create->name, ino);
	else
		node->attr.nlink = 0;
	give(fs, ino, out);
	return memfs_leave(fs, error);
}

int fs_link(struct fs *fs, uint64_t parent, struct fs_name name, uint64_t ino, struct fs_entry *out)
{
	struct memnode *directory;
	int error = memfs_enter(fs, parent, &directory);
	if (error)
		return error;
	if (!memfs_is(fs, ino, S_IFREG))
		return memfs_leave(fs, -EPERM);
	if (find(fs, parent, name))
		return memfs_leave(fs, -EEXIST);
	error = add(fs, parent, name, ino);
	fs->nodes[ino].attr.nlink++;
	memfs_touch(&fs->nodes[ino]);
	give(fs, ino, out);
	return memfs_leave(fs, error);
}

static int remove_name(struct fs *fs, uint64_t parent, struct fs_name name, bool directory)
{
	struct memnode *node;
	int error = memfs_change(fs);
	if (!error)
		error = memfs_enter(fs, parent, &node);
	if (error)
		return error;
	struct memname *at = find(fs, parent, name);
	if (!at)
		return memfs_leave(fs, -ENOENT);
	if (directory != memfs_is(fs, at->ino, S_IFDIR))
		return memfs_leave(fs, directory ? -ENOTDIR : -EISDIR);
	if (directory && !is_empty(fs, at->ino))
		return memfs_leave(fs, -ENOTEMPTY);
	uint64_t ino = at->ino;
	at->ino = 0;
	node->attr.nlink -= directory;
	memfs_modify(node);
	drop_link(fs, ino);
	return memfs_leave(fs, 0);
}

int fs_unlink(struct fs *fs, uint64_t parent, struct fs_name name)
{
	return remove_name(fs, parent, name, false);
}

int fs_rmdir(struct fs *fs, uint64_t parent, struct fs_name name)
{
	return remove_name(fs, parent, name, true);
}

static void note_moved(struct fs *fs, uint64_t one, uint64_t other, struct fs_moved *out)
{
	out->directory[0] = one && memfs_is(fs, one, S_IFDIR) ? one : 0;
	out->directory[1] = memfs_is(fs, other, S_IFDIR) ? other : 0;
}

int fs_rename(struct fs *fs, uint64_t from_parent, struct fs_name from, uint64_t to_parent, struct fs_name to,
	unsigned flags, struct fs_moved *out_moved)
{
	struct memnode *node;
	*out_moved = (struct fs_moved){.directory = {0}};
	int error = memfs_enter(fs, from_parent, &node);
	if (error)
		return error;
	if (!memfs_is(fs, to_parent, S_IFDIR))
		return memfs_leave(fs, -ENOTDIR);
	struct memname *source = find(fs, from_parent, from), *target = find(fs, to_parent, to);
	if (!source)
		return memfs_leave(fs, -ENOENT);
	if (flags & RENAME_EXCHANGE) {
		uint64_t ino = source->ino;
		if (!target)
			return memfs_leave(fs, -ENOENT);
		source->ino = target->ino;
		target->ino = ino;
		if (from_parent != to_parent)
			note_moved(fs, source->ino, ino, out_moved);
		return memfs_leave(fs, 0);
	}
	if (target && (flags & RENAME_NOREPLACE))
		return memfs_leave(fs, -EEXIST);
	uint64_t ino = source->ino;
	if (from_parent != to_parent)
		note_moved(fs, 0, ino, out_moved);
	source->ino = 0;
	memfs_modify(node);
	memfs_touch(&fs->nodes[ino]);
	if (!target)
		return memfs_leave(fs, add(fs, to_parent, to, ino));
	uint64_t victim = target->ino;
	if (memfs_is(fs, victim, S_IFDIR) && !is_empty(fs, victim)) {
		source->ino = ino;
		return memfs_leave(fs, -ENOTEMPTY);
	}
	target->ino = ino;
	drop_link(fs, victim);
	return memfs_leave(fs, 0);
}

int fs_readdir(struct fs *fs, uint64_t directory, uint64_t cookie, bool plus, fs_emit_fn emit, void *arg)
{
	struct memnode *node;
	int error = memfs_enter(fs, directory, &node);
	if (error)
		return error;
	if (cookie < 1 && !emit(&(struct fs_dirent){1, directory, {".", 1}, DT_DIR, NULL}, arg))
		return memfs_leave(fs, 0);
	if (cookie < 2 && !emit(&(struct fs_dirent){2, node->parent, {"..", 2}, DT_DIR, NULL}, arg))
		return memfs_leave(fs, 0);
	for (uint64_t i = cookie > 2 ? cookie - 2 : 0; i < MEMFS_NAMES; i++) {
		const struct memname *at = &fs->names[i];
		if (!at->ino || at->directory != directory)
			continue;
		struct memnode *child = &fs->nodes[at->ino];
		struct fs_entry entry = {at->ino, child->attr.generation, child->attr};
		if (!emit(&(struct fs_dirent){i + 3, at->ino, {at->bytes, at->length}, IFTODT(child->attr.mode),
				   plus ? &entry : NULL}, arg))
			break;
		child->lookups += plus;
	}
	return memfs_leave(fs, 0);
}
