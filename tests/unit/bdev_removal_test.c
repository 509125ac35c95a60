/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Goal: removal ends well in every state that a device can be in, is told to every opener on its own reactor, and gives
 * up at its deadline without freeing what is still in use. Method: simulated groups and the probe, which holds I/O or
 * refuses to quiesce.
 */
#include <errno.h>

#include "bdev_bench.h"
#include "reactor/log.h"

static struct bench bench;
static struct probe *probe;
static _Alignas(4096) uint8_t buffer[65536];

struct opener {
	struct bdev_desc *desc;
	struct bdev_channel *channel;
	struct reactor *event_reactor;
	unsigned removed, resized, media_errors;
	bool close_at_event;
};

static int setup(void **state)
{
	bench_init(&bench, 3, true, 7);
	const struct bdev_limits limits = probe_limits("probe");
	probe = probe_create(&bench, &limits);
	return 0;
}

/* Every test leaves the probe removed. */
static int teardown(void **state)
{
	bench_fini(&bench);
	probe_free(probe);
	return 0;
}

static void on_reactor(unsigned reactor, int (*fn)(void *arg), void *arg)
{
	assert_int_equal(reactor_group_run(reactor_group_get(bench.group, reactor), fn, arg), 0);
}

static void opener_event(enum bdev_event event, struct bdev_desc *desc, void *arg)
{
	struct opener *opener = arg;
	assert_null(fiber_self());
	opener->event_reactor = reactor_self();
	opener->removed += event == BDEV_EVENT_REMOVED;
	opener->resized += event == BDEV_EVENT_RESIZED;
	opener->media_errors += event == BDEV_EVENT_MEDIA_ERROR;
	if (event == BDEV_EVENT_REMOVED && opener->close_at_event) {
		if (opener->channel != NULL)
			bdev_channel_put(opener->channel);
		bdev_close(desc);
		opener->desc = NULL;
	}
}

MAY_WAIT static int opener_open(void *arg)
{
	struct opener *opener = arg;
	assert_int_equal(bdev_open(bench.registry, "probe", true, opener_event, opener, &opener->desc), 0);
	bdev_desc_set_label(opener->desc, "the test's opener");
	return bdev_channel_get(opener->desc, &opener->channel);
}

MAY_WAIT static int opener_close(void *arg)
{
	struct opener *opener = arg;
	bench_close(opener->desc, opener->channel);
	return 0;
}

MAY_WAIT static int remove_probe(void *arg)
{
	return bdev_remove(bench.registry, "probe", NS_PER_SEC);
}

MAY_WAIT static int remove_probe_late(void *arg)
{
	return bdev_remove(bench.registry, "probe", NS_PER_MS) == -ETIMEDOUT ? 0 : -1;
}

static unsigned error_lines;
static char last_error[256];

static void count_errors(enum log_level level, const char *line, void *arg)
{
	if (level != LOG_LEVEL_ERROR)
		return;
	error_lines++;
	strncpy(last_error, line, sizeof(last_error) - 1);
}

/* ---- nothing open ---- */

MAY_WAIT static int unused(void *arg)
{
	struct bdev_desc *desc;
	assert_non_null(bdev_find(bench.registry, "probe"));
	assert_int_equal(bdev_remove(bench.registry, "probe", NS_PER_SEC), 0);
	assert_int_equal(probe->quiesced, 1);
	assert_int_equal(probe->released, 1);
	assert_int_equal(probe->destroyed, 1);
	assert_null(bdev_find(bench.registry, "probe"));
	assert_int_equal(bdev_open(bench.registry, "probe", false, NULL, NULL, &desc), -ENODEV);
	return bdev_remove(bench.registry, "probe", NS_PER_SEC);
}

static void test_unused_bdev_goes_at_once_and_a_second_removal_is_fine(void **state)
{
	on_reactor(1, unused, NULL);
}

/* ---- events ---- */

static void test_every_opener_hears_of_it_on_its_own_reactor(void **state)
{
	static struct opener openers[3];
	memset(openers, 0, sizeof(openers));
	for (unsigned i = 0; i < 3; i++) {
		openers[i].close_at_event = true;
		on_reactor(i, opener_open, &openers[i]);
	}
	on_reactor(1, remove_probe, NULL);
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(openers[i].removed, 1);
		assert_ptr_equal(openers[i].event_reactor, reactor_group_get(bench.group, i));
	}
	assert_int_equal(probe->destroyed, 1);
}

