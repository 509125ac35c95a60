/* SPDX-License-Identifier: BSD-3-Clause */
#include "tests/sim/owner_call.h"

#include <unistd.h>

static MAY_WAIT int call_run(void *arg)
{
	struct owner_call *call = arg;
	return call->fn(call);
}

MAY_WAIT int owner_call(struct owner_call *call, struct fs *fs, uint64_t ino, int (*fn)(struct owner_call *call))
{
	call->fs = fs;
	call->fn = fn;
	call->ino = ino;
	return reactor_call(fs_owner(fs, ino), call_run, call);
}

int owner_lookup(struct owner_call *c) { return fs_lookup(c->fs, c->ino, c->name, &c->entry); }
int owner_create(struct owner_call *c) { return fs_create(c->fs, c->ino, &c->create, &c->cred, &c->entry); }
int owner_unlink(struct owner_call *c) { return fs_unlink(c->fs, c->ino, c->name); }
int owner_rmdir(struct owner_call *c) { return fs_rmdir(c->fs, c->ino, c->name); }
int owner_rename(struct owner_call *c) { return fs_rename(c->fs, c->ino, c->name, c->ino2, c->name2, c->flags, NULL); }
int owner_link(struct owner_call *c) { return fs_link(c->fs, c->ino, c->name, c->ino2, &c->entry); }
int owner_getattr(struct owner_call *c) { return fs_getattr(c->fs, c->ino, &c->attr); }
int owner_setattr(struct owner_call *c) { return fs_setattr(c->fs, c->ino, &c->attr, c->flags, &c->cred, &c->attr); }
int owner_read(struct owner_call *c)
{
	return fs_read(c->fs, c->ino, c->buffer, c->offset, (uint32_t)c->length, &c->out);
}
int owner_write(struct owner_call *c)
{
	return fs_write(c->fs, c->ino, c->buffer, c->offset, (uint32_t)c->length, c->flags, &c->cred, &c->out);
}
int owner_fallocate(struct owner_call *c)
{
	return fs_fallocate(c->fs, c->ino, (int)c->flags, c->offset, c->length, &c->cred);
}
int owner_seek(struct owner_call *c) { return fs_seek(c->fs, c->ino, SEEK_DATA, c->offset, &c->out64); }
int owner_fsync(struct owner_call *c) { return fs_fsync(c->fs, c->ino, c->flags); }
int owner_copy(struct owner_call *c)
{
	return fs_copy_range(c->fs, c->ino, c->offset, c->ino2, c->offset2, c->length, &c->cred, &c->out64);
}
int owner_xattr_set(struct owner_call *c)
{
	return fs_xattr_set(c->fs, c->ino, c->name, c->buffer, (uint32_t)c->length, 0, &c->cred);
}
int owner_xattr_get(struct owner_call *c)
{
	return fs_xattr_get(c->fs, c->ino, c->name, c->buffer, (uint32_t)c->length, &c->out);
}
int owner_xattr_remove(struct owner_call *c) { return fs_xattr_remove(c->fs, c->ino, c->name); }
