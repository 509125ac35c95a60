/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * mkfs.lanefs: a thin main over fs/mkfs.h. The target is opened and locked, measured, searched for what it holds, and
 * the geometry is planned: until all of that is in order nothing is written. Every refusal is one line, "mkfs.lanefs:
 * object: cause; next step".
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>
#include <uuid/uuid.h>

#include "blockdev/nvme.h"
#include "mkfs/mkfs_device.h"
#include "mkfs/mkfs_options.h"
#include "mkfs/mkfs_probe.h"
#include "reactor/log.h"

enum { AG_COUNT_WANTED = 8 }; /* what the default asks for */

struct mkfs_run {
	struct mkfs_command command;
	struct mkfs_device *device;  /* NULL: a dry run for a file that does not exist */
	bool created;                /* the file is ours, and goes when formatting fails */
	char file[PATH_MAX];         /* behind the target; "": none */
	bool found;                  /* the target holds something already: */
	char found_text[256];
	struct fs_super super;
	char message[1024];
	bool progress;               /* standard output is a terminal */
	const char *progress_what;   /* shown last */
	unsigned progress_percent;
};

static enum mkfs_exit fail(const char *object, const char *cause)
{
	fprintf(stderr, "mkfs.lanefs: %s: %s\n", object, cause);
	return MKFS_EXIT_FAILED;
}

/* ---- what is drawn ---- */

static enum mkfs_exit values_draw(struct mkfs_command *command)
{
	struct mkfs_options *options = &command->options;
	struct {
		uint64_t fsid, journal_id, hash_seed, first_sequence;
		uint32_t first_crc;
	} drawn;

	if (getrandom(&drawn, sizeof(drawn), 0) != sizeof(drawn))
		return fail("random numbers", "the kernel gave none; try again");
	options->fsid = drawn.fsid;
	options->journal_id = drawn.journal_id;
	options->hash_seed = drawn.hash_seed;
	options->first_crc = drawn.first_crc;
	options->first_sequence = 1 + (drawn.first_sequence & ((1ull << 39) - 1));
	if (!command->uuid_given)
		uuid_generate_random(options->uuid);
	options->now_sec = time(NULL);
	options->uid = geteuid();
	options->gid = getegid();
	return MKFS_EXIT_OK;
}

/* ---- the target ---- */

static enum mkfs_exit file_create(struct mkfs_run *run)
{
	const char *path = run->file;
	char cause[256];

	/* An image may hold files that not everybody is to read. */
	const int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0) {
		snprintf(cause, sizeof(cause), "cannot be created: %s; check its folder", strerror(errno));
		return fail(run->command.target, cause);
	}
	run->created = true;
	const int err = ftruncate(fd, (off_t)run->command.size_bytes) ? errno : 0;
	close(fd);
	if (!err)
		return MKFS_EXIT_OK;
	snprintf(cause, sizeof(cause), "cannot be made that large: %s; choose a smaller size or another folder",
		strerror(err));
	return fail(run->command.target, cause);
}

static enum mkfs_exit geometry_plan(struct mkfs_run *run, uint64_t size_bytes)
{
	run->command.options.size_bytes = size_bytes;
	if (!mkfs_plan(&run->command.options, &run->super, run->message, sizeof(run->message)))
		return MKFS_EXIT_OK;
	return fail(run->command.target, run->message);
}

/* A target that does not exist: a file of the size given, once that size is known to do. */
static enum mkfs_exit target_create(struct mkfs_run *run)
{
	const struct mkfs_command *command = &run->command;

	if (!command->size_bytes || !run->file[0])
		return fail(command->target, "no such file or device; to make an image file give its size, for example 1G");
	enum mkfs_exit status = geometry_plan(run, command->size_bytes);
	if (status == MKFS_EXIT_OK && !command->dry_run)
		status = file_create(run);
	if (status != MKFS_EXIT_OK || command->dry_run)
		return status;
	if (mkfs_device_open(command->target, false, &run->device, run->message, sizeof(run->message)))
		return fail("new file", run->message);
	return MKFS_EXIT_OK;
}

static enum mkfs_exit target_open(struct mkfs_run *run)
{
	const struct mkfs_command *command = &run->command;
	const int err = mkfs_device_open(command->target, command->dry_run, &run->device, run->message,
		sizeof(run->message));

	if (err == -ENOENT)
		return target_create(run);
	if (err) {
		fprintf(stderr, "mkfs.lanefs: %s\n", run->message);
		return MKFS_EXIT_FAILED;
	}
	if (command->dry_run && !access(run->file, F_OK) && access(run->file, W_OK))
		return fail(command->target, "cannot be written; run as its owner or change its mode");
	return MKFS_EXIT_OK;
}

/* Nothing has been written yet, and nothing will be unless this agrees. */
static enum mkfs_exit target_check(struct mkfs_run *run)
{
	const struct mkfs_command *command = &run->command;
	const uint64_t size_bytes = mkfs_device_size(run->device);
	char text[24];

