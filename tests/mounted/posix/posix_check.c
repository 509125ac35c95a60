/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Checks POSIX and Linux semantics of the filesystem under a directory, call by call, and prints TAP.
 *
 *     posix_check DIR [READ_ONLY_DIR] [--as UID:GID] [--only WORD] [--on WORD] [--list]
 *
 *   READ_ONLY_DIR  a read-only mount of the same kind of filesystem, for EROFS
 *   --as UID:GID   (root) run as that user: all cases but those that need root
 *   --only WORD    cases whose name contains the word
 *   --on WORD      what is checked (see posix_known.c); "fuse" and "ext4" are found out by statfs(2)
 *   --list         names only
 *
 * A difference that is known and has a reason is printed as TODO; one that is known but does not show is a failure.
 */
#include <ftw.h>
#include <getopt.h>
#include <grp.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/vfs.h>

#include "tests/mounted/posix/posix_check.h"

enum { CASE_SECONDS_MAX = 60, EXIT_FAILED = 1, EXIT_SKIPPED = 77 };

static struct check_case *cases, **cases_tail = &cases;
static struct {
	char top[PATH_MAX];       /* where the cases' directories are made */
	char on[256];             /* words for known_difference */
	const char *only;
	char read_only[PATH_MAX];
	bool root;                /* cases run as root */
	struct who as;
	bool switched;            /* --as was given */
} options;

void check_register(struct check_case *added)
{
	*cases_tail = added;
	cases_tail = &added->next;
}

const char *read_only_dir(void)
{
	if (!options.read_only[0])
		skip("no read-only directory given");
	return options.read_only;
}

/* ---- one case ---- */

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *walk)
{
	(void)walk;
	int fd = S_ISREG(st->st_mode) || S_ISDIR(st->st_mode) ? open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK) : -1;
	if (fd >= 0) {
		int flags = 0;
		if (!ioctl(fd, FS_IOC_GETFLAGS, &flags) && (flags & (FS_IMMUTABLE_FL | FS_APPEND_FL))) {
			flags &= ~(FS_IMMUTABLE_FL | FS_APPEND_FL);
			(void)ioctl(fd, FS_IOC_SETFLAGS, &flags);
		}
		close(fd);
	}
	return type == FTW_DP || type == FTW_DNR ? rmdir(path) : unlink(path);
}

static void run_child(const struct check_case *one, const char *directory)
{
	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN);
	setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
	alarm(CASE_SECONDS_MAX);
	umask(022);
	if (chdir(directory)) {
		printf("# %s: %m\n", directory);
		_exit(EXIT_FAILED);
	}
	if (options.switched)
		become(options.as);
	else if (one->need == USER && options.root)
		become(ALICE);
	one->run();
	fflush(stdout);
	_exit(0);
}

/* The exit status of the case, -1 if it did not end by itself. */
static int run_case(const struct check_case *one)
{
	char directory[PATH_MAX + 300];
	snprintf(directory, sizeof(directory), "%s/%s", options.top, one->name);
	if (mkdir(directory, 0755)) {
		printf("# mkdir %s: %m\n", directory);
		return -1;
	}
	struct who owner = options.switched ? options.as : one->need == USER && options.root ? ALICE : (struct who){0};
	if (owner.uid && chown(directory, owner.uid, owner.gid))
		printf("# chown %s: %m\n", directory);
	fflush(stdout);
	pid_t pid = fork();
	if (pid == 0)
		run_child(one, directory);
	int status = 0;
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		return -1;
	if (nftw(directory, remove_entry, 32, FTW_DEPTH | FTW_PHYS))
		printf("# %s cannot be removed: %m\n", directory);
	if (WIFEXITED(status))
		return WEXITSTATUS(status);
	printf("# ended by signal %d%s\n", WTERMSIG(status), WTERMSIG(status) == SIGALRM ? ": it took too long" : "");
	return -1;
}

/* ---- all of them ---- */

static bool wanted(const struct check_case *one)
{
	if (options.only && !strstr(one->name, options.only))
		return false;
	return one->need != ROOT || options.root;
}

