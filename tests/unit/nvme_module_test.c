/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Goal: the bdevs of the nvme module are called what the target says, can do what the controller can, go when they
 * are removed and take the controller along with the last one; what cannot be made leaves nothing behind and says
 * why. Method: emulated drives in simulated groups; every test ends with an empty registry, so a device that stays is
 * seen.
 */
#include "nvme_module_bench.h"

static int setup(void **state)
{
	module_init(2);
	return 0;
}

static int teardown(void **state)
{
	module_fini();
	return 0;
}

/* ---- names ---- */

MAY_WAIT static int one_namespace(void *arg)
{
	drive_make("emu:ram:64M", NVME_REMOVE);
	assert_string_equal(made, "emu:ram:64M");
	struct nvme_device *device = device_of(made);
	assert_int_equal(nvme_device_get_state(device), NVME_DEVICE_ATTACHED);
	assert_int_equal(nvme_device_nsid(bench.registry, made), 1);
	assert_string_equal(nvme_device_target(device), "emu:ram:64M");
	assert_non_null(nvme_device_ctrlr(device));
	assert_true(emu_plugged(nvme_device_emu(device)));
	assert_null(nvme_device_of(bench.registry, "ram:64M"));
	assert_int_equal(nvme_device_nsid(bench.registry, "ram:64M"), 0);
	assert_null(nvme_device_of(bench.registry, "none"));
	gone("emu:ram:64M");
	assert_null(bdev_find(bench.registry, "ram:64M"));
	return 0;
}

static void test_one_namespace_has_the_name_of_its_target(void **state) { module_on(0, one_namespace, NULL); }

MAY_WAIT static int two_namespaces(void *arg)
{
	static const char *const names[] = {"emu:m/1", "emu:m/2"};
	const unsigned first = *(unsigned *)arg;
	ram_make("m", MIB(8), 0);
	drive_make("emu:m,namespaces=2,ns=2", NVME_REMOVE);
	assert_string_equal(made, "emu:m/2");
	drive_make("emu:m,namespaces=2,ns=1", NVME_REMOVE);
	assert_string_equal(made, "emu:m/1");
	struct nvme_device *device = device_of("emu:m/1");
	struct nvme_ctrlr *ctrlr = nvme_device_ctrlr(device);
	assert_ptr_equal(device, device_of("emu:m/2"));
	assert_int_equal(nvme_device_nsid(bench.registry, "emu:m/2"), 2);
	assert_int_equal(bdev_size_bytes(bdev_get_limits(bdev_find(bench.registry, "emu:m/1"))), MIB(4));
	gone(names[first]);
	assert_ptr_equal(device_of(names[!first]), device);
	assert_ptr_equal(nvme_device_ctrlr(device), ctrlr);
	gone(names[!first]);
	gone("m"); /* its last user is the drive: this fails when the drive is still there */
	return 0;
}

static void test_the_controller_goes_with_the_last_bdev(void **state)
{
	for (unsigned first = 0; first < 2; first++)
		module_on(0, two_namespaces, &first);
}

MAY_WAIT static int first_usable(void *arg)
{
	ram_make("m", MIB(8), 0);
	drive_make("emu:m,namespaces=3", NVME_REMOVE);
	assert_string_equal(made, "emu:m/1");
	assert_int_equal(drive_create("emu:m,namespaces=3", NVME_REMOVE), -EEXIST);
	assert_string_equal(message, "emu:m/1: already open in this process");
	assert_int_equal(drive_create("emu:m,ns=1", NVME_REMOVE), -EEXIST);
	assert_int_equal(drive_create("emu:m,ns=4", NVME_REMOVE), -ENODEV);
	assert_non_null(strstr(message, "emu:m: has no namespace 4 (it has 3, from 1 on)"));
	drive_make("emu:m,ns=3", NVME_REMOVE);
	gone("emu:m/1");
	drive_make("emu:m", NVME_REMOVE);
	assert_string_equal(made, "emu:m/1");
	gone("emu:m/3");
	gone("emu:m/1");
	gone("m");
	return 0;
}

static void test_without_a_number_it_is_the_first_namespace(void **state) { module_on(0, first_usable, NULL); }

/* Of two namespaces one is left, so that new names have no number. */
MAY_WAIT static int opened_twice(void *arg)
{
	ram_make("m", MIB(8), 0);
	drive_make("emu:m,namespaces=2,ns=1", NVME_REMOVE);
	assert_int_equal(emu_ns_attach(emu_of("emu:m/1"), 2, false), 0);
	fiber_sleep(NS_PER_SEC);
	assert_int_equal(nvme_ctrlr_ns_count(nvme_device_ctrlr(device_of("emu:m/1"))), 1);
	assert_int_equal(drive_create("emu:m,ns=1", NVME_REMOVE), -EEXIST);
	assert_null(bdev_find(bench.registry, "emu:m"));
	gone("emu:m/1");
	gone("m");
	return 0;
}