	if (command->size_bytes > size_bytes) {
		snprintf(run->message, sizeof(run->message), "has only %s; enlarge it first, or leave the size out",
			mkfs_size_text(size_bytes, text));
		return fail(command->target, run->message);
	}
	const enum mkfs_exit status = geometry_plan(run, command->size_bytes ? command->size_bytes : size_bytes);
	if (status != MKFS_EXIT_OK || run->created)
		return status;
	/* libblkid reads files and block devices by itself; what only our driver reaches it is shown. */
	const char *path = access(command->target, F_OK) ? NULL : command->target;
	const int err = mkfs_probe(run->device, path, &run->found, run->found_text, sizeof(run->found_text));
	if (!command->force && (err || run->found)) {
		snprintf(run->message, sizeof(run->message), err ? "%s; check the device, or overwrite it blindly with -f" :
			"holds %s; to overwrite it use -f", run->found_text);
		return fail(command->target, run->message);
	}
	return MKFS_EXIT_OK;
}

/* ---- formatting ---- */

static void progress_show(void *arg, const char *what, uint64_t done, uint64_t total)
{
	struct mkfs_run *run = arg;
	const unsigned percent = (unsigned)(100 * done / total);

	if (run->progress_what == what && run->progress_percent == percent)
		return;
	run->progress_what = what;
	run->progress_percent = percent;
	printf("\r\033[K%s: %s, %u %%", run->command.target, what, percent);
	fflush(stdout);
}

static enum mkfs_exit target_format(struct mkfs_run *run)
{
	const struct mkfs_job job = {
		.options = &run->command.options,
		.discard = !run->command.no_discard,
		.progress = run->progress ? progress_show : NULL,
		.arg = run,
	};

	if (run->found && !run->command.quiet)
		printf("%s: overwriting %s\n", run->command.target, run->found_text);
	const int err = mkfs_device_format(run->device, &job, &run->super, run->message, sizeof(run->message));
	if (run->progress_what)
		printf("\r\033[K");
	fflush(stdout);
	return err ? fail(run->command.target, run->message) : MKFS_EXIT_OK;
}

static void summary_print(const struct mkfs_run *run, double seconds)
{
	const struct fs_super *super = &run->super;
	char text[24], uuid[37];

	uuid_unparse(super->uuid, uuid);
	printf("%s: ", run->command.target);
	if (run->command.dry_run)
		printf("would become a lanefs; nothing was written\n");
	else
		printf("lanefs made in %.2f s\n", seconds);
	printf("  uuid               %s\n", uuid);
	if (super->label[0])
		printf("  label              %.*s\n", FS_LABEL_BYTES, (const char *)super->label);
	printf("  size               %s, %llu blocks of 4 KiB\n",
		mkfs_size_text(le64_get(super->block_count) * FS_BLOCK_SIZE, text),
		(unsigned long long)le64_get(super->block_count));
	printf("  journal            %s\n", mkfs_size_text(le64_get(super->journal_blocks) * FS_BLOCK_SIZE, text));
	printf("  allocation groups  %u of %s", le32_get(super->ag_count),
		mkfs_size_text((uint64_t)le32_get(super->ag_blocks) * FS_BLOCK_SIZE, text));
	const uint32_t shorter = le32_get(super->ag_blocks) - le32_get(super->last_ag_blocks);
	if (shorter)
		printf(" (the last %s shorter)", mkfs_size_text((uint64_t)shorter * FS_BLOCK_SIZE, text));
	putchar('\n');
	if (le32_get(super->ag_count) < AG_COUNT_WANTED)
		printf("  note: fewer than %d allocation groups let fewer reactors work at a time; see -g\n", AG_COUNT_WANTED);
}

static double seconds_since(const struct timespec *begin)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)(now.tv_sec - begin->tv_sec) + (double)(now.tv_nsec - begin->tv_nsec) / 1e9;
}

static enum mkfs_exit run_all(struct mkfs_run *run)
{
	struct timespec begin;

	clock_gettime(CLOCK_MONOTONIC, &begin);
	enum mkfs_exit status = values_draw(&run->command);
	if (status == MKFS_EXIT_OK)
		status = target_open(run);
	if (status == MKFS_EXIT_OK && run->device)
		status = target_check(run);
	if (status == MKFS_EXIT_OK && !run->command.dry_run)
		status = target_format(run);
	mkfs_device_close(run->device);
	if (status != MKFS_EXIT_OK && run->created && unlink(run->file))
		fail(run->file, "the unfinished image could not be removed; remove it by hand");
	if (status == MKFS_EXIT_OK && !run->command.quiet)
		summary_print(run, seconds_since(&begin));
	return status;
}

int main(int argc, char **argv)
{
	enum mkfs_exit status;
	struct mkfs_run *run = calloc(1, sizeof(*run));

	if (!run)
		return fail("memory", "there is none; free some and try again");
	if (mkfs_command_parse(&run->command, argc, argv, &status)) {
		log_set_level(LOG_LEVEL_ERROR);
		signal(SIGXFSZ, SIG_IGN); /* a file limit is an error like others */
		nvme_target_file(run->command.target, run->file, sizeof(run->file));
		run->progress = !run->command.quiet && isatty(STDOUT_FILENO);
		status = run_all(run);
	}
	free(run);
	return fflush(stdout) && status == MKFS_EXIT_OK ? MKFS_EXIT_FAILED : status;
}
