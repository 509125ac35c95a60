/* SPDX-License-Identifier: BSD-3-Clause */
#include "tests/sim/script.h"

#include <errno.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <unistd.h>

#include "reactor/memory.h"
#include "tests/sim/owner_call.h"

enum { BUFFER_BYTES = 64 << 10, HELD_MAX = 64 };

/* The inode that the last operation spoke of, and the directory of its name. */
struct subject {
	uint64_t ino, directory;
};
struct script {
	struct fs *fs;
	struct bdev *record;
	struct history history;
	struct subject subject;
	uint64_t held[HELD_MAX];        /* lookup counts, as of open files */
	unsigned held_count, written;   /* written: patterns so far */
	uint8_t *buffer;                /* DMA */
};

struct script *script_create(void)
{
	struct script *script = calloc(1, sizeof(*script));
	if (!script || !(script->buffer = dma_alloc(BUFFER_BYTES, FS_BLOCK_SIZE)))
		abort();
	for (unsigned i = 0; i <= HISTORY_STEPS_MAX; i++)
		script->history.worlds[i] = world_create();
	return script;
}

void script_destroy(struct script *script)
{
	for (unsigned i = 0; i <= HISTORY_STEPS_MAX; i++)
		world_destroy(script->history.worlds[i]);
	dma_free(script->buffer);
	free(script);
}

const struct history *script_history(const struct script *script) { return &script->history; }

static MAY_WAIT int call_on(struct owner_call *call, struct script *script, uint64_t ino, int (*fn)(struct owner_call *call))
{
	call->cred = (struct fs_cred){.uid = 500, .gid = 500, .privileged = true};
	return owner_call(call, script->fs, ino, fn);
}

/* ---- paths ---- */

static void hold(struct script *script, uint64_t ino)
{
	if (script->held_count < HELD_MAX)
		script->held[script->held_count++] = ino;
}

static MAY_WAIT int look_up(struct script *script, uint64_t parent, struct fs_name name, uint64_t *ino)
{
	struct owner_call call = {.name = name};
	const int error = call_on(&call, script, parent, owner_lookup);
	if (error)
		return error;
	*ino = call.entry.ino;
	hold(script, *ino);
	return 0;
}

/* The directory of a path and its last name. */
static MAY_WAIT int parent_of(struct script *script, const char *path, uint64_t *parent, struct fs_name *name)
{
	*parent = FS_ROOT_INODE;
	const char *slash;
	int error = 0;
	while ((slash = strchr(path, '/')) && !error) {
		error = look_up(script, *parent, (struct fs_name){.bytes = path, .length = (unsigned)(slash - path)}, parent);
		path = slash + 1;
	}
	*name = (struct fs_name){.bytes = path, .length = (unsigned)strlen(path)};
	return error;
}

/* ---- content ---- */

/* Content that no other write has at the same place. */
static void fill(struct script *script, uint64_t offset, uint64_t length)
{
	const unsigned number = ++script->written;
	for (uint64_t i = 0; i < length; i++)
		script->buffer[i] = (uint8_t)(1 + (number * 53 + (offset + i) * 7 + (offset + i) / 256) % 255);
}

static MAY_WAIT void note_block(struct script *script, uint64_t ino, uint64_t at)
{
	struct history_step *step = &script->history.steps[script->history.step_count];
	struct owner_call call = {.offset = at};
	if (call_on(&call, script, ino, owner_seek) || call.out64 != at)
		return;
	step->in_place_blocks |= 1ull << (at >> FS_BLOCK_SHIFT);
	step->in_place_ino = ino;
}

/* Notes which of the bytes that a change covers lie on blocks that stay where they are. @edges: whole blocks do not. */
static MAY_WAIT void note_in_place(struct script *script, uint64_t ino, uint64_t from, uint64_t end, bool edges)
{
	struct history_step *step = &script->history.steps[script->history.step_count];
	struct owner_call call = {.length = 0};
	step->stepwise_ino = ino;
	step->in_place_from = from;
	step->in_place_end = end;
	if (call_on(&call, script, ino, owner_getattr) || !call.attr.blocks_512)
		return; /* what stands in the inode is not in place */
	const uint64_t size = step->old_size = call.attr.size;
	for (uint64_t at = align_down(from, FS_BLOCK_SIZE); at < MIN(end, size); at += FS_BLOCK_SIZE)
		if (!edges || at < from || at + FS_BLOCK_SIZE > end)
			note_block(script, ino, at);
	if (end > size && size % FS_BLOCK_SIZE)
		note_block(script, ino, align_down(size, FS_BLOCK_SIZE));
}

