/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Goal: the helper process, which may unmount and bind drivers, does for a daemon that somebody has taken over nothing but
 * what it is there for: with the target and the directory of its own config, with drives on the PCI bus only where auto_bind
 * was said, mounting once, and touching no setting of a filesystem that is not this mount; and it answers each request once. The
 * other way round, no answer makes the daemon's end leak a descriptor or show what is no text.
 * Method: the helper's loop in this process, with the system calls that have an effect replaced (the linker's --wrap) by ones
 * that look at what is asked for; drives are folders. Byte 0: flags (enum flag). Requests: a byte of length (0: whole), then op
 * (1), flags (4), deadline (4), a byte of text length, text. Answers: how (enum answer_flag), id (1), result (4), text as before.
 *
 * Covers: fs/daemon/helper.c fs/daemon/helper_work.c nvme/pci_bind.c
 * Length: 1024
 * Runs: 8000
 */
#define FUSE_USE_VERSION 35
#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include "fs/daemon/confine.h"
#include "fs/daemon/helper_internal.h"
#include "fs/daemon/mounts.h"
#include "nvme/pci_internal.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/fuzz_bytes.h"
#include "tests/fuzz/fuzz_tree.h"

enum { REQUESTS_MAX = 24, ANSWERS_MAX = 8, OPS = HELPER_BIND + 2, TEXT_MAX = 255, FDS_MAX = 48, RESULT_MIN = -4095 };
#define DIRECTORY "/mnt/the mount, \\1"
enum flag {
	FROM_HELPER = 0x01,             /* answers, not requests */
	AUTO_BIND = 0x02,
	MOUNT_FAILS = 0x04,
	DEAD_BEFORE = 0x08,             /* a dead mount is at the directory */
	BUSY = 0x10,                    /* it cannot be unmounted */
	DRIVE_IN_USE = 0x20,
	WAITS_FOR_ANSWER = 0x40,        /* with FROM_HELPER: helper_call */
};
enum answer_flag {
	ANSWER_FDS = 0x03,              /* so many descriptors */
	ANSWER_SHORT = 0x04,
	ANSWER_LONG = 0x08,
	ANSWER_FULL_TEXT = 0x10,        /* without an end */
	ANSWER_ID_FITS = 0x20,
};

static struct mount_config config;
static uint8_t flags;
static bool inside, mounted, dead;      /* inside: what is replaced belongs to the helper */
static unsigned mounts, served;
static struct fuzz_tree tree;

/* ---- in place of what has an effect ---- */

void confine_helper(const struct mount_config *of) {}

static void check_directory(const char *directory) { FUZZ_REQUIRE(!strcmp(directory, DIRECTORY), "%s is not ours", directory); }

bool mount_at(const char *directory, struct mount_found *out)
{
	check_directory(directory);
	return mounted || dead;
}

int unmount_at(const char *directory, unsigned how)
{
	check_directory(directory);
	if (!mounted && !dead)
		return -EINVAL;
	if (flags & BUSY && !(how & UNMOUNT_LAZY))
		return -EBUSY;
	mounted = dead = false;
	return 0;
}

int utab_add(const char *source, const char *directory, const char *options)
{
	check_directory(directory);
	FUZZ_REQUIRE(source == config.target && options == config.utab_options, "a note of somebody else's words");
	return 0;
}

void utab_remove(const char *directory)
{
	check_directory(directory);
	FUZZ_REQUIRE(!mounted && !dead, "the note is dropped, and the mount is there");
}

void fuse_set_log_func(fuse_log_func_t func) {}

/* The target, as libfuse takes it out of the list of options. */
struct fuse_session *fuse_session_new(struct fuse_args *args, const struct fuse_lowlevel_ops *op, size_t op_size, void *userdata)
{
	char target[PATH_MAX], *out = target;
	const char *at = args->argv[2];
	FUZZ_REQUIRE(args->argc == 3 && !strncmp(at, "fsname=", 7), "options %s", at);
	for (at += 7; *at && *at != ','; at++)
		*out++ = *at == '\\' ? *++at : *at;
	*out = '\0';
	FUZZ_REQUIRE(!strcmp(target, config.target), "%s is mounted as %s", config.target, target);
	FUZZ_REQUIRE(!strncmp(at, ",subtype=lanefs,default_permissions,", 36), "options %s", at);
	return (struct fuse_session *)&tree;
}