static void test_a_namespace_is_never_two_bdevs(void **state) { module_on(0, opened_twice, NULL); }

MAY_WAIT static int two_drives(void *arg)
{
	ram_make("a", MIB(8), 0);
	ram_make("b", MIB(8), 0);
	drive_make("emu:a", NVME_REMOVE);
	drive_make("emu:b,lba=512", NVME_HOLD);
	assert_ptr_not_equal(device_of("emu:a"), device_of("emu:b"));
	assert_int_equal(nvme_device_emu_pull(device_of("emu:a")), 0);
	assert_null(bdev_find(bench.registry, "emu:a"));
	assert_int_equal(nvme_device_get_state(device_of("emu:b")), NVME_DEVICE_ATTACHED);
	assert_true(emu_plugged(emu_of("emu:b")));
	gone("emu:b");
	gone("a");
	gone("b");
	return 0;
}

static void test_two_devices_do_not_disturb_each_other(void **state) { module_on(0, two_drives, NULL); }

/* ---- limits ---- */

MAY_WAIT static const struct bdev_limits *limits_of(const char *target, enum nvme_policy policy)
{
	drive_make(target, policy);
	return bdev_get_limits(bdev_find(bench.registry, made));
}

static bool offers(const struct bdev_limits *limits, enum io_op op) { return limits->ops & 1u << op; }

MAY_WAIT static int default_limits(void *arg)
{
	ram_make("m", MIB(64), 0);
	const struct bdev_limits *limits = limits_of("emu:m", NVME_REMOVE);
	assert_int_equal(limits->block_size, 4096);
	assert_int_equal(limits->block_count, MIB(64) / 4096);
	assert_int_equal(limits->io_bytes_max, KIB(128));
	assert_int_equal(limits->optimal_boundary_blocks, 0);
	assert_int_equal(limits->vector_boundary, 4096);
	assert_true(limits->volatile_cache && limits->native_fua && limits->needs_dma && !limits->read_only);
	assert_int_equal(limits->stack_level, 1);
	for (unsigned op = 0; op < IO_OP_COUNT; op++)
		assert_true(offers(limits, op));
	gone("emu:m");
	gone("m");
	return 0;
}

static void test_limits_of_a_drive_without_options(void **state) { module_on(0, default_limits, NULL); }

MAY_WAIT static int odd_limits(void *arg)
{
	ram_make("m", MIB(64), 0);
	const struct bdev_limits *limits = limits_of("emu:m,lba=512,mdts=1,boundary=24,dsm=off,zeroes=off", NVME_REMOVE);
	assert_int_equal(limits->block_size, 512);
	assert_int_equal(limits->block_count, MIB(64) / 512);
	assert_int_equal(limits->io_bytes_max, KIB(8));
	assert_int_equal(limits->optimal_boundary_blocks, 24);
	assert_false(offers(limits, IO_UNMAP) || offers(limits, IO_WRITE_ZEROES));
	assert_false(limits->unmap_reads_zero && offers(limits, IO_UNMAP));
	gone("emu:m");
	limits = limits_of("emu:m,mdts=15,lba=512", NVME_REMOVE);
	assert_int_equal(limits->io_bytes_max, MIB(2)); /* what a PRP list describes */
	assert_int_equal(limits->write_zeroes_bytes_max, MIB(32));
	gone("emu:m");
	gone("m");
	return 0;
}

static void test_limits_follow_the_controller(void **state) { module_on(0, odd_limits, NULL); }

/* What decides whether a FLUSH is sent. */
MAY_WAIT static int cache_limits(void *arg)
{
	static const struct {
		const char *target;
		enum nvme_policy policy;
		bool volatile_cache, cache_on;
	} cases[] = {
		{"emu:m", NVME_REMOVE, true, true},
		{"emu:m,cache=1M", NVME_REMOVE, true, true},
		{"emu:m,vwc=off", NVME_REMOVE, false, false},
		{"emu:m,vwc=off", NVME_HOLD, false, false},
		{"emu:m,cache=1M", NVME_HOLD, false, false},
		{"emu:m,cache=1M,cache-fixed=on", NVME_HOLD, false, true}, /* every write with FUA */
		{"emu:m,cache=1M,cache-fixed=on", NVME_REMOVE, true, true},
	};
	ram_make("m", MIB(8), 0);
	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		assert_int_equal(limits_of(cases[i].target, cases[i].policy)->volatile_cache, cases[i].volatile_cache);
		assert_int_equal(nvme_ctrlr_get_info(nvme_device_ctrlr(device_of(made)))->cache_on, cases[i].cache_on);
		gone(made);
	}
	gone("m");
	return 0;
}

