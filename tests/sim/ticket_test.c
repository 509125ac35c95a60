/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Operations that are called off while the device keeps them waiting: one that was told "cancelled" changes nothing, ever,
 * and gives everything back; one that had claimed its ticket goes through. Method: every kind of change, with a cold
 * cache, with each of its reads or writes in turn delayed by two seconds and the ticket cancelled after one; what the
 * filesystem shows is compared before, after, and after the next mount, and fsck is clean.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "reactor/log.h"
#include "tests/sim/calls.h"

#define ROOT FS_ROOT_INODE
enum { FILES = 60, BYTES = 40000 };

struct attempt {
	struct machine *machine;
	const struct kind *kind;
	uint64_t directory, other, file; /* inodes */
	struct fs_ticket ticket;
	struct fiber_start_remote start;
	int result;
	bool done;
};

static uint8_t data[BYTES];

static struct fs_name name(const char *text) { return (struct fs_name){.bytes = text, .length = (unsigned)strlen(text)}; }
static struct fs *fs_of(const struct attempt *attempt) { return attempt->machine->sim.fs; }

/* ---- the kinds of change ---- */

static MAY_WAIT int run_create(struct attempt *attempt)
{
	const struct fs_create create = {.name = name("new"), .mode = S_IFREG | 0600};
	struct fs_entry entry;
	const int error = fs_create(fs_of(attempt), attempt->directory, &create, &attempt->machine->cred, &entry);
	if (!error)
		fs_forget(fs_of(attempt), entry.ino, 1);
	return error;
}

static MAY_WAIT int run_unlink(struct attempt *attempt)
{
	return fs_unlink(fs_of(attempt), attempt->directory, name("f7"));
}

static MAY_WAIT int run_rename(struct attempt *attempt)
{
	return fs_rename(fs_of(attempt), attempt->directory, name("f8"), attempt->other, name("moved"), 0, NULL);
}

static MAY_WAIT int run_xattr(struct attempt *attempt)
{
	return fs_xattr_set(fs_of(attempt), attempt->file, name("user.large"), data, 6000, 0, &attempt->machine->cred);
}

static MAY_WAIT int run_truncate(struct attempt *attempt)
{
	struct fs_attr out;
	return fs_setattr(fs_of(attempt), attempt->file, &(struct fs_attr){.size = 5000}, FS_SET_SIZE,
		&attempt->machine->cred, &out);
}

static MAY_WAIT int run_punch(struct attempt *attempt)
{
	return fs_fallocate(fs_of(attempt), attempt->file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 1000, 20000,
		&attempt->machine->cred);
}

static MAY_WAIT int write_at(struct attempt *attempt, uint64_t offset, uint32_t length)
{
	uint32_t written;
	const int error =
		fs_write(fs_of(attempt), attempt->file, data, offset, length, 0, &attempt->machine->cred, &written);
	return error || written == length ? error : -EDOM;
}

static MAY_WAIT int run_overwrite(struct attempt *attempt) { return write_at(attempt, 4096, 8192); }
static MAY_WAIT int run_partial(struct attempt *attempt) { return write_at(attempt, 5000, 5000); }
static MAY_WAIT int run_append(struct attempt *attempt) { return write_at(attempt, BYTES, 20000); }
static MAY_WAIT int run_hole(struct attempt *attempt) { return write_at(attempt, 1 << 20, 8192); }

enum first { FIRST_DIRECTORY, FIRST_FILE };
static const struct kind {
	const char *name;
	MAY_WAIT int (*run)(struct attempt *attempt);
	enum first first;               /* whose owner runs it */
} kinds[] = {
	{"create", run_create, FIRST_DIRECTORY},
	{"unlink", run_unlink, FIRST_DIRECTORY},
	{"rename", run_rename, FIRST_DIRECTORY},
	{"xattr", run_xattr, FIRST_FILE},
	{"truncate", run_truncate, FIRST_FILE},
	{"punch", run_punch, FIRST_FILE},
	{"overwrite", run_overwrite, FIRST_FILE},
	{"partial overwrite", run_partial, FIRST_FILE},
	{"append", run_append, FIRST_FILE},
	{"write behind a gap", run_hole, FIRST_FILE},
};

/* ---- what the filesystem shows ---- */

static uint64_t mix(uint64_t sum, const void *bytes, size_t length)
{
	for (size_t i = 0; i < length; i++)
		sum = (sum ^ ((const uint8_t *)bytes)[i]) * 1099511628211u;
	return sum;
}

static bool mix_name(const struct fs_dirent *dirent, void *arg)
{
	/* The order of a directory does not change by itself. */
	uint64_t *sum = arg;
	*sum = mix(mix(*sum, dirent->name.bytes, dirent->name.length), &dirent->ino, sizeof(dirent->ino));
	return true;
}

static uint64_t picture(const struct attempt *attempt)
{
	struct machine *machine = attempt->machine;
	static uint8_t content[1200000], value[8192];
	uint64_t sum = 14695981039346656037u;
	uint32_t length;
	struct fs_attr attr;
	assert_int_equal(call_readdir(machine, attempt->directory, 2, false, mix_name, &sum), 0);
	assert_int_equal(call_readdir(machine, attempt->other, 2, false, mix_name, &sum), 0);
	assert_int_equal(call_getattr(machine, attempt->file, &attr), 0);
	sum = mix(mix(sum, &attr.size, sizeof(attr.size)), &attr.blocks_512, sizeof(attr.blocks_512));
	assert_int_equal(call_read(machine, attempt->file, content, 0, sizeof(content), &length), 0);
	sum = mix(sum, content, length);
	if (!call_getxattr(machine, attempt->file, "user.large", value, sizeof(value), &length))
		sum = mix(sum, value, length);
	return sum;
}

