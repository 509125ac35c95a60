/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Operations on file data. Handles are stateless: everything goes by nodeid, and `fh` only says how the file was opened.
 *
 * A payload is never copied here: WRITE's data lies page-aligned in the buffer that the kernel filled, READ's answer is
 * sent out of the buffer that the device filled.
 *
 * suid and sgid. With HANDLE_KILLPRIV_V2 the kernel leaves it to us to drop these bits on write, O_TRUNC, fallocate and
 * copy, but goes on believing the mode that it has cached: an execve right after a write would still honour suid. So
 * before such a change the mode is looked at, and if it has the bits, the kernel is told to forget the inode's
 * attributes before the answer. That costs a getattr per write, hence only once a file with such bits was seen at all.
 */
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "fs/fuse/front_request.h"

/* fuse_open_out.fh; CACHED is also what comes where the kernel opens by itself. */
enum { HANDLE_CACHED, HANDLE_DIRECT };

/* FOPEN_KEEP_CACHE: nobody else changes the file. FOPEN_NOFLUSH: close need not wait for mapped pages. An O_DIRECT file
 * gets FOPEN_DIRECT_IO, because only then do its writes run in parallel (and O_SYNC shows in them alone); older kernels
 * than 6.6, which offer no DIRECT_IO_ALLOW_MMAP, would leave other openers of the file with stale pages and no shared
 * mapping: there O_DIRECT goes the ordinary way, one write at a time. */
uint32_t front_open_flags(const struct front_session *session, uint32_t flags)
{
	uint32_t answer = FOPEN_KEEP_CACHE | FOPEN_NOFLUSH;
	if ((flags & O_DIRECT) && (session->negotiated & WIRE_DIRECT_IO_ALLOW_MMAP))
		answer |= FOPEN_DIRECT_IO | FOPEN_PARALLEL_DIRECT_WRITES;
	return answer;
}

struct fuse_open_out front_open_answer(const struct front_session *session, uint32_t flags)
{
	const uint32_t answer = front_open_flags(session, flags);
	return (struct fuse_open_out){.fh = answer & FOPEN_DIRECT_IO ? HANDLE_DIRECT : HANDLE_CACHED, .open_flags = answer};
}

/* True when a change that kills suid and sgid will find some on @ino. */
MAY_WAIT static bool privilege_bits_at_stake(struct front_request *request, uint64_t ino)
{
	struct front_session *session = request->session;
	if (!atomic_load_explicit(&session->suid_seen, memory_order_relaxed))
		return false;
	struct fs_attr attr;
	/* Another owner's inode (the target of a copy): do not visit it, assume the worst. */
	if (fs_owner(session->fs, ino) != reactor_self() || fs_getattr(session->fs, ino, &attr))
		return true;
	return attr.mode & (S_ISUID | S_ISGID);
}

MAY_WAIT int front_op_open(struct front_request *request)
{
	const struct fuse_open_in *in = request->call.in;
	struct front_session *session = request->session;
	if (session->noopen)
		return -ENOSYS;
	uint64_t ino = request->header->nodeid;
	struct fs_cred cred = front_cred(request);
	bool kill = (in->flags & O_TRUNC) && (in->open_flags & FUSE_OPEN_KILL_SUIDGID);
	if (kill) {
		bool stale = privilege_bits_at_stake(request, ino);
		struct fs_attr unused;
		int error = fs_setattr(session->fs, ino, &(struct fs_attr){0}, FS_SET_KILL_SUIDGID, &cred, &unused);
		if (error)
			return error;
		if (stale)
			front_forget_attributes(request, ino);
	}
	int error = fs_open(session->fs, ino, (int)in->flags, &cred);
	if (error)
		return error;
	request->out.open = front_open_answer(session, in->flags);
	request->out_size = sizeof(request->out.open);
	return 0;
}

MAY_WAIT int front_op_read(struct front_request *request)
{
	const struct fuse_read_in *in = request->call.in;
	if (in->size > WIRE_WRITE_BYTES_MAX || in->offset > (uint64_t)INT64_MAX - in->size)
		return -EINVAL;
	void *buffer = request->transport->buffer_get(request, in->size);
	if (!buffer)
		return -ENOMEM;
	uint32_t length = 0;
	struct fs *fs = request->session->fs;
	uint64_t ino = request->header->nodeid;
	int error = in->flags & O_NOATIME ? fs_read_quietly(fs, ino, buffer, in->offset, in->size, &length)
					  : fs_read(fs, ino, buffer, in->offset, in->size, &length);
	if (error)
		return error;
	assert(length <= in->size);
	request->data = buffer;
	request->data_size = length;
	return 0;
}

/* After a write to its cache the kernel sends FSYNC by itself when O_SYNC or O_DSYNC want it; one flush is enough. It
 * sends none after a write past the cache. Kernels that do not offer DIRECT_IO_ALLOW_MMAP are not trusted to. */
static bool fsync_follows(const struct front_session *session, const struct fuse_write_in *in)
{
	return in->fh != HANDLE_DIRECT && session->offered & WIRE_DIRECT_IO_ALLOW_MMAP;
}

static uint32_t write_flags(const struct front_session *session, const struct fuse_write_in *in)
{
	uint32_t flags = 0;
	/* O_SYNC contains O_DSYNC's bit. */
	if (in->flags & O_DSYNC && !fsync_follows(session, in))
		flags |= (in->flags & O_SYNC) == O_SYNC ? FS_WRITE_SYNC : FS_WRITE_DSYNC;
	/* Without writeback it comes from a shared mapping, and the kernel expects us to note when. */
	if (in->write_flags & FUSE_WRITE_CACHE)
		flags |= FS_WRITE_CACHE | (session->negotiated & FUSE_WRITEBACK_CACHE ? FS_WRITE_NO_TIMES : 0);
	if (in->write_flags & FUSE_WRITE_KILL_SUIDGID)
		flags |= FS_WRITE_KILL_SUIDGID;
	return flags;
}

