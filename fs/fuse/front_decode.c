/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The decoder. One table says what each opcode's message looks like; the code below knows no opcode, except for the
 * few whose fixed struct claims a size of what follows.
 */
#include "fs/fuse/front_decode.h"

#include <errno.h>

struct front_shape {
	const char *name;
	uint16_t fixed_size;  /* bytes of the fixed struct */
	uint8_t name_count;   /* strings after it */
	uint8_t entry_count;  /* how many of them, from the first, name a directory entry */
	bool data;            /* everything after the strings is data; otherwise nothing may follow */
};

#define SHAPE(opcode, type, ...) [FUSE_##opcode] = {#opcode, sizeof(struct fuse_##type), __VA_ARGS__}
#define SHAPE_BARE(opcode, ...) [FUSE_##opcode] = {#opcode, 0, __VA_ARGS__}

static const struct front_shape shapes[WIRE_OPCODE_COUNT] = {
	SHAPE_BARE(LOOKUP, 1, 1, false),
	SHAPE(FORGET, forget_in, 0, 0, false),
	SHAPE(GETATTR, getattr_in, 0, 0, false),
	SHAPE(SETATTR, setattr_in, 0, 0, false),
	SHAPE_BARE(READLINK, 0, 0, false),
	SHAPE_BARE(SYMLINK, 2, 1, false),
	SHAPE(MKNOD, mknod_in, 1, 1, false),
	SHAPE(MKDIR, mkdir_in, 1, 1, false),
	SHAPE_BARE(UNLINK, 1, 1, false),
	SHAPE_BARE(RMDIR, 1, 1, false),
	SHAPE(RENAME, rename_in, 2, 2, false),
	SHAPE(LINK, link_in, 1, 1, false),
	SHAPE(OPEN, open_in, 0, 0, false),
	SHAPE(READ, read_in, 0, 0, false),
	SHAPE(WRITE, write_in, 0, 0, true),
	SHAPE_BARE(STATFS, 0, 0, false),
	SHAPE(RELEASE, release_in, 0, 0, false),
	SHAPE(FSYNC, fsync_in, 0, 0, false),
	SHAPE(SETXATTR, setxattr_in, 1, 0, true),
	SHAPE(GETXATTR, getxattr_in, 1, 0, false),
	SHAPE(LISTXATTR, getxattr_in, 0, 0, false),
	SHAPE_BARE(REMOVEXATTR, 1, 0, false),
	SHAPE(FLUSH, flush_in, 0, 0, false),
	SHAPE(INIT, init_in, 0, 0, false),
	SHAPE(OPENDIR, open_in, 0, 0, false),
	SHAPE(READDIR, read_in, 0, 0, false),
	SHAPE(RELEASEDIR, release_in, 0, 0, false),
	SHAPE(FSYNCDIR, fsync_in, 0, 0, false),
	SHAPE(ACCESS, access_in, 0, 0, false),
	SHAPE(CREATE, create_in, 1, 1, false),
	SHAPE(INTERRUPT, interrupt_in, 0, 0, false),
	SHAPE(BMAP, bmap_in, 0, 0, false),
	SHAPE_BARE(DESTROY, 0, 0, false),
	SHAPE(IOCTL, ioctl_in, 0, 0, true),
	SHAPE(POLL, poll_in, 0, 0, false),
	SHAPE(BATCH_FORGET, batch_forget_in, 0, 0, true),
	SHAPE(FALLOCATE, fallocate_in, 0, 0, false),
	SHAPE(READDIRPLUS, read_in, 0, 0, false),
	SHAPE(RENAME2, rename2_in, 2, 2, false),
	SHAPE(LSEEK, lseek_in, 0, 0, false),
	SHAPE(COPY_FILE_RANGE, copy_file_range_in, 0, 0, false),
	SHAPE(SYNCFS, syncfs_in, 0, 0, false),
	SHAPE(TMPFILE, create_in, 1, 0, false), /* the name is a placeholder */
	[WIRE_STATX] = {"STATX", sizeof(struct wire_statx_in), 0, 0, false},
	[WIRE_COPY_FILE_RANGE_64] = {"COPY_FILE_RANGE_64", sizeof(struct fuse_copy_file_range_in), 0, 0, false},
};

