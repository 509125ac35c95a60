/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A FUSE filesystem that hands a directory through, as fast as libfuse 3 lets it: the peer that bench/compare measures
 * the front end against. It never maps, journals or checks anything, so what it costs is what FUSE costs its users.
 *
 *   passthrough SOURCE MOUNTPOINT [-w]      in the foreground; -w: the kernel's writeback cache
 *
 * What makes it fast: the low-level API; a multi-threaded loop with a clone of the fd for each thread; entries,
 * negative ones too, attributes, directories and pages cached by the kernel without limit; readdirplus; neither FLUSH
 * nor OPENDIR nor extended attributes, which the kernel stops asking for after one ENOSYS; payloads copied once, since
 * splicing is slower. O_DIRECT reaches the source's files, through an aligned buffer of the thread.
 *
 * An inode is an O_PATH descriptor, found by (device, number), and lives as long as the kernel knows its nodeid. Files
 * beyond half of the descriptors that the system allows are known by their handle instead, and opened for the moment.
 * One mutex guards the table.
 */
#define FUSE_USE_VERSION 312
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum { BUCKETS = 1 << 18, TRANSFER_MAX = 1 << 20, PROC_PATH_BYTES = 64 };
#define VALID_SECONDS 86400.0

struct node {
	struct node *next;        /* in its bucket */
	dev_t device;
	ino_t number;
	int fd;                   /* O_PATH; -1: there is a handle */
	struct file_handle *handle;
	uint64_t lookups;         /* that the kernel counts */
};

static struct {
	struct node root;
	struct node **buckets;
	pthread_mutex_t lock;
	rlim_t kept, kept_max;    /* descriptors of inodes */
	int mount_fd;             /* what handles are opened with */
	bool writeback;
} pass = {.lock = PTHREAD_MUTEX_INITIALIZER};

static __thread char *transfer_buffer; /* of TRANSFER_MAX, aligned; lives as long as its thread's process */

static struct node *node_of(fuse_ino_t ino) { return ino == FUSE_ROOT_ID ? &pass.root : (struct node *)ino; }
static int fd_of(fuse_ino_t ino) { return node_of(ino)->fd; }

/* An O_PATH descriptor of any inode, which unreach gives back; -1 with errno. Directories: fd_of will do. */
static int reach(fuse_ino_t ino)
{
	const struct node *node = node_of(ino);
	return node->fd >= 0 ? node->fd : open_by_handle_at(pass.mount_fd, node->handle, O_PATH | O_CLOEXEC);
}

static void unreach(fuse_ino_t ino, int fd)
{
	const int error = errno;
	if (fd >= 0 && fd != node_of(ino)->fd)
		close(fd);
	errno = error;
}

static void proc_path(char path[PROC_PATH_BYTES], int fd) { snprintf(path, PROC_PATH_BYTES, "/proc/self/fd/%d", fd); }

static char *transfer_memory(void)
{
	return transfer_buffer ? transfer_buffer : (transfer_buffer = aligned_alloc(4096, TRANSFER_MAX));
}

/* 0 or the errno of a call that answers -1. */
static int failed(int answer) { return answer < 0 ? errno : 0; }

/* ---- inodes ---- */

static struct node **bucket_of(dev_t device, ino_t number)
{
	return &pass.buckets[(number * 0x9e3779b97f4a7c15ull ^ device) >> 20 & (BUCKETS - 1)];
}

/* NULL: none to be had. */
static struct file_handle *handle_of(int fd)
{
	int mount_id;
	struct file_handle *handle = calloc(1, sizeof(*handle) + MAX_HANDLE_SZ);
	if (!handle)
		return NULL;
	handle->handle_bytes = MAX_HANDLE_SZ;
	if (name_to_handle_at(fd, "", handle, &mount_id, AT_EMPTY_PATH) == 0)
		return handle;
	free(handle);
	return NULL;
}

