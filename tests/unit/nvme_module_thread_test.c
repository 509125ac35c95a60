/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Goal: on real threads the lanes of other reactors and the home reactor agree about who has an I/O, whatever comes and
 * goes. Method: workers on every reactor write and read their own blocks while the home reactor lets the drive leave,
 * return and go for good.
 */
#include "nvme_module_bench.h"
#include "reactor/memory.h"

enum { REACTORS = 3, DEPTH = 8, RETURNS = 20 };

static int setup(void **state)
{
	module_init_threads(REACTORS);
	return 0;
}

static int teardown(void **state)
{
	module_fini();
	return 0;
}

/* Answers are counted on the worker's own reactor; the worker reads them there. */
struct worker {
	struct background background;
	unsigned rounds;               /* atomic */
	unsigned wrong;
	struct shot shots[DEPTH];
};
static struct worker workers[REACTORS];
static bool removal_told[REACTORS]; /* by the worker's reactor */

static void desc_told(enum bdev_event event, struct bdev_desc *desc, void *arg)
{
	if (event == BDEV_EVENT_REMOVED)
		*(bool *)arg = true;
}

/* All answered without an error. */
MAY_WAIT static bool batch(struct worker *worker, struct bdev_channel *channel, enum io_op op, uint8_t fill)
{
	const uint64_t first = (uint64_t)(worker - workers) * DEPTH;
	bool good = true;
	for (unsigned i = 0; i < DEPTH; i++) {
		if (op == IO_WRITE)
			shot_write(&worker->shots[i], channel, (first + i) * BLOCK, BLOCK, (uint8_t)(fill + i));
		else
			shot_start(&worker->shots[i], channel, op, (first + i) * BLOCK, BLOCK);
	}
	for (unsigned i = 0; i < DEPTH; i++) {
		const int err = shot_wait(&worker->shots[i]);
		worker->wrong += err != 0 && err != -ENODEV;
		good &= err == 0;
		worker->wrong += op == IO_READ && err == 0 && worker->shots[i].buffer[BLOCK - 1] != (uint8_t)(fill + i);
	}
	return good;
}

/* Until the first error, which the removal must explain. */
MAY_WAIT static int work(void *arg)
{
	struct worker *worker = arg;
	const unsigned index = (unsigned)(worker - workers);
	struct bdev_desc *desc;
	struct bdev_channel *channel;
	assert_int_equal(bdev_open(bench.registry, "emu:m", true, desc_told, &removal_told[index], &desc), 0);
	assert_int_equal(bdev_channel_get(desc, &channel), 0);
	for (uint8_t fill = 1;; fill++) {
		if (!batch(worker, channel, IO_WRITE, fill) || !batch(worker, channel, IO_READ, fill))
			break;
		__atomic_fetch_add(&worker->rounds, 1, __ATOMIC_RELAXED);
	}
	const uint64_t end_ns = reactor_now_ns() + 10 * NS_PER_SEC;
	while (!removal_told[index] && reactor_now_ns() < end_ns)
		fiber_sleep(NS_PER_MS);
	worker->wrong += !removal_told[index];
	bench_close(desc, channel);
	for (unsigned i = 0; i < DEPTH; i++)
		shot_free(&worker->shots[i]);
	return 0;
}

MAY_WAIT static void workers_start(void)
{
	for (unsigned i = 0; i < REACTORS; i++) {
		memset(&workers[i], 0, sizeof(workers[i]));
		removal_told[i] = false;
		background_start(&workers[i].background, i, work, &workers[i]);
	}
}

MAY_WAIT static void workers_wait(void)
{
	for (unsigned i = 0; i < REACTORS; i++) {
		background_wait(&workers[i].background);
		assert_int_equal(workers[i].wrong, 0);
		assert_true(workers[i].rounds > 0);
	}
}

MAY_WAIT static void progress(void)
{
	for (unsigned i = 0; i < REACTORS; i++) {
		const unsigned before = __atomic_load_n(&workers[i].rounds, __ATOMIC_RELAXED);
		while (__atomic_load_n(&workers[i].rounds, __ATOMIC_RELAXED) < before + 2)
			fiber_sleep(100 * NS_PER_US);
	}
}

struct course {
	const char *target;
	enum nvme_policy policy;
	int (*end)(void *name_text);
	unsigned end_reactor;
};

MAY_WAIT static int run(void *arg)
{
	const struct course *course = arg;
	static struct background end;
	ram_make("m", MIB(8), 0);
	drive_make(course->target, course->policy);
	struct nvme_device *device = device_of(made);
	workers_start();
	progress();
	for (unsigned i = 0; i < RETURNS && course->policy == NVME_HOLD; i++) {
		if (i % 3 == 0)
			assert_int_equal(nvme_device_detach(device, 5 * NS_PER_SEC), 0);
		else
			assert_int_equal(nvme_device_emu_pull(device), 0);
		fiber_sleep(i % 4 * NS_PER_MS);
		assert_int_equal(reattach(device, NULL, NULL, NULL), 0);
		progress();
	}
	for (unsigned i = 0; i < REACTORS; i++)
		assert_false(removal_told[i]);
	background_start(&end, course->end_reactor, course->end, made);
	if (course->policy == NVME_HOLD && course->end != remove_run) {
		background_wait(&end);
		background_start(&end, 0, give_up_run, made);
	}
	workers_wait();
	background_wait(&end);
	while (bdev_find(bench.registry, made))
		fiber_sleep(NS_PER_MS);
	gone("m");
	return 0;
}

static void course(const char *target, enum nvme_policy policy, int (*end)(void *), unsigned end_reactor)
{
	struct course course = {.target = target, .policy = policy, .end = end, .end_reactor = end_reactor};
	module_on(0, run, &course);
}

static void test_leaving_and_returning(void **state)
{
	course("emu:m", NVME_HOLD, pull_run, 0);
	course("emu:m,cache=256K,cut=random,depth=5", NVME_HOLD, detach_run, 0);
}

static void test_leaving_and_returning_without_interrupts(void **state)
{
	course("emu:m,interrupts=off,shadow=off,cache-fixed=on", NVME_HOLD, remove_run, 2);
}

static void test_going_for_good(void **state)
{
	course("emu:m", NVME_REMOVE, pull_run, 0);
	course("emu:m", NVME_REMOVE, lost_run, 0);
	course("emu:m", NVME_REMOVE, detach_run, 0);
	course("emu:m,depth=4", NVME_REMOVE, remove_run, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_leaving_and_returning, setup, teardown),
		cmocka_unit_test_setup_teardown(test_leaving_and_returning_without_interrupts, setup, teardown),
		cmocka_unit_test_setup_teardown(test_going_for_good, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
