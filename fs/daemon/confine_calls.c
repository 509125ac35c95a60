/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Which system calls the daemon can make (seccomp). Everything that is not listed here is refused: nothing is executed, no process
 * is made or traced, no socket opened, nothing mounted, no memory becomes executable, no name is made or changed in a file
 * system.
 *
 * A refused call answers EPERM and is logged, rather than that the daemon is killed: one that a new version of a library tries
 * has an answer that it can handle, and the mount goes on for everybody; whoever has taken the daemon over gains nothing by
 * it. lanefs status counts them.
 *
 * Rings of io_uring are made when a channel opens, also later (a successor fails, an emulated drive comes back), and what is
 * done through a ring is not seen here. Landlock and the lack of capabilities hold there as well.
 */
#include <errno.h>
#include <linux/fs.h>
#include <sched.h>
#include <seccomp.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <ucontext.h>
#include <unistd.h>

#include "blockdev/nvme.h"
#include "fs/daemon/confine_internal.h"
#include "reactor/log.h"

static atomic_uint_fast64_t refused;

static const int always[] = {
	/* files and descriptors */
	SCMP_SYS(read), SCMP_SYS(write), SCMP_SYS(readv), SCMP_SYS(writev), SCMP_SYS(pread64), SCMP_SYS(pwrite64),
	SCMP_SYS(preadv), SCMP_SYS(pwritev), SCMP_SYS(preadv2), SCMP_SYS(pwritev2), SCMP_SYS(lseek), SCMP_SYS(fsync),
	SCMP_SYS(fdatasync), SCMP_SYS(fallocate), SCMP_SYS(ftruncate), SCMP_SYS(open), SCMP_SYS(openat), SCMP_SYS(close),
	SCMP_SYS(close_range), SCMP_SYS(dup), SCMP_SYS(dup2), SCMP_SYS(dup3), SCMP_SYS(fcntl), SCMP_SYS(flock),
	SCMP_SYS(fstat), SCMP_SYS(newfstatat), SCMP_SYS(stat), SCMP_SYS(lstat), SCMP_SYS(statx), SCMP_SYS(statfs),
	SCMP_SYS(fstatfs), SCMP_SYS(access), SCMP_SYS(faccessat), SCMP_SYS(faccessat2), SCMP_SYS(getdents64),
	SCMP_SYS(readlink), SCMP_SYS(readlinkat), SCMP_SYS(unlink), SCMP_SYS(unlinkat), SCMP_SYS(pipe2),
	/* waiting */
	SCMP_SYS(poll), SCMP_SYS(ppoll), SCMP_SYS(epoll_create1), SCMP_SYS(epoll_ctl), SCMP_SYS(epoll_wait),
	SCMP_SYS(epoll_pwait), SCMP_SYS(epoll_pwait2), SCMP_SYS(eventfd2), SCMP_SYS(signalfd4), SCMP_SYS(futex),
	SCMP_SYS(futex_waitv), SCMP_SYS(nanosleep), SCMP_SYS(clock_nanosleep), SCMP_SYS(clock_gettime),
	SCMP_SYS(clock_getres), SCMP_SYS(gettimeofday), SCMP_SYS(time), SCMP_SYS(wait4), SCMP_SYS(waitid),
	SCMP_SYS(io_uring_setup), SCMP_SYS(io_uring_enter), SCMP_SYS(io_uring_register),
	/* sockets that are there */
	SCMP_SYS(accept4), SCMP_SYS(recvfrom), SCMP_SYS(recvmsg), SCMP_SYS(sendto), SCMP_SYS(sendmsg), SCMP_SYS(shutdown),
	SCMP_SYS(getsockopt), SCMP_SYS(setsockopt), SCMP_SYS(getsockname), SCMP_SYS(getpeername),
	/* memory */
	SCMP_SYS(munmap), SCMP_SYS(mremap), SCMP_SYS(madvise), SCMP_SYS(brk), SCMP_SYS(mlock), SCMP_SYS(mlock2),
	SCMP_SYS(munlock), SCMP_SYS(mincore), SCMP_SYS(memfd_create), SCMP_SYS(membarrier), SCMP_SYS(get_mempolicy),
	SCMP_SYS(set_mempolicy), SCMP_SYS(mbind),
	/* the process and its threads */
	SCMP_SYS(exit), SCMP_SYS(exit_group), SCMP_SYS(set_robust_list), SCMP_SYS(rseq), SCMP_SYS(set_tid_address),
	SCMP_SYS(sched_yield), SCMP_SYS(sched_getaffinity), SCMP_SYS(sched_setaffinity), SCMP_SYS(getcpu), SCMP_SYS(gettid),
	SCMP_SYS(getpid), SCMP_SYS(getppid), SCMP_SYS(getuid), SCMP_SYS(geteuid), SCMP_SYS(getgid), SCMP_SYS(getegid),
	SCMP_SYS(getrandom), SCMP_SYS(getrusage), SCMP_SYS(getrlimit), SCMP_SYS(sysinfo), SCMP_SYS(uname),
	SCMP_SYS(rt_sigaction), SCMP_SYS(rt_sigprocmask), SCMP_SYS(rt_sigreturn), SCMP_SYS(sigaltstack),
	SCMP_SYS(restart_syscall),
	/* a successor that fails is seen off */
	SCMP_SYS(pidfd_open), SCMP_SYS(pidfd_send_signal),
};