static void test_a_flush_is_wanted_where_completed_is_not_durable(void **state) { module_on(0, cache_limits, NULL); }

MAY_WAIT static int read_only(void *arg)
{
	const struct nvme_device_options options = {.read_only = true};
	struct bdev_desc *desc;
	assert_int_equal(nvme_device_create(bench.registry, "emu:ram:8M", &options, made, sizeof(made), message,
		sizeof(message)), 0);
	assert_true(bdev_get_limits(bdev_find(bench.registry, made))->read_only);
	assert_int_equal(bdev_open(bench.registry, made, true, NULL, NULL, &desc), -EROFS);
	struct bdev_channel *channel;
	uint8_t *block = dma_zalloc(4096, 4096);
	assert_int_equal(bdev_open(bench.registry, made, false, NULL, NULL, &desc), 0);
	assert_int_equal(bdev_channel_get(desc, &channel), 0);
	for (unsigned i = 0; i < 2; i++) { /* writable for a while, the drive's medium too */
		assert_int_equal(bdev_write(channel, block, 0, 4096, 0), -EROFS);
		assert_int_equal(bdev_set_read_only(bdev_desc_bdev(desc), false), 0);
		assert_int_equal(bdev_desc_set_write(desc, true), 0);
		assert_int_equal(bdev_write(channel, block, 0, 4096, IO_FUA), 0);
		assert_int_equal(bdev_set_read_only(bdev_desc_bdev(desc), true), 0);
	}
	bdev_channel_put(channel);
	bdev_close(desc);
	dma_free(block);
	gone(made);
	return 0;
}

static void test_read_only(void **state) { module_on(0, read_only, NULL); }

/* ---- what cannot be made ---- */

struct refusal {
	const char *target;
	int error;
	const char *says; /* part of the message */
};
static const struct refusal refusals[] = {
	{"emu:", -EINVAL, "emu:: names no medium"},
	{"emu:,lba=512", -EINVAL, "names no medium"},
	{"emu:emu:m", -EINVAL, "names no medium"},
	{"emu:m,ns=0", -EINVAL, "emu:m,ns=0: ns= wants the number of a namespace"},
	{"emu:m,ns=", -EINVAL, "ns= wants the number"},
	{"emu:m,ns=1x,lba=512", -EINVAL, "ns= wants the number"},
	{"emu:m,ns=1,ns=2", -EINVAL, "emu:m"},
	{"emu:m,what=1", -EINVAL, "emu:m: what: no option"},
	{"emu:m,lba=1024", -EINVAL, "emu:m: lba=1024: must be"},
	{"emu:m,rule=write:explode", -EINVAL, "emu:m: rule"},
	{"emu:m,metadata=8", -EOPNOTSUPP, "emu:m: namespace 1 is formatted with metadata"},
	{"emu:m,zoned=on", -EOPNOTSUPP, "emu:m: namespace 1 is a zoned namespace"},
	{"emu:m,ns=7", -ENODEV, "emu:m: has no namespace 7"},
	{"emu:m,queues=1", -EMFILE, "has 1 I/O queue pairs for 2 reactors"},
	{"emu:m,rule=enable:not-ready", -ETIMEDOUT, "emu:m: not ready within"},
	{"emu:m,rule=admin-identify:status=0x6", -EIO, "emu:m: Identify Controller failed"},
	{"emu:m,rule=admin-identify:status=0x6:skip=1:count=1", -EIO, "emu:m: does not start"},
	{"emu:m,rule=admin-identify:status=0x6:skip=2:count=1", -ENODEV, "emu:m: has no active namespace"},
	{"emu:m,rule=admin-identify:stuck", -ETIMEDOUT, "emu:m"},
	{"emu:m,rule=admin-identify:vanish:skip=2", -ENODEV, "emu:m"},
	{"emu:m,rule=admin-create-cq:status=0x6", -EIO, "emu:m"},
	{"emu:m,rule=admin-create-sq:status=0x6:skip=1", -EIO, "emu:m"},
	{"emu:m,rule=admin-create-sq:vanish:skip=1", -ENODEV, "emu:m"},
	{"emu:m,rule=admin-set-features:stuck-hard", -ETIMEDOUT, "emu:m"},
	{"emu:m,namespaces=64", -EINVAL, "emu:m: "}, /* less than a page each */
	{"emu:/nowhere/image", -ENOENT, "emu:/nowhere/image: no such file"},
	{"emu:virtio:0000:00:05.0", -EOPNOTSUPP, "emu:virtio:0000:00:05.0: virtio: is not built yet"},
	{"pci:0000:zz:00.0", -EINVAL, "not a PCI address"},
	{"0000:5e:00.0/0", -EINVAL, "not a PCI address"},
	{"0000:5e:00.0/x", -EINVAL, "not a PCI address"},
};