/* Takes @fd over, by keeping it or by its handle. */
static struct node *node_make(int fd, const struct stat *status)
{
	struct node *node = calloc(1, sizeof(*node));
	if (!node)
		return NULL;
	if (pass.kept >= pass.kept_max && !S_ISDIR(status->st_mode))
		node->handle = handle_of(fd);
	node->device = status->st_dev;
	node->number = status->st_ino;
	node->fd = node->handle ? -1 : fd;
	pass.kept += !node->handle;
	if (node->handle)
		close(fd);
	return node;
}

/* Takes @fd over. Counts a lookup. NULL: no memory. */
static struct node *node_get(int fd, const struct stat *status)
{
	struct node **bucket = bucket_of(status->st_dev, status->st_ino);
	pthread_mutex_lock(&pass.lock);
	struct node *node = *bucket;
	while (node && (node->number != status->st_ino || node->device != status->st_dev))
		node = node->next;
	bool known = node;
	if (!known && (node = node_make(fd, status))) {
		node->next = *bucket;
		*bucket = node;
	}
	if (node)
		node->lookups++;
	pthread_mutex_unlock(&pass.lock);
	if (known || !node)
		close(fd);
	return node;
}

static void node_forget(fuse_ino_t ino, uint64_t count)
{
	struct node *node = node_of(ino);
	if (node == &pass.root)
		return;
	pthread_mutex_lock(&pass.lock);
	node->lookups -= count;
	bool last = node->lookups == 0;
	if (last) {
		struct node **at = bucket_of(node->device, node->number);
		while (*at != node)
			at = &(*at)->next;
		*at = node->next;
		pass.kept -= !node->handle;
	}
	pthread_mutex_unlock(&pass.lock);
	if (last) {
		if (!node->handle)
			close(node->fd);
		free(node->handle);
		free(node);
	}
}