/* ---- operations ---- */

static MAY_WAIT int run_create(struct script *script, const struct script_op *op, uint64_t parent, struct fs_name name)
{
	struct owner_call call = {.create = {.mode = op->mode, .name = name}};
	if (op->kind == SCRIPT_SYMLINK) {
		call.create.mode = S_IFLNK | 0777;
		call.create.target_length = (unsigned)op->length;
		memset(script->buffer, 't', op->length);
		call.create.target = (const char *)script->buffer;
	} else if (op->kind == SCRIPT_TMPFILE) {
		call.create.name.length = 0;
	} else if (S_ISCHR(op->mode)) {
		call.create.rdev_major = 5;
		call.create.rdev_minor = 1;
	}
	int error = call_on(&call, script, parent, owner_create);
	if (error)
		return error;
	const uint64_t ino = call.entry.ino;
	hold(script, ino);
	script->subject.ino = ino;
	if (op->kind != SCRIPT_TMPFILE)
		return 0;
	fill(script, 0, op->length);
	call = (struct owner_call){.buffer = script->buffer, .length = op->length};
	error = call_on(&call, script, ino, owner_write);
	call = (struct owner_call){.name = name, .ino2 = ino};
	if (!error)
		error = call_on(&call, script, parent, owner_link);
	if (!error)
		hold(script, ino);
	return error;
}

static MAY_WAIT int run_data(struct script *script, const struct script_op *op, uint64_t ino)
{
	struct owner_call call = {.buffer = script->buffer, .offset = op->offset, .length = op->length};
	switch (op->kind) {
	case SCRIPT_APPEND:
		if (call_on(&call, script, ino, owner_getattr))
			return -EIO;
		call.offset = call.attr.size;
		fill(script, call.offset, op->length);
		note_in_place(script, ino, call.offset, call.offset + op->length, false);
		call.flags = FS_WRITE_APPEND;
		return call_on(&call, script, ino, owner_write);
	case SCRIPT_WRITE:
	case SCRIPT_SYNC_WRITE:
		fill(script, op->offset, op->length);
		note_in_place(script, ino, op->offset, op->offset + op->length, false);
		call.flags = op->kind == SCRIPT_SYNC_WRITE ? FS_WRITE_SYNC : 0;
		return call_on(&call, script, ino, owner_write);
	case SCRIPT_TRUNCATE:
		note_in_place(script, ino, op->length, op->length, true);
		call.attr.size = op->length;
		call.flags = FS_SET_SIZE;
		return call_on(&call, script, ino, owner_setattr);
	default: /* SCRIPT_FALLOCATE */
		note_in_place(script, ino, op->offset, op->offset + op->length, true);
		script->history.steps[script->history.step_count].frees = op->mode & FALLOC_FL_PUNCH_HOLE;
		call.flags = op->mode;
		return call_on(&call, script, ino, owner_fallocate);
	}
}

static MAY_WAIT int run_attributes(struct script *script, const struct script_op *op, uint64_t ino)
{
	struct owner_call call = {.name = {.bytes = "user.x", .length = 6}, .buffer = script->buffer, .length = op->mode};
	switch (op->kind) {
	case SCRIPT_CHMOD:
		call.attr.mode = op->mode;
		call.flags = FS_SET_MODE;
		return call_on(&call, script, ino, owner_setattr);
	case SCRIPT_CHOWN:
		call.attr.uid = call.attr.gid = op->mode;
		call.flags = FS_SET_UID | FS_SET_GID;
		return call_on(&call, script, ino, owner_setattr);
	case SCRIPT_UTIMENS:
		call.attr.atime.tv_sec = 1000000 + script->written++;
		call.attr.mtime.tv_sec = 2000000 + script->written++;
		call.flags = FS_SET_ATIME | FS_SET_MTIME;
		return call_on(&call, script, ino, owner_setattr);
	case SCRIPT_SETXATTR:
		fill(script, 0, op->mode);
		return call_on(&call, script, ino, owner_xattr_set);
	default: /* SCRIPT_REMOVEXATTR */
		return call_on(&call, script, ino, owner_xattr_remove);
	}
}