/* ---- attempts ---- */

static void populate(struct attempt *attempt)
{
	struct machine *machine = attempt->machine;
	struct fs_entry directory, other, file;
	char text[16];
	assert_int_equal(call_create(machine, ROOT, "dir", S_IFDIR | 0700, &directory), 0);
	assert_int_equal(call_create(machine, ROOT, "other", S_IFDIR | 0700, &other), 0);
	for (unsigned i = 0; i < FILES; i++) {
		snprintf(text, sizeof(text), "f%u", i);
		assert_int_equal(call_create(machine, directory.ino, text, S_IFREG | 0600, &file), 0);
		call_forget(machine, file.ino, 1);
	}
	assert_int_equal(call_create(machine, directory.ino, "file", S_IFREG | 0600, &file), 0);
	for (unsigned i = 0; i < BYTES; i++)
		data[i] = (uint8_t)(i / 100 + 1);
	assert_int_equal(call_write(machine, file.ino, data, 0, BYTES), 0);
	for (unsigned i = 0; i < BYTES; i++)
		data[i] = (uint8_t)(i / 100 + 101);
	attempt->directory = directory.ino;
	attempt->other = other.ino;
	attempt->file = file.ino;
}

static MAY_WAIT void attempt_main(void *arg)
{
	struct attempt *attempt = arg;
	fs_ticket_use(&attempt->ticket);
	attempt->result = attempt->kind->run(attempt);
	attempt->done = true;
}

static bool attempt_done(void *arg) { return ((struct attempt *)arg)->done; }

/* Runs it with the I/O number @skip of its kind late. Returns whether it was late for any. */
static bool attempt_run(struct attempt *attempt, enum io_op op, uint64_t skip, bool *out_cancelled)
{
	struct sim *sim = &attempt->machine->sim;
	const struct error_rule rule = {.ops = 1u << op, .skip = skip, .count = 1, .action = ERROR_DELAY,
		.delay_ns = 2 * NS_PER_SEC};
	const int index = bdev_error_add_rule(sim_bdev(sim, "error"), &rule);
	attempt->done = false;
	fs_ticket_init(&attempt->ticket);
	attempt->start.start = (struct fiber_start){.fn = attempt_main, .arg = attempt, .name = attempt->kind->name};
	const uint64_t first = attempt->kind->first == FIRST_FILE ? attempt->file : attempt->directory;
	fiber_start_on(fs_owner(sim->fs, first), &attempt->start);
	call_sleep(attempt->machine, NS_PER_SEC / 2); /* before the journal's timer writes */
	*out_cancelled = fs_ticket_cancel(&attempt->ticket);
	if (!reactor_group_sim_run(sim->group, attempt_done, attempt))
		fail_msg("%s hangs", attempt->kind->name);
	const bool hit = bdev_error_rule(sim_bdev(sim, "error"), (unsigned)index)->hits;
	bdev_error_clear_rules(sim_bdev(sim, "error"));
	return hit;
}

static void sweep(unsigned owners, enum io_op op, unsigned *cancelled, unsigned *claimed)
{
	const struct fs_mount_options mount = {.commit_ms = 5000, .noatime = true};
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		bool more = true;
		for (uint64_t skip = 0; more; skip++) {
			struct machine machine;
			struct attempt attempt = {.machine = &machine, .kind = &kinds[i]};
			bool was_cancelled;
			machine_start_with(&machine, owners, 0, &mount);
			populate(&attempt);
			const uint64_t before = picture(&attempt);
			machine_remount(&machine);
			more = attempt_run(&attempt, op, skip, &was_cancelled);
			if (attempt.result != (was_cancelled ? -EINTR : 0))
				fail_msg("%s, I/O %u: %d", kinds[i].name, (unsigned)skip, attempt.result);
			*(was_cancelled ? cancelled : claimed) += more;
			for (unsigned look = 0; look < 2; look++) {
				if ((picture(&attempt) == before) != was_cancelled)
					fail_msg("%s, I/O %u: %s", kinds[i].name, (unsigned)skip,
						was_cancelled ? "called off, and yet it changed something" : "nothing changed");
				machine_remount(&machine);
			}
			machine_stop(&machine);
		}
	}
}

static void test_what_was_called_off_never_happens(void **state)
{
	unsigned cancelled = 0, claimed = 0;
	for (unsigned owners = 1; owners <= 4; owners += 3) {
		sweep(owners, IO_READ, &cancelled, &claimed);
		sweep(owners, IO_WRITE, &cancelled, &claimed);
	}
	assert_true(cancelled > 20);
	assert_true(claimed > 4);
}

static void test_a_ticket_is_claimed_or_cancelled_never_both(void **state)
{
	struct fs_ticket ticket;
	fs_ticket_init(&ticket);
	assert_true(fs_ticket_claim(&ticket));
	assert_true(fs_ticket_claim(&ticket));
	assert_false(fs_ticket_cancel(&ticket));
	fs_ticket_init(&ticket);
	assert_true(fs_ticket_cancel(&ticket));
	assert_true(fs_ticket_cancel(&ticket));
	assert_false(fs_ticket_claim(&ticket));
}

int main(void)
{
	log_set_level(LOG_LEVEL_ERROR);
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_ticket_is_claimed_or_cancelled_never_both),
		cmocka_unit_test(test_what_was_called_off_never_happens),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
