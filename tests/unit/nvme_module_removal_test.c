/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Goal: namespaces that come, go and grow at run time, and bdevs and controllers that go under load, are told to
 * those who use them, disturb nobody else, and end with everything answered and freed, also when a user closes too
 * late. Method: emulated drives in simulated groups of one and three reactors; ASan sees what stays or is used
 * afterwards.
 */
#include "nvme_module_bench.h"

enum { WORKERS = 3, DEPTH = 4 };

static int setup(void **state)
{
	module_init(3);
	return 0;
}

static int setup_one(void **state)
{
	module_init(1);
	return 0;
}

static int teardown(void **state)
{
	module_fini();
	return 0;
}

/* ---- namespaces ---- */

static struct user users[3];

MAY_WAIT static struct emu *three_namespaces(enum nvme_policy policy)
{
	ram_make("m", MIB(24), 0);
	drive_make("emu:m,namespaces=3,ns=1", policy);
	drive_make("emu:m,ns=2", policy);
	drive_make("emu:m,ns=3", policy);
	user_open(&users[0], "emu:m/1");
	user_open(&users[1], "emu:m/2");
	user_open(&users[2], "emu:m/3");
	return emu_of("emu:m/1");
}

/* That it works says that the other namespaces' ends did not touch it. */
MAY_WAIT static bool works(struct user *user)
{
	static struct shot shot;
	shot_write(&shot, user->channel, 0, BLOCK, 0x51);
	const int err = shot_wait(&shot);
	shot_free(&shot);
	return err == 0 && filled(user->channel, 0, 0x51);
}

MAY_WAIT static void wait_removed(struct user *user)
{
	for (unsigned i = 0; i < 1000 && !user->removed; i++)
		fiber_sleep(NS_PER_MS);
	assert_int_equal(user->removed, 1);
}

MAY_WAIT static int detach_namespace(void *arg)
{
	struct emu *emu = three_namespaces(*(enum nvme_policy *)arg);
	assert_int_equal(emu_ns_attach(emu, 2, false), 0);
	wait_removed(&users[1]);
	user_close(&users[1]);
	fiber_sleep(NS_PER_SEC);
	assert_null(bdev_find(bench.registry, "emu:m/2"));
	assert_int_equal(logged("emu:m/2: the namespace is gone"), 1);
	assert_true(works(&users[0]) && works(&users[2]));
	assert_int_equal(drive_create("emu:m,ns=2", NVME_REMOVE), -ENODEV);
	assert_int_equal(emu_ns_attach(emu, 2, true), 0);
	fiber_sleep(NS_PER_SEC);
	assert_int_equal(logged("emu:m: namespace 2 is new: mount it as emu:m,ns=2"), 1);
	assert_null(bdev_find(bench.registry, "emu:m/2"));
	drive_make("emu:m,ns=2", NVME_REMOVE);
	user_open(&users[1], "emu:m/2");
	assert_true(works(&users[1]));
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(users[i].removed, 0);
		user_close(&users[i]);
	}
	gone("emu:m/2");
	gone("emu:m/1");
	gone("emu:m/3");
	gone("m");
	return 0;
}

static void test_a_detached_namespace_goes_and_may_come_back(void **state)
{
	for (enum nvme_policy policy = NVME_REMOVE; policy <= NVME_HOLD; policy++)
		module_on(policy, detach_namespace, &policy), log_forget();
}

/* Both are told in one look at the controller; the first closes late. */
MAY_WAIT static int detach_two(void *arg)
{
	struct emu *emu = three_namespaces(NVME_REMOVE);
	assert_int_equal(emu_ns_attach(emu, 1, false), 0);
	assert_int_equal(emu_ns_attach(emu, 3, false), 0);
	wait_removed(&users[0]);
	fiber_sleep(3 * NS_PER_SEC);
	user_close(&users[0]);
	wait_removed(&users[2]);
	user_close(&users[2]);
	fiber_sleep(NS_PER_SEC);
	assert_null(bdev_find(bench.registry, "emu:m/1"));
	assert_null(bdev_find(bench.registry, "emu:m/3"));
	assert_true(works(&users[1]));
	user_close(&users[1]);
	gone("emu:m/2");
	gone("m");
	return 0;
}

static void test_two_namespaces_that_are_detached_at_once(void **state) { module_on(0, detach_two, NULL); }

/* All of them: the controller has nobody left, and goes. */
MAY_WAIT static int detach_all(void *arg)
{
	struct emu *emu = three_namespaces(NVME_HOLD);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(emu_ns_attach(emu, i + 1, false), 0);
	for (unsigned i = 0; i < 3; i++) {
		wait_removed(&users[i]);
		user_close(&users[i]);
	}
	fiber_sleep(NS_PER_SEC);
	gone("m");
	return 0;
}

