/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Settings of the daemon's own process.
 */
#include "fs/daemon/process.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "reactor/log.h"

enum { OOM_SCORE = -900, LANEFS_PR_SET_IO_FLUSHER = 57, MAPPED_BYTES_MIN = 256 * 1024 };

void process_protect(void)
{
	int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
	char text[16];
	int length = snprintf(text, sizeof(text), "%d", OOM_SCORE);

	if (fd >= 0) {
		if (write(fd, text, (size_t)length) < 0)
			log_debug("daemon: oom_score_adj stays: %s", strerror(errno));
		close(fd);
	}
	if (prctl(LANEFS_PR_SET_IO_FLUSHER, 1, 0, 0, 0))
		log_debug("daemon: no PR_SET_IO_FLUSHER: %s", strerror(errno));
}

void process_lock_memory(void)
{
	/* Large tables (of what the kernel remembers) go back to the system when they shrink; left to itself the C library
	 * stops doing that after the first one that was freed. */
	if (!mallopt(M_MMAP_THRESHOLD, MAPPED_BYTES_MIN))
		log_debug("daemon: freed memory may stay with the process");
	const struct rlimit unlimited = {RLIM_INFINITY, RLIM_INFINITY};
	struct rlimit limit;

	/* Memory is locked, and mapped for devices, after the privilege to do so without a limit is gone. */
	if (geteuid() == 0 && setrlimit(RLIMIT_MEMLOCK, &unlimited))
		log_debug("daemon: the memlock limit stays: %s", strerror(errno));
	/* Under a small limit MCL_FUTURE would make later allocations fail. */
	if (getrlimit(RLIMIT_MEMLOCK, &limit) || limit.rlim_cur != RLIM_INFINITY)
		return;
	if (mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT))
		log_debug("daemon: memory is not locked: %s", strerror(errno));
}
