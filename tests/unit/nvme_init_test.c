/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Goal: a controller that starts is described rightly and works; one that does not start is refused with the right errno and one
 * line, leaks nothing, and can be attached again when it is mended. Method: the scripted controller.
 */
#include <errno.h>
#include <stdio.h>

#include "nvme_rig.h"

static struct rig rig;

static int setup(void **state)
{
	rig_init(&rig, 1, 11);
	return 0;
}

static int teardown(void **state)
{
	rig_fini(&rig);
	return 0;
}

/* ---- what works ---- */

static void test_controller_is_described(void **state)
{
	assert_int_equal(rig_attach(&rig), 0);
	const struct nvme_ctrlr_info *info = nvme_ctrlr_get_info(rig.ctrlr);
	assert_string_equal(info->model, "Fake controller");
	assert_string_equal(info->serial, "0042");
	assert_string_equal(info->firmware, "1.0");
	assert_int_equal(info->vendor, 0x1234);
	assert_int_equal(info->version, 0x00010400);
	assert_int_equal(info->transfer_bytes_max, 128 << 10);
	assert_int_equal(info->queue_depth, 8);
	assert_true(info->cache_present && info->cache_on && info->dsm && info->write_zeroes);
	assert_false(info->interrupts || info->shadow_doorbells);
	assert_int_equal(nvme_ctrlr_ns_count(rig.ctrlr), 1);
	assert_int_equal(nvme_ctrlr_ns(rig.ctrlr, 1)->block_count, 1024);
	assert_int_equal(nvme_ctrlr_ns(rig.ctrlr, 1)->block_size, 512);
	assert_null(nvme_ctrlr_ns(rig.ctrlr, 1)->refused);
	assert_null(nvme_ctrlr_ns(rig.ctrlr, 2));
	rig_detach(&rig);
	assert_int_equal(rig.fake.shutdowns, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_controller_is_described, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