int fuse_session_mount(struct fuse_session *session, const char *directory)
{
	check_directory(directory);
	FUZZ_REQUIRE(!mounts++, "it is mounted a second time");
	mounted = !(flags & MOUNT_FAILS);
	return mounted ? 0 : -1;
}

int fuse_session_fd(struct fuse_session *session) { return STDIN_FILENO; }

int __wrap_mount(const char *source, const char *directory, const char *type, unsigned long how, const void *data);
int __wrap_mount(const char *source, const char *directory, const char *type, unsigned long how, const void *data)
{
	check_directory(directory);
	FUZZ_REQUIRE(mounted && how & MS_REMOUNT && how & MS_BIND, "mount flags %lx", how);
	return 0;
}

int __real_stat64(const char *path, struct stat *out);
int __wrap_stat64(const char *path, struct stat *out);
int __wrap_stat64(const char *path, struct stat *out)
{
	if (!inside || fuzz_tree_has(&tree, path))
		return __real_stat64(path, out);
	check_directory(path);
	errno = ENOTCONN;
	if (dead)
		return -1;
	*out = (struct stat){.st_dev = mounted ? makedev(0, 77) : makedev(8, 1)};
	return 0;
}

int __wrap_statfs64(const char *path, struct statfs *out);
int __wrap_statfs64(const char *path, struct statfs *out)
{
	check_directory(path);
	errno = ENOTCONN;
	return dead ? -1 : 0;
}

int __real_open64(const char *path, int how, ...);
int __wrap_open64(const char *path, int how, ...);
int __wrap_open64(const char *path, int how, ...)
{
	/* The replay writes down what failed. */
	if (!inside || strstr(path, "_replay-failure-"))
		return __real_open64(path, how, 0600);
	if (fuzz_tree_has(&tree, path)) /* what is written to sysfs takes the place of what was there */
		return __real_open64(path, how | (how & O_WRONLY ? O_TRUNC : 0));
	if (how & O_DIRECTORY)
		check_directory(path);
	else
		FUZZ_REQUIRE(mounted && !strcmp(path, "/sys/class/bdi/0:77/read_ahead_kb"), "%s is opened", path);
	return __real_open64("/dev/null", how & ~O_DIRECTORY);
}

int __wrap_syncfs(int fd);
int __wrap_syncfs(int fd) { return 0; }

int __real_dup2(int from, int to);
int __wrap_dup2(int from, int to);
int __wrap_dup2(int from, int to) { return inside ? to : __real_dup2(from, to); }

/* ---- drives ---- */

#define DRIVE "sys/bus/pci/devices/0000:5e:00.0/"
#define OTHER "sys/bus/pci/devices/0000:00:1f.7/"

static void drives_make(void)
{
	static const char *const text[][2] = {{DRIVE "class", "0x010802\n"}, {DRIVE "vendor", "0x8086\n"}, {DRIVE "device", "0x5845\n"},
		{DRIVE "nvme/nvme0/nvme0n1/dev", "259:0\n"}, {DRIVE "nvme/nvme0/nvme0n1/size", "8\n"},
		{DRIVE "driver_override", "(null)\n"}, {OTHER "class", "0x020000\n"}, {OTHER "driver_override", "(null)\n"},
		{"sys/bus/pci/drivers_probe", ""}, {"sys/bus/pci/drivers/vfio-pci/unbind", ""}, {"sys/bus/pci/drivers/nvme/unbind", ""},
		{"proc/self/mountinfo", ""}, {"proc/swaps", ""}};
	static char sysfs[128], procfs[128];
	if (tree.root[0])
		return;
	fuzz_tree_make(&tree);
	for (size_t i = 0; i < ARRAY_SIZE(text); i++)
		fuzz_tree_write(&tree, text[i][0], text[i][1]);
	fuzz_tree_link(&tree, DRIVE "iommu_group", "../../../kernel/iommu_groups/7");
	pci_set_roots(fuzz_tree_path(&tree, "sys", sysfs, sizeof(sysfs)), fuzz_tree_path(&tree, "proc", procfs, sizeof(procfs)));
}

/* The kernel gives the drive to the driver that it was told. */
int __real_nanosleep(const struct timespec *how_long, struct timespec *left);
int __wrap_nanosleep(const struct timespec *how_long, struct timespec *left);
int __wrap_nanosleep(const struct timespec *how_long, struct timespec *left)
{
	char driver[64], link[96];
	if (!inside)
		return __real_nanosleep(how_long, left);
	fuzz_tree_read(&tree, DRIVE "driver_override", driver, sizeof(driver));
	snprintf(link, sizeof(link), "../../../drivers/%s", driver);
	fuzz_tree_link(&tree, DRIVE "driver", link);
	return 0;
}

