/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Goal: on real threads no wake-up is lost, in either direction, and a drive that is pulled under load lets its
 * drivers go. Method: the model on a reactor that sleeps; drivers on threads of their own that sleep in poll(2) on
 * the interrupt, and idle now and then for about as long as the reactor spins.
 */
#include "emu_bench.h"

#include <poll.h>
#include <pthread.h>
#include <unistd.h>

enum { DRIVERS = 2, COMMANDS_PER_DRIVER = 3000, ENTRIES = 64, TIMEOUT_MS = 20000, BLOCK = 4096 };

static struct bench bench;

struct driver {
	pthread_t thread;
	uint16_t queue;
	unsigned done, wrong, late, interrupts;
	bool until_gone;
};

/* The next completion: looks, arms, looks again, sleeps. */
static bool completion_wait(struct driver *driver, struct nvme_completion *out)
{
	struct nvme_transport *transport = bench.transport;
	struct pollfd poll_fd = {.fd = transport->ops->interrupt_fd(transport, driver->queue), .events = POLLIN};
	uint64_t count;
	for (;;) {
		if (bench_poll(&bench, driver->queue, out))
			return true;
		transport->ops->arm(transport, driver->queue);
		if (bench_poll(&bench, driver->queue, out))
			return true;
		if (poll(&poll_fd, 1, driver->until_gone ? 10 : TIMEOUT_MS) <= 0)
			return false;
		if (read(poll_fd.fd, &count, sizeof(count)) > 0)
			driver->interrupts++;
	}
}

static void idle(uint64_t *random)
{
	static const unsigned us[] = {0, 0, 0, 5, 15, 20, 25, 40, 200};
	const unsigned pause = us[(emu_random(random) >> 32) % ARRAY_SIZE(us)];
	if (pause)
		usleep(pause);
}

/* Writes a block and reads it back, over and over. */
static void *driver_main(void *arg)
{
	struct driver *driver = arg;
	uint64_t random = driver->queue * 7919;
	uint8_t *data = bench_page(&bench, 8u * driver->queue);
	struct nvme_completion completion;
	for (unsigned i = 0; driver->until_gone || i < COMMANDS_PER_DRIVER; i++) {
		const uint8_t opcode = i % 2 ? NVME_CMD_READ : NVME_CMD_WRITE, fill = (uint8_t)(i / 2);
		memset(data, i % 2 ? ~fill : fill, BLOCK);
		bench_submit(&bench, driver->queue, bench_rw(opcode, driver->queue * 100 + i / 2 % 50, 1, data));
		if (!completion_wait(driver, &completion)) {
			driver->late++;
			break;
		}
		driver->done++;
		driver->wrong += bench_status(&completion) != 0 || data[0] != fill || data[BLOCK - 1] != fill;
		idle(&random);
	}
	return NULL;
}

MAY_WAIT static void bring_up(struct bench *b)
{
	bench_enable(b, 16);
	for (uint16_t queue = 1; queue <= DRIVERS; queue++)
		bench_create_queue(b, queue, ENTRIES);
}

MAY_WAIT static void bring_up_shadow(struct bench *b)
{
	struct nvme_command command = bench_command(NVME_ADMIN_DOORBELL_BUFFER, 0);
	bring_up(b);
	command.prp1 = le64_set(bench_address(bench_page(b, 100)));
	command.prp2 = le64_set(bench_address(bench_page(b, 101)));
	assert_int_equal(bench_do(b, 0, command, NULL), 0);
	b->shadow = (uint32_t *)bench_page(b, 100);
	b->event_index = (uint32_t *)bench_page(b, 101);
}

static void drivers_start(struct driver *drivers, bool until_gone)
{
	for (unsigned i = 0; i < DRIVERS; i++) {
		drivers[i] = (struct driver){.queue = (uint16_t)(i + 1), .until_gone = until_gone};
		assert_int_equal(pthread_create(&drivers[i].thread, NULL, driver_main, &drivers[i]), 0);
	}
}

static void drivers_join(struct driver *drivers)
{
	for (unsigned i = 0; i < DRIVERS; i++)
		pthread_join(drivers[i].thread, NULL);
}

static int read_stats(void *arg)
{
	emu_stats_read(bench.emu, arg);
	return 0;
}

static void no_wake_up_is_lost(const struct emu_options *options, MAY_WAIT void (*start)(struct bench *))
{
	struct driver drivers[DRIVERS];
	struct emu_stats stats;
	unsigned interrupts = 0;
	bench_init_threads(&bench, options);
	bench_run(&bench, start);
	drivers_start(drivers, false);
	drivers_join(drivers);
	for (unsigned i = 0; i < DRIVERS; i++) {
		assert_int_equal(drivers[i].done, COMMANDS_PER_DRIVER);
		assert_int_equal(drivers[i].wrong, 0);
		interrupts += drivers[i].interrupts;
	}
	assert_int_equal(reactor_group_run(bench.model, read_stats, &stats), 0);
	assert_true(interrupts > 0);
	assert_true(stats.interrupts >= interrupts);
	assert_true(stats.doorbell_wakes > 0);
	assert_int_equal(stats.io_commands, DRIVERS * COMMANDS_PER_DRIVER);
	bench_fini(&bench);
}

static void test_no_wake_up_is_lost(void **state)
{
	no_wake_up_is_lost(&(struct emu_options){0}, bring_up);
	no_wake_up_is_lost(&(struct emu_options){.cache_bytes = KIB(256)}, bring_up);
}

static void test_no_wake_up_is_lost_with_shadow_doorbells(void **state)
{
	no_wake_up_is_lost(&(struct emu_options){0}, bring_up_shadow);
	no_wake_up_is_lost(&(struct emu_options){.cache_bytes = KIB(256)}, bring_up_shadow);
}

static void test_a_drive_is_pulled_under_load(void **state)
{
	struct driver drivers[DRIVERS];
	for (unsigned round = 0; round < 20; round++) {
		bench_init_threads(&bench, &(struct emu_options){.cache_bytes = round % 2 ? KIB(64) : 0});
		bench_run(&bench, bring_up);
		drivers_start(drivers, true);
		usleep(500 * round);
		bench_run(&bench, bench_pull);
		drivers_join(drivers);
		for (unsigned i = 0; i < DRIVERS; i++)
			assert_int_equal(drivers[i].wrong, 0);
		assert_int_equal(nvme_read32(bench.transport, NVME_REG_CSTS), NVME_CSTS_GONE);
		bench_fini(&bench);
	}
}

static void *release_main(void *arg)
{
	bench_release(&bench);
	return NULL;
}

static void test_release_from_a_thread_lets_the_model_unplug_itself(void **state)
{
	pthread_t thread;
	for (unsigned round = 0; round < 20; round++) {
		bench_init_threads(&bench, &(struct emu_options){0});
		bench_run(&bench, bring_up);
		usleep(100 * (round % 4));
		assert_int_equal(pthread_create(&thread, NULL, release_main, NULL), 0);
		pthread_join(thread, NULL);
		if (round % 2)
			bench_run(&bench, bench_plug);
		bench_fini(&bench);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_no_wake_up_is_lost),
		cmocka_unit_test(test_no_wake_up_is_lost_with_shadow_doorbells),
		cmocka_unit_test(test_a_drive_is_pulled_under_load),
		cmocka_unit_test(test_release_from_a_thread_lets_the_model_unplug_itself),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
