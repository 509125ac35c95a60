/* SPDX-License-Identifier: BSD-3-Clause */
#include "tests/sim/client.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <stdlib.h>

#include "reactor/memory.h"
#include "tests/sim/owner_call.h"

#ifndef RENAME_EXCHANGE
#define RENAME_EXCHANGE (1 << 1)
#endif

enum { SECTOR_MAGIC = 0x4c4e5345 };

struct tag {                            /* start of every sector that a client writes */
	uint32_t magic, object, version, sector;
};

static struct fs_name name_make(char *text, const char *prefix, unsigned number)
{
	return (struct fs_name){.bytes = text, .length = (unsigned)sprintf(text, "%s%u", prefix, number)};
}

static const struct fs_name xattr_name = {.bytes = "user.value", .length = 10};

/* ---- life ---- */

void client_create(struct client *client, struct sim *sim, unsigned number, unsigned ops, uint64_t seed)
{
	memset(client, 0, sizeof(*client));
	client->sim = sim;
	client->number = number;
	client->ops_wanted = ops;
	client->random = seed * 31 + number;
	client->model.client = number;
	client->model.owners = reactor_group_count(sim->group);
	client->buffer = dma_alloc(MODEL_SECTORS * MODEL_SECTOR, 4096);
}

void client_destroy(struct client *client) { dma_free(client->buffer); }

int client_set_up(struct client *client)
{
	for (unsigned i = 0; i < MODEL_DIRS; i++) {
		char text[32];
		struct owner_call call = {.create = {.mode = S_IFDIR | 0755}};
		call.create.name = name_make(text, i ? "b" : "a", client->number);
		const int error = owner_call(&call, client->sim->fs, FS_ROOT_INODE, owner_create);
		if (error)
			return error;
		client->directories[i] = call.entry.ino;
	}
	return 0;
}

/* ---- work ---- */

static uint64_t owner_bit(struct client *client, uint64_t ino)
{
	return 1ull << reactor_index(fs_owner(client->sim->fs, ino));
}

static MAY_WAIT int find(struct client *client, unsigned dir, unsigned name, uint64_t *ino)
{
	char text[32];
	struct owner_call call = {.name = name_make(text, "n", name)};
	const int error = owner_call(&call, client->sim->fs, client->directories[dir], owner_lookup);
	*ino = call.entry.ino;
	return error;
}

/* Gives the lookup count back, sometimes much later. */
static void let_go(struct client *client, uint64_t ino)
{
	if (sim_rand(&client->random) % 3) {
		fs_forget(client->sim->fs, ino, 1);
		return;
	}
	uint64_t *kept = &client->kept[client->kept_next++ % ARRAY_SIZE(client->kept)];
	if (*kept)
		fs_forget(client->sim->fs, *kept, 1);
	*kept = ino;
}

static MAY_WAIT int run_create(struct client *client, struct model_op *op)
{
	static const uint32_t types[] = {[MODEL_CREATE] = S_IFREG, [MODEL_MKDIR] = S_IFDIR, [MODEL_SYMLINK] = S_IFLNK};
	char text[32];
	op->value = op->kind == MODEL_SYMLINK ? 0777 : 0600 + (uint32_t)(sim_rand(&client->random) % 64);
	op->object = ++client->model.object_count;
	struct owner_call call = {.create = {.mode = types[op->kind] | op->value}, .cred = {.uid = op->object}};
	call.create.name = name_make(text, "n", op->name);
	if (op->kind == MODEL_SYMLINK) {
		call.create.target = "some/where/else/that/is/long/enough/for/nobody/to/care";
		call.create.target_length = 10 + op->object % 30;
	}
	const int error = owner_call(&call, client->sim->fs, client->directories[op->dir], owner_create);
	if (!error) {
		op->owners |= owner_bit(client, call.entry.ino);
		let_go(client, call.entry.ino);
	}
	return error;
}

static MAY_WAIT int run_names(struct client *client, struct model_op *op, uint64_t ino)
{
	struct fs *fs = client->sim->fs;
	char text[32], text2[32];
	struct owner_call call = {.name = name_make(text, "n", op->name), .name2 = name_make(text2, "n", op->name2)};
	const uint64_t directory = client->directories[op->dir], directory2 = client->directories[op->dir2];
	op->owners |= owner_bit(client, ino);
	if (op->kind == MODEL_UNLINK)
		return owner_call(&call, fs, directory, owner_unlink);
	if (op->kind == MODEL_RMDIR)
		return owner_call(&call, fs, directory, owner_rmdir);
	op->owners |= owner_bit(client, directory2);
	uint64_t ino2 = 0;
	if (client->names.object[op->dir2][op->name2] && !find(client, op->dir2, op->name2, &ino2)) {
		op->owners |= owner_bit(client, ino2);
		fs_forget(fs, ino2, 1);
	}
	if (op->kind == MODEL_LINK) {
		call.name = name_make(text, "n", op->name2);
		call.ino2 = ino;
		const int error = owner_call(&call, fs, directory2, owner_link);
		if (!error)
			fs_forget(fs, ino, 1);
		return error;
	}
	call.ino2 = directory2;
	call.flags = op->kind == MODEL_EXCHANGE ? RENAME_EXCHANGE : 0;
	return owner_call(&call, fs, directory, owner_rename);
}

