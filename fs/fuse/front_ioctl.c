/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * IOCTL. FUSE mounts are limited to well-formed ioctls: the kernel takes in_size and out_size from the command's own
 * encoding and copies the argument in and out by itself. Permission to change flags (owner, CAP_LINUX_IMMUTABLE) is
 * checked in the kernel before SETFLAGS and FSSETXATTR arrive; of FITRIM and FS_IOC_SHUTDOWN it knows nothing.
 */
#include <errno.h>
#include <linux/fs.h>
#include <sys/ioctl.h>

#include "fs/fuse/front_request.h"

#ifndef FS_IOC_SHUTDOWN
#define FS_IOC_SHUTDOWN _IOR('X', 125, uint32_t)
#endif

static const struct {
	uint32_t flag, xflag;
} flag_pairs[] = {
	{FS_SYNC_FL, FS_XFLAG_SYNC},
	{FS_IMMUTABLE_FL, FS_XFLAG_IMMUTABLE},
	{FS_APPEND_FL, FS_XFLAG_APPEND},
	{FS_NODUMP_FL, FS_XFLAG_NODUMP},
	{FS_NOATIME_FL, FS_XFLAG_NOATIME},
};

static int answer_ioctl(struct front_request *request, uint32_t data_size)
{
	request->out.ioctl.header = (struct fuse_ioctl_out){0};
	request->out_size = sizeof(request->out.ioctl.header) + data_size;
	return 0;
}

MAY_WAIT static int get_flags(struct front_request *request, uint32_t *out)
{
	struct fs_attr attr;
	int error = fs_getattr(request->session->fs, request->header->nodeid, &attr);
	if (error)
		return error;
	*out = attr.flags;
	return 0;
}

MAY_WAIT static int set_flags(struct front_request *request, uint32_t flags)
{
	struct fs_cred cred = front_cred(request);
	struct fs_attr now;
	int error = fs_setattr(request->session->fs, request->header->nodeid, &(struct fs_attr){.flags = flags},
		FS_SET_FLAGS, &cred, &now);
	if (error)
		return error;
	/* ctime moved, and the kernel does not know. */
	front_forget_attributes(request, request->header->nodeid);
	return answer_ioctl(request, 0);
}

MAY_WAIT static int get_xflags(struct front_request *request)
{
	uint32_t flags;
	int error = get_flags(request, &flags);
	if (error)
		return error;
	struct fsxattr attr = {0};
	for (size_t i = 0; i < ARRAY_SIZE(flag_pairs); i++)
		if (flags & flag_pairs[i].flag)
			attr.fsx_xflags |= flag_pairs[i].xflag;
	static_assert(sizeof(attr) == sizeof(request->out.ioctl.data.xattr), "struct fsxattr");
	memcpy(request->out.ioctl.data.xattr, &attr, sizeof(attr));
	return answer_ioctl(request, sizeof(attr));
}

MAY_WAIT static int set_xflags(struct front_request *request)
{
	struct fsxattr attr;
	memcpy(&attr, request->call.data, sizeof(attr));
	if (attr.fsx_projid || attr.fsx_extsize || attr.fsx_cowextsize)
		return -EOPNOTSUPP;
	uint32_t flags;
	int error = get_flags(request, &flags);
	if (error)
		return error;
	uint32_t known = 0;
	for (size_t i = 0; i < ARRAY_SIZE(flag_pairs); i++) {
		known |= flag_pairs[i].xflag;
		flags &= ~flag_pairs[i].flag;
		if (attr.fsx_xflags & flag_pairs[i].xflag)
			flags |= flag_pairs[i].flag;
	}
	if (attr.fsx_xflags & ~known)
		return -EOPNOTSUPP;
	return set_flags(request, flags);
}

MAY_WAIT static int trim(struct front_request *request)
{
	if (request->header->uid != 0)
		return -EPERM;
	struct fstrim_range range;
	memcpy(&range, request->call.data, sizeof(range));
	uint64_t trimmed = 0;
	int error = fs_trim(request->session->fs, range.start, range.len, range.minlen, &trimmed);
	if (error)
		return error;
	range.len = trimmed;
	static_assert(sizeof(range) == sizeof(request->out.ioctl.data.range), "struct fstrim_range");
	memcpy(request->out.ioctl.data.range, &range, sizeof(range));
	return answer_ioctl(request, sizeof(range));
}

/* The argument (how to stop) does not arrive: FS_IOC_SHUTDOWN is encoded as a command that only reads. */
MAY_WAIT static int shut_down(struct front_request *request)
{
	if (request->header->uid != 0)
		return -EPERM;
	int error = fs_shutdown(request->session->fs);
	return error ? error : answer_ioctl(request, 0);
}

MAY_WAIT int front_op_ioctl(struct front_request *request)
{
	const struct fuse_ioctl_in *in = request->call.in;
	uint32_t in_size = request->call.data_size, out_size = in->out_size;
	uint32_t flags;
	int error;
	switch (in->cmd) {
	case FS_IOC_GETFLAGS:
		/* Encoded as a long, but it is an int, and 4 bytes are what the kernel asks for. */
		if (out_size < sizeof(flags))
			return -EINVAL;
		error = get_flags(request, &flags);
		if (error)
			return error;
		request->out.ioctl.data.flags = flags;
		return answer_ioctl(request, sizeof(flags));
	case FS_IOC_SETFLAGS:
		if (in_size < sizeof(flags))
			return -EINVAL;
		memcpy(&flags, request->call.data, sizeof(flags));
		return set_flags(request, flags);
	case FS_IOC_FSGETXATTR:
		return out_size >= sizeof(struct fsxattr) ? get_xflags(request) : -EINVAL;
	case FS_IOC_FSSETXATTR:
		return in_size >= sizeof(struct fsxattr) ? set_xflags(request) : -EINVAL;
	case FITRIM:
		return in_size >= sizeof(struct fstrim_range) && out_size >= sizeof(struct fstrim_range) ? trim(request)
													  : -EINVAL;
	case FS_IOC_SHUTDOWN:
		return shut_down(request);
	default:
		return -ENOTTY;
	}
}