static int lookup(int parent, const char *name, struct fuse_entry_param *entry)
{
	*entry = (struct fuse_entry_param){.attr_timeout = VALID_SECONDS, .entry_timeout = VALID_SECONDS};
	int fd = openat(parent, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return errno;
	if (fstatat(fd, "", &entry->attr, AT_EMPTY_PATH) < 0) {
		int error = errno;
		close(fd);
		return error;
	}
	struct node *node = node_get(fd, &entry->attr);
	if (!node)
		return ENOMEM;
	entry->ino = (fuse_ino_t)node;
	return 0;
}

static void reply_entry(fuse_req_t request, fuse_ino_t parent, const char *name, int error)
{
	struct fuse_entry_param entry;
	if (!error)
		error = lookup(fd_of(parent), name, &entry);
	if (error)
		fuse_reply_err(request, error);
	else if (fuse_reply_entry(request, &entry) == -ENOENT)
		node_forget(entry.ino, 1);
}

static void pass_lookup(fuse_req_t request, fuse_ino_t parent, const char *name)
{
	struct fuse_entry_param entry;
	int error = lookup(fd_of(parent), name, &entry);
	if (error && error != ENOENT)
		fuse_reply_err(request, error);
	else /* an inode of zero: the kernel may remember that there is nothing */
		fuse_reply_entry(request, &entry);
}

static void pass_forget(fuse_req_t request, fuse_ino_t ino, uint64_t count)
{
	node_forget(ino, count);
	fuse_reply_none(request);
}

static void pass_forget_multi(fuse_req_t request, size_t count, struct fuse_forget_data *forgets)
{
	for (size_t i = 0; i < count; i++)
		node_forget(forgets[i].ino, forgets[i].nlookup);
	fuse_reply_none(request);
}

/* ---- attributes ---- */

static void pass_getattr(fuse_req_t request, fuse_ino_t ino, struct fuse_file_info *file)
{
	struct stat status;
	int fd = reach(ino);
	int error = fd < 0 ? errno : failed(fstatat(fd, "", &status, AT_EMPTY_PATH));
	unreach(ino, fd);
	if (error)
		fuse_reply_err(request, error);
	else
		fuse_reply_attr(request, &status, VALID_SECONDS);
}

static int set_times(const char *path, const struct stat *wanted, int which)
{
	struct timespec times[2] = {wanted->st_atim, wanted->st_mtim};
	if (!(which & FUSE_SET_ATTR_ATIME))
		times[0].tv_nsec = UTIME_OMIT;
	else if (which & FUSE_SET_ATTR_ATIME_NOW)
		times[0].tv_nsec = UTIME_NOW;
	if (!(which & FUSE_SET_ATTR_MTIME))
		times[1].tv_nsec = UTIME_OMIT;
	else if (which & FUSE_SET_ATTR_MTIME_NOW)
		times[1].tv_nsec = UTIME_NOW;
	return failed(utimensat(AT_FDCWD, path, times, 0));
}

static void pass_setattr(fuse_req_t request, fuse_ino_t ino, struct stat *wanted, int which,
	struct fuse_file_info *file)
{
	char path[PROC_PATH_BYTES];
	int fd = reach(ino), error = failed(fd);
	proc_path(path, fd);
	if (!error && which & FUSE_SET_ATTR_MODE)
		error = failed(chmod(path, wanted->st_mode));
	if (!error && which & (FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID))
		error = failed(fchownat(fd, "", which & FUSE_SET_ATTR_UID ? wanted->st_uid : (uid_t)-1,
			which & FUSE_SET_ATTR_GID ? wanted->st_gid : (gid_t)-1, AT_EMPTY_PATH));
	if (!error && which & FUSE_SET_ATTR_SIZE)
		error = failed(file ? ftruncate((int)file->fh, wanted->st_size) : truncate(path, wanted->st_size));
	if (!error && which & (FUSE_SET_ATTR_ATIME | FUSE_SET_ATTR_MTIME))
		error = set_times(path, wanted, which);
	unreach(ino, fd);
	if (error)
		fuse_reply_err(request, error);
	else
		pass_getattr(request, ino, file);
}

static void pass_statfs(fuse_req_t request, fuse_ino_t ino)
{
	struct statvfs totals;
	if (fstatvfs(pass.root.fd, &totals) < 0)
		fuse_reply_err(request, errno);
	else
		fuse_reply_statfs(request, &totals);
}

/* ---- names ---- */

static void pass_mknod(fuse_req_t request, fuse_ino_t parent, const char *name, mode_t mode, dev_t device)
{
	reply_entry(request, parent, name, failed(mknodat(fd_of(parent), name, mode, device)));
}

static void pass_mkdir(fuse_req_t request, fuse_ino_t parent, const char *name, mode_t mode)
{
	reply_entry(request, parent, name, failed(mkdirat(fd_of(parent), name, mode)));
}

static void pass_symlink(fuse_req_t request, const char *target, fuse_ino_t parent, const char *name)
{
	reply_entry(request, parent, name, failed(symlinkat(target, fd_of(parent), name)));
}

static void pass_link(fuse_req_t request, fuse_ino_t ino, fuse_ino_t parent, const char *name)
{
	char path[PROC_PATH_BYTES];
	int fd = reach(ino), error = failed(fd);
	proc_path(path, fd);
	if (!error)
		error = failed(linkat(AT_FDCWD, path, fd_of(parent), name, AT_SYMLINK_FOLLOW));
	unreach(ino, fd);
	reply_entry(request, parent, name, error);
}

static void pass_unlink(fuse_req_t request, fuse_ino_t parent, const char *name)
{
	fuse_reply_err(request, failed(unlinkat(fd_of(parent), name, 0)));
}

static void pass_rmdir(fuse_req_t request, fuse_ino_t parent, const char *name)
{
	fuse_reply_err(request, failed(unlinkat(fd_of(parent), name, AT_REMOVEDIR)));
}

static void pass_rename(fuse_req_t request, fuse_ino_t parent, const char *name, fuse_ino_t to_parent,
	const char *to_name, unsigned flags)
{
	fuse_reply_err(request, failed(renameat2(fd_of(parent), name, fd_of(to_parent), to_name, flags)));
}

static void pass_readlink(fuse_req_t request, fuse_ino_t ino)
{
	char target[4097];
	int fd = reach(ino);
	ssize_t length = fd < 0 ? -1 : readlinkat(fd, "", target, sizeof(target) - 1);
	unreach(ino, fd);
	if (length < 0) {
		fuse_reply_err(request, errno);
		return;
	}
	target[length] = '\0';
	fuse_reply_readlink(request, target);
}

/* ---- directories ---- */

static void pass_opendir(fuse_req_t request, fuse_ino_t ino, struct fuse_file_info *file)
{
	int fd = openat(fd_of(ino), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *directory = fd < 0 ? NULL : fdopendir(fd);
	if (!directory) {
		fuse_reply_err(request, errno);
		if (fd >= 0)
			close(fd);
		return;
	}
	file->fh = (uint64_t)(uintptr_t)directory;
	file->keep_cache = file->cache_readdir = 1;
	fuse_reply_open(request, file);
}

static void pass_releasedir(fuse_req_t request, fuse_ino_t ino, struct fuse_file_info *file)
{
	closedir((DIR *)(uintptr_t)file->fh);
	fuse_reply_err(request, 0);
}

/* Where the next entry goes. */
struct fill {
	fuse_req_t request;
	int parent;
	bool plus;
	char *buffer;
	size_t used, size;
};

/* 0, -1: no room, or an errno. */
static int add_entry(struct fill *fill, const struct dirent *from)
{
	struct fuse_entry_param entry = {.attr = {.st_ino = from->d_ino, .st_mode = (mode_t)from->d_type << 12}};
	const bool looked_up = fill->plus && strcmp(from->d_name, ".") != 0 && strcmp(from->d_name, "..") != 0;
	const size_t room = fill->size - fill->used;
	char *at = fill->buffer + fill->used;
	int error = looked_up ? lookup(fill->parent, from->d_name, &entry) : 0;
	if (error)
		return error == ENOENT ? 0 : error; /* removed meanwhile */
	const size_t length = fill->plus
		? fuse_add_direntry_plus(fill->request, at, room, from->d_name, &entry, from->d_off)
		: fuse_add_direntry(fill->request, at, room, from->d_name, &entry.attr, from->d_off);
	if (length > room) {
		if (looked_up)
			node_forget(entry.ino, 1);
		return -1;
	}
	fill->used += length;
	return 0;
}

static void read_directory(fuse_req_t request, fuse_ino_t ino, size_t size, off_t offset, DIR *directory, bool plus)
{
	struct fill fill = {.request = request, .parent = fd_of(ino), .plus = plus, .buffer = transfer_memory(),
		.size = size < TRANSFER_MAX ? size : TRANSFER_MAX};
	int error = fill.buffer ? 0 : ENOMEM;
	if (!error && telldir(directory) != offset)
		seekdir(directory, offset);
	while (!error) {
		errno = 0;
		long before = telldir(directory);
		const struct dirent *from = readdir(directory);
		if (!from) {
			error = errno;
			break;
		}
		error = add_entry(&fill, from);
		if (error)
			seekdir(directory, before);
	}
	if (error > 0 && fill.used == 0)
		fuse_reply_err(request, error);
	else
		fuse_reply_buf(request, fill.buffer, fill.used);
}

static void pass_readdir(fuse_req_t request, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *file)
{
	read_directory(request, ino, size, offset, (DIR *)(uintptr_t)file->fh, false);
}

/* What the kernel prefers for the first entries of a directory, and for those whose attributes were asked for. */
static void pass_readdirplus(fuse_req_t request, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *file)
{
	read_directory(request, ino, size, offset, (DIR *)(uintptr_t)file->fh, true);
}

/* ---- data ---- */

/* With the writeback cache the kernel also reads what was opened for writing, and appends by itself. */
static int open_flags(int flags)
{
	if (pass.writeback && (flags & O_ACCMODE) == O_WRONLY)
		flags = (flags & ~O_ACCMODE) | O_RDWR;
	if (pass.writeback)
		flags &= ~O_APPEND;
	return (flags & ~O_NOFOLLOW) | O_CLOEXEC;
}

static void opened(struct fuse_file_info *file, int fd)
{
	file->fh = (uint64_t)fd;
	file->keep_cache = file->noflush = 1;
	file->direct_io = (file->flags & O_DIRECT) != 0;
}

static void pass_create(fuse_req_t request, fuse_ino_t parent, const char *name, mode_t mode,
	struct fuse_file_info *file)
{
	struct fuse_entry_param entry;
	int fd = openat(fd_of(parent), name, open_flags(file->flags) | O_CREAT, mode);
	int error = fd < 0 ? errno : lookup(fd_of(parent), name, &entry);
	if (error) {
		if (fd >= 0)
			close(fd);
		fuse_reply_err(request, error);
		return;
	}
	opened(file, fd);
	if (fuse_reply_create(request, &entry, file) == -ENOENT)
		close(fd);
}

static void pass_open(fuse_req_t request, fuse_ino_t ino, struct fuse_file_info *file)
{
	const struct node *node = node_of(ino);
	char path[PROC_PATH_BYTES];
	proc_path(path, node->fd);
	int fd = node->handle ? open_by_handle_at(pass.mount_fd, node->handle, open_flags(file->flags))
			      : open(path, open_flags(file->flags));
	if (fd < 0) {
		fuse_reply_err(request, errno);
		return;
	}
	opened(file, fd);
	if (fuse_reply_open(request, file) == -ENOENT)
		close(fd);
}

static void pass_release(fuse_req_t request, fuse_ino_t ino, struct fuse_file_info *file)
{
	close((int)file->fh);
	fuse_reply_err(request, 0);
}

static void pass_read(fuse_req_t request, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *file)
{
	char *buffer = transfer_memory();
	ssize_t length = buffer ? pread((int)file->fh, buffer, size < TRANSFER_MAX ? size : TRANSFER_MAX, offset) : -1;
	if (length < 0)
		fuse_reply_err(request, buffer ? errno : ENOMEM);
	else
		fuse_reply_buf(request, buffer, (size_t)length);
}

static void pass_write(fuse_req_t request, fuse_ino_t ino, const char *bytes, size_t size, off_t offset,
	struct fuse_file_info *file)
{
	if (file->flags & O_DIRECT && size <= TRANSFER_MAX && transfer_memory())
		bytes = memcpy(transfer_memory(), bytes, size);
	ssize_t length = pwrite((int)file->fh, bytes, size, offset);
	if (length < 0)
		fuse_reply_err(request, errno);
	else
		fuse_reply_write(request, (size_t)length);
}

static void pass_fsync(fuse_req_t request, fuse_ino_t ino, int data_only, struct fuse_file_info *file)
{
	fuse_reply_err(request, failed(data_only ? fdatasync((int)file->fh) : fsync((int)file->fh)));
}

static void pass_fsyncdir(fuse_req_t request, fuse_ino_t ino, int data_only, struct fuse_file_info *file)
{
	fuse_reply_err(request, failed(fsync(dirfd((DIR *)(uintptr_t)file->fh))));
}

static void pass_fallocate(fuse_req_t request, fuse_ino_t ino, int mode, off_t offset, off_t length,
	struct fuse_file_info *file)
{
	fuse_reply_err(request, failed(fallocate((int)file->fh, mode, offset, length)));
}

static void pass_init(void *data, struct fuse_conn_info *connection)
{
	connection->want &= ~(unsigned)(FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_MOVE |
		FUSE_CAP_AUTO_INVAL_DATA);
	connection->want |= connection->capable & (FUSE_CAP_EXPLICIT_INVAL_DATA | FUSE_CAP_HANDLE_KILLPRIV |
		FUSE_CAP_READDIRPLUS | FUSE_CAP_READDIRPLUS_AUTO | FUSE_CAP_PARALLEL_DIROPS | FUSE_CAP_CACHE_SYMLINKS);
	if (pass.writeback)
		connection->want |= connection->capable & FUSE_CAP_WRITEBACK_CACHE;
	connection->max_background = 64;
}

static const struct fuse_lowlevel_ops pass_ops = {
	.init = pass_init,
	.lookup = pass_lookup, .forget = pass_forget, .forget_multi = pass_forget_multi,
	.getattr = pass_getattr, .setattr = pass_setattr, .statfs = pass_statfs,
	.mknod = pass_mknod, .mkdir = pass_mkdir, .symlink = pass_symlink, .link = pass_link, .unlink = pass_unlink,
	.rmdir = pass_rmdir, .rename = pass_rename, .readlink = pass_readlink,
	.opendir = pass_opendir, .releasedir = pass_releasedir, .readdir = pass_readdir, .readdirplus = pass_readdirplus,
	.fsyncdir = pass_fsyncdir,
	.create = pass_create, .open = pass_open, .release = pass_release, .read = pass_read, .write = pass_write,
	.fsync = pass_fsync, .fallocate = pass_fallocate,
};

/* ---- the process ---- */

/* An inode that the kernel knows costs a descriptor. */
static void raise_limit(void)
{
	struct rlimit limit = {1 << 20, 1 << 20};
	if (setrlimit(RLIMIT_NOFILE, &limit) < 0 && getrlimit(RLIMIT_NOFILE, &limit) == 0) {
		limit.rlim_cur = limit.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &limit);
	}
	pass.kept_max = limit.rlim_cur / 2;
}

static int serve(struct fuse_session *session, const char *mountpoint)
{
	struct fuse_loop_config *config = fuse_loop_cfg_create();
	fuse_loop_cfg_set_clone_fd(config, 1);
	int error = fuse_set_signal_handlers(session);
	if (!error)
		error = fuse_session_mount(session, mountpoint);
	if (!error) {
		error = fuse_session_loop_mt(session, config);
		fuse_session_unmount(session);
	}
	fuse_remove_signal_handlers(session);
	fuse_loop_cfg_destroy(config);
	return error;
}

int main(int argc, char **argv)
{
	pass.writeback = argc == 4 && strcmp(argv[3], "-w") == 0;
	if (argc != 3 && !pass.writeback) {
		fprintf(stderr, "usage: passthrough SOURCE MOUNTPOINT [-w]\n");
		return 2;
	}
	umask(0);
	raise_limit();
	pass.buckets = calloc(BUCKETS, sizeof(*pass.buckets));
	pass.root.fd = open(argv[1], O_PATH | O_DIRECTORY | O_CLOEXEC);
	pass.mount_fd = open(argv[1], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (!pass.buckets || pass.root.fd < 0 || pass.mount_fd < 0) {
		fprintf(stderr, "passthrough: cannot open %s: %s\n", argv[1], strerror(errno));
		return 1;
	}
	char *options[] = {argv[0], "-o", "allow_other,default_permissions,fsname=passthrough,subtype=passthrough", NULL};
	struct fuse_args arguments = FUSE_ARGS_INIT(3, options);
	struct fuse_session *session = fuse_session_new(&arguments, &pass_ops, sizeof(pass_ops), NULL);
	int error = session ? serve(session, argv[2]) : 1;
	if (session)
		fuse_session_destroy(session);
	fuse_opt_free_args(&arguments);
	close(pass.root.fd);
	close(pass.mount_fd);
	return error ? 1 : 0;
}