/* Under writeback the kernel asks for no attributes after its writes, but the blocks that it has cached grow with them. */
MAY_WAIT static uint64_t blocks_of(struct front_request *request, uint64_t ino)
{
	struct fs_attr attr;
	return fs_getattr(request->session->fs, ino, &attr) ? 0 : attr.blocks_512;
}

MAY_WAIT int front_op_write(struct front_request *request)
{
	const struct fuse_write_in *in = request->call.in;
	struct fs *fs = request->session->fs;
	uint64_t ino = request->header->nodeid;
	if (in->size > WIRE_WRITE_BYTES_MAX || in->offset > (uint64_t)INT64_MAX - in->size)
		return -EINVAL;
	/* O_APPEND: the kernel holds the file's lock and has put the offset at the end already. */
	struct fs_cred cred = front_cred(request);
	uint32_t flags = write_flags(request->session, in);
	bool stale = (flags & FS_WRITE_KILL_SUIDGID) && privilege_bits_at_stake(request, ino);
	const bool behind = flags & FS_WRITE_NO_TIMES;
	const uint64_t blocks = behind ? blocks_of(request, ino) : 0;
	uint32_t length = 0;
	int error = fs_write(fs, ino, request->call.data, in->offset, in->size, flags, &cred, &length);
	if (behind && blocks_of(request, ino) != blocks)
		stale = true;
	if (stale)
		front_forget_attributes(request, ino);
	if (error)
		return error;
	assert(length <= in->size);
	request->out.write = (struct fuse_write_out){.size = length};
	request->out_size = sizeof(request->out.write);
	return 0;
}

MAY_WAIT int front_op_fallocate(struct front_request *request)
{
	const struct fuse_fallocate_in *in = request->call.in;
	uint64_t ino = request->header->nodeid;
	if (in->offset > INT64_MAX || in->length > (uint64_t)INT64_MAX - in->offset)
		return -EFBIG;
	struct fs_cred cred = front_cred(request);
	bool stale = privilege_bits_at_stake(request, ino);
	int error = fs_fallocate(request->session->fs, ino, (int)in->mode, in->offset, in->length, &cred);
	if (stale)
		front_forget_attributes(request, ino);
	return error;
}

MAY_WAIT int front_op_lseek(struct front_request *request)
{
	const struct fuse_lseek_in *in = request->call.in;
	/* What the kernel holds back, even a file's size, would be a hole here. With this answer all is data to it. */
	if (request->session->negotiated & FUSE_WRITEBACK_CACHE)
		return -ENOSYS;
	if (in->whence != SEEK_DATA && in->whence != SEEK_HOLE)
		return -EINVAL;
	uint64_t offset = 0;
	int error =
		fs_seek(request->session->fs, request->header->nodeid, (int)in->whence, in->offset, &offset);
	if (error)
		return error;
	request->out.lseek = (struct fuse_lseek_out){.offset = offset};
	request->out_size = sizeof(request->out.lseek);
	return 0;
}

MAY_WAIT static int copy_range(struct front_request *request, uint64_t length, uint64_t *copied)
{
	const struct fuse_copy_file_range_in *in = request->call.in;
	if (in->flags)
		return -EINVAL;
	if (in->off_in > INT64_MAX || length > (uint64_t)INT64_MAX - in->off_in || in->off_out > INT64_MAX ||
		length > (uint64_t)INT64_MAX - in->off_out)
		return -EFBIG;
	struct fs_cred cred = front_cred(request);
	bool stale = privilege_bits_at_stake(request, in->nodeid_out);
	int error = fs_copy_range(request->session->fs, request->header->nodeid, in->off_in, in->nodeid_out,
		in->off_out, length, &cred, copied);
	if (stale)
		front_forget_attributes(request, in->nodeid_out);
	return error;
}

MAY_WAIT int front_op_copy_file_range(struct front_request *request)
{
	const struct fuse_copy_file_range_in *in = request->call.in;
	uint64_t copied = 0;
	/* The answer has 32 bits: at most what one read(2) may do. */
	int error = copy_range(request, MIN(in->len, 0x7ffff000ull), &copied);
	if (error)
		return error;
	request->out.write = (struct fuse_write_out){.size = (uint32_t)copied};
	request->out_size = sizeof(request->out.write);
	return 0;
}

MAY_WAIT int front_op_copy_file_range_64(struct front_request *request)
{
	const struct fuse_copy_file_range_in *in = request->call.in;
	uint64_t copied = 0;
	int error = copy_range(request, in->len, &copied);
	if (error)
		return error;
	request->out.copy = (struct wire_copy_file_range_out){.bytes_copied = copied};
	request->out_size = sizeof(request->out.copy);
	return 0;
}

/* FSYNC and FSYNCDIR. */
MAY_WAIT int front_op_fsync(struct front_request *request)
{
	const struct fuse_fsync_in *in = request->call.in;
	return fs_fsync(
		request->session->fs, request->header->nodeid, in->fsync_flags & FUSE_FSYNC_FDATASYNC);
}

MAY_WAIT int front_op_syncfs(struct front_request *request)
{
	return fs_sync(request->session->fs);
}
