/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Many clients on the same few names, directories and files at once, from all reactors: what counts is that nobody
 * waits for ever, that only errors come that can be explained by the others, and that fsck is content afterwards.
 * Caches and journal are small, so that everything is evicted and wraps while it is in use. The same with a device that
 * is full, and with one that fails reads now and then, so that operations end halfway through their preparation. And beside a
 * scrub that begins again and again (on a full device, too): it must find nothing, whatever moves under it.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "tests/sim/calls.h"

enum { CLIENTS = 12, STEPS = 250, DIRS = 5, NAMES = 7, BUFFER = 30000 };
enum mode { MODE_PLAIN, MODE_FULL, MODE_READ_ERRORS, MODE_SCRUB, MODE_FULL_SCRUB, MODE_COUNT };
static const char *const mode_names[] = {"plain", "full device", "read errors", "scrub", "scrub of a full device"};

struct stress {
	struct machine machine;
	enum mode mode;
	uint64_t dirs[DIRS];            /* the last ones may have been moved or removed */
	unsigned running;
	uint64_t names_done, links_done, data_done, rules;
	bool scrub_ended;
	unsigned scrubs, links_judged;
};

struct client {
	struct stress *stress;
	uint64_t random;
	uint8_t *buffer;
	struct fs_entry entry;
	struct fiber_start_remote start;
	/* of the operation under way */
	unsigned what;
	uint64_t directory, other, ino;
	char name[16], name2[16];
	int unexpected, at;
};

static uint64_t pick(struct client *client, uint64_t below) { return sim_rand(&client->random) % below; }

static struct fs_name name_of(const char *text)
{
	return (struct fs_name){.bytes = text, .length = (unsigned)strlen(text)};
}

static bool ignore_entry(const struct fs_dirent *dirent, void *arg)
{
	struct client *client = arg;
	if (sim_rand(&client->random) % 20 == 0)
		return false;
	if (dirent->entry)
		fs_forget(client->stress->machine.sim.fs, dirent->ino, 1);
	return true;
}

/* On the owner of the directory. */
static MAY_WAIT int names_here(void *arg)
{
	struct client *client = arg;
	struct fs *fs = client->stress->machine.sim.fs;
	const struct fs_cred *cred = &client->stress->machine.cred;
	const struct fs_name name = name_of(client->name), name2 = name_of(client->name2);
	static const uint32_t types[] = {S_IFREG | 0600, S_IFDIR | 0700, S_IFLNK | 0777, S_IFREG | 0600};
	char target[300];
	memset(target, 't', sizeof(target));
	struct fs_create create = {.name = name, .mode = types[pick(client, 4)], .target = target,
		.target_length = 1 + (unsigned)pick(client, sizeof(target))};
	int error;
	switch (client->what) {
	case 0:
	case 1:
	case 2:
		error = fs_create(fs, client->directory, &create, cred, &client->entry);
		break;
	case 3:
		error = fs_unlink(fs, client->directory, name);
		break;
	case 4:
		error = fs_rmdir(fs, client->directory, name);
		break;
	case 5:
	case 6:
	case 7:
		return fs_rename(fs, client->directory, name, client->other, name2, (unsigned[]){0, 0, RENAME_EXCHANGE,
			RENAME_NOREPLACE}[pick(client, 4)], NULL);
	case 8:
		return fs_readdir(fs, client->directory, 0, pick(client, 2), ignore_entry, client);
	default:
		error = fs_lookup(fs, client->directory, name, &client->entry);
	}
	if (!error && client->what != 3 && client->what != 4)
		client->ino = client->entry.ino;
	return error;
}

/* On the owner of the inode, which the client has looked up. */
static MAY_WAIT int inode_here(void *arg)
{
	struct client *client = arg;
	struct fs *fs = client->stress->machine.sim.fs;
	const struct fs_cred *cred = &client->stress->machine.cred;
	struct fs_attr attr = {.mode = 0640, .size = pick(client, 60000)}, out;
	uint32_t got;
	const uint64_t offset = pick(client, 3) ? pick(client, 60000) : 0;
	const uint32_t length = 1 + (uint32_t)pick(client, pick(client, 2) ? 100 : BUFFER - 1);
	switch (pick(client, 8)) {
	case 0:
		return fs_setattr(fs, client->ino, &attr, FS_SET_MODE, cred, &out);
	case 1:
		return fs_setattr(fs, client->ino, &attr, FS_SET_SIZE, cred, &out);
	case 2:
		return fs_read(fs, client->ino, client->buffer, offset, length, &got);
	case 3:
		return fs_fsync(fs, client->ino, pick(client, 2));
	case 4:
		return fs_fallocate(fs, client->ino, pick(client, 2) ? 0 : FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			offset, length, cred);
	case 5:
		return fs_xattr_set(fs, client->ino, name_of("user.x"), client->buffer, length % 3000, 0, cred);
	default:
		return fs_write(fs, client->ino, client->buffer, offset, length, pick(client, 5) ? 0 : FS_WRITE_APPEND,
			cred, &got);
	}
}

