/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Reading directories. Entries are copied a leaf at a time; with attributes wanted, a batch of inodes is asked for at a
 * time, each owner once, with the directory locked (shared), so that no entry goes before its lookup count is there.
 * Counts of entries that did not fit are given back.
 */
#include <dirent.h>

#include "fs/namei.h"

enum { BATCH = 16, DIRENTS_BYTES = FS_BLOCK_SIZE };

struct batch {
	struct fs *fs;
	struct owner *owner;            /* asked now */
	unsigned count;
	const struct disk_dirent *dirents[BATCH];
	int errors[BATCH];              /* of each: 0 when its entry is there */
	struct fs_entry entries[BATCH];
};
struct readdir_op {
	struct fs_dirent dirent;        /* given to emit */
	struct batch batch;
};
_Static_assert(sizeof(struct readdir_op) <= OP_BYTES, "operation memory");

struct readdir_call {
	struct inode *directory;
	bool plus;
	fs_emit_fn emit;
	void *arg;
	struct readdir_op *memory;
};

/* On batch->owner: what is its own. Names stand in the order of their hashes, so their inodes are all over the place:
 * what is not cached is read at once. */
static MAY_WAIT int batch_fill_here(void *arg)
{
	struct batch *batch = arg;
	uint64_t inos[BATCH];
	unsigned count = 0;
	for (unsigned i = 0; i < batch->count; i++) {
		inos[count] = le64_get(batch->dirents[i]->ino);
		count += owner_of_ino(batch->fs, inos[count]) == batch->owner;
	}
	inode_prefetch(batch->owner, inos, count);
	for (unsigned i = 0; i < batch->count; i++) {
		const uint64_t ino = le64_get(batch->dirents[i]->ino);
		if (owner_of_ino(batch->fs, ino) == batch->owner)
			batch->errors[i] = namei_entry(batch->fs, ino, &batch->entries[i]);
	}
	return 0;
}

static MAY_WAIT void batch_fill(struct batch *batch)
{
	uint64_t asked = 0;
	_Static_assert(REACTOR_COUNT_MAX <= 64, "a bit for each owner");
	for (unsigned i = 0; i < batch->count; i++) {
		batch->owner = owner_of_ino(batch->fs, le64_get(batch->dirents[i]->ino));
		if (asked >> batch->owner->index & 1)
			continue;
		asked |= 1ull << batch->owner->index;
		reactor_call(batch->owner->reactor, batch_fill_here, batch);
	}
}

static bool emit_one(const struct readdir_call *call, const struct disk_dirent *from, const struct fs_entry *entry)
{
	struct fs_dirent *dirent = &call->memory->dirent;
	*dirent = (struct fs_dirent){
		.cookie = le64_get(from->key),
		.ino = le64_get(from->ino),
		.name = {.bytes = from->name, .length = from->name_length},
		.type = from->type,
		.entry = entry,
	};
	return call->emit(dirent, call->arg);
}

/* The batch of entries that starts at @at; returns where the next one does. */
static unsigned batch_collect(struct batch *batch, const uint8_t *dirents, unsigned bytes, unsigned at)
{
	batch->count = 0;
	while (at < bytes && batch->count < BATCH) {
		const struct disk_dirent *dirent = (const struct disk_dirent *)(dirents + at);
		batch->dirents[batch->count++] = dirent;
		at += dirent_bytes(dirent->name_length);
	}
	return at;
}

/* False: emit has had enough. */
static MAY_WAIT bool emit_batch(const struct readdir_call *call)
{
	struct batch *batch = &call->memory->batch;
	if (call->plus)
		batch_fill(batch);
	bool more = true;
	for (unsigned i = 0; i < batch->count; i++) {
		/* An entry whose inode cannot be read is still shown. */
		const bool with_entry = call->plus && !batch->errors[i];
		more = more && emit_one(call, batch->dirents[i], with_entry ? &batch->entries[i] : NULL);
		if (!more && with_entry)
			fs_forget(batch->fs, batch->entries[i].ino, 1);
	}
	return more;
}

static bool emit_dot(const struct readdir_call *call, uint64_t cookie, uint64_t ino)
{
	struct fs_dirent *dirent = &call->memory->dirent;
	*dirent = (struct fs_dirent){
		.cookie = cookie,
		.ino = ino,
		.name = {.bytes = "..", .length = cookie == FS_COOKIE_DOT ? 1 : 2},
		.type = DT_DIR,
	};
	return call->emit(dirent, call->arg);
}

/* "." and "..", if they are behind @cookie. */
static bool emit_dots(const struct readdir_call *call, uint64_t cookie)
{
	const struct inode *directory = call->directory;
	if (cookie < FS_COOKIE_DOT && !emit_dot(call, FS_COOKIE_DOT, directory->ino))
		return false;
	return cookie >= FS_COOKIE_DOTDOT || emit_dot(call, FS_COOKIE_DOTDOT, le64_get(directory->disk.parent));
}

static MAY_WAIT int read_entries(const struct readdir_call *call, uint64_t cookie, uint8_t *dirents)
{
	cookie = MAX(cookie, (uint64_t)FS_COOKIE_DOTDOT);
	for (;;) {
		unsigned bytes;
		const int error = dir_read(call->directory, cookie, dirents, DIRENTS_BYTES, &bytes);
		if (error || !bytes)
			return error;
		for (unsigned at = 0; at < bytes;) {
			at = batch_collect(&call->memory->batch, dirents, bytes, at);
			const struct batch *batch = &call->memory->batch;
			cookie = le64_get(batch->dirents[batch->count - 1]->key);
			if (!emit_batch(call))
				return 0;
		}
	}
}

static MAY_WAIT int read_locked(const struct readdir_call *call, uint64_t cookie, uint8_t *dirents)
{
	if (call->directory->dead)
		return -ESTALE;
	if (!inode_is_dir(call->directory))
		return -ENOTDIR;
	inode_accessed(call->directory);
	if (!le32_get(call->directory->disk.nlink))
		return 0; /* removed: not even "." is left, as on Linux */
	return emit_dots(call, cookie) ? read_entries(call, cookie, dirents) : 0;
}

int fs_readdir(struct fs *fs, uint64_t directory, uint64_t cookie, bool plus, fs_emit_fn emit, void *arg)
{
	struct op *op = op_begin(owner_here(fs));
	if (!op)
		return -ENOMEM;
	struct readdir_call call = {.plus = plus, .emit = emit, .arg = arg, .memory = OP_MEMORY(op, struct readdir_op)};
	call.memory->batch.fs = fs;
	uint8_t *dirents = op_bounce(op, 0);
	int error = dirents ? inode_get(op->owner, directory, &call.directory) : -ENOMEM;
	if (!error) {
		fiber_rwlock_read(&call.directory->lock);
		error = read_locked(&call, cookie, dirents);
		fiber_rwlock_unread(&call.directory->lock);
		inode_put(call.directory);
	}
	op_end(op);
	return error;
}
