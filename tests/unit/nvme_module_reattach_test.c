/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Goal: only a controller that can take the place of the one that left is attached to a held device; whatever happens
 * meanwhile, to it or to the device, the device ends up attached, held or removed, and nobody looks at what is gone.
 * Method: emulated drives in simulated groups, things that happen at every moment of a reattach.
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

static struct user user;

/* The last look at a drive: its bdev is there and goes. */
MAY_WAIT static void close_and_remove(void)
{
	char name[sizeof(made)];
	memcpy(name, made, sizeof(name));
	user_close(&user);
	gone(name);
}

/* ---- the wrong one ---- */

struct wrong {
	const char *target;
	int error;
	const char *says;
};
static const struct wrong wrongs[] = {
	{"emu:small", -ESTALE, "emu:small: not the device that left: namespace 1 is smaller"},
	{"emu:m2,lba=512", -ESTALE, "has blocks of 512 bytes"},
	{"emu:m2,metadata=8", -ESTALE, "formatted with metadata"},
	{"emu:m2,mdts=1", -ESTALE, "takes 8192 bytes at once"},
	{"emu:m2,dsm=off", -ESTALE, "cannot do everything"},
	{"emu:m2,zeroes=off", -ESTALE, "cannot do everything"},
	{"emu:m2,rule=enable:not-ready", -ETIMEDOUT, "emu:m2: not ready"},
	{"emu:m2,rule=admin-identify:vanish:skip=1", -ENODEV, "emu:m2"},
	{"emu:m2,what=1", -EINVAL, "emu:m2: what"},
	{"emu:nowhere/m", -ENOENT, "no such file"},
	{"emu:", -EINVAL, "names no medium"},
	{"/an/image", -EINVAL, "/an/image: no NVMe"},
	{"pci:0000:zz:00.0", -EINVAL, "not a PCI address"},
};

MAY_WAIT static int wrong_ones(void *arg)
{
	static struct shot shot;
	ram_make("small", MIB(4), 0);
	ram_make("m2", MIB(8), 0);
	struct nvme_device *device = held_drive("emu:ram:8M", &user);
	shot_write(&shot, user.channel, 0, BLOCK, 0x21);
	for (unsigned i = 0; i < ARRAY_SIZE(wrongs); i++) {
		const int err = reattach(device, wrongs[i].target, NULL, NULL);
		if (err != wrongs[i].error || !strstr(message, wrongs[i].says))
			fail_msg("%s: %d: %s", wrongs[i].target, err, message);
		assert_int_equal(nvme_device_get_state(device), NVME_DEVICE_HELD);
		assert_int_equal(shot.result, SHOT_PENDING);
	}
	gone("small"); /* nobody uses them any more */
	gone("m2");
	assert_int_equal(reattach(device, NULL, NULL, NULL), 0);
	assert_int_equal(shot_wait(&shot), 0);
	close_and_remove();
	shot_free(&shot);
	return 0;
}

static void test_what_cannot_take_the_place_is_refused(void **state) { module_on(1, wrong_ones, NULL); }

MAY_WAIT static int refuse_twice(void *arg, nvme_read_fn read, void *context, char *why, size_t why_size)
{
	unsigned *calls = arg;
	uint8_t block[BLOCK];
	assert_int_equal(read(context, block, 0, BLOCK), 0);
	assert_int_equal(block[0], 0x22);
	snprintf(why, why_size, "not liked");
	return (*calls)++ < 2 ? -ESTALE : 0;
}

MAY_WAIT static int not_accepted(void *arg)
{
	static struct shot shot, next;
	unsigned calls = 0;
	struct nvme_device *device = held_drive("emu:ram:8M", &user);
	assert_int_equal(reattach(device, NULL, NULL, NULL), 0);
	shot_write(&shot, user.channel, 0, BLOCK, 0x22);
	assert_int_equal(shot_wait(&shot), 0);
	assert_int_equal(nvme_device_emu_pull(device), 0);
	shot_write(&next, user.channel, 0, BLOCK, 0x23);
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(reattach(device, NULL, refuse_twice, &calls), -ESTALE);
		assert_string_equal(message, "not liked");
		assert_int_equal(nvme_device_get_state(device), NVME_DEVICE_HELD);
	}
	assert_int_equal(reattach(device, NULL, refuse_twice, &calls), 0);
	assert_int_equal(calls, 3);
	assert_int_equal(shot_wait(&next), 0);
	close_and_remove();
	shot_free(&shot);
	shot_free(&next);
	return 0;
}