static MAY_WAIT int link_here(void *arg)
{
	struct client *client = arg;
	const int error = fs_link(
		client->stress->machine.sim.fs, client->directory, name_of(client->name2), client->ino, &client->entry);
	if (!error)
		fs_forget(client->stress->machine.sim.fs, client->entry.ino, 1);
	return error;
}

static bool is_full(enum mode mode) { return mode == MODE_FULL || mode == MODE_FULL_SCRUB; }
static bool is_scrubbed(enum mode mode) { return mode == MODE_SCRUB || mode == MODE_FULL_SCRUB; }

static bool explained(enum mode mode, int error)
{
	if ((is_full(mode) && error == -ENOSPC) || (mode == MODE_READ_ERRORS && error == -EIO))
		return true;
	static const int errors[] = {
		0, -ENOENT, -EEXIST, -ENOTDIR, -EISDIR, -ENOTEMPTY, -EINVAL, -ESTALE, -EPERM, -ENODATA};
	for (unsigned i = 0; i < ARRAY_SIZE(errors); i++)
		if (error == errors[i])
			return true;
	return false;
}

static void note(struct client *client, int error, int at, uint64_t *done)
{
	*done += !error;
	if (!explained(client->stress->mode, error)) {
		client->unexpected = error;
		client->at = at;
	}
}

static void fail_one_read(struct client *client)
{
	struct bdev *bdev = sim_bdev(&client->stress->machine.sim, "error");
	const struct error_rule rule = {
		.ops = 1u << IO_READ, .skip = pick(client, 5), .count = 1, .action = ERROR_FAIL, .error = -EIO};
	if (client->stress->rules++ % ERROR_RULES_MAX == 0)
		bdev_error_clear_rules(bdev);
	bdev_error_add_rule(bdev, &rule);
}

static MAY_WAIT void step(struct client *client)
{
	struct stress *stress = client->stress;
	struct fs *fs = stress->machine.sim.fs;
	if (stress->mode == MODE_READ_ERRORS && pick(client, 8) == 0)
		fail_one_read(client);
	client->what = (unsigned)pick(client, 11);
	client->directory = stress->dirs[pick(client, DIRS)];
	client->other = stress->dirs[pick(client, DIRS)];
	client->ino = 0;
	snprintf(client->name, sizeof(client->name), "n%u", (unsigned)pick(client, NAMES));
	snprintf(client->name2, sizeof(client->name2), "n%u", (unsigned)pick(client, NAMES));
	note(client, reactor_call(fs_owner(fs, client->directory), names_here, client), (int)client->what,
		&stress->names_done);
	if (!client->ino)
		return;
	for (uint64_t i = pick(client, 4); i-- > 0;)
		note(client, reactor_call(fs_owner(fs, client->ino), inode_here, client), 100, &stress->data_done);
	if (pick(client, 3) == 0)
		note(client, reactor_call(fs_owner(fs, client->directory), link_here, client), 200,
			&stress->links_done);
	/* A directory that was just seen takes the place of another: so work goes on in ones that move and vanish. */
	if (S_ISDIR(client->entry.attr.mode) && pick(client, 4) == 0)
		stress->dirs[1 + pick(client, DIRS - 1)] = client->ino;
	fs_forget(fs, client->ino, 1);
}

static MAY_WAIT void client_main(void *arg)
{
	struct client *client = arg;
	for (unsigned i = 0; i < STEPS && !client->unexpected; i++)
		step(client);
	client->stress->running--;
}

static MAY_WAIT void scrub_main(void *arg)
{
	struct stress *stress = arg;
	struct fs *fs = stress->machine.sim.fs;
	struct fs_scrub_status status;
	while (stress->running) {
		/* At once, in a round for each group, in some rounds. */
		static const uint64_t memory[] = {0, 1, 1000};
		const struct fs_scrub_options options = {.data = stress->scrubs % 2, .memory_bytes = memory[stress->scrubs % 3]};
		const int error = fs_scrub(fs, &options);
		uint64_t ino;
		char text[256] = "";
		fs_scrub_get_status(fs, &status);
		fs_scrub_finding(fs, 0, &ino, text, sizeof(text));
		stress->links_judged += status.inodes > status.inodes_unjudged;
		if (error || status.findings || !status.inodes)
			sim_fail("scrub %u: %d, %llu findings, %llu inodes: %s", stress->scrubs, error,
				(unsigned long long)status.findings, (unsigned long long)status.inodes, text);
		stress->scrubs++;
	}
	stress->scrub_ended = true;
}

