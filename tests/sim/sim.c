/* SPDX-License-Identifier: BSD-3-Clause */
#include "tests/sim/sim.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "blockdev/nvme.h"

void sim_fail(const char *format, ...)
{
	va_list args;
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	abort();
}

uint64_t sim_rand(uint64_t *state)
{
	uint64_t z = (*state += 0x9e3779b97f4a7c15ull);
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

struct create {
	struct sim *sim;
	const struct sim_options *options;
};

static MAY_WAIT int create_devices(void *arg)
{
	const struct create *create = arg;
	const struct sim_options *options = create->options;
	struct sim *sim = create->sim;
	const struct bdev_ram_options ram = {.size_bytes = options->size, .memory = options->memory, .volatile_cache = true,
		.asynchronous = options->asynchronous, .seed = options->seed, .delay_us_max = options->asynchronous ? 200 : 0};
	int error = bdev_ram_create(sim->registry, "ram", &ram);
	sim->device = "ram";
	if (!error && options->nvme) {
		const struct nvme_device_options nvme = {.policy = options->hold ? NVME_HOLD : NVME_REMOVE};
		char target[256], name[128];
		snprintf(target, sizeof(target), "emu:ram%s%s", options->nvme[0] ? "," : "", options->nvme);
		error = nvme_device_create(sim->registry, target, &nvme, name, sizeof(name), sim->message, sizeof(sim->message));
		if (error || strcmp(name, SIM_NVME))
			sim_fail("sim: %s (%s)", sim->message, name);
		sim->device = SIM_NVME;
	}
	if (!error && options->error) {
		error = bdev_error_create(sim->registry, "error", sim->device);
		sim->device = "error";
	}
	if (!error && options->record) {
		error = bdev_record_create(sim->registry, "record", sim->device);
		sim->device = "record";
	}
	return error;
}

void sim_create(struct sim *sim, const struct sim_options *options)
{
	*sim = (struct sim){.recording = options->record, .error_device = options->error, .nvme_device = options->nvme};
	const struct reactor_options reactors = {.count = options->owners, .simulate = true, .seed = options->seed,
		.fiber_count = 256};
	struct create create = {.sim = sim, .options = options};
	if (reactor_group_create(&reactors, &sim->group) || reactor_group_start(sim->group) ||
		bdev_registry_create(sim->group, &sim->registry) ||
		reactor_group_run(reactor_group_get(sim->group, 0), create_devices, &create))
		sim_fail("sim: cannot create the simulated machine");
}

static MAY_WAIT int remove_devices(void *arg)
{
	struct sim *sim = arg;
	int error = 0;
	if (sim->recording)
		error = bdev_remove(sim->registry, "record", NS_PER_SEC);
	if (!error && sim->error_device)
		error = bdev_remove(sim->registry, "error", NS_PER_SEC);
	if (!error && sim->nvme_device)
		error = bdev_remove(sim->registry, SIM_NVME, 60 * NS_PER_SEC);
	return error ? error : bdev_remove(sim->registry, "ram", NS_PER_SEC);
}

void sim_destroy(struct sim *sim)
{
	if (reactor_group_run(reactor_group_get(sim->group, 0), remove_devices, sim))
		sim_fail("sim: devices do not go away");
	bdev_registry_destroy(sim->registry);
	reactor_group_stop(sim->group);
	reactor_group_destroy(sim->group);
}

struct mount_call {
	struct sim *sim;
	struct fs_mount_options options;
};

static void note_stopped(struct fs *fs, int error, void *arg)
{
	struct sim *sim = arg;
	sim->stopped = error;
}

static MAY_WAIT int mount_run(void *arg)
{
	struct mount_call *call = arg;
	struct sim *sim = call->sim;
	call->options.stopped = note_stopped;
	call->options.arg = sim;
	return fs_mount(sim->registry, sim->device, &call->options, &sim->fs, sim->message, sizeof(sim->message));
}

int sim_mount(struct sim *sim, const struct fs_mount_options *options)
{
	struct mount_call call = {.sim = sim};
	if (options)
		call.options = *options;
	if (!call.options.cache_bytes)
		call.options.cache_bytes = MIB(1);
	sim->fs = NULL;
	sim->stopped = 0;
	return reactor_group_run(reactor_group_get(sim->group, 0), mount_run, &call);
}

static MAY_WAIT int unmount_run(void *arg)
{
	struct sim *sim = arg;
	struct fs *fs = sim->fs;
	sim->fs = NULL;
	return fs_unmount(fs);
}

int sim_unmount(struct sim *sim) { return reactor_group_run(reactor_group_get(sim->group, 0), unmount_run, sim); }

int sim_on(struct sim *sim, uint64_t ino, int (*fn)(void *arg), void *arg)
{
	return reactor_group_run(fs_owner(sim->fs, ino), fn, arg);
}

struct bdev *sim_bdev(struct sim *sim, const char *name) { return bdev_find(sim->registry, name); }

static int mkfs_write(void *arg, uint64_t block, const void *data)
{
	memcpy((uint8_t *)arg + block * FS_BLOCK_SIZE, data, FS_BLOCK_SIZE);
	return 0;
}

void sim_mkfs(void *memory, const struct sim_format *format)
{
	uint64_t seed = format->seed;
	struct mkfs_options options = {.size_bytes = format->size, .journal_bytes = format->journal_bytes,
		.ag_bytes = format->ag_bytes, .fsid = sim_rand(&seed), .journal_id = sim_rand(&seed), .hash_seed = sim_rand(&seed),
		.first_crc = (uint32_t)sim_rand(&seed), .first_sequence = 1 + sim_rand(&seed) % 1000000, .now_sec = 1800000000,
		.small = true};
	memcpy(options.uuid, &options.fsid, 8);
	const struct mkfs_io io = {.write = mkfs_write, .arg = memory};
	struct fs_super *super = malloc(sizeof(*super));
	char message[256];
	if (mkfs_format(&options, &io, super, message, sizeof(message)))
		sim_fail("sim: mkfs: %s", message);
	free(super);
}

struct check {
	const uint8_t *memory;
	const char *prefix;
};

static int check_read(void *arg, uint64_t block, void *data)
{
	const struct check *check = arg;
	memcpy(data, check->memory + block * FS_BLOCK_SIZE, FS_BLOCK_SIZE);
	return 0;
}

static void check_finding(void *arg, const char *line)
{
	const struct check *check = arg;
	if (check->prefix)
		fprintf(stderr, "%s: fsck: %s\n", check->prefix, line);
}

uint64_t sim_fsck_result(const void *memory, uint64_t size, bool replay, const char *prefix, struct fsck_result *out)
{
	struct check check = {.memory = memory, .prefix = prefix};
	const struct fsck_options options = {.device_blocks = size / FS_BLOCK_SIZE, .replay_in_memory = replay, .findings_max = 20};
	const struct fsck_io io = {.read = check_read, .finding = check_finding, .arg = &check};
	if (fsck_check(&options, &io, out))
		sim_fail("sim: fsck did not come to its end");
	return out->findings;
}

uint64_t sim_fsck(const void *memory, uint64_t size, bool replay, const char *prefix)
{
	struct fsck_result result;
	return sim_fsck_result(memory, size, replay, prefix, &result);
}
