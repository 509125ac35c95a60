/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The operations of fs.h as plain functions of a test: each runs as a fiber on the owner that fs.h asks for, and the
 * simulation is stepped until it has returned. And a machine with a formatted, mounted filesystem that is checked by
 * fsck at its end.
 */
#ifndef LANEFS_TESTS_SIM_CALLS_H
#define LANEFS_TESTS_SIM_CALLS_H

#include "tests/sim/sim.h"

struct machine {
	struct sim sim;
	uint8_t *memory;
	uint64_t size;
	unsigned owners;
	struct fs_mount_options mount;
	struct fs_cred cred;
	struct fs_moved moved;          /* what the last rename says */
	bool error_device;
	bool damaged;                   /* the test expects no clean end: no fsck */
};
/* @size 0: 32 MiB in AGs of 2 MiB, 1 MiB journal. */
void machine_start(struct machine *machine, unsigned owners, uint64_t size);
void machine_start_with(struct machine *machine, unsigned owners, uint64_t size, const struct fs_mount_options *mount);
/* Unmounts and mounts again, with fsck in between. */
void machine_remount(struct machine *machine);
/* Unmounts, checks, frees. */
void machine_stop(struct machine *machine);
/* Waits (in virtual time) until nothing unlinked is left to be freed. */
void machine_settle(struct machine *machine);

/* Lets virtual time pass. */
void call_sleep(struct machine *machine, uint64_t delay_ns);

int call_lookup(struct machine *machine, uint64_t parent, const char *name, struct fs_entry *out);
int call_parent(struct machine *machine, uint64_t directory, struct fs_entry *out);
void call_forget(struct machine *machine, uint64_t ino, uint64_t count);
int call_make(struct machine *machine, uint64_t parent, const struct fs_create *create, struct fs_entry *out);
int call_create(struct machine *machine, uint64_t parent, const char *name, uint32_t mode, struct fs_entry *out);
int call_symlink(struct machine *machine, uint64_t parent, const char *name, const char *target, struct fs_entry *out);
int call_link(struct machine *machine, uint64_t parent, const char *name, uint64_t ino, struct fs_entry *out);
int call_unlink(struct machine *machine, uint64_t parent, const char *name);
int call_rmdir(struct machine *machine, uint64_t parent, const char *name);
int call_rename(struct machine *machine, uint64_t from, const char *from_name, uint64_t to, const char *to_name,
	unsigned flags);
int call_readdir(struct machine *machine, uint64_t directory, uint64_t cookie, bool plus, fs_emit_fn emit, void *arg);
int call_getattr(struct machine *machine, uint64_t ino, struct fs_attr *out);
int call_setattr(struct machine *machine, uint64_t ino, const struct fs_attr *attr, uint32_t mask, struct fs_attr *out);
int call_truncate(struct machine *machine, uint64_t ino, uint64_t size);
int call_readlink(struct machine *machine, uint64_t ino, char *buffer, unsigned *out_length);
int call_open(struct machine *machine, uint64_t ino, int flags);
int call_read(
	struct machine *machine, uint64_t ino, void *buffer, uint64_t offset, uint32_t length, uint32_t *out_length);
int call_write_flags(struct machine *machine, uint64_t ino, const void *buffer, uint64_t offset, uint32_t length,
	uint32_t flags, uint32_t *out_length);
int call_write(struct machine *machine, uint64_t ino, const void *buffer, uint64_t offset, uint32_t length);
int call_fallocate(struct machine *machine, uint64_t ino, int mode, uint64_t offset, uint64_t length);
int call_seek(struct machine *machine, uint64_t ino, int whence, uint64_t offset, uint64_t *out);
int call_fsync(struct machine *machine, uint64_t ino, bool datasync);
int call_sync(struct machine *machine);
int call_copy(struct machine *machine, uint64_t in, uint64_t in_offset, uint64_t out, uint64_t out_offset,
	uint64_t length, uint64_t *out_copied);
int call_setxattr(struct machine *machine, uint64_t ino, const char *name, const void *value, uint32_t length);
int call_removexattr(struct machine *machine, uint64_t ino, const char *name);
int call_getxattr(
	struct machine *machine, uint64_t ino, const char *name, void *value, uint32_t size, uint32_t *out_length);
int call_listxattr(struct machine *machine, uint64_t ino, char *buffer, uint32_t size, uint32_t *out_length);
struct fs_statfs call_statfs(struct machine *machine);

#endif