/* Only with this argument. */
static const struct {
	int call;
	struct scmp_arg_cmp argument;
} sometimes[] = {
	{SCMP_SYS(mmap), SCMP_A2_64(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0)},
	{SCMP_SYS(mprotect), SCMP_A2_64(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0)},
	{SCMP_SYS(clone), SCMP_A0_64(SCMP_CMP_MASKED_EQ, CLONE_THREAD, CLONE_THREAD)},
	{SCMP_SYS(prctl), SCMP_A0_64(SCMP_CMP_EQ, PR_SET_NAME, 0)},
	{SCMP_SYS(prlimit64), SCMP_A2_64(SCMP_CMP_EQ, 0, 0)},                /* reading */
	{SCMP_SYS(ioctl), SCMP_A1_64(SCMP_CMP_MASKED_EQ, 0xff00, 0x1200)},   /* block devices */
	{SCMP_SYS(ioctl), SCMP_A1_64(SCMP_CMP_MASKED_EQ, 0xff00, 0x3b00)},   /* vfio */
	{SCMP_SYS(ioctl), SCMP_A1_64(SCMP_CMP_MASKED_EQ, 0xff00, 0xe500)},   /* FUSE */
};

static int rules_add(scmp_filter_ctx filter, bool may_fork)
{
	int err = 0;

	for (size_t i = 0; i < ARRAY_SIZE(always) && !err; i++)
		err = seccomp_rule_add(filter, SCMP_ACT_ALLOW, always[i], 0);
	for (size_t i = 0; i < ARRAY_SIZE(sometimes) && !err; i++)
		err = seccomp_rule_add(filter, SCMP_ACT_ALLOW, sometimes[i].call, 1, sometimes[i].argument);
	if (!err) /* abort */
		err = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(tgkill), 1, SCMP_A0_32(SCMP_CMP_EQ, (uint32_t)getpid(), 0));
	/* Its arguments lie in memory, where no filter looks: the C library then takes clone. */
	if (!err)
		err = seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
	/* A vanished vfio device is let go of by a child (nvme/vfio_linger.c). */
	if (!err && may_fork)
		err = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(clone), 1,
			SCMP_A0_64(SCMP_CMP_MASKED_EQ, CLONE_THREAD | CLONE_VM | CLONE_NEWUSER | CLONE_NEWNS, 0));
	return err;
}

bool confine_calls(const struct mount_config *config)
{
	scmp_filter_ctx filter = seccomp_init(SCMP_ACT_TRAP);
	bool pci, may_fork = nvme_target(config->target, &pci) && pci;
	int err = filter ? rules_add(filter, may_fork) : -ENOMEM;

	if (!err)
		err = seccomp_attr_set(filter, SCMP_FLTATR_CTL_TSYNC, 1);
	if (!err)
		err = seccomp_attr_set(filter, SCMP_FLTATR_CTL_OPTIMIZE, 2); /* a tree: few comparisons per call */
	if (!err)
		err = seccomp_load(filter);
	if (filter)
		seccomp_release(filter);
	if (err)
		log_info("confine: no filter of system calls (seccomp): %s", strerror(-err));
	return !err;
}

bool confine_refused(const siginfo_t *info, void *context)
{
	enum { SECCOMP_CODE = 1 }; /* SYS_SECCOMP */
	ucontext_t *registers = context;

	if (info->si_code != SECCOMP_CODE)
		return false;
	registers->uc_mcontext.gregs[REG_RAX] = -EPERM;
	atomic_fetch_add(&refused, 1);
	/* The signal comes at a call of this thread's own, and the log makes none that is refused: it may be written here. */
	log_error("confine: system call %d is not one that lanefs makes: refused (option noconfine allows it)", info->si_syscall);
	return true;
}

uint64_t confine_refused_count(void) { return atomic_load(&refused); }
