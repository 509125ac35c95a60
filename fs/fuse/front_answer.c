/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Filling the kernel's structs.
 *
 * Names (negative ones too) and attributes are cached by the kernel without limit: nobody but the kernel's own requests
 * changes this filesystem. Why each change is seen all the same:
 *
 * | change                              | who refreshes what the kernel cached                                       |
 * | create, mkdir, symlink, mknod, link | the answer's entry; the kernel drops the directory's attributes itself     |
 * | unlink, rmdir, rename (and victims) | the kernel: nlink, ctime, both directories, the dentries                   |
 * | rename of a directory: its ".."     | nobody: forget_listing before the answer, or the cached entries keep the   |
 * |   elsewhere                         |   parent of before                                                         |
 * | ctime and nlink through other names | same nodeid, same attributes                                               |
 * | setattr, chown, truncate            | the answer's attributes                                                    |
 * | write, fallocate, copy: size, times | the kernel drops them itself after the answer                              |
 * | read: atime                         | the kernel drops atime itself                                              |
 * | setxattr, removexattr: ctime        | the kernel drops ctime itself                                              |
 * | access ACL: mode; chmod: the ACL    | the kernel drops attributes and ACLs itself                                |
 * | suid/sgid killed by write,          | nobody: the front end tells the kernel (forget_attributes) before          |
 * |   O_TRUNC, fallocate, copy          |   it answers; only once a suid or sgid file was seen                       |
 * | writeback: blocks after a write     | nobody: forget_attributes before the answer                                |
 * | file flags (chattr): ctime          | nobody: forget_attributes before the answer                                |
 * | FS_IOC_SHUTDOWN, device removed     | not undone: what is cached stays readable, the rest answers errors         |
 */
#include <inttypes.h>

#include "fs/fuse/front_request.h"
#include "reactor/blocking.h"
#include "reactor/log.h"

void front_forget_attributes(struct front_request *request, uint64_t ino)
{
	if (fs_ticket_claim(&request->ticket))
		request->transport->forget_attributes(request, ino);
}

struct moved {
	struct front_request *request;
	uint64_t ino;
};

static int forget_listing(void *arg)
{
	const struct moved *moved = arg;
	moved->request->transport->forget_listing(moved->request, moved->ino);
	return 0;
}

/* The kernel takes the locks of the cached pages. Who reads them may hold one while it waits for us, in a fault on a
 * mapped file of ours; where nobody can be reading there is nothing to wait for. */
MAY_WAIT void front_forget_listing(struct front_request *request, uint64_t ino)
{
	struct moved moved = {.request = request, .ino = ino};
	const int error = request->session->kernel_minor >= WIRE_MINOR_MOVED_LOCKED ?
		forget_listing(&moved) : reactor_blocking(forget_listing, &moved);
	if (error)
		log_warn("fuse: directory %" PRIu64 ": the kernel keeps its old \"..\": %s", ino, strerror(-error));
}

struct fs_cred front_cred(const struct front_request *request)
{
	const struct fuse_in_header *header = request->header;
	/* The kernel does not say which capabilities and supplementary groups the caller has; where they matter it says so
	 * by a flag of its own (KILL_SUIDGID). The umask comes with the requests that need one. */
	return (struct fs_cred){
		.uid = header->uid, .gid = header->gid, .pid = header->pid, .privileged = header->uid == 0};
}

void front_fill_attr(struct front_session *session, const struct fs_attr *attr, struct fuse_attr *out)
{
	if (S_ISREG(attr->mode) && (attr->mode & (S_ISUID | S_ISGID)))
		atomic_store_explicit(&session->suid_seen, true, memory_order_relaxed);
	*out = (struct fuse_attr){
		.ino = attr->ino,
		.size = attr->size,
		.blocks = attr->blocks_512,
		.atime = (uint64_t)attr->atime.tv_sec,
		.mtime = (uint64_t)attr->mtime.tv_sec,
		.ctime = (uint64_t)attr->ctime.tv_sec,
		.atimensec = (uint32_t)attr->atime.tv_nsec,
		.mtimensec = (uint32_t)attr->mtime.tv_nsec,
		.ctimensec = (uint32_t)attr->ctime.tv_nsec,
		.mode = attr->mode,
		.nlink = attr->nlink,
		.uid = attr->uid,
		.gid = attr->gid,
		.rdev = wire_rdev_encode(attr->rdev_major, attr->rdev_minor),
		.blksize = 4096,
	};
}

void front_fill_entry(struct front_session *session, const struct fs_entry *entry, struct fuse_entry_out *out)
{
	*out = (struct fuse_entry_out){
		.nodeid = entry->ino,
		.generation = entry->generation,
		.entry_valid = FRONT_VALID_SECONDS,
		.attr_valid = FRONT_VALID_SECONDS,
	};
	front_fill_attr(session, &entry->attr, &out->attr);
}

void front_answer_attr(struct front_request *request, const struct fs_attr *attr)
{
	request->out.attr = (struct fuse_attr_out){.attr_valid = FRONT_VALID_SECONDS};
	front_fill_attr(request->session, attr, &request->out.attr.attr);
	request->out_size = sizeof(request->out.attr);
}

void front_answer_entry(struct front_request *request, const struct fs_entry *entry)
{
	front_fill_entry(request->session, entry, &request->out.entry);
	request->out_size = sizeof(request->out.entry);
	request->granted_ino = entry->ino;
}
