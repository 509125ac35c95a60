/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One of the two state blocks has rotted. Goal: what fsync has acknowledged is there, or the mount is refused and fsck finds
 * something; never is an older state taken for the truth in silence. Method: files are made and synced one after the other, on
 * a journal that wraps; after so many of them the image is what a kill would leave. The older state block does not matter. The
 * newer one does, as soon as the older one knows less than the journal: right after a mount, when that was clean, and after a
 * checkpoint, when its tail is overwritten. A repair makes the filesystem whole again, also when its beginning was cut off.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "reactor/log.h"
#include "tests/sim/calls.h"

enum { FILES_BEFORE = 3, STEPS_MAX = 260, STRIDE = 5, ROTTEN_BYTE = 300 };
#define SIZE MIB(32)

static struct fs_state *state_at(uint8_t *memory, bool newer)
{
	struct fs_state *a = (struct fs_state *)(memory + FS_STATE_BLOCK_A * FS_BLOCK_SIZE);
	struct fs_state *b = (struct fs_state *)(memory + FS_STATE_BLOCK_B * FS_BLOCK_SIZE);
	return (le64_get(a->generation) > le64_get(b->generation)) == newer ? a : b;
}

static void make(struct machine *machine, unsigned number)
{
	char name[32];
	struct fs_entry entry;
	snprintf(name, sizeof(name), "file %u", number);
	assert_int_equal(call_create(machine, FS_ROOT_INODE, name, S_IFREG | 0644, &entry), 0);
	assert_int_equal(call_fsync(machine, entry.ino, false), 0);
	call_forget(machine, entry.ino, 1);
}

/* What is on the device when the daemon is killed after @steps files in its second mount. */
static uint8_t *image_make(unsigned steps)
{
	struct machine machine;
	machine_start(&machine, 1, SIZE);
	for (unsigned i = 0; i < FILES_BEFORE; i++)
		make(&machine, i);
	machine_remount(&machine);
	for (unsigned i = 0; i < steps; i++)
		make(&machine, FILES_BEFORE + i);
	uint8_t *image = malloc(SIZE);
	memcpy(image, machine.memory, SIZE);
	machine_stop(&machine);
	return image;
}

/* Mounts a copy; all of @files must be there. */
static int mount_copy(const uint8_t *image, unsigned files, char *message)
{
	struct machine machine = {.memory = malloc(SIZE), .size = SIZE, .owners = 1};
	memcpy(machine.memory, image, SIZE);
	const struct sim_options options = {.owners = 1, .seed = 1, .memory = machine.memory, .size = SIZE};
	sim_create(&machine.sim, &options);
	const int error = sim_mount(&machine.sim, NULL);
	snprintf(message, 256, "%s", machine.sim.message);
	for (unsigned i = 0; i < files && !error; i++) {
		char name[32];
		struct fs_entry entry;
		snprintf(name, sizeof(name), "file %u", i);
		if (call_lookup(&machine, FS_ROOT_INODE, name, &entry))
			fail_msg("file %u of %u was synced, and is lost in silence", i, files);
		call_forget(&machine, entry.ino, 1);
	}
	if (!error) {
		assert_int_equal(sim_unmount(&machine.sim), 0);
		assert_int_equal(sim_fsck(machine.memory, SIZE, false, "after the mount"), 0);
	}
	sim_destroy(&machine.sim);
	free(machine.memory);
	return error;
}

/* ---- repairing ---- */

struct device {
	uint8_t *memory;
	uint64_t writes_left;
};

static int device_read(void *arg, uint64_t block, void *data)
{
	memcpy(data, ((struct device *)arg)->memory + block * FS_BLOCK_SIZE, FS_BLOCK_SIZE);
	return 0;
}

static int device_write(void *arg, uint64_t block, const void *data)
{
	struct device *device = arg;
	if (!device->writes_left)
		return -ENODEV;
	device->writes_left--;
	memcpy(device->memory + block * FS_BLOCK_SIZE, data, FS_BLOCK_SIZE);
	return 0;
}

static int device_flush(void *arg) { return 0; }

static int repair(struct device *device)
{
	struct fsck_repair_result result;
	const struct fsck_repair_options options = {.device_blocks = SIZE / FS_BLOCK_SIZE};
	const struct fsck_repair_io io = {device_read, device_write, device_flush, NULL, NULL, device};
	return fsck_repair(&options, &io, &result);
}

/* The repair is cut off after each of its first writes; nobody takes the old state for the truth then, either. */
static void repairs_help(const uint8_t *image)
{
	char message[256];
	struct device device = {.memory = malloc(SIZE)};
	for (uint64_t writes = 0; writes < 6; writes++) {
		memcpy(device.memory, image, SIZE);
		device.writes_left = writes;
		/* When only the last of all writes is missing, nothing is. */
		if (repair(&device) && !le32_get(state_at(device.memory, true)->error_code) &&
				!sim_fsck(device.memory, SIZE, true, NULL))
			assert_int_equal(mount_copy(device.memory, FILES_BEFORE, message), 0);
		device.writes_left = UINT64_MAX;
		assert_int_equal(repair(&device), 0);
		assert_int_equal(sim_fsck(device.memory, SIZE, false, "after the repair"), 0);
	}
	assert_int_equal(mount_copy(device.memory, 0, message), 0);
	free(device.memory);
}

/* ---- what it is about ---- */

static void test_a_rotten_state_block_loses_nothing_in_silence(void **state)
{
	unsigned refused = 0, refused_clean = 0, refused_wrapped = 0;
	for (unsigned steps = 0; steps <= STEPS_MAX; steps += STRIDE) {
		const unsigned files = FILES_BEFORE + steps;
		char message[256];
		uint8_t *image = image_make(steps);
		uint8_t *rotten = (uint8_t *)state_at(image, false);
		rotten[ROTTEN_BYTE] ^= 1;
		assert_int_equal(mount_copy(image, files, message), 0);
		rotten[ROTTEN_BYTE] ^= 1;
		const bool clean = le32_get(state_at(image, false)->clean);
		((uint8_t *)state_at(image, true))[ROTTEN_BYTE] ^= 1;
		const int error = mount_copy(image, files, message);
		if (error) {
			assert_int_equal(error, -EUCLEAN);
			assert_non_null(strstr(message, "run fsck.lanefs"));
			assert_true(sim_fsck(image, SIZE, true, NULL) > 0);
			refused++;
			refused_clean += clean;
			refused_wrapped += !clean;
			if (refused % 8 == 1)
				repairs_help(image);
		} else {
			assert_int_equal(sim_fsck(image, SIZE, true, "before the mount"), 0);
		}
		free(image);
	}
	print_message("%u states refused: %u that say clean, %u whose tail is overwritten\n", refused, refused_clean, refused_wrapped);
	assert_true(refused_clean > 0 && refused_wrapped > 0);
}

int main(void)
{
	log_set_level(LOG_LEVEL_ERROR);
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_rotten_state_block_loses_nothing_in_silence),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
