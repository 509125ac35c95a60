/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * For LD_PRELOAD: from main() on, allocations of memory are counted, and one of them fails, or all from that one on. Those of
 * libraries count, too, but for some that do not live with it: json-c reads through null pointers then, libseccomp makes a filter
 * that refuses what it should not, liburcu ends the process, and so it would when the loader has no memory for its thread.
 *
 *   LANEFS_FAIL_MEMORY   number of the allocation that fails, from 0; "N+": and all after it
 *   LANEFS_FAIL_NOTE     a file of eight bytes: how many have failed, in this process and in those that it makes
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <malloc.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The allocator of glibc under the names that nobody takes its place. */
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *old, size_t size);
void *__libc_memalign(size_t alignment, size_t size);

static atomic_ulong allocations;
static unsigned long fail_at;
static atomic_ulong *hits;
static bool counting, always;

/* Whose allocations are left alone. */
static const char *const exempt_names[] = {"libjson-c.so", "liburcu-", "ld-linux", "libseccomp.so"};
enum { EXEMPT_MAX = 8 };
static struct {
	uintptr_t begin, end;
} exempt[EXEMPT_MAX];
static unsigned exempt_count;

static int exempt_find(struct dl_phdr_info *info, size_t size, void *arg)
{
	(void)size;
	(void)arg;
	bool wanted = false;
	for (unsigned i = 0; i < sizeof(exempt_names) / sizeof(exempt_names[0]); i++)
		wanted |= strstr(info->dlpi_name, exempt_names[i]) != NULL;
	for (unsigned i = 0; wanted && i < info->dlpi_phnum && exempt_count < EXEMPT_MAX; i++)
		if (info->dlpi_phdr[i].p_type == PT_LOAD && info->dlpi_phdr[i].p_flags & PF_X) {
			exempt[exempt_count].begin = info->dlpi_addr + info->dlpi_phdr[i].p_vaddr;
			exempt[exempt_count].end = exempt[exempt_count].begin + info->dlpi_phdr[i].p_memsz;
			exempt_count++;
		}
	return 0;
}

static bool fails_for(const void *caller)
{
	if (!counting)
		return false;
	for (unsigned i = 0; i < exempt_count; i++)
		if ((uintptr_t)caller >= exempt[i].begin && (uintptr_t)caller < exempt[i].end)
			return false;
	const unsigned long number = atomic_fetch_add(&allocations, 1);
	if (number < fail_at || (number > fail_at && !always))
		return false;
	atomic_fetch_add(hits, 1);
	errno = ENOMEM;
	return true;
}

#define fails() fails_for(__builtin_return_address(0))

void *malloc(size_t size) { return fails() ? NULL : __libc_malloc(size); }
void *calloc(size_t count, size_t size) { return fails() ? NULL : __libc_calloc(count, size); }
void *realloc(void *old, size_t size) { return fails() ? NULL : __libc_realloc(old, size); }
void *aligned_alloc(size_t alignment, size_t size) { return fails() ? NULL : __libc_memalign(alignment, size); }
void *memalign(size_t alignment, size_t size) { return fails() ? NULL : __libc_memalign(alignment, size); }

/* So that these count as their callers'. */
char *strndup(const char *text, size_t length_max)
{
	const size_t length = strnlen(text, length_max);
	char *copy = fails() ? NULL : __libc_malloc(length + 1);
	if (copy) {
		memcpy(copy, text, length);
		copy[length] = '\0';
	}
	return copy;
}

char *strdup(const char *text)
{
	const size_t length = strlen(text);
	char *copy = fails() ? NULL : __libc_malloc(length + 1);
	return copy ? memcpy(copy, text, length + 1) : NULL;
}

int posix_memalign(void **out, size_t alignment, size_t size)
{
	void *memory = fails() ? NULL : __libc_memalign(alignment, size);
	if (memory)
		*out = memory;
	return memory ? 0 : ENOMEM;
}

void *mmap(void *address, size_t length, int protection, int flags, int fd, off_t offset)
{
	if (fails())
		return MAP_FAILED;
	return (void *)syscall(SYS_mmap, address, length, protection, flags, fd, offset); /* NOLINT */
}

/* ---- from main() on ---- */

static int (*real_main)(int argc, char **argv, char **environment);

static int counted_main(int argc, char **argv, char **environment)
{
	const char *at = getenv("LANEFS_FAIL_MEMORY"), *note = getenv("LANEFS_FAIL_NOTE");
	char *end;
	if (at && note) {
		fail_at = strtoul(at, &end, 10);
		always = *end == '+';
		const int fd = open(note, O_RDWR | O_CLOEXEC);
		hits = mmap(NULL, sizeof(*hits), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		if (fd < 0 || (void *)hits == MAP_FAILED || close(fd))
			abort();
		dl_iterate_phdr(exempt_find, NULL);
		counting = true;
	}
	return real_main(argc, argv, environment);
}

int __libc_start_main(int (*program)(int argc, char **argv, char **environment), int argc, char **argv, void (*init)(void),
	void (*fini)(void), void (*rtld_fini)(void), void *stack_end);
int __libc_start_main(int (*program)(int argc, char **argv, char **environment), int argc, char **argv, void (*init)(void),
	void (*fini)(void), void (*rtld_fini)(void), void *stack_end)
{
	typeof(__libc_start_main) *const real = (typeof(__libc_start_main) *)dlsym(RTLD_NEXT, "__libc_start_main");
	real_main = program;
	return real(counted_main, argc, argv, init, fini, rtld_fini, stack_end);
}