MAY_WAIT static int refuse(void *arg)
{
	const struct refusal *refusal = arg;
	ram_make("m", KIB(192), 0);
	for (enum nvme_policy policy = NVME_REMOVE; policy <= NVME_HOLD; policy++) {
		const int err = drive_create(refusal->target, policy);
		if (err != refusal->error || !strstr(message, refusal->says) || strchr(message, '\n'))
			fail_msg("%s: %d: \"%s\"", refusal->target, err, message);
	}
	assert_int_equal(told[NVME_DEVICE_GONE] + told[NVME_DEVICE_NOW_HELD], 0);
	gone("m"); /* nobody uses it any more */
	return 0;
}

static void test_what_cannot_be_made_leaves_nothing_behind(void **state)
{
	for (unsigned i = 0; i < ARRAY_SIZE(refusals); i++)
		module_on(0, refuse, (void *)&refusals[i]);
}

MAY_WAIT static int large_blocks(void *arg)
{
	const struct bdev_ram_options options = {.size_bytes = MIB(8), .block_size = 4096};
	assert_int_equal(bdev_ram_create(bench.registry, "m", &options), 0);
	assert_int_equal(drive_create("emu:m,lba=512", NVME_REMOVE), -EINVAL);
	assert_string_equal(message, "emu:m: lba=512: the medium has blocks of 4096 bytes; leave the option out");
	drive_make("emu:m", NVME_REMOVE);
	gone(made);
	gone("m");
	return 0;
}

static void test_blocks_smaller_than_those_of_the_medium_are_refused(void **state) { module_on(0, large_blocks, NULL); }

/* ---- a place that is taken ---- */

MAY_WAIT static int held_place(void *arg)
{
	drive_make("emu:ram:8M,namespaces=2,ns=1", NVME_HOLD);
	assert_int_equal(nvme_device_emu_pull(device_of("emu:ram:8M/1")), 0);
	assert_int_equal(drive_create("emu:ram:8M,namespaces=2,ns=2", NVME_HOLD), -EBUSY);
	assert_non_null(strstr(message, "emu:ram:8M: is away, and waited for"));
	gone("emu:ram:8M/1");
	return 0;
}

static void test_a_device_that_is_waited_for_gets_no_second_one_at_its_place(void **state)
{
	module_on(0, held_place, NULL);
}

MAY_WAIT static int create_second(void *arg) { return drive_create(arg, NVME_REMOVE); }

/* While the controller is shut down, nothing joins it that would stay. */
MAY_WAIT static int create_while_it_leaves(void *arg)
{
	static struct background second;
	ram_make("m", MIB(8), 100);
	drive_make("emu:m,namespaces=2,ns=1,latency=5ms", NVME_REMOVE);
	background_start(&second, 0, create_second, "emu:m,ns=2");
	const int err = nvme_device_detach(device_of("emu:m/1"), NS_PER_SEC);
	assert_int_equal(err, 0);
	background_wait(&second);
	fiber_sleep(NS_PER_SEC);
	assert_null(bdev_find(bench.registry, "emu:m/1"));
	assert_null(bdev_find(bench.registry, "emu:m/2"));
	gone("m");
	return 0;
}

static void test_a_bdev_that_is_made_while_the_device_leaves_goes_too(void **state)
{
	module_on(0, create_while_it_leaves, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_one_namespace_has_the_name_of_its_target, setup, teardown),
		cmocka_unit_test_setup_teardown(test_the_controller_goes_with_the_last_bdev, setup, teardown),
		cmocka_unit_test_setup_teardown(test_without_a_number_it_is_the_first_namespace, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_namespace_is_never_two_bdevs, setup, teardown),
		cmocka_unit_test_setup_teardown(test_two_devices_do_not_disturb_each_other, setup, teardown),
		cmocka_unit_test_setup_teardown(test_limits_of_a_drive_without_options, setup, teardown),
		cmocka_unit_test_setup_teardown(test_limits_follow_the_controller, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_flush_is_wanted_where_completed_is_not_durable, setup, teardown),
		cmocka_unit_test_setup_teardown(test_read_only, setup, teardown),
		cmocka_unit_test_setup_teardown(test_what_cannot_be_made_leaves_nothing_behind, setup, teardown),
		cmocka_unit_test_setup_teardown(test_blocks_smaller_than_those_of_the_medium_are_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_device_that_is_waited_for_gets_no_second_one_at_its_place, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_bdev_that_is_made_while_the_device_leaves_goes_too, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