static void test_what_is_not_accepted_stays_held_until_the_right_one(void **state) { module_on(0, not_accepted, NULL); }

MAY_WAIT static int read_a_lot(void *arg, nvme_read_fn read, void *context, char *why, size_t why_size)
{
	uint8_t *buffer = malloc(KIB(64));
	assert_int_equal(read(context, buffer, MIB(8) - KIB(64), KIB(64)), 0);
	assert_int_equal(read(context, buffer, KIB(8), KIB(64)), 0);
	assert_int_equal(buffer[0], 0x24);
	assert_int_equal(buffer[KIB(64) - 1], 0);
	assert_int_equal(read(context, buffer, MIB(8), BLOCK), -EINVAL);
	assert_int_equal(read(context, buffer, UINT64_MAX - BLOCK + 1, BLOCK), -EINVAL);
	assert_int_equal(read(context, buffer, 1, BLOCK), -EINVAL);
	assert_int_equal(read(context, buffer, 0, 100), -EINVAL);
	free(buffer);
	return 0;
}

MAY_WAIT static int small_transfers(void *arg)
{
	static struct shot shot;
	struct nvme_device *device = held_drive("emu:ram:8M,mdts=1", &user);
	shot_write(&shot, user.channel, KIB(8), BLOCK, 0x24);
	assert_int_equal(reattach(device, NULL, NULL, NULL), 0);
	assert_int_equal(shot_wait(&shot), 0);
	assert_int_equal(nvme_device_emu_pull(device), 0);
	assert_int_equal(reattach(device, NULL, read_a_lot, NULL), 0);
	close_and_remove();
	shot_free(&shot);
	return 0;
}

static void test_accept_reads_more_than_one_transfer(void **state) { module_on(0, small_transfers, NULL); }

/* ---- another place ---- */

MAY_WAIT static void copy_medium(const char *from, const char *to)
{
	struct bdev_channel *source, *target;
	struct bdev_desc *source_desc = bench_open(&bench, from, &source), *target_desc = bench_open(&bench, to, &target);
	uint8_t *buffer = malloc(KIB(64));
	for (uint64_t at = 0; at < MIB(8); at += KIB(64)) {
		assert_int_equal(bdev_read(source, buffer, at, KIB(64)), 0);
		assert_int_equal(bdev_write(target, buffer, at, KIB(64), 0), 0);
	}
	free(buffer);
	bench_close(source_desc, source);
	bench_close(target_desc, target);
}

MAY_WAIT static int elsewhere(void *arg)
{
	static struct shot shot;
	ram_make("a", MIB(8), 0);
	ram_make("b", MIB(16), 0);
	struct nvme_device *device = held_drive("emu:a", &user);
	assert_int_equal(reattach(device, "emu:a,cache=1M", NULL, NULL), 0);
	shot_write(&shot, user.channel, 0, BLOCK, 0x25);
	assert_int_equal(shot_wait(&shot), 0);
	assert_int_equal(nvme_device_emu_pull(device), 0);
	shot_write(&shot, user.channel, BLOCK, BLOCK, 0x26);
	copy_medium("a", "b");
	assert_int_equal(reattach(device, "emu:b", NULL, NULL), 0);
	gone("a");
	assert_int_equal(shot_wait(&shot), 0);
	assert_true(filled(user.channel, 0, 0x25) && filled(user.channel, BLOCK, 0x26));
	/* It grew. */
	fiber_sleep(NS_PER_MS);
	assert_int_equal(user.resized, 1);
	assert_int_equal(bdev_size_bytes(bdev_get_limits(bdev_desc_bdev(user.desc))), MIB(16));
	shot_write(&shot, user.channel, MIB(16) - BLOCK, BLOCK, 0x27);
	assert_int_equal(shot_wait(&shot), 0);
	/* That is its place from now on. */
	assert_int_equal(nvme_device_emu_pull(device), 0);
	assert_int_equal(reattach(device, NULL, NULL, NULL), 0);
	assert_true(filled(user.channel, MIB(16) - BLOCK, 0x27));
	close_and_remove();
	gone("b");
	shot_free(&shot);
	return 0;
}

