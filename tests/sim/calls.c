/* SPDX-License-Identifier: BSD-3-Clause */
#include "tests/sim/calls.h"

#include <errno.h>
#include <stdio.h>
#include <sys/mman.h>

/* ---- the machine ---- */

void machine_start(struct machine *machine, unsigned owners, uint64_t size)
{
	machine_start_with(machine, owners, size, NULL);
}

void machine_start_with(struct machine *machine, unsigned owners, uint64_t size, const struct fs_mount_options *mount)
{
	*machine = (struct machine){
		.size = size ? size : MIB(32),
		.owners = owners,
		.cred = {.uid = 1000, .gid = 1000, .umask = 022},
	};
	if (mount)
		machine->mount = *mount;
	machine->memory = mmap(NULL, machine->size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (machine->memory == MAP_FAILED)
		sim_fail("no memory for an image");
	const struct sim_format format = {
		.size = machine->size, .journal_bytes = MIB(1), .ag_bytes = MIB(2), .seed = 7};
	sim_mkfs(machine->memory, &format);
	const struct sim_options options = {.owners = owners,
		.seed = owners,
		.memory = machine->memory,
		.size = machine->size,
		.asynchronous = true,
		.error = true};
	sim_create(&machine->sim, &options);
	if (sim_mount(&machine->sim, &machine->mount))
		sim_fail("mount: %s", machine->sim.message);
}

static void unmount_and_check(struct machine *machine)
{
	const int error = sim_unmount(&machine->sim);
	if (machine->damaged)
		return;
	if (error)
		sim_fail("unmount: %d", error);
	if (sim_fsck(machine->memory, machine->size, false, "after unmount"))
		sim_fail("fsck finds damage");
}

void machine_remount(struct machine *machine)
{
	unmount_and_check(machine);
	if (sim_mount(&machine->sim, &machine->mount))
		sim_fail("mount: %s", machine->sim.message);
}

void machine_stop(struct machine *machine)
{
	unmount_and_check(machine);
	sim_destroy(&machine->sim);
	munmap(machine->memory, machine->size);
}

static MAY_WAIT int sleep_here(void *arg)
{
	fiber_sleep(*(uint64_t *)arg);
	return 0;
}

void call_sleep(struct machine *machine, uint64_t delay_ns)
{
	sim_on(&machine->sim, FS_ROOT_INODE, sleep_here, &delay_ns);
}

void machine_settle(struct machine *machine)
{
	struct fs_status status;
	for (unsigned i = 0; i < 100; i++) {
		call_sleep(machine, NS_PER_SEC);
		fs_get_status(machine->sim.fs, &status);
		if (!status.orphans)
			return;
	}
	sim_fail("unlinked inodes are not freed");
}

/* ---- the calls ---- */

enum which {
	LOOKUP,
	PARENT,
	FORGET,
	CREATE,
	LINK,
	UNLINK,
	RMDIR,
	RENAME,
	READDIR,
	GETATTR,
	SETATTR,
	READLINK,
	OPEN,
	READ,
	WRITE,
	FALLOCATE,
	SEEK,
	FSYNC,
	SYNC,
	COPY,
	SETXATTR,
	GETXATTR,
	LISTXATTR,
	REMOVEXATTR,
	STATFS,
};

struct call {
	struct machine *machine;
	enum which which;
	uint64_t ino, ino2, offset, offset2, length, count;
	const char *name, *name2;
	const struct fs_create *create;
	const struct fs_attr *attr;
	struct fs_attr *out_attr;
	struct fs_entry *out_entry;
	struct fs_statfs *out_statfs;
	void *buffer, *arg;
	fs_emit_fn emit;
	uint32_t flags, *out_length;
	uint64_t *out;
	int mode;
	bool yes;
};

static struct fs_name name_of(const char *text)
{
	return (struct fs_name){.bytes = text, .length = text ? (unsigned)strlen(text) : 0};
}

static MAY_WAIT int run_names(struct call *call)
{
	struct fs *fs = call->machine->sim.fs;
	switch (call->which) {
	case LOOKUP:
		return fs_lookup(fs, call->ino, name_of(call->name), call->out_entry);
	case PARENT:
		return fs_parent(fs, call->ino, call->out_entry);
	case FORGET:
		fs_forget(fs, call->ino, call->count);
		return 0;
	case CREATE:
		return fs_create(fs, call->ino, call->create, &call->machine->cred, call->out_entry);
	case LINK:
		return fs_link(fs, call->ino, name_of(call->name), call->ino2, call->out_entry);
	case UNLINK:
		return fs_unlink(fs, call->ino, name_of(call->name));
	case RMDIR:
		return fs_rmdir(fs, call->ino, name_of(call->name));
	case RENAME:
		return fs_rename(fs, call->ino, name_of(call->name), call->ino2, name_of(call->name2), call->flags,
			&call->machine->moved);
	case READDIR:
		return fs_readdir(fs, call->ino, call->offset, call->yes, call->emit, call->arg);
	default:
		return -ENOSYS;
	}
}

static MAY_WAIT int run(void *arg)
{
	struct call *call = arg;
	struct fs *fs = call->machine->sim.fs;
	const struct fs_cred *cred = &call->machine->cred;
	switch (call->which) {
	case GETATTR:
		return fs_getattr(fs, call->ino, call->out_attr);
	case SETATTR:
		return fs_setattr(fs, call->ino, call->attr, call->flags, cred, call->out_attr);
	case READLINK:
		return fs_readlink(fs, call->ino, call->buffer, call->out_length);
	case OPEN:
		return fs_open(fs, call->ino, call->mode, cred);
	case READ:
		return fs_read(fs, call->ino, call->buffer, call->offset, (uint32_t)call->length, call->out_length);
	case WRITE:
		return fs_write(fs, call->ino, call->buffer, call->offset, (uint32_t)call->length, call->flags, cred,
			call->out_length);
	case FALLOCATE:
		return fs_fallocate(fs, call->ino, call->mode, call->offset, call->length, cred);
	case SEEK:
		return fs_seek(fs, call->ino, call->mode, call->offset, call->out);
	case FSYNC:
		return fs_fsync(fs, call->ino, call->yes);
	case SYNC:
		return fs_sync(fs);
	case COPY:
		return fs_copy_range(
			fs, call->ino, call->offset, call->ino2, call->offset2, call->length, cred, call->out);
	case SETXATTR:
		return fs_xattr_set(fs, call->ino, name_of(call->name), call->buffer, (uint32_t)call->length, 0, cred);
	case GETXATTR:
		return fs_xattr_get(
			fs, call->ino, name_of(call->name), call->buffer, (uint32_t)call->length, call->out_length);
	case LISTXATTR:
		return fs_xattr_list(fs, call->ino, cred, call->buffer, (uint32_t)call->length, call->out_length);
	case REMOVEXATTR:
		return fs_xattr_remove(fs, call->ino, name_of(call->name));
	case STATFS:
		return fs_statfs(fs, call->out_statfs);
	default:
		return run_names(call);
	}
}

static int go(struct machine *machine, struct call *call)
{
	call->machine = machine;
	return sim_on(&machine->sim, call->ino, run, call);
}

int call_lookup(struct machine *machine, uint64_t parent, const char *name, struct fs_entry *out)
{
	return go(machine, &(struct call){.which = LOOKUP, .ino = parent, .name = name, .out_entry = out});
}

int call_parent(struct machine *machine, uint64_t directory, struct fs_entry *out)
{
	return go(machine, &(struct call){.which = PARENT, .ino = directory, .out_entry = out});
}

void call_forget(struct machine *machine, uint64_t ino, uint64_t count)
{
	struct call call = {.machine = machine, .which = FORGET, .ino = ino, .count = count};
	/* From a reactor that does not own it, where there is one. */
	struct reactor *reactor = reactor_group_get(machine->sim.group, machine->owners - 1);
	reactor_group_run(reactor, run, &call);
}

int call_make(struct machine *machine, uint64_t parent, const struct fs_create *create, struct fs_entry *out)
{
	return go(machine, &(struct call){.which = CREATE, .ino = parent, .create = create, .out_entry = out});
}

int call_create(struct machine *machine, uint64_t parent, const char *name, uint32_t mode, struct fs_entry *out)
{
	const struct fs_create create = {.name = name_of(name), .mode = mode};
	return call_make(machine, parent, &create, out);
}

int call_symlink(struct machine *machine, uint64_t parent, const char *name, const char *target, struct fs_entry *out)
{
	const struct fs_create create = {.name = name_of(name), .mode = S_IFLNK | 0777, .target = target,
		.target_length = (unsigned)strlen(target)};
	return call_make(machine, parent, &create, out);
}

int call_link(struct machine *machine, uint64_t parent, const char *name, uint64_t ino, struct fs_entry *out)
{
	return go(machine, &(struct call){.which = LINK, .ino = parent, .name = name, .ino2 = ino, .out_entry = out});
}

int call_unlink(struct machine *machine, uint64_t parent, const char *name)
{
	return go(machine, &(struct call){.which = UNLINK, .ino = parent, .name = name});
}

int call_rmdir(struct machine *machine, uint64_t parent, const char *name)
{
	return go(machine, &(struct call){.which = RMDIR, .ino = parent, .name = name});
}

int call_rename(
	struct machine *machine, uint64_t from, const char *from_name, uint64_t to, const char *to_name, unsigned flags)
{
	return go(machine, &(struct call){.which = RENAME, .ino = from, .name = from_name, .ino2 = to, .name2 = to_name,
		.flags = flags});
}

int call_readdir(struct machine *machine, uint64_t directory, uint64_t cookie, bool plus, fs_emit_fn emit, void *arg)
{
	return go(machine,
		&(struct call){
			.which = READDIR, .ino = directory, .offset = cookie, .yes = plus, .emit = emit, .arg = arg});
}

int call_getattr(struct machine *machine, uint64_t ino, struct fs_attr *out)
{
	return go(machine, &(struct call){.which = GETATTR, .ino = ino, .out_attr = out});
}

int call_setattr(struct machine *machine, uint64_t ino, const struct fs_attr *attr, uint32_t mask, struct fs_attr *out)
{
	return go(machine, &(struct call){.which = SETATTR, .ino = ino, .attr = attr, .flags = mask, .out_attr = out});
}

int call_truncate(struct machine *machine, uint64_t ino, uint64_t size)
{
	const struct fs_attr attr = {.size = size};
	struct fs_attr out;
	return call_setattr(machine, ino, &attr, FS_SET_SIZE, &out);
}

int call_readlink(struct machine *machine, uint64_t ino, char *buffer, unsigned *out_length)
{
	return go(machine, &(struct call){.which = READLINK, .ino = ino, .buffer = buffer, .out_length = out_length});
}

int call_open(struct machine *machine, uint64_t ino, int flags)
{
	return go(machine, &(struct call){.which = OPEN, .ino = ino, .mode = flags});
}

int call_read(
	struct machine *machine, uint64_t ino, void *buffer, uint64_t offset, uint32_t length, uint32_t *out_length)
{
	return go(machine,
		&(struct call){.which = READ,
			.ino = ino,
			.buffer = buffer,
			.offset = offset,
			.length = length,
			.out_length = out_length});
}

int call_write_flags(struct machine *machine, uint64_t ino, const void *buffer, uint64_t offset, uint32_t length,
	uint32_t flags, uint32_t *out_length)
{
	return go(machine,
		&(struct call){.which = WRITE,
			.ino = ino,
			.buffer = (void *)(uintptr_t)buffer,
			.offset = offset,
			.length = length,
			.flags = flags,
			.out_length = out_length});
}

/* The whole length, or an error (-EIO for a short write). */
int call_write(struct machine *machine, uint64_t ino, const void *buffer, uint64_t offset, uint32_t length)
{
	uint32_t written;
	const int error = call_write_flags(machine, ino, buffer, offset, length, 0, &written);
	return error ? error : written == length ? 0 : -EIO;
}

int call_fallocate(struct machine *machine, uint64_t ino, int mode, uint64_t offset, uint64_t length)
{
	return go(machine,
		&(struct call){.which = FALLOCATE, .ino = ino, .mode = mode, .offset = offset, .length = length});
}

int call_seek(struct machine *machine, uint64_t ino, int whence, uint64_t offset, uint64_t *out)
{
	return go(machine, &(struct call){.which = SEEK, .ino = ino, .mode = whence, .offset = offset, .out = out});
}

int call_fsync(struct machine *machine, uint64_t ino, bool datasync)
{
	return go(machine, &(struct call){.which = FSYNC, .ino = ino, .yes = datasync});
}

int call_sync(struct machine *machine) { return go(machine, &(struct call){.which = SYNC, .ino = FS_ROOT_INODE}); }

int call_copy(struct machine *machine, uint64_t in, uint64_t in_offset, uint64_t out, uint64_t out_offset,
	uint64_t length, uint64_t *out_copied)
{
	return go(machine,
		&(struct call){.which = COPY,
			.ino = in,
			.offset = in_offset,
			.ino2 = out,
			.offset2 = out_offset,
			.length = length,
			.out = out_copied});
}

int call_setxattr(struct machine *machine, uint64_t ino, const char *name, const void *value, uint32_t length)
{
	return go(machine,
		&(struct call){.which = SETXATTR,
			.ino = ino,
			.name = name,
			.buffer = (void *)(uintptr_t)value,
			.length = length});
}

int call_removexattr(struct machine *machine, uint64_t ino, const char *name)
{
	return go(machine, &(struct call){.which = REMOVEXATTR, .ino = ino, .name = name});
}

int call_getxattr(
	struct machine *machine, uint64_t ino, const char *name, void *value, uint32_t size, uint32_t *out_length)
{
	return go(machine, &(struct call){.which = GETXATTR, .ino = ino, .name = name, .buffer = value, .length = size,
		.out_length = out_length});
}

int call_listxattr(struct machine *machine, uint64_t ino, char *buffer, uint32_t size, uint32_t *out_length)
{
	return go(machine,
		&(struct call){.which = LISTXATTR, .ino = ino, .buffer = buffer, .length = size, .out_length = out_length});
}

struct fs_statfs call_statfs(struct machine *machine)
{
	struct fs_statfs statfs;
	if (go(machine, &(struct call){.which = STATFS, .ino = FS_ROOT_INODE, .out_statfs = &statfs}))
		sim_fail("statfs");
	return statfs;
}