MAY_WAIT static int resize(void *arg)
{
	bdev_resized(probe->bdev, 512);
	bdev_resized(probe->bdev, 128);
	bdev_media_error(probe->bdev, 4096);
	fiber_sleep(NS_PER_MS);
	return 0;
}

static void test_resize_and_media_errors_are_told(void **state)
{
	static struct opener opener;
	opener = (struct opener){.close_at_event = true};
	on_reactor(2, opener_open, &opener);
	log_set_sink(count_errors, NULL);
	on_reactor(0, resize, NULL);
	log_set_sink(NULL, NULL);
	assert_in_range(opener.resized, 1, 2);
	assert_int_equal(opener.media_errors, 1);
	assert_int_equal(bdev_get_limits(probe->bdev)->block_count, 128);
	on_reactor(0, remove_probe, NULL);
}

MAY_WAIT static int close_with_event_in_flight(void *arg)
{
	struct opener opener = {0};
	const int err = opener_open(&opener);
	bdev_resized(probe->bdev, 256);
	opener_close(&opener);
	fiber_sleep(NS_PER_MS);
	assert_int_equal(opener.resized, 0);
	return err != 0 ? err : bdev_remove(bench.registry, "probe", NS_PER_SEC);
}

static void test_no_event_after_close(void **state)
{
	on_reactor(0, close_with_event_in_flight, NULL);
}

/* ---- I/O under way ---- */

struct busy {
	struct opener opener;
	struct io ios[40];
	struct io_group group;
	struct fiber_start start;
	bool ended;
	unsigned count;
};
static struct busy busy;

MAY_WAIT static void busy_wait(void *arg)
{
	assert_int_equal(io_group_wait(&busy.group), -ENODEV);
	struct io late;
	io_prepare(&late, busy.opener.channel, IO_READ, buffer, 0, 4096);
	assert_int_equal(io_run(&late), -ENODEV);
	bench_close(busy.opener.desc, busy.opener.channel);
	busy.ended = true;
}

MAY_WAIT static int busy_start(void *arg)
{
	const int err = opener_open(&busy.opener);
	io_group_init(&busy.group);
	for (unsigned i = 0; i < busy.count; i++) {
		io_prepare(&busy.ios[i], busy.opener.channel, IO_WRITE, buffer, i * 4096, 4096);
		io_group_submit(&busy.group, &busy.ios[i]);
	}
	busy.start = (struct fiber_start){.fn = busy_wait, .name = "busy"};
	fiber_start(&busy.start);
	return err;
}

static void test_outstanding_io_is_completed_with_enodev(void **state)
{
	busy = (struct busy){.count = 10};
	probe->hold = true;
	on_reactor(2, busy_start, NULL);
	on_reactor(0, remove_probe, NULL);
	assert_true(busy.ended);
	for (unsigned i = 0; i < busy.count; i++)
		assert_int_equal(busy.ios[i].result, -ENODEV);
}

static void test_io_in_the_line_for_memory_is_failed_without_the_module(void **state)
{
	busy = (struct busy){.count = 40};
	probe->hold = true;
	probe->depth_max = 5;
	on_reactor(1, busy_start, NULL);
	on_reactor(0, remove_probe, NULL);
	assert_true(busy.ended);
	assert_int_equal(probe->log_count, 5);
}

static void test_io_refused_with_nothing_outstanding_is_failed(void **state)
{
	busy = (struct busy){.count = 1};
	probe->refuse = UINT32_MAX;
	on_reactor(1, busy_start, NULL);
	on_reactor(0, remove_probe, NULL);
	assert_true(busy.ended);
	assert_int_equal(probe->log_count, 0);
}

/* ---- the deadline ---- */

MAY_WAIT static int tombstone_io(void *arg)
{
	struct opener *opener = arg;
	assert_int_equal(bdev_read(opener->channel, buffer, 0, 4096), -ENODEV);
	assert_int_equal(bdev_get_limits(bdev_desc_bdev(opener->desc))->block_size, 4096);
	return 0;
}

