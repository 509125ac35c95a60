/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the cases of posix_check share. A case is a function that runs in a process of its own, in an empty directory of its
 * own, which is its working directory; it ends with the first check that fails. What it leaves behind is removed.
 *
 *     CASE(unlink_missing_is_ENOENT, ANYONE)
 *     {
 *             FAILS(ENOENT, unlink("x"));
 *     }
 *
 * Every case holds on ext4; where another filesystem must differ, posix_known.c says why.
 */
#ifndef LANEFS_TESTS_POSIX_CHECK_H
#define LANEFS_TESTS_POSIX_CHECK_H

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096

/* As whom a case runs, in a run as root and in a run as an ordinary user. */
enum need {
	ANYONE, /* as whoever runs the program */
	USER,   /* as an ordinary user, who is ALICE when the program runs as root; the directory is theirs */
	ROOT,   /* as root, who may become others; left out of an ordinary user's run */
};

struct check_case {
	const char *name;
	enum need need;
	void (*run)(void);
	struct check_case *next;
};
void check_register(struct check_case *added);

#define CASE(label, who) \
	static void label(void); \
	__attribute__((constructor)) static void label##_register(void) \
	{ \
		static struct check_case added = {#label, who, label, NULL}; \
		check_register(&added); \
	} \
	static void label(void)

/* ---- checks: the first that fails ends the case ---- */
long check_ok(long result, const char *text, const char *file, int line);
void check_fails(int wanted, const char *name, long result, int error, const char *text, const char *file, int line);
void check_equal(long long got, long long wanted, const char *text, const char *file, int line);
void check_true(bool holds, const char *text, const char *file, int line);
_Noreturn void skip(const char *why);

/* The call does not return -1; its result. */
#define OK(call) check_ok((long)(call), #call, __FILE__, __LINE__)
/* The call returns -1 and errno is @wanted. */
#define FAILS(wanted, call) \
	do { \
		errno = 0; \
		const long fails_result = (long)(call); \
		check_fails(wanted, #wanted, fails_result, errno, #call, __FILE__, __LINE__); \
	} while (0)
#define EQ(got, wanted) check_equal((long long)(got), (long long)(wanted), #got " == " #wanted, __FILE__, __LINE__)
#define CHECK(condition) check_true(condition, #condition, __FILE__, __LINE__)

/* ---- other people, other processes ---- */
struct who {
	uid_t uid;
	gid_t gid;
	gid_t group; /* supplementary; 0: none */
};
extern const struct who ALICE, BOB, CAROL; /* CAROL has her own group and ALICE's as a supplementary one */
void become(struct who who);               /* for good */
bool child_begin(const struct who *who);
_Noreturn void child_end(void);
/* The block that follows runs in a child, as that user; what fails in it fails the case. */
#define AS(who) for (bool child_once = child_begin(&who); child_once; child_once = false, child_end())
#define IN_CHILD for (bool child_once = child_begin(NULL); child_once; child_once = false, child_end())
pid_t spawn(void (*run)(void *arg), void *arg); /* at the same time; reap() gives its exit status */
int reap(pid_t pid);

/* ---- files ---- */
int make(const char *path, mode_t mode);               /* an empty regular file of exactly that mode; 0 */
int put(const char *path, const char *text);           /* mode 0644; 0 */
int make_dir(const char *path, mode_t mode);           /* exactly that mode; 0 */
int create_open(const char *path);                     /* O_RDWR | O_CREAT, 0644 */
struct stat stat_of(const char *path);                 /* lstat */
struct stat fstat_of(int fd);
mode_t mode_of(const char *path);                      /* permission bits, with suid, sgid and sticky */
off_t size_of(const char *path);
unsigned links_of(const char *path);
bool exists(const char *path);                         /* lstat succeeds */
bool holds(const char *path, const char *text);        /* its content is exactly this text */
void fill(char *buffer, size_t size, unsigned seed);   /* bytes that depend on their place and @seed, none of them zero */
bool filled(const char *buffer, size_t size, unsigned seed);
bool zeroed(const char *buffer, size_t size);
char *repeat(char byte, size_t length);                /* a string; never freed */
void *page_buffer(size_t size);                        /* zeroed, page-aligned; never freed */
void *bad_pointer(void);                               /* nothing is there, not even for root */
const char *second_dir(void);                          /* a directory of another filesystem, or the case is skipped */
const char *read_only_dir(void);                       /* the second argument: the filesystem read-only, with its files */

/* ---- times ---- */
struct times {
	struct timespec atime, mtime, ctime;
};
struct times times_of(const char *path); /* lstat */
int compare_times(struct timespec a, struct timespec b);
void tick(void); /* until a new timestamp differs from all before */
void check_times(const char *path, struct times before, const char *changed, const char *text, const char *file, int line);
/* The call succeeds and changes, of @path's times, exactly those in @which ("a", "mc", ...), to later ones. */
#define TIMES(path, which, call) \
	do { \
		const struct times times_before = times_of(path); \
		tick(); \
		OK(call); \
		check_times(path, times_before, which, #call, __FILE__, __LINE__); \
	} while (0)

/* ---- what is expected to differ (posix_known.c) ---- */
/* @on: what is checked, words separated by commas. NULL: nothing is known. */
const char *known_difference(const char *name, const char *on);
const char *known_name(unsigned index); /* names of the table's entries, one by one; NULL at its end */

#endif
