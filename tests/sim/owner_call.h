/* SPDX-License-Identifier: BSD-3-Clause */
/* Operations of fs.h on the owner of their inode, from a fiber of any reactor: fill in what the operation takes, then
 * owner_call(&call, fs, ino, owner_unlink). */
#ifndef LANEFS_TESTS_SIM_OWNER_CALL_H
#define LANEFS_TESTS_SIM_OWNER_CALL_H

#include "fs/fs.h"

struct owner_call {
	uint64_t ino2, offset, offset2, length;
	struct fs_name name, name2;
	struct fs_create create;
	struct fs_cred cred;
	void *buffer;
	uint32_t flags;
	/* ---- results ---- */
	union {                         /* no operation has both; attr: what owner_setattr takes, too */
		struct fs_entry entry;
		struct fs_attr attr;
	};
	uint32_t out;                   /* bytes */
	uint64_t out64;
	/* ---- by owner_call ---- */
	struct fs *fs;
	uint64_t ino;
	int (*fn)(struct owner_call *call);
};

MAY_WAIT int owner_call(struct owner_call *call, struct fs *fs, uint64_t ino, int (*fn)(struct owner_call *call));

MAY_WAIT int owner_lookup(struct owner_call *call);
MAY_WAIT int owner_create(struct owner_call *call);
MAY_WAIT int owner_unlink(struct owner_call *call);
MAY_WAIT int owner_rmdir(struct owner_call *call);
MAY_WAIT int owner_rename(struct owner_call *call);
MAY_WAIT int owner_link(struct owner_call *call);
MAY_WAIT int owner_getattr(struct owner_call *call);
MAY_WAIT int owner_setattr(struct owner_call *call);
MAY_WAIT int owner_read(struct owner_call *call);
MAY_WAIT int owner_write(struct owner_call *call);
MAY_WAIT int owner_fallocate(struct owner_call *call);
MAY_WAIT int owner_seek(struct owner_call *call);         /* SEEK_DATA */
MAY_WAIT int owner_fsync(struct owner_call *call);        /* flags: datasync */
MAY_WAIT int owner_copy(struct owner_call *call);
MAY_WAIT int owner_xattr_set(struct owner_call *call);
MAY_WAIT int owner_xattr_get(struct owner_call *call);
MAY_WAIT int owner_xattr_remove(struct owner_call *call);

#endif