static void test_opener_that_does_not_close_is_named_and_leaves_a_tombstone(void **state)
{
	static struct opener opener;
	opener = (struct opener){0};
	on_reactor(1, opener_open, &opener);
	error_lines = 0;
	log_set_sink(count_errors, NULL);
	on_reactor(0, remove_probe_late, NULL);
	log_set_sink(NULL, NULL);
	assert_int_equal(error_lines, 1);
	assert_non_null(strstr(last_error, "the test's opener"));
	assert_int_equal(probe->released, 1);
	assert_int_equal(probe->destroyed, 0);
	assert_int_equal(opener.removed, 1);
	on_reactor(1, tombstone_io, &opener);

	/* The name is free for a device that comes back. */
	const struct bdev_limits limits = probe_limits("probe");
	struct probe *old = probe;
	probe = probe_create(&bench, &limits);
	on_reactor(2, remove_probe, NULL);
	probe_free(probe);
	probe = old;

	on_reactor(1, opener_close, &opener);
	on_reactor(2, remove_probe, NULL); /* waits for the tombstone's end */
	assert_int_equal(probe->released, 1);
	assert_int_equal(probe->destroyed, 1);
}

static void test_module_that_does_not_quiesce_leaves_a_tombstone(void **state)
{
	probe->never_quiesce = true;
	log_set_sink(count_errors, NULL);
	on_reactor(0, remove_probe_late, NULL);
	assert_int_equal(probe->released, 1);
	assert_int_equal(probe->destroyed, 0);
	on_reactor(1, remove_probe_late, NULL);
	log_set_sink(NULL, NULL);
	bdev_quiesced(probe->bdev);
	on_reactor(1, remove_probe, NULL);
	assert_int_equal(probe->released, 1);
}

/* ---- several removals at once ---- */

struct racer {
	struct fiber_start_remote start;
	int result;
};
static struct racer racers[6];
static unsigned racers_left;

MAY_WAIT static void racer_run(void *arg)
{
	struct racer *racer = arg;
	racer->result = bdev_remove(bench.registry, "probe", NS_PER_SEC);
	racers_left--;
}

MAY_WAIT static int race(void *arg)
{
	racers_left = ARRAY_SIZE(racers);
	for (unsigned i = 0; i < ARRAY_SIZE(racers); i++) {
		racers[i].result = 1;
		racers[i].start.start = (struct fiber_start){.fn = racer_run, .arg = &racers[i], .name = "racer"};
		fiber_start_on(reactor_group_get(bench.group, i % 3), &racers[i].start);
	}
	while (racers_left != 0)
		fiber_sleep(NS_PER_US);
	return 0;
}

static void test_removals_at_once_all_end_and_happen_once(void **state)
{
	static struct opener opener;
	opener = (struct opener){.close_at_event = true};
	on_reactor(1, opener_open, &opener);
	on_reactor(0, race, NULL);
	for (unsigned i = 0; i < ARRAY_SIZE(racers); i++)
		assert_int_equal(racers[i].result, 0);
	assert_int_equal(opener.removed, 1);
	assert_int_equal(probe->quiesced, 1);
	assert_int_equal(probe->released, 1);
}

/* ---- stacks ---- */

MAY_WAIT static int stack_build(void *arg)
{
	assert_int_equal(bdev_error_create(bench.registry, "error", "probe"), 0);
	assert_int_equal(bdev_record_create(bench.registry, "record", "error"), 0);
	return 0;
}

static void test_what_is_stacked_goes_with_its_base(void **state)
{
	on_reactor(2, stack_build, NULL);
	on_reactor(0, remove_probe, NULL);
	assert_int_equal(probe->destroyed, 1);
	assert_null(bdev_find(bench.registry, "error"));
	assert_null(bdev_find(bench.registry, "record"));
}

MAY_WAIT static int stack_remove(void *arg)
{
	const int err = bdev_remove(bench.registry, "record", NS_PER_SEC);
	return err != 0 ? err : bdev_remove(bench.registry, "error", NS_PER_SEC);
}

static void test_a_stack_can_be_taken_down_from_above(void **state)
{
	on_reactor(1, stack_build, NULL);
	on_reactor(0, stack_remove, NULL);
	assert_int_equal(probe->quiesced, 0);
	on_reactor(2, remove_probe, NULL);
}

MAY_WAIT static int stack_io(void *arg)
{
	struct opener *opener = arg;
	assert_int_equal(bdev_open(bench.registry, "record", true, opener_event, opener, &opener->desc), 0);
	return bdev_channel_get(opener->desc, &opener->channel);
}