static void test_a_copy_at_another_place_goes_on(void **state) { module_on(1, elsewhere, NULL); }

/* ---- it leaves again at once ---- */

MAY_WAIT static int pull_in_accept(void *arg, nvme_read_fn read, void *context, char *why, size_t why_size)
{
	uint8_t block[BLOCK];
	struct emu *emu = nvme_device_emu(arg);
	assert_int_equal(read(context, block, 0, BLOCK), 0);
	emu_pull(emu);
	const int err = read(context, block, 0, BLOCK);
	assert_int_equal(err, -ENODEV);
	return err;
}

MAY_WAIT static int pull_late_in_accept(void *arg, nvme_read_fn read, void *context, char *why, size_t why_size)
{
	emu_pull(nvme_device_emu(arg));
	return 0;
}

MAY_WAIT static int pull_soon(void *arg)
{
	fiber_sleep(*(uint64_t *)arg);
	struct nvme_device *device = nvme_device_of(bench.registry, made);
	return device ? nvme_device_emu_pull(device) : 0;
}

MAY_WAIT static int dies_in_reattach(void *arg)
{
	static struct shot shot;
	static struct background background;
	struct nvme_device *device = held_drive("emu:ram:8M", &user);
	shot_write(&shot, user.channel, 0, BLOCK, 0x28);
	assert_int_equal(reattach(device, NULL, pull_in_accept, device), -ENODEV);
	assert_int_equal(nvme_device_get_state(device), NVME_DEVICE_HELD);
	const int late = reattach(device, NULL, pull_late_in_accept, device);
	assert_true(late == -ENODEV || late == 0); /* 0: seen a moment later */
	fiber_sleep(NS_PER_SEC);
	assert_int_equal(nvme_device_get_state(device), NVME_DEVICE_HELD);
	assert_int_equal(shot.result, SHOT_PENDING);
	unsigned back = 0;
	for (uint64_t delay_us = 0; delay_us < 4000; delay_us += 61) {
		uint64_t delay_ns = delay_us * NS_PER_US;
		if (nvme_device_get_state(device) == NVME_DEVICE_ATTACHED)
			assert_int_equal(nvme_device_emu_pull(device), 0);
		shot.result == SHOT_PENDING ? (void)0 : shot_write(&shot, user.channel, 0, BLOCK, 0x28);
		background_start(&background, 0, pull_soon, &delay_ns);
		back += reattach(device, NULL, NULL, NULL) == 0;
		background_wait(&background);
		assert_true(shot.answers == 0 || shot.result == 0);
	}
	assert_true(back > 0);
	fiber_sleep(NS_PER_SEC);
	assert_int_equal(nvme_device_get_state(device), NVME_DEVICE_HELD);
	assert_int_equal(reattach(device, NULL, NULL, NULL), 0);
	assert_int_equal(shot_wait(&shot), 0);
	close_and_remove();
	shot_free(&shot);
	return 0;
}

static void test_a_controller_that_dies_while_it_is_attached(void **state) { module_on(0, dies_in_reattach, NULL); }

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_what_cannot_take_the_place_is_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(test_what_is_not_accepted_stays_held_until_the_right_one, setup, teardown),
		cmocka_unit_test_setup_teardown(test_accept_reads_more_than_one_transfer, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_copy_at_another_place_goes_on, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_controller_that_dies_while_it_is_attached, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