static void drives_reset(void)
{
	const bool used = flags & DRIVE_IN_USE;
	drives_make();
	fuzz_tree_link(&tree, DRIVE "driver", used ? "../../../drivers/nvme" : "../../../drivers/vfio-pci");
	fuzz_tree_write(&tree, DRIVE "driver_override", "(null)\n");
	fuzz_tree_write(&tree, "proc/swaps", used ? "Filename Type Size Used Priority\n/dev/nvme0n1 partition 1 0 -2\n" : "");
}

/* Only the drive's, only when it may, and only one of those that are meant for it. */
static void check_drives(void)
{
	static const char *const drivers[] = {"(null)\n", "\n", "nvme", "vfio-pci", "uio_pci_generic"};
	char text[64];
	fuzz_tree_read(&tree, OTHER "driver_override", text, sizeof(text));
	FUZZ_REQUIRE(!strcmp(text, "(null)\n"), "another device gets the driver %s", text);
	fuzz_tree_read(&tree, DRIVE "driver_override", text, sizeof(text));
	const bool may = flags & AUTO_BIND && !(flags & DRIVE_IN_USE);
	FUZZ_REQUIRE(may || !strcmp(text, "(null)\n"), "the drive gets the driver %s", text);
	unsigned i = 0;
	while (i < ARRAY_SIZE(drivers) && strcmp(text, drivers[i]))
		i++;
	FUZZ_REQUIRE(i < ARRAY_SIZE(drivers), "the drive gets the driver %s", text);
}

/* ---- requests ---- */

static void serve(int socket_fd, const struct mount_config *of, const struct helper_request *request)
{
	FUZZ_REQUIRE(of == &config && memchr(request->text, 0, sizeof(request->text)), "a text without an end");
	FUZZ_REQUIRE((int)request->deadline_ms >= 0 && request->deadline_ms <= 3600000, "a deadline of %d ms", (int)request->deadline_ms);
	FUZZ_REQUIRE(helper_answer(socket_fd, of, request) == 0, "no answer");
	served++;
}

static unsigned requests_send(struct fuzz_bytes *input, int fd)
{
	unsigned whole = 0;
	bool over = false;                  /* a message that is none ends it */
	for (unsigned i = 0; i < REQUESTS_MAX && input->left > 0; i++) {
		uint8_t bytes[2 * sizeof(struct helper_request)] = {0};
		struct helper_request request = {.id = i + 1};
		const size_t wrong = fuzz_u8(input), size = wrong ? wrong % sizeof(bytes) : sizeof(request);
		request.op = fuzz_u8(input) % OPS;
		request.flags = fuzz_u32(input);
		request.deadline_ms = fuzz_u32(input);
		const size_t length = fuzz_u8(input);
		uint8_t text[TEXT_MAX];
		fuzz_take(input, text, length);
		memcpy(request.text, text, MIN(length, sizeof(request.text)));
		memcpy(bytes, &request, sizeof(request));
		FUZZ_REQUIRE(send(fd, bytes, size, MSG_NOSIGNAL) == (ssize_t)size, "the socket is full");
		over |= size != sizeof(request);
		whole += !over;
	}
	return whole;
}

static void answers_check(int fd, unsigned count)
{
	struct helper helper = {.socket = fd, .next_id = 1};
	for (unsigned i = 0; i < count; i++) {
		struct helper_reply reply;
		FUZZ_REQUIRE(helper_receive(&helper, &reply, 0) == 0, "no answer to request %u of %u", i + 1, count);
		FUZZ_REQUIRE(reply.id == i + 1, "request %u is answered as %u", i + 1, reply.id);
		if (reply.fd >= 0)
			close(reply.fd);
	}
	char more;
	FUZZ_REQUIRE(recv(fd, &more, 1, MSG_DONTWAIT) < 0, "more answers than requests");
}

static void fuzz_requests(struct fuzz_bytes *input, const int fds[2])
{
	char *target = fuzz_string(input, '\0');
	snprintf(config.target, sizeof(config.target), "%s", target);
	free(target);
	config.auto_bind = flags & AUTO_BIND;
	config.noatime = config.strictatime = config.read_only = flags & MOUNT_FAILS;
	mounted = false;
	dead = flags & DEAD_BEFORE;
	mounts = served = 0;
	drives_reset();
	const unsigned count = requests_send(input, fds[0]);
	shutdown(fds[0], SHUT_WR);
	inside = true;
	helper_loop(fds[1], &config, serve);
	inside = false;
	answers_check(fds[0], count);
	check_drives();
}