static void test_laggard_on_top_of_a_stack_leaves_tombstones_until_it_closes(void **state)
{
	static struct opener opener;
	opener = (struct opener){0};
	on_reactor(2, stack_build, NULL);
	on_reactor(1, stack_io, &opener);
	log_set_sink(count_errors, NULL);
	on_reactor(0, remove_probe_late, NULL);
	on_reactor(1, tombstone_io, &opener);
	on_reactor(1, opener_close, &opener);
	on_reactor(0, remove_probe, NULL);
	log_set_sink(NULL, NULL);
	assert_int_equal(probe->destroyed, 1);
}

/* ---- a simulation thrown away ---- */

MAY_WAIT static int abandon_start(void *arg)
{
	const struct bdev_ram_options options = {.size_bytes = MIB(1), .asynchronous = true, .volatile_cache = true};
	assert_int_equal(bdev_ram_create(bench.registry, "ram", &options), 0);
	assert_int_equal(bdev_error_create(bench.registry, "error", "ram"), 0);
	assert_int_equal(bdev_record_create(bench.registry, "record", "error"), 0);
	const struct error_rule rule = {.ops = 1u << IO_WRITE, .action = ERROR_CORRUPT, .skip = 2};
	assert_int_equal(bdev_error_add_rule(bdev_find(bench.registry, "error"), &rule), 0);
	record_log_get(bdev_record_log(bdev_find(bench.registry, "record")));
	struct opener *opener = arg;
	const int err = stack_io(opener);
	io_group_init(&busy.group);
	for (unsigned i = 0; i < 10; i++) {
		io_prepare(&busy.ios[i], opener->channel, IO_WRITE, buffer, i * 4096, 4096);
		io_group_submit(&busy.group, &busy.ios[i]);
	}
	return err;
}

static void test_abandoned_simulation_is_freed_and_its_log_survives(void **state)
{
	static struct opener opener;
	size_t count;
	opener = (struct opener){0};
	on_reactor(0, abandon_start, &opener);
	struct record_log *log = bdev_record_log(bdev_find(bench.registry, "record"));
	reactor_group_sim_abandon(bench.group);
	bdev_registry_abandon(bench.registry);
	reactor_group_destroy(bench.group);
	const struct record_entry *entries = record_log_entries(log, &count);
	assert_int_equal(count, 10);
	assert_int_equal(entries[9].completed, UINT64_MAX);
	assert_memory_equal(entries[9].data, buffer, 4096);
	record_log_put(log);
	assert_int_equal(probe->destroyed, 1);
	probe_free(probe);
	setup(NULL);
	on_reactor(0, remove_probe, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_unused_bdev_goes_at_once_and_a_second_removal_is_fine, setup, teardown),
		cmocka_unit_test_setup_teardown(test_every_opener_hears_of_it_on_its_own_reactor, setup, teardown),
		cmocka_unit_test_setup_teardown(test_resize_and_media_errors_are_told, setup, teardown),
		cmocka_unit_test_setup_teardown(test_no_event_after_close, setup, teardown),
		cmocka_unit_test_setup_teardown(test_outstanding_io_is_completed_with_enodev, setup, teardown),
		cmocka_unit_test_setup_teardown(test_io_in_the_line_for_memory_is_failed_without_the_module, setup, teardown),
		cmocka_unit_test_setup_teardown(test_io_refused_with_nothing_outstanding_is_failed, setup, teardown),
		cmocka_unit_test_setup_teardown(test_opener_that_does_not_close_is_named_and_leaves_a_tombstone, setup, teardown),
		cmocka_unit_test_setup_teardown(test_module_that_does_not_quiesce_leaves_a_tombstone, setup, teardown),
		cmocka_unit_test_setup_teardown(test_removals_at_once_all_end_and_happen_once, setup, teardown),
		cmocka_unit_test_setup_teardown(test_what_is_stacked_goes_with_its_base, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_stack_can_be_taken_down_from_above, setup, teardown),
		cmocka_unit_test_setup_teardown(test_laggard_on_top_of_a_stack_leaves_tombstones_until_it_closes, setup, teardown),
		cmocka_unit_test_setup_teardown(test_abandoned_simulation_is_freed_and_its_log_survives, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
