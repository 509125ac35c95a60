/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Operations on names: lookup, making and removing, rename, directories and symlinks. nodeid is the directory
 * (READLINK: the symlink), whose owner runs the operation.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

#include "fs/fuse/front_request.h"

static bool name_is(struct fs_name name, const char *text)
{
	return name.length == strlen(text) && memcmp(name.bytes, text, name.length) == 0;
}

MAY_WAIT int front_op_lookup(struct front_request *request)
{
	struct front_session *session = request->session;
	struct fs_name name = request->call.name[0];
	struct fs_entry entry;
	/* "." and ".." come when a file handle is opened (EXPORT_SUPPORT); "." then may name a file as well. */
	int error = name_is(name, "..") ? fs_parent(session->fs, request->header->nodeid, &entry)
					: fs_lookup(session->fs, request->header->nodeid, name, &entry);
	if (error == -ENOENT) {
		/* A nodeid of zero with a time: the kernel may remember that there is nothing. */
		request->out.entry = (struct fuse_entry_out){.entry_valid = FRONT_VALID_SECONDS};
		request->out_size = sizeof(request->out.entry);
		return 0;
	}
	if (error)
		return error;
	front_answer_entry(request, &entry);
	return 0;
}

/* @umask: of the caller; the kernel has applied it unless DONT_MASK was agreed. */
MAY_WAIT static int create_and_answer(struct front_request *request, const struct fs_create *create, uint32_t umask)
{
	const struct front_session *session = request->session;
	struct fs_cred cred = front_cred(request);
	struct fs_entry entry;
	if (session->negotiated & FUSE_DONT_MASK)
		cred.umask = umask & 0777;
	if (session->kernel_minor >= WIRE_MINOR_SGID_STRIPPED)
		cred.sgid = FS_SGID_KEEP;
	int error = fs_create(request->session->fs, request->header->nodeid, create, &cred, &entry);
	if (error)
		return error;
	front_answer_entry(request, &entry);
	return 0;
}

MAY_WAIT int front_op_mknod(struct front_request *request)
{
	const struct fuse_mknod_in *in = request->call.in;
	return create_and_answer(request, &(struct fs_create){
		.name = request->call.name[0],
		.mode = in->mode & S_IFMT ? in->mode : in->mode | S_IFREG,
		.rdev_major = wire_rdev_major(in->rdev),
		.rdev_minor = wire_rdev_minor(in->rdev),
	}, in->umask);
}

MAY_WAIT int front_op_mkdir(struct front_request *request)
{
	const struct fuse_mkdir_in *in = request->call.in;
	return create_and_answer(request,
		&(struct fs_create){.name = request->call.name[0], .mode = S_IFDIR | (in->mode & 07777)}, in->umask);
}

MAY_WAIT int front_op_symlink(struct front_request *request)
{
	struct fs_name target = request->call.name[1];
	return create_and_answer(request, &(struct fs_create){
		.name = request->call.name[0],
		.mode = S_IFLNK | 0777,
		.target = target.bytes,
		.target_length = target.length,
	}, 0);
}

/* CREATE comes only for a name that the kernel knows not to exist, under the directory's lock. */
MAY_WAIT static int create_and_open(struct front_request *request, struct fs_name name)
{
	const struct fuse_create_in *in = request->call.in;
	const struct fs_create create = {.name = name, .mode = S_IFREG | (in->mode & 07777)};
	int error = create_and_answer(request, &create, in->umask);
	if (error)
		return error;
	request->out.create.open = front_open_answer(request->session, in->flags);
	request->out_size = sizeof(request->out.create);
	return 0;
}

MAY_WAIT int front_op_create(struct front_request *request)
{
	return create_and_open(request, request->call.name[0]);
}

MAY_WAIT int front_op_tmpfile(struct front_request *request)
{
	return create_and_open(request, (struct fs_name){.length = 0});
}

MAY_WAIT int front_op_link(struct front_request *request)
{
	const struct fuse_link_in *in = request->call.in;
	struct fs_entry entry;
	int error = fs_link(
		request->session->fs, request->header->nodeid, request->call.name[0], in->oldnodeid, &entry);
	if (error)
		return error;
	front_answer_entry(request, &entry);
	return 0;
}