static MAY_WAIT int run_two(struct script *script, const struct script_op *op, struct fs_name name, uint64_t ino)
{
	uint64_t parent2, ino2;
	struct owner_call call = {.name = name};
	int error = parent_of(script, op->path2, &parent2, &call.name2);
	if (error)
		return error;
	const uint64_t parent = script->subject.directory;
	script->subject.directory = parent2;
	if (op->kind == SCRIPT_RENAME) {
		if (!look_up(script, parent2, call.name2, &ino2)) /* what is replaced is open, too */
			script->subject.ino = op->mode ? ino : script->subject.ino;
		call.ino2 = parent2;
		call.flags = op->mode;
		return call_on(&call, script, parent, owner_rename);
	}
	if (op->kind == SCRIPT_LINK) {
		call.name = call.name2;
		call.ino2 = ino;
		error = call_on(&call, script, parent2, owner_link);
		if (!error)
			hold(script, ino);
		return error;
	}
	error = look_up(script, parent2, call.name2, &ino2);
	if (error)
		return error;
	script->subject.ino = ino2;
	call.ino2 = ino2;
	call.offset = op->offset;
	call.offset2 = op->mode;
	call.length = op->length;
	note_in_place(script, ino2, call.offset2, call.offset2 + call.length, false);
	script->history.steps[script->history.step_count].perhaps = true;
	return call_on(&call, script, ino, owner_copy);
}

static MAY_WAIT int run_op(struct script *script, const struct script_op *op)
{
	struct fs_name name;
	uint64_t parent, ino;
	int error = parent_of(script, op->path, &parent, &name);
	if (error)
		return error;
	script->subject = (struct subject){.directory = parent};
	if (op->kind <= SCRIPT_TMPFILE)
		return run_create(script, op, parent, name);
	error = look_up(script, parent, name, &ino);
	if (error)
		return error;
	script->subject.ino = ino;
	struct owner_call call = {.name = name};
	if (op->kind == SCRIPT_UNLINK)
		return call_on(&call, script, parent, owner_unlink);
	if (op->kind == SCRIPT_RMDIR)
		return call_on(&call, script, parent, owner_rmdir);
	if (op->kind == SCRIPT_LINK || op->kind == SCRIPT_RENAME || op->kind == SCRIPT_COPY)
		return run_two(script, op, name, ino);
	return op->kind <= SCRIPT_FALLOCATE ? run_data(script, op, ino) : run_attributes(script, op, ino);
}

/* ---- steps ---- */

static struct history_step *step_open(struct script *script)
{
	struct history *history = &script->history;
	if (history->step_count == HISTORY_STEPS_MAX)
		abort();
	struct history_step *step = &history->steps[history->step_count];
	*step = (struct history_step){.acknowledged = UINT64_MAX, .begun = UINT64_MAX};
	return step;
}

static uint64_t place(struct script *script)
{
	size_t count;
	bdev_record_mark(script->record, script->history.step_count);
	return bdev_record_entries(script->record, &count)[count - 1].submitted;
}

static MAY_WAIT void step_close(struct script *script, struct history_step *step)
{
	step->acknowledged = place(script);
	script->history.step_count++;
	if (world_take(script->history.worlds[script->history.step_count], script->fs))
		abort();
}

static MAY_WAIT int sync_run(struct script *script, const struct history_step *step, enum script_persist persist)
{
	if (persist == SCRIPT_SYNC)
		return fs_sync(script->fs);
	struct owner_call call = {.flags = persist == SCRIPT_FDATASYNC};
	return call_on(&call, script, step->sync_ino, owner_fsync);
}