static void fill(struct client *client, const struct model_op *op)
{
	for (uint32_t i = 0; i < op->sectors; i++) {
		uint8_t *sector = client->buffer + i * MODEL_SECTOR;
		memset(sector, (int)(op->value + i), MODEL_SECTOR);
		const struct tag tag = {.magic = SECTOR_MAGIC, .object = op->object, .version = op->value,
			.sector = op->first_sector + i};
		memcpy(sector, &tag, sizeof(tag));
		memcpy(sector + MODEL_SECTOR - sizeof(tag), &tag, sizeof(tag));
	}
}

static MAY_WAIT int run_data(struct client *client, struct model_op *op, uint64_t ino)
{
	struct fs *fs = client->sim->fs;
	struct owner_call call = {.buffer = client->buffer};
	switch (op->kind) {
	case MODEL_WRITE:
		fill(client, op);
		call.offset = (uint64_t)op->first_sector * MODEL_SECTOR;
		call.length = (uint64_t)op->sectors * MODEL_SECTOR;
		const int error = owner_call(&call, fs, ino, owner_write);
		/* A part was written, and asking for the rest would tell why it was no more. */
		return !error && client->strict && call.out < call.length ? -EIO : error;
	case MODEL_TRUNCATE:
		call.attr.size = (uint64_t)op->sectors * MODEL_SECTOR;
		call.flags = FS_SET_SIZE;
		return owner_call(&call, fs, ino, owner_setattr);
	case MODEL_PUNCH:
		call.flags = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
		call.offset = (uint64_t)op->first_sector * MODEL_SECTOR;
		call.length = (uint64_t)op->sectors * MODEL_SECTOR;
		return owner_call(&call, fs, ino, owner_fallocate);
	case MODEL_FALLOCATE:
		call.length = (uint64_t)op->sectors * MODEL_SECTOR;
		return owner_call(&call, fs, ino, owner_fallocate);
	case MODEL_CHMOD:
		op->owners = owner_bit(client, ino);
		call.attr.mode = op->value;
		call.flags = FS_SET_MODE;
		return owner_call(&call, fs, ino, owner_setattr);
	case MODEL_XATTR:
		op->owners = owner_bit(client, ino);
		call.name = xattr_name;
		memset(client->buffer, (int)op->value, 2048);
		memcpy(client->buffer, &op->value, sizeof(op->value));
		call.length = op->value % 3 == 0 ? 4 : op->value % 3 == 1 ? 200 : 2000;
		return owner_call(&call, fs, ino, owner_xattr_set);
	default: /* MODEL_FSYNC */
		op->owners = owner_bit(client, ino);
		call.flags = 0;
		return owner_call(&call, fs, ino, owner_fsync);
	}
}

/* Kind and place of the next operation. */
static void choose(struct client *client, struct model_op *op)
{
	static const uint8_t weights[MODEL_KIND_COUNT] = {[MODEL_CREATE] = 14, [MODEL_MKDIR] = 4, [MODEL_SYMLINK] = 3,
		[MODEL_UNLINK] = 9, [MODEL_RMDIR] = 4, [MODEL_RENAME] = 10, [MODEL_EXCHANGE] = 2, [MODEL_LINK] = 4, [MODEL_CHMOD] = 4,
		[MODEL_XATTR] = 4, [MODEL_WRITE] = 30, [MODEL_TRUNCATE] = 5, [MODEL_PUNCH] = 4, [MODEL_FALLOCATE] = 3, [MODEL_FSYNC] = 8,
		[MODEL_SYNC] = 4};
	unsigned total = 0;
	for (unsigned i = 0; i < MODEL_KIND_COUNT; i++)
		total += weights[i];
	int left = (int)(sim_rand(&client->random) % total);
	unsigned kind = 0;
	while ((left -= weights[kind]) >= 0)
		kind++;
	const uint64_t random = sim_rand(&client->random);
	op->kind = (enum model_kind)kind;
	op->dir = random % MODEL_DIRS;
	op->name = (random >> 8) % MODEL_NAMES;
	op->dir2 = (random >> 16) % MODEL_DIRS;
	op->name2 = (random >> 24) % MODEL_NAMES;
	op->first_sector = (uint32_t)((random >> 32) % (MODEL_SECTORS - 1));
	op->sectors = 1 + (uint32_t)((random >> 44) % MIN(64u, MODEL_SECTORS - op->first_sector));
	op->value = 1 + (uint32_t)(sim_rand(&client->random) % 1000000);
	if (op->kind == MODEL_WRITE) {
		op->value = ++client->model.next_version;
		if (random >> 60 < 8) { /* often small files, from the start */
			op->first_sector = 0;
			op->sectors = 1 + op->sectors % 16;
		}
	} else if (op->kind == MODEL_CHMOD) {
		op->value = 0600 + op->value % 64;
	} else if (op->kind == MODEL_TRUNCATE || op->kind == MODEL_FALLOCATE) {
		op->sectors = 1 + (uint32_t)((random >> 32) % (MODEL_SECTORS - 1));
	}
}