static bool all_done(void *arg)
{
	const struct stress *stress = arg;
	return !stress->running && (!is_scrubbed(stress->mode) || stress->scrub_ended);
}

/* Leaves a few dozen blocks. */
static void fill_device(struct machine *machine)
{
	struct fs_entry entry;
	assert_int_equal(call_create(machine, FS_ROOT_INODE, "filler", S_IFREG | 0600, &entry), 0);
	const uint64_t blocks = call_statfs(machine).available_blocks;
	int error = 0;
	for (uint64_t keep = 60; !error || error == -ENOSPC; keep += 10) {
		error = call_fallocate(machine, entry.ino, 0, 0, (blocks - keep) * FS_BLOCK_SIZE);
		if (!error)
			return;
	}
	fail_msg("cannot fill the device: %d", error);
}

static void run(enum mode mode, unsigned owners, uint64_t seed)
{
	struct stress stress = {.running = CLIENTS, .mode = mode};
	struct client *clients = calloc(CLIENTS, sizeof(*clients));
	const struct fs_mount_options mount = {.cache_bytes = MIB(2), .commit_ms = 10};
	machine_start_with(&stress.machine, owners, is_full(mode) ? MIB(12) : 0, &mount);
	if (is_full(mode))
		fill_device(&stress.machine);
	for (unsigned i = 0; i < DIRS; i++) {
		char name[16];
		struct fs_entry entry;
		snprintf(name, sizeof(name), "dir%u", i);
		assert_int_equal(call_create(&stress.machine, FS_ROOT_INODE, name, S_IFDIR | 0700, &entry), 0);
		stress.dirs[i] = entry.ino;
	}
	for (unsigned i = 0; i < CLIENTS; i++) {
		clients[i] = (struct client){.stress = &stress, .random = seed * 1000 + i, .buffer = calloc(1, BUFFER)};
		clients[i].start.start = (struct fiber_start){.fn = client_main, .arg = &clients[i], .name = "client"};
		fiber_start_on(reactor_group_get(stress.machine.sim.group, i % owners), &clients[i].start);
	}
	struct fiber_start_remote scrub = {.start = {.fn = scrub_main, .arg = &stress, .name = "scrub"}};
	if (is_scrubbed(mode))
		fiber_start_on(reactor_group_get(stress.machine.sim.group, seed % owners), &scrub);
	if (!reactor_group_sim_run(stress.machine.sim.group, all_done, &stress))
		sim_fail("somebody waits for ever (%s, seed %llu, %u owners)", mode_names[mode],
			(unsigned long long)seed, owners);
	bdev_error_clear_rules(sim_bdev(&stress.machine.sim, "error"));
	for (unsigned i = 0; i < CLIENTS; i++) {
		if (clients[i].unexpected)
			fail_msg("operation %d answers %d (%s, seed %llu, %u owners)", clients[i].at,
				clients[i].unexpected, mode_names[mode], (unsigned long long)seed, owners);
		free(clients[i].buffer);
	}
	assert_true(stress.names_done > CLIENTS * STEPS / 10 && stress.links_done);
	assert_true(!is_scrubbed(mode) || (stress.scrubs && stress.links_judged));
	assert_true(stress.data_done > CLIENTS * STEPS / (is_full(mode) ? 50 : 10));
	free(clients);
	machine_remount(&stress.machine);
	machine_stop(&stress.machine);
}

static uint64_t first_seed = 1, seeds = 6;
static unsigned only_owners;

static void test_contention(void **state)
{
	for (uint64_t seed = first_seed; seed < first_seed + seeds; seed++)
		for (unsigned owners = 1; owners <= 4; owners *= 2)
			if (!only_owners || owners == only_owners)
				run(*(enum mode *)*state, owners, seed);
}

/* ops_stress_test [SEED [SEEDS [OWNERS [MODE]]]]; OWNERS 0: 1, 2 and 4; MODE: from 0, in the order of mode_names */
int main(int argc, char **argv)
{
	if (argc > 1) {
		first_seed = strtoull(argv[1], NULL, 0);
		seeds = argc > 2 ? strtoull(argv[2], NULL, 0) : 1;
		only_owners = argc > 3 ? (unsigned)strtoul(argv[3], NULL, 0) : 0;
	}
	const unsigned first = argc > 4 ? (unsigned)strtoul(argv[4], NULL, 0) % MODE_COUNT : 0;
	static enum mode modes[MODE_COUNT];
	struct CMUnitTest tests[MODE_COUNT];
	for (unsigned i = 0; i < MODE_COUNT; i++) {
		modes[i] = (enum mode)i;
		tests[i] = (struct CMUnitTest){
			.name = mode_names[i], .test_func = test_contention, .initial_state = &modes[i]};
	}
	return _cmocka_run_group_tests("stress", &tests[first], argc > 4 ? 1 : MODE_COUNT, NULL, NULL);
}