static const struct front_shape *shape_of(uint32_t opcode)
{
	return opcode < WIRE_OPCODE_COUNT && shapes[opcode].name ? &shapes[opcode] : NULL;
}

const char *front_opcode_name(uint32_t opcode)
{
	const struct front_shape *shape = shape_of(opcode);
	return shape ? shape->name : NULL;
}

static uint32_t fixed_size_of(uint32_t opcode, uint32_t body_size, struct front_dialect dialect)
{
	if (opcode == FUSE_SETXATTR && !dialect.setxattr_ext)
		return FUSE_COMPAT_SETXATTR_IN_SIZE;
	if (opcode == FUSE_INIT && body_size < sizeof(struct fuse_init_in))
		return WIRE_INIT_IN_BYTES_MIN;
	return shapes[opcode].fixed_size;
}

int front_message_split(const void *bytes, size_t length, struct front_dialect dialect, struct front_message *out)
{
	const struct fuse_in_header *header = bytes;
	if (length < sizeof(*header) || header->len != length)
		return -EINVAL;
	*out = (struct front_message){.header = header};
	if (!shape_of(header->opcode))
		return -ENOSYS;

	/* Extensions (security context, supplementary group) stand at the end. They are not negotiated; skip them. */
	uint64_t extension_bytes = (uint64_t)header->total_extlen * 8;
	if (extension_bytes > length - sizeof(*header))
		return -EINVAL;
	uint32_t body_size = (uint32_t)(length - sizeof(*header) - extension_bytes);
	uint32_t fixed_size = fixed_size_of(header->opcode, body_size, dialect);
	if (body_size < fixed_size)
		return -EINVAL;
	const char *body = (const char *)bytes + sizeof(*header);
	out->fixed = body;
	out->fixed_size = fixed_size;
	out->tail = body + fixed_size;
	out->tail_size = body_size - fixed_size;
	return 0;
}

/* Takes one string off the front of the tail. */
static int take_name(struct front_message *message, bool entry, struct fs_name *out)
{
	const char *end = message->tail_size ? memchr(message->tail, 0, message->tail_size) : NULL;
	if (!end)
		return -EINVAL;
	*out = (struct fs_name){message->tail, (unsigned)(end - message->tail)};
	if (entry && (out->length == 0 || memchr(out->bytes, '/', out->length)))
		return -EINVAL;
	message->tail += out->length + 1;
	message->tail_size -= out->length + 1;
	return 0;
}

/* True when the size that the fixed struct claims is the size of the data that came. */
static bool data_size_agrees(uint32_t opcode, const void *in, uint32_t data_size)
{
	switch (opcode) {
	case FUSE_WRITE:
		return ((const struct fuse_write_in *)in)->size == data_size;
	case FUSE_SETXATTR:
		return ((const struct fuse_setxattr_in *)in)->size == data_size; /* first in both sizes */
	case FUSE_IOCTL:
		return ((const struct fuse_ioctl_in *)in)->in_size == data_size;
	case FUSE_BATCH_FORGET:
		return (uint64_t)((const struct fuse_batch_forget_in *)in)->count * sizeof(struct fuse_forget_one) ==
			data_size;
	default:
		return true;
	}
}

int front_decode(const struct front_message *message, struct front_dialect dialect, struct front_call *out)
{
	uint32_t opcode = message->header->opcode;
	const struct front_shape *shape = shape_of(opcode);
	if (!shape)
		return -ENOSYS;
	uint32_t fixed_size = fixed_size_of(opcode, message->fixed_size, dialect);
	if (message->fixed_size < fixed_size)
		return -EINVAL;

	*out = (struct front_call){.in = fixed_size ? message->fixed : NULL};
	struct front_message rest = *message;
	for (unsigned i = 0; i < shape->name_count; i++) {
		int error = take_name(&rest, i < shape->entry_count, &out->name[i]);
		if (error)
			return error;
	}
	if (!shape->data)
		return rest.tail_size == 0 ? 0 : -EINVAL;
	if (!data_size_agrees(opcode, out->in, rest.tail_size))
		return -EINVAL;
	out->data = rest.tail;
	out->data_size = rest.tail_size;
	return 0;
}