static void test_without_namespaces_the_device_goes(void **state) { module_on(1, detach_all, NULL); }

MAY_WAIT static int resize(void *arg)
{
	static struct shot shot;
	struct emu *emu = three_namespaces(NVME_REMOVE);
	const uint64_t blocks = MIB(8) / BLOCK;
	assert_int_equal(emu_ns_resize(emu, 1, blocks / 2), 0); /* shrinks: what lies beyond is lost */
	wait_removed(&users[0]);
	user_close(&users[0]);
	fiber_sleep(NS_PER_SEC);
	drive_make("emu:m,ns=1", NVME_REMOVE);
	user_open(&users[0], "emu:m/1");
	assert_int_equal(bdev_get_limits(bdev_desc_bdev(users[0].desc))->block_count, blocks / 2);
	shot_write(&shot, users[0].channel, MIB(4), BLOCK, 0x52);
	assert_int_equal(shot_wait(&shot), -EINVAL);
	assert_int_equal(emu_ns_resize(emu, 1, blocks), 0);
	fiber_sleep(NS_PER_SEC);
	assert_int_equal(users[0].resized, 1);
	assert_int_equal(users[0].removed + users[1].removed + users[1].resized + users[2].resized, 0);
	assert_int_equal(bdev_get_limits(bdev_desc_bdev(users[0].desc))->block_count, blocks);
	shot_write(&shot, users[0].channel, MIB(8) - BLOCK, BLOCK, 0x52);
	assert_int_equal(shot_wait(&shot), 0);
	shot_free(&shot);
	for (unsigned i = 0; i < 3; i++)
		user_close(&users[i]);
	gone("emu:m/1");
	gone("emu:m/2");
	gone("emu:m/3");
	gone("m");
	return 0;
}

static void test_a_namespace_that_shrinks_goes_and_one_that_grows_is_told(void **state)
{
	module_on(0, resize, NULL);
}

/* A namespace that went while the device was away: the device cannot come back. */
MAY_WAIT static int detach_while_away(void *arg)
{
	struct nvme_device *device;
	ram_make("m", MIB(16), 0);
	drive_make("emu:m,namespaces=2,ns=2", NVME_HOLD);
	device = held_drive("emu:m,ns=1", &users[0]);
	assert_int_equal(emu_ns_attach(nvme_device_emu(device), 2, false), 0);
	assert_int_equal(reattach(device, NULL, NULL, NULL), -ESTALE);
	assert_int_equal(nvme_device_get_state(device), NVME_DEVICE_HELD);
	gone("emu:m/2"); /* so that the rest can */
	assert_int_equal(reattach(device, NULL, NULL, NULL), 0);
	assert_true(works(&users[0]));
	user_close(&users[0]);
	gone("emu:m/1");
	gone("m");
	return 0;
}

static void test_a_namespace_that_went_while_the_device_was_away(void **state)
{
	module_on(0, detach_while_away, NULL);
}

/* ---- under load ---- */

struct worker {
	struct background background;
	unsigned answers, errors;
	const char *name;
};
static struct worker workers[WORKERS];
static const char *load_name;

/* Until the bdev is gone; then it closes. */
MAY_WAIT static int work(void *arg)
{
	struct worker *worker = arg;
	static struct shot shots[WORKERS][DEPTH];
	struct shot *mine = shots[worker - workers];
	struct user user;
	const uint64_t first = (uint64_t)(worker - workers) * DEPTH * BLOCK;
	user_open(&user, load_name);
	for (unsigned i = 0; worker->errors == 0; i++) {
		for (unsigned j = 0; j < DEPTH; j++)
			shot_write(&mine[j], user.channel, first + j * BLOCK, BLOCK, (uint8_t)i);
		for (unsigned j = 0; j < DEPTH; j++) {
			const int err = shot_wait(&mine[j]);
			assert_true(err == 0 || err == -ENODEV);
			worker->errors += err != 0;
			worker->answers++;
		}
	}
	while (!user.removed)
		fiber_sleep(NS_PER_MS);
	user_close(&user);
	for (unsigned j = 0; j < DEPTH; j++)
		shot_free(&mine[j]);
	return 0;
}

struct load {
	unsigned reactors;
	enum nvme_policy policy;
	int (*end)(void *name_text);
	uint64_t delay_ns;
	const char *options;
};

