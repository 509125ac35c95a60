/* SPDX-License-Identifier: BSD-3-Clause */
/* Operations on attributes, extended attributes and the filesystem's totals. */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>

#include "fs/fuse/front_request.h"

MAY_WAIT int front_op_getattr(struct front_request *request)
{
	struct fs_attr attr;
	int error = fs_getattr(request->session->fs, request->header->nodeid, &attr);
	if (error)
		return error;
	front_answer_attr(request, &attr);
	return 0;
}

/* chown(path, -1, -1) names nothing to be changed, but takes suid and sgid away as every chown does. Nothing else sends this. */
static uint32_t setattr_mask(const struct front_session *session, uint32_t valid)
{
	const uint32_t named = FATTR_MODE | FATTR_UID | FATTR_GID | FATTR_SIZE | FATTR_ATIME | FATTR_MTIME;
	static const struct {
		uint32_t wire, fs;
	} bits[] = {
		{FATTR_MODE, FS_SET_MODE}, {FATTR_UID, FS_SET_UID}, {FATTR_GID, FS_SET_GID}, {FATTR_SIZE, FS_SET_SIZE},
		{FATTR_CTIME, FS_SET_CTIME}, {FATTR_KILL_SUIDGID, FS_SET_KILL_SUIDGID},
	};
	uint32_t mask = valid & named ? 0 : FS_SET_KILL_SUIDGID;
	for (size_t i = 0; i < ARRAY_SIZE(bits); i++)
		if (valid & bits[i].wire)
			mask |= bits[i].fs;
	if (valid & FATTR_ATIME)
		mask |= valid & FATTR_ATIME_NOW ? FS_SET_ATIME_NOW : FS_SET_ATIME;
	if (valid & FATTR_MTIME)
		mask |= valid & FATTR_MTIME_NOW ? FS_SET_MTIME_NOW : FS_SET_MTIME;
	/* Under writeback this may be the time of the last write(2), or a "now" that the kernel looked up by itself. */
	if ((mask & FS_SET_MTIME) && (session->negotiated & FUSE_WRITEBACK_CACHE))
		mask |= FS_SET_WRITTEN;
	return mask;
}

MAY_WAIT int front_op_setattr(struct front_request *request)
{
	const struct fuse_setattr_in *in = request->call.in;
	if (((in->valid & FATTR_SIZE) && in->size > INT64_MAX) || in->atimensec >= NS_PER_SEC ||
		in->mtimensec >= NS_PER_SEC || in->ctimensec >= NS_PER_SEC)
		return -EINVAL;
	const struct fs_attr wanted = {
		.size = in->size,
		.atime = {(int64_t)in->atime, in->atimensec},
		.mtime = {(int64_t)in->mtime, in->mtimensec},
		.ctime = {(int64_t)in->ctime, in->ctimensec},
		.mode = in->mode & 07777,
		.uid = in->uid,
		.gid = in->gid,
	};
	struct fs_cred cred = front_cred(request);
	struct fs_attr now;
	uint32_t mask = setattr_mask(request->session, in->valid);
	if (in->valid & FATTR_SIZE && request->session->negotiated & FUSE_WRITEBACK_CACHE)
		mask |= FS_SET_KEEP_TIMES;
	int error = fs_setattr(request->session->fs, request->header->nodeid, &wanted, mask, &cred, &now);
	if (error)
		return error;
	front_answer_attr(request, &now);
	return 0;
}

static struct wire_statx_time statx_time(struct timespec time)
{
	return (struct wire_statx_time){.seconds = time.tv_sec, .nanoseconds = (uint32_t)time.tv_nsec};
}