MAY_WAIT int front_op_unlink(struct front_request *request)
{
	return fs_unlink(request->session->fs, request->header->nodeid, request->call.name[0]);
}

MAY_WAIT int front_op_rmdir(struct front_request *request)
{
	return fs_rmdir(request->session->fs, request->header->nodeid, request->call.name[0]);
}

MAY_WAIT static int rename_names(struct front_request *request, uint64_t to_parent, uint32_t flags)
{
	if (flags & ~(uint32_t)(RENAME_NOREPLACE | RENAME_EXCHANGE))
		return -EINVAL;
	struct fs_moved moved;
	int error = fs_rename(request->session->fs, request->header->nodeid, request->call.name[0], to_parent,
		request->call.name[1], flags, &moved);
	for (size_t i = 0; i < ARRAY_SIZE(moved.directory); i++)
		if (moved.directory[i])
			front_forget_listing(request, moved.directory[i]);
	return error;
}

MAY_WAIT int front_op_rename(struct front_request *request)
{
	const struct fuse_rename_in *in = request->call.in;
	return rename_names(request, in->newdir, 0);
}

MAY_WAIT int front_op_rename2(struct front_request *request)
{
	const struct fuse_rename2_in *in = request->call.in;
	return rename_names(request, in->newdir, in->flags);
}

MAY_WAIT int front_op_readlink(struct front_request *request)
{
	char *buffer = request->transport->buffer_get(request, FS_SYMLINK_MAX + 1);
	if (!buffer)
		return -ENOMEM;
	unsigned length = 0;
	int error = fs_readlink(request->session->fs, request->header->nodeid, buffer, &length);
	if (error)
		return error;
	request->data = buffer;
	request->data_size = length;
	return 0;
}

/* ---- directories ---- */

struct fill {
	struct front_session *session;
	char *buffer;
	uint32_t size, used;
	bool plus;
};

static void fill_dirent(const struct fs_dirent *from, struct fuse_dirent *to)
{
	to->ino = from->ino;
	to->off = from->cookie;
	to->namelen = from->name.length;
	to->type = from->type;
	memcpy(to->name, from->name.bytes, from->name.length);
}

/* Appends one record, 8-byte aligned with its padding zeroed; false when it does not fit. */
static bool fill_emit(const struct fs_dirent *dirent, void *arg)
{
	struct fill *fill = arg;
	size_t head = fill->plus ? FUSE_NAME_OFFSET_DIRENTPLUS : FUSE_NAME_OFFSET;
	size_t length = head + dirent->name.length;
	size_t record = FUSE_DIRENT_ALIGN(length);
	if (record > fill->size - fill->used)
		return false;

	char *at = fill->buffer + fill->used;
	memset(at + length, 0, record - length);
	if (fill->plus) {
		struct fuse_direntplus *plus = (struct fuse_direntplus *)at;
		/* A nodeid of zero hands out no lookup count and no attributes: "." and "..". */
		if (dirent->entry)
			front_fill_entry(fill->session, dirent->entry, &plus->entry_out);
		else
			memset(&plus->entry_out, 0, sizeof(plus->entry_out));
		fill_dirent(dirent, &plus->dirent);
	} else {
		fill_dirent(dirent, (struct fuse_dirent *)at);
	}
	fill->used += (uint32_t)record;
	return true;
}

MAY_WAIT static int read_directory(struct front_request *request, bool plus)
{
	const struct fuse_read_in *in = request->call.in;
	/* A larger answer is not wrong, but holds the directory and its buffer longer. */
	struct fill fill = {.session = request->session, .size = MIN(in->size, 65536u), .plus = plus};
	fill.buffer = request->transport->buffer_get(request, fill.size);
	if (!fill.buffer)
		return -ENOMEM;
	int error =
		fs_readdir(request->session->fs, request->header->nodeid, in->offset, plus, fill_emit, &fill);
	/* Entries that were filled have their lookup counts: an error after them is met again by the next call. */
	if (error && fill.used == 0)
		return error;
	request->data = fill.buffer;
	request->data_size = fill.used;
	return 0;
}

MAY_WAIT int front_op_readdir(struct front_request *request)
{
	return read_directory(request, false);
}

MAY_WAIT int front_op_readdirplus(struct front_request *request)
{
	return read_directory(request, true);
}