static MAY_WAIT int sync_all(struct client *client)
{
	return fs_sync(client->sim->fs);
}

static void mark(struct client *client, unsigned index, bool end)
{
	struct bdev *record = client->sim->recording && !client->strict ? sim_bdev(client->sim, "record") : NULL;
	if (record) /* it leaves with a drive that is pulled out */
		bdev_record_mark(record, (uint64_t)end << 63 | (uint64_t)client->number << 32 | index);
}

/* No operation of a client gets these from a filesystem under which nothing fails. */
static bool is_injected(int error)
{
	switch (error) {
	case 0: case -ENOENT: case -EEXIST: case -ENOTEMPTY: case -EISDIR: case -ENOTDIR: case -EPERM: case -EINVAL: case -EBUSY:
		return false;
	default:
		return true;
	}
}

static MAY_WAIT int run_op(struct client *client, struct model_op *op)
{
	op->owners = owner_bit(client, client->directories[op->dir]);
	if (op->kind <= MODEL_SYMLINK)
		return run_create(client, op);
	if (op->kind == MODEL_SYNC)
		return sync_all(client);
	uint64_t ino;
	int error = find(client, op->dir, op->name, &ino);
	if (error) {
		const bool expected = error == -ENOENT && !client->names.object[op->dir][op->name];
		op->failed = client->strict;
		if (!expected && !fs_stopped(client->sim->fs) && !(client->strict && is_injected(error)))
			sim_fail("client %u: lookup of n%u answered %d", client->number, op->name, error);
		return error;
	}
	op->object = client->names.object[op->dir][op->name];
	if (op->kind < MODEL_CHMOD) {
		error = run_names(client, op, ino);
	} else {
		op->owners = 0;
		error = run_data(client, op, ino);
	}
	let_go(client, ino);
	return error;
}

static void apply_names(struct client *client, const struct model_op *op)
{
	uint32_t *name = &client->names.object[op->dir][op->name], *name2 = &client->names.object[op->dir2][op->name2];
	const uint32_t kept = *name2;
	if (op->kind <= MODEL_SYMLINK)
		*name = op->object;
	else if (op->kind == MODEL_UNLINK || op->kind == MODEL_RMDIR)
		*name = 0;
	else if (op->kind == MODEL_LINK)
		*name2 = *name;
	else if (op->kind == MODEL_RENAME || op->kind == MODEL_EXCHANGE) {
		if (name == name2 || *name == *name2) /* the same file: nothing happens */
			return;
		*name2 = *name;
		*name = op->kind == MODEL_EXCHANGE ? kept : 0;
	}
}

/* True: what of the operation there is nobody knows. */
static bool is_cut(struct client *client, struct model_op *op, int error)
{
	const bool stopped = client->sim->stopped || fs_stopped(client->sim->fs);
	if (!client->strict)
		return client->sim->stopped || error == -ENODEV || error == -EIO || error == -EROFS;
	if (error == -EEXIST && op->kind <= MODEL_SYMLINK && !client->names.object[op->dir][op->name])
		sim_fail("client %u: there is no n%u, and creating it answers EEXIST", client->number, op->name);
	op->begun = op->acknowledged = 0;
	if (!is_injected(error))
		return false;
	client->hurt = error;
	op->acknowledged = UINT64_MAX;
	if (op->failed || op->kind == MODEL_FSYNC || op->kind == MODEL_SYNC) {
		op->failed = true;
		return false;
	}
	/* Those on data are several transactions, or in place. */
	return client->lost = stopped || (op->kind >= MODEL_WRITE && op->kind <= MODEL_FALLOCATE);
}

