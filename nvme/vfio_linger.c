/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Whoever closes a vanished VFIO device last stays in the kernel while it tries to reset what is not there: over a
 * minute. A thread of our own in that state keeps the whole process from ending. So a child gets copies of the
 * descriptors and is the last to let go; nobody waits for it. It lets go a moment later: once the kernel has noticed
 * that the slot is empty it resets nothing, and the slot is free at once.
 *
 * The child touches nothing but descriptors: it was forked from a process with threads.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "nvme/vfio_internal.h"

enum { LINGER_SECONDS = 2 };

/* Everything but @fds, which are in ascending order. */
static void close_others(const int *fds, unsigned count)
{
	unsigned first = 0;
	for (unsigned i = 0; i < count; i++) {
		if ((unsigned)fds[i] > first)
			close_range(first, (unsigned)fds[i] - 1, 0);
		first = (unsigned)fds[i] + 1;
	}
	close_range(first, ~0u, 0);
}

static void sort(int *fds, unsigned count)
{
	for (unsigned i = 1; i < count; i++)
		for (unsigned j = i; j > 0 && fds[j] < fds[j - 1]; j--) {
			const int fd = fds[j];
			fds[j] = fds[j - 1];
			fds[j - 1] = fd;
		}
}

static _Noreturn void linger(int *fds, unsigned count, int go)
{
	char byte;
	/* Not our parent's child: it may live long, and need not collect us. */
	if (_Fork() != 0)
		_exit(0);
	prctl(PR_SET_NAME, "lanefs-release");
	close_others(fds, count);
	while (read(go, &byte, 1) < 0 && errno == EINTR)
		;
	nanosleep(&(struct timespec){.tv_sec = LINGER_SECONDS}, NULL);
	_exit(0);
}

int vfio_linger_start(const int *fds, unsigned count)
{
	int kept[LINGER_FDS_MAX + 1], go[2], status;
	assert(count <= LINGER_FDS_MAX);
	if (pipe2(go, O_CLOEXEC) != 0)
		return -errno;
	for (unsigned i = 0; i < count; i++)
		kept[i] = fds[i];
	kept[count] = go[0];
	sort(kept, count + 1);
	const pid_t child = _Fork();
	if (child == 0)
		linger(kept, count + 1, go[0]);
	const int err = child < 0 ? -errno : 0;
	while (child > 0 && waitpid(child, &status, 0) < 0 && errno == EINTR)
		;
	close(go[0]);
	if (err == 0)
		return go[1];
	close(go[1]);
	return err;
}
