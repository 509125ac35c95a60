/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The table of guarded mappings and the SIGBUS handler that reads it.
 *
 * Adding and removing happen under a mutex; the handler takes none. An entry is published by its `base`, stored last with
 * release; it is withdrawn by storing zero there. Before bar_guard_remove returns it waits until no handler is between
 * "looks for an entry" and "has mapped over it" (`handlers_running`), so neither the caller's munmap nor the next user of
 * the slot can meet a handler that still believes in the old entry. A handler is a few microseconds long.
 *
 * The page that is mapped over is private and writable: a driver that has not noticed yet may ring doorbells, and what it
 * writes is lost with the mapping. It reads such a write back as it would read memory: only registers that the driver never
 * writes (CSTS, CAP) tell the truth, which is all ones.
 */
#include "reactor/bar_guard.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { PAGE_BYTES = 4096, PIECE_BYTES = 512 };

struct guard {
	atomic_uintptr_t base; /* 0: free; stored last, and with release */
	size_t size;           /* this and gone change only while base is 0 and no handler runs */
	atomic_bool *gone;
};
static struct guard guards[BAR_GUARDS_MAX];
static atomic_uint handlers_running;

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static bool installed;              /* under the mutex; the two below are set before the handler is, and stay */
static int ones_fd;                 /* a sealed memfd of BAR_GUARD_BYTES_MAX bytes of 0xFF */
static struct sigaction previous;

static struct guard *guard_find(uintptr_t address)
{
	for (unsigned i = 0; i < BAR_GUARDS_MAX; i++) {
		const uintptr_t base = atomic_load_explicit(&guards[i].base, memory_order_seq_cst);
		if (base && address >= base && address - base < guards[i].size)
			return &guards[i];
	}
	return NULL;
}

/* The bare system call: libc's mmap may be somebody's interceptor, which need not be safe in a handler. Every argument is
 * a long: the upper half of an int among variable arguments is not defined. */
static bool map_ones_over(const struct guard *guard)
{
	const long base = (long)atomic_load_explicit(&guard->base, memory_order_relaxed);
	return syscall(SYS_mmap, base, (long)guard->size, (long)(PROT_READ | PROT_WRITE), (long)(MAP_PRIVATE | MAP_FIXED),
		(long)ones_fd, 0L) != -1;
}

static bool fault_is_ours(const siginfo_t *info)
{
	if (info->si_code != BUS_ADRERR)
		return false;
	/* Sequentially consistent with the stores and loads of bar_guard_remove: it sees us, or we see no entry. */
	atomic_fetch_add_explicit(&handlers_running, 1, memory_order_seq_cst);
	const struct guard *guard = guard_find((uintptr_t)info->si_addr);
	const bool ours = guard && map_ones_over(guard);
	if (ours)
		atomic_store_explicit(guard->gone, true, memory_order_release);
	atomic_fetch_sub_explicit(&handlers_running, 1, memory_order_release);
	return ours;
}

/* Without a previous handler the default must happen: at once for a signal that was sent (it is pending until we return), by
 * faulting again for a real fault, so that the core shows the place. */
static void default_action(const siginfo_t *info)
{
	const struct sigaction dfl = {.sa_handler = SIG_DFL};
	sigaction(SIGBUS, &dfl, NULL);
	if (info->si_code <= 0)
		raise(SIGBUS);
}

static void pass_on(int number, siginfo_t *info, void *context)
{
	if (previous.sa_flags & SA_SIGINFO)
		previous.sa_sigaction(number, info, context);
	else if (previous.sa_handler == SIG_DFL || (previous.sa_handler == SIG_IGN && info->si_code > 0))
		default_action(info);
	else if (previous.sa_handler != SIG_IGN)
		previous.sa_handler(number);
}

static void on_sigbus(int number, siginfo_t *info, void *context)
{
	const int saved = errno;
	if (!fault_is_ours(info))
		pass_on(number, info, context);
	errno = saved;
}

static int ones_write(int fd)
{
	uint8_t ones[PIECE_BYTES];
	memset(ones, 0xFF, sizeof(ones));
	for (off_t at = 0; at < BAR_GUARD_BYTES_MAX; at += PIECE_BYTES)
		if (pwrite(fd, ones, sizeof(ones), at) != PIECE_BYTES)
			return -ENOMEM; /* the one reason there is */
	return fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL) ? -errno : 0;
}

static int ones_create(int *out)
{
	const int fd = memfd_create("lanefs-all-ones", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0)
		return -errno;
	const int err = ones_write(fd);
	if (err)
		close(fd);
	else
		*out = fd;
	return err;
}

static int handler_install(void)
{
	if (installed)
		return 0;
	int err = ones_create(&ones_fd);
	if (err)
		return err;
	/* On the alternate stack where a thread has one: fiber stacks are small, but hold a signal's frame. */
	struct sigaction ours = {.sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART};
	sigemptyset(&ours.sa_mask);
	/* Asked for first: a fault between the two calls must find it. */
	if (sigaction(SIGBUS, NULL, &previous) || sigaction(SIGBUS, &ours, NULL)) {
		err = -errno;
		close(ones_fd);
		return err;
	}
	installed = true;
	return 0;
}

/* A free slot, unless the range is no good or meets one that is guarded. */
static int slot_find(uintptr_t base, size_t size, struct guard **out)
{
	*out = NULL;
	for (unsigned i = 0; i < BAR_GUARDS_MAX; i++) {
		const uintptr_t other = atomic_load_explicit(&guards[i].base, memory_order_relaxed);
		if (!other)
			*out = &guards[i];
		else if (base < other + guards[i].size && other < base + size)
			return -EINVAL;
	}
	return *out ? 0 : -ENOSPC;
}

int bar_guard_add(void *base, size_t size, atomic_bool *gone)
{
	const uintptr_t start = (uintptr_t)base;
	if (!base || !size || size > BAR_GUARD_BYTES_MAX || (start | size) % PAGE_BYTES || !gone)
		return -EINVAL;
	struct guard *slot;
	pthread_mutex_lock(&mutex);
	int err = handler_install();
	if (!err)
		err = slot_find(start, size, &slot);
	if (!err) {
		slot->size = size;
		slot->gone = gone;
		atomic_store_explicit(&slot->base, start, memory_order_release);
	}
	pthread_mutex_unlock(&mutex);
	return err;
}

void bar_guard_remove(void *base)
{
	pthread_mutex_lock(&mutex);
	for (unsigned i = 0; base && i < BAR_GUARDS_MAX; i++) {
		if (atomic_load_explicit(&guards[i].base, memory_order_relaxed) != (uintptr_t)base)
			continue;
		atomic_store_explicit(&guards[i].base, 0, memory_order_seq_cst);
		while (atomic_load_explicit(&handlers_running, memory_order_seq_cst))
			sched_yield();
	}
	pthread_mutex_unlock(&mutex);
}