void client_let_go(struct client *client)
{
	for (unsigned i = 0; i < ARRAY_SIZE(client->kept); i++) {
		if (client->kept[i])
			fs_forget(client->sim->fs, client->kept[i], 1);
		client->kept[i] = 0;
	}
}

void client_work(struct client *client)
{
	struct model *model = &client->model;
	while (model->op_count < client->ops_wanted && model->op_count < MODEL_OPS_MAX && !client->sim->stopped && !client->lost) {
		struct model_op *op = &model->ops[model->op_count];
		memset(op, 0, sizeof(*op));
		choose(client, op);
		op->begun = op->acknowledged = UINT64_MAX;
		mark(client, model->op_count, false);
		const uint32_t same = client->names.object[op->dir][op->name];
		const int error = run_op(client, op);
		/* What a device that vanished has cut short may have happened or not. */
		const bool cut = is_cut(client, op, error);
		op->failed = error != 0 && !cut;
		/* Between two names of one file a rename does nothing, so an fsync owes nothing for it. */
		if ((op->kind == MODEL_RENAME || op->kind == MODEL_EXCHANGE) && same && same == client->names.object[op->dir2][op->name2])
			op->failed = true;
		if (!op->failed)
			apply_names(client, op);
		if (!cut)
			mark(client, model->op_count, true);
		if (client->sim->trace)
			fprintf(stderr, "client %u op %u: kind %d %u/%u %u/%u object %u sectors %u+%u: %d\n", client->number,
				model->op_count, op->kind, op->dir, op->name, op->dir2, op->name2, op->object, op->first_sector, op->sectors,
				error);
		model->op_count++;
		if (cut)
			break;
	}
	client->done = true;
}

/* ---- looking ---- */

static uint32_t sector_version(const uint8_t *sector, uint32_t object, uint32_t index)
{
	struct tag first, last;
	memcpy(&first, sector, sizeof(first));
	memcpy(&last, sector + MODEL_SECTOR - sizeof(last), sizeof(last));
	if (!memcmp(&first, &last, sizeof(first)) && first.magic == SECTOR_MAGIC && first.object == object && first.sector == index)
		return first.version;
	for (unsigned i = 0; i < MODEL_SECTOR; i++)
		if (sector[i])
			return UINT32_MAX;
	return 0;
}

static MAY_WAIT int look_at_data(struct client *client, struct fs *fs, uint64_t ino, struct model_found *found, unsigned dir,
	unsigned name)
{
	struct owner_call call = {.buffer = client->buffer, .length = MODEL_SECTORS * MODEL_SECTOR};
	const int error = owner_call(&call, fs, ino, owner_read);
	if (error)
		return error;
	if (call.out != MIN(found->attr[dir][name].size, call.length))
		return -EIO;
	for (uint32_t i = 0; i < call.out / MODEL_SECTOR; i++)
		found->sectors[dir][name][i] = sector_version(client->buffer + i * MODEL_SECTOR, found->names.object[dir][name], i);
	return 0;
}

static MAY_WAIT int look_at_name(struct client *client, struct fs *fs, struct model_found *found, unsigned dir, unsigned name)
{
	char text[32];
	struct owner_call call = {.name = name_make(text, "n", name)};
	int error = owner_call(&call, fs, client->directories[dir], owner_lookup);
	if (error == -ENOENT)
		return 0;
	if (error)
		return error;
	const uint64_t ino = call.entry.ino;
	error = owner_call(&call, fs, ino, owner_getattr);
	if (error)
		return error;
	found->names.object[dir][name] = call.attr.uid;
	found->attr[dir][name].type = call.attr.mode & S_IFMT;
	found->attr[dir][name].mode = call.attr.mode & 07777;
	found->attr[dir][name].nlink = call.attr.nlink;
	found->attr[dir][name].size = call.attr.size;
	call.name = xattr_name;
	call.buffer = client->buffer;
	call.length = 4096;
	error = owner_call(&call, fs, ino, owner_xattr_get);
	if (!error)
		memcpy(&found->attr[dir][name].xattr, client->buffer, 4);
	else if (error != -ENODATA)
		return error;
	error = S_ISREG(call.attr.mode) ? look_at_data(client, fs, ino, found, dir, name) : 0;
	fs_forget(fs, ino, 1);
	return error;
}

int client_look(struct client *client, struct fs *fs, struct model_found *found)
{
	memset(found, 0, sizeof(*found));
	for (unsigned i = 0; i < MODEL_DIRS; i++)
		for (unsigned j = 0; j < MODEL_NAMES; j++) {
			const int error = look_at_name(client, fs, found, i, j);
			if (error)
				return error;
		}
	return 0;
}