MAY_WAIT static int load(void *arg)
{
	static char target[256];
	const struct load *load = arg;
	static struct background end, give_up;
	ram_make("m", MIB(8), 50);
	snprintf(target, sizeof(target), "emu:m%s", load->options);
	drive_make(target, load->policy);
	load_name = made;
	for (unsigned i = 0; i < WORKERS; i++) {
		workers[i] = (struct worker){0};
		background_start(&workers[i].background, i % load->reactors, work, &workers[i]);
	}
	fiber_sleep(load->delay_ns);
	background_start(&end, load->end == remove_run ? load->reactors - 1 : 0, load->end, made);
	fiber_sleep(50 * NS_PER_MS);
	if (load->policy == NVME_HOLD)
		background_start(&give_up, 0, give_up_run, made);
	for (unsigned i = 0; i < WORKERS; i++) {
		background_wait(&workers[i].background);
		assert_true(workers[i].answers > 0);
	}
	assert_int_equal(background_wait(&end), 0);
	if (load->policy == NVME_HOLD)
		background_wait(&give_up);
	fiber_sleep(NS_PER_SEC);
	assert_null(bdev_find(bench.registry, made));
	gone("m");
	return 0;
}

static void load_all(unsigned reactors)
{
	static int (*const ends[])(void *) = {remove_run, pull_run, lost_run, detach_run};
	static const char *const options[] = {"", ",cache=256K,cut=random,depth=4,interrupts=off",
		",shadow=off,latency=200us"};
	for (unsigned i = 0; i < ARRAY_SIZE(ends); i++)
		for (enum nvme_policy policy = NVME_REMOVE; policy <= NVME_HOLD; policy++)
			for (unsigned j = 0; j < 6; j++) {
				struct load run = {.reactors = reactors, .policy = policy, .end = ends[i],
					.delay_ns = (1 + j * 7) * 100 * NS_PER_US, .options = options[j % ARRAY_SIZE(options)]};
				module_on(0, load, &run);
			}
}

static void test_every_end_under_load_on_one_reactor(void **state) { load_all(1); }
static void test_every_end_under_load_on_three_reactors(void **state) { load_all(3); }

/* ---- a user that closes too late ---- */

MAY_WAIT static int open_and_stay(void *arg)
{
	user_open(arg, made);
	return 0;
}

MAY_WAIT static int close_late(void *arg)
{
	user_close(arg);
	return 0;
}

MAY_WAIT static int tombstone(void *arg)
{
	static struct user user;
	static struct shot stuck, late;
	struct reactor *other = reactor_group_get(bench.group, 2);
	drive_make("emu:ram:8M,rule=write:stuck:count=1", *(enum nvme_policy *)arg);
	reactor_call(other, open_and_stay, &user);
	user_open(&users[0], made);
	shot_write(&stuck, users[0].channel, 0, BLOCK, 0x61);
	assert_int_equal(bdev_remove(bench.registry, made, 100 * NS_PER_MS), -ETIMEDOUT);
	assert_int_equal(logged("emu:ram:8M: removed, but an opener on reactor 2 did not close it in time"), 1);
	assert_int_equal(shot_wait(&stuck), -ENODEV);
	assert_null(bdev_find(bench.registry, "ram:8M")); /* the hardware has been let go */
	shot_write(&late, users[0].channel, 0, BLOCK, 0x62);
	assert_int_equal(shot_wait(&late), -ENODEV);
	user_close(&users[0]);
	fiber_sleep(NS_PER_SEC);
	drive_make("emu:ram:8M", NVME_REMOVE); /* a new one does not mind */
	assert_int_equal(reactor_call(other, close_late, &user), 0);
	fiber_sleep(NS_PER_SEC);
	user_open(&users[0], made);
	assert_true(works(&users[0]));
	user_close(&users[0]);
	gone("emu:ram:8M");
	shot_free(&stuck);
	shot_free(&late);
	return 0;
}

static void test_a_user_that_closes_after_the_deadline(void **state)
{
	for (enum nvme_policy policy = NVME_REMOVE; policy <= NVME_HOLD; policy++)
		module_on(0, tombstone, &policy), log_forget();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_a_detached_namespace_goes_and_may_come_back, setup, teardown),
		cmocka_unit_test_setup_teardown(test_two_namespaces_that_are_detached_at_once, setup, teardown),
		cmocka_unit_test_setup_teardown(test_without_namespaces_the_device_goes, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_namespace_that_shrinks_goes_and_one_that_grows_is_told, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_namespace_that_went_while_the_device_was_away, setup, teardown),
		cmocka_unit_test_setup_teardown(test_every_end_under_load_on_one_reactor, setup_one, teardown),
		cmocka_unit_test_setup_teardown(test_every_end_under_load_on_three_reactors, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_user_that_closes_after_the_deadline, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