static unsigned run_all(void)
{
	unsigned count = 0, number = 0, failed = 0;
	for (const struct check_case *one = cases; one; one = one->next)
		count += wanted(one);
	printf("1..%u\n", count);
	for (const struct check_case *one = cases; one; one = one->next) {
		if (!wanted(one))
			continue;
		const int status = run_case(one);
		const char *reason = known_difference(one->name, options.on);
		const bool skipped = status == EXIT_SKIPPED;
		/* Whatever a TODO says, an unexpected success is a failure, too: the table would be wrong. */
		failed += !skipped && (status == 0) == (reason != NULL);
		printf("%sok %u - %s%s%s\n", status == 0 || skipped ? "" : "not ", ++number, one->name,
			skipped ? " # SKIP" : reason ? " # TODO " : "", !skipped && reason ? reason : "");
		fflush(stdout);
	}
	return failed;
}

static bool known_case(const char *name)
{
	for (const struct check_case *one = cases; one; one = one->next)
		if (strcmp(one->name, name) == 0)
			return true;
	return false;
}

static void check_tables(void)
{
	for (const struct check_case *one = cases; one; one = one->next)
		for (const struct check_case *other = one->next; other; other = other->next)
			if (strcmp(one->name, other->name) == 0)
				printf("Bail out! two cases named %s\n", one->name), exit(EXIT_FAILED);
	const char *name;
	for (unsigned i = 0; (name = known_name(i)); i++)
		if (!known_case(name))
			printf("Bail out! posix_known.c names %s, which is no case\n", name), exit(EXIT_FAILED);
}

static void add_on(const char *word)
{
	size_t used = strlen(options.on);
	snprintf(options.on + used, sizeof(options.on) - used, "%s,", word);
}

static _Noreturn void usage(void)
{
	fputs("Usage: posix_check DIR [READ_ONLY_DIR] [--as UID:GID] [--only WORD] [--on WORD] [--list]\n", stderr);
	exit(2);
}

static void list(void)
{
	for (const struct check_case *one = cases; one; one = one->next)
		puts(one->name);
	exit(0);
}

static void parse(int argc, char **argv)
{
	static const struct option longs[] = {{"as", required_argument, NULL, 'a'}, {"only", required_argument, NULL, 'o'},
		{"on", required_argument, NULL, 'n'}, {"list", no_argument, NULL, 'l'}, {0}};
	int option;
	while ((option = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		if (option == 'a' && sscanf(optarg, "%u:%u", &options.as.uid, &options.as.gid) == 2)
			options.switched = true;
		else if (option == 'o')
			options.only = optarg;
		else if (option == 'n')
			add_on(optarg);
		else if (option == 'l')
			list();
		else
			usage();
	}
	if (optind == argc || argc > optind + 2)
		usage();
	if (argc == optind + 2 && !realpath(argv[optind + 1], options.read_only))
		perror(argv[optind + 1]), exit(2);
}

int main(int argc, char **argv)
{
	parse(argc, argv);
	check_tables();
	char directory[PATH_MAX];
	struct statfs about;
	if (!realpath(argv[optind], directory) || statfs(directory, &about)) {
		perror(argv[optind]);
		return 2;
	}
	if (options.switched && geteuid() != 0)
		usage();
	options.root = geteuid() == 0 && !options.switched;
	add_on(about.f_type == EXT4_SUPER_MAGIC ? "ext4" : about.f_type == FUSE_SUPER_MAGIC ? "fuse" : "other");
	add_on(options.root ? "root" : "user");
	if (snprintf(options.top, sizeof(options.top), "%s/posix_check.%d", directory, (int)getpid()) >= 1024 ||
		mkdir(options.top, 0755)) {
		perror(options.top);
		return 2;
	}
	const unsigned failed = run_all();
	if (rmdir(options.top))
		printf("# %s: %m\n", options.top);
	if (failed)
		printf("# %u failed\n", failed);
	return failed ? EXIT_FAILED : 0;
}