static MAY_WAIT bool persist_run(struct script *script, enum script_persist persist)
{
	struct owner_call call = {.length = 0};
	const struct subject subject = script->subject;
	const bool known = subject.ino && !call_on(&call, script, subject.ino, owner_getattr);
	const bool regular = known && S_ISREG(call.attr.mode);
	struct history_step *step = step_open(script);
	step->sync_ino = persist == SCRIPT_FSYNC_DIR ? subject.directory : subject.ino;
	step->sync = persist == SCRIPT_SYNC ? HISTORY_SYNC_ALL : persist == SCRIPT_FDATASYNC ? HISTORY_SYNC_DATA : HISTORY_SYNC_FILE;
	/* What is written to a file without names is in no world. */
	if (persist == SCRIPT_OSYNC && known && !call.attr.nlink)
		return false;
	if ((persist == SCRIPT_FSYNC && !regular && !(known && S_ISDIR(call.attr.mode))) ||
		((persist == SCRIPT_FDATASYNC || persist == SCRIPT_OSYNC) && !regular) ||
		(persist == SCRIPT_FSYNC_DIR && !subject.directory))
		return false;
	step->begun = place(script);
	int error;
	if (persist == SCRIPT_OSYNC) {
		static const struct script_op write = {.kind = SCRIPT_SYNC_WRITE, .offset = 100, .length = 700};
		step->sync_itself = true;
		error = run_data(script, &write, subject.ino);
	} else {
		error = sync_run(script, step, persist);
	}
	if (error) /* a full disk: nothing was promised */
		step->sync = HISTORY_SYNC_NONE;
	step_close(script, step);
	return true;
}

bool script_step(struct script *script, unsigned index, enum script_persist persist)
{
	struct history_step *step = step_open(script);
	script->subject = (struct subject){.ino = 0};
	step->begun = place(script);
	(void)!run_op(script, &script_ops[index]);
	step_close(script, step);
	return persist == SCRIPT_NONE || persist_run(script, persist);
}

int script_begin(struct script *script, struct fs *fs, struct bdev *record)
{
	script->fs = fs;
	script->record = record;
	script->history.step_count = script->held_count = script->written = 0;
	return world_take(script->history.worlds[0], fs);
}

void script_end(struct script *script)
{
	for (unsigned i = 0; i < script->held_count; i++)
		fs_forget(script->fs, script->held[i], 1);
	script->held_count = 0;
}

/* ---- the set ---- */

int script_set_up(struct fs *fs)
{
	static const struct script_op set[] = {
		{"", SCRIPT_CREATE, "A", NULL, 0, 0, S_IFDIR | 0755},
		{"", SCRIPT_CREATE, "B", NULL, 0, 0, S_IFDIR | 0755},
		{"", SCRIPT_CREATE, "A/C", NULL, 0, 0, S_IFDIR | 0755},
		{"", SCRIPT_CREATE, "B/D", NULL, 0, 0, S_IFDIR | 0755},
		{"", SCRIPT_CREATE, "A/foo", NULL, 0, 0, S_IFREG | 0644},
		{"", SCRIPT_WRITE, "A/foo", NULL, 0, 9000, 0},
		{"", SCRIPT_SETXATTR, "A/foo", NULL, 0, 0, 30},
		{"", SCRIPT_CREATE, "A/bar", NULL, 0, 0, S_IFREG | 0644},
		{"", SCRIPT_WRITE, "A/bar", NULL, 0, 4096, 0},
		{"", SCRIPT_WRITE, "A/bar", NULL, 8192, 4096, 0},
		{"", SCRIPT_FALLOCATE, "A/bar", NULL, 12288, 4096, 0},
		{"", SCRIPT_CREATE, "A/tiny", NULL, 0, 0, S_IFREG | 0644},
		{"", SCRIPT_WRITE, "A/tiny", NULL, 0, 20, 0},
		{"", SCRIPT_CREATE, "B/foo", NULL, 0, 0, S_IFREG | 0644},
		{"", SCRIPT_WRITE, "B/foo", NULL, 0, 12288, 0},
		{"", SCRIPT_SYMLINK, "B/sym", NULL, 0, 25, 0},
	};
	struct script *script = script_create();
	script->fs = fs;
	int error = 0;
	for (unsigned i = 0; i < ARRAY_SIZE(set) && !error; i++)
		error = run_op(script, &set[i]);
	script_end(script);
	script_destroy(script);
	return error;
}