/* Comes instead of GETATTR when the birth time is asked for. */
MAY_WAIT int front_op_statx(struct front_request *request)
{
	struct fs_attr attr;
	int error = fs_getattr(request->session->fs, request->header->nodeid, &attr);
	if (error)
		return error;
	struct wire_statx_out *out = &request->out.statx;
	*out = (struct wire_statx_out){.attr_valid = FRONT_VALID_SECONDS};
	out->stat = (struct wire_statx){
		.mask = STATX_BASIC_STATS | STATX_BTIME,
		.blksize = 4096,
		.attributes = attr.flags & (FS_IMMUTABLE_FL | FS_APPEND_FL | FS_NODUMP_FL), /* as STATX_ATTR_* */
		.attributes_mask = FS_IMMUTABLE_FL | FS_APPEND_FL | FS_NODUMP_FL,
		.nlink = attr.nlink,
		.uid = attr.uid,
		.gid = attr.gid,
		.mode = (uint16_t)attr.mode,
		.ino = attr.ino,
		.size = attr.size,
		.blocks = attr.blocks_512,
		.atime = statx_time(attr.atime),
		.btime = statx_time(attr.btime),
		.ctime = statx_time(attr.ctime),
		.mtime = statx_time(attr.mtime),
		.rdev_major = attr.rdev_major,
		.rdev_minor = attr.rdev_minor,
	};
	if (S_ISREG(attr.mode) && (attr.mode & (S_ISUID | S_ISGID)))
		atomic_store_explicit(&request->session->suid_seen, true, memory_order_relaxed);
	request->out_size = sizeof(*out);
	return 0;
}

MAY_WAIT int front_op_statfs(struct front_request *request)
{
	struct fs_statfs totals;
	int error = fs_statfs(request->session->fs, &totals);
	if (error)
		return error;
	request->out.statfs = (struct fuse_statfs_out){
		.st = {
			.blocks = totals.blocks,
			.bfree = totals.free_blocks,
			.bavail = totals.available_blocks,
			.files = totals.files,
			.ffree = totals.free_files,
			.bsize = 4096,
			.frsize = 4096,
			.namelen = FS_NAME_MAX,
		},
	};
	request->out_size = sizeof(request->out.statfs);
	return 0;
}

/* ---- extended attributes ---- */

MAY_WAIT int front_op_setxattr(struct front_request *request)
{
	const struct fuse_setxattr_in *in = request->call.in; /* its first 8 bytes are always there */
	struct fs_cred cred = front_cred(request);
	if (request->session->dialect.setxattr_ext)
		cred.sgid = in->setxattr_flags & FUSE_SETXATTR_ACL_KILL_SGID ? FS_SGID_DROP : FS_SGID_KEEP;
	return fs_xattr_set(request->session->fs, request->header->nodeid, request->call.name[0], request->call.data,
		request->call.data_size, (int)in->flags, &cred);
}

MAY_WAIT int front_op_removexattr(struct front_request *request)
{
	return fs_xattr_remove(request->session->fs, request->header->nodeid, request->call.name[0]);
}

static void answer_length(struct front_request *request, uint32_t length)
{
	request->out.getxattr = (struct fuse_getxattr_out){.size = length};
	request->out_size = sizeof(request->out.getxattr);
}

/* GETXATTR and LISTXATTR answer with the bytes, or with their length when the caller has room for none. */
MAY_WAIT static int read_xattr(struct front_request *request, bool list)
{
	const struct fuse_getxattr_in *in = request->call.in;
	uint32_t size = MIN(in->size, 65536u);
	char *buffer = NULL;
	if (size > 0) {
		buffer = request->transport->buffer_get(request, size);
		if (!buffer)
			return -ENOMEM;
	}
	struct fs *fs = request->session->fs;
	uint64_t ino = request->header->nodeid;
	uint32_t length = 0;
	const struct fs_cred cred = front_cred(request);
	int error = list ? fs_xattr_list(fs, ino, &cred, buffer, size, &length)
			 : fs_xattr_get(fs, ino, request->call.name[0], buffer, size, &length);
	if (error)
		return error;
	if (size == 0) {
		answer_length(request, length);
		return 0;
	}
	if (length > size)
		return -ERANGE;
	request->data = buffer;
	request->data_size = length;
	return 0;
}

MAY_WAIT int front_op_getxattr(struct front_request *request)
{
	return read_xattr(request, false);
}

MAY_WAIT int front_op_listxattr(struct front_request *request)
{
	return read_xattr(request, true);
}