/* ---- answers ---- */

static void answer_send(struct fuzz_bytes *input, int fd)
{
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(ANSWER_FDS * sizeof(int))];
	} control = {};
	char bytes[2 * sizeof(struct helper_reply)] = {0};
	struct iovec iov = {bytes, sizeof(struct helper_reply)};
	struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
	const int copies[ANSWER_FDS] = {fd, fd, fd};
	const uint8_t how = fuzz_u8(input);
	struct helper_reply reply = {.id = fuzz_u8(input), .result = (int)fuzz_u32(input), .fd = 1};
	if (how & ANSWER_ID_FITS)
		reply.id = 1;
	const size_t length = fuzz_u8(input);
	uint8_t text[TEXT_MAX];
	fuzz_take(input, text, length);
	memcpy(reply.message, text, length);
	if (how & ANSWER_FULL_TEXT)
		memset(reply.message, 'x', sizeof(reply.message));
	memcpy(bytes, &reply, sizeof(reply));
	if (how & ANSWER_SHORT)
		iov.iov_len -= 1 + length % (sizeof(reply) - 1);
	if (how & ANSWER_LONG)
		iov.iov_len += 1 + length;
	if (how & ANSWER_FDS) {
		message.msg_control = control.space;
		message.msg_controllen = CMSG_SPACE((how & ANSWER_FDS) * sizeof(int));
		control.header = (struct cmsghdr){
			.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN((how & ANSWER_FDS) * sizeof(int))};
		memcpy(CMSG_DATA(&control.header), copies, (how & ANSWER_FDS) * sizeof(int));
	}
	FUZZ_REQUIRE(sendmsg(fd, &message, MSG_NOSIGNAL) > 0, "the socket is full");
}

static void answer_check(struct helper_reply *reply)
{
	FUZZ_REQUIRE(memchr(reply->message, 0, sizeof(reply->message)), "a message without an end");
	FUZZ_REQUIRE(reply->result <= 0 && reply->result >= RESULT_MIN, "the result %d", reply->result);
	FUZZ_REQUIRE(reply->fd < 0 || fcntl(reply->fd, F_GETFD) == FD_CLOEXEC, "a descriptor that is none, or is inherited");
	if (reply->fd >= 0)
		close(reply->fd);
}

static void fuzz_answers(struct fuzz_bytes *input, int fds[2])
{
	struct helper helper = {.socket = fds[0], .next_id = 1};
	struct helper_reply reply;
	for (unsigned i = 0; i < ANSWERS_MAX && input->left > 0; i++)
		answer_send(input, fds[1]);
	close(fds[1]);
	if (flags & WAITS_FOR_ANSWER) {
		reply.fd = -1;
		const int error = helper_call(&helper, HELPER_UNMOUNT, 0, 0, &reply);
		FUZZ_REQUIRE(error <= 0, "a call returns %d", error);
		if (reply.fd >= 0)
			close(reply.fd);
	}
	for (unsigned i = 0; i <= ANSWERS_MAX && helper_receive(&helper, &reply, 0) == 0; i++)
		answer_check(&reply);
	FUZZ_REQUIRE(helper.socket < 0, "the other end is gone, and nobody noticed");
	fds[0] = fds[1] = -1;
}

static unsigned open_fds(void)
{
	unsigned count = 0;
	for (int fd = 0; fd < FDS_MAX; fd++)
		count += fcntl(fd, F_GETFD) >= 0;
	return count;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_bytes input = fuzz_bytes_of(data, size);
	int fds[2];
	const unsigned open_before = open_fds();
	flags = fuzz_u8(&input);
	FUZZ_REQUIRE(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) == 0, "no sockets");
	snprintf(config.directory, sizeof(config.directory), "%s", DIRECTORY);
	if (flags & FROM_HELPER)
		fuzz_answers(&input, fds);
	else
		fuzz_requests(&input, fds);
	for (unsigned i = 0; i < 2; i++)
		if (fds[i] >= 0)
			close(fds[i]);
	FUZZ_REQUIRE(open_fds() == open_before, "a descriptor is left open");
	return 0;
}
