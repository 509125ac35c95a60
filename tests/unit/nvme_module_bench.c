/* SPDX-License-Identifier: BSD-3-Clause */
/* See nvme_module_bench.h. */
#include "nvme_module_bench.h"

#include <pthread.h>
#include <signal.h>

#include "reactor/bar_guard.h"
#include "reactor/log.h"
#include "reactor/memory.h"

struct bench bench;
char made[128], message[256];
unsigned told[NVME_DEVICE_HEALTH + 1];

/* ---- the log ---- */

enum { LOG_BYTES = 256 << 10 };
static pthread_mutex_t log_lock = PTHREAD_MUTEX_INITIALIZER;
static char log_text[LOG_BYTES];
static size_t log_used;

static void log_keep(enum log_level level, const char *line, void *arg)
{
	pthread_mutex_lock(&log_lock);
	const size_t room = sizeof(log_text) - log_used;
	const int length = snprintf(log_text + log_used, room, "%s\n", line);
	if (length > 0 && (size_t)length < room)
		log_used += (size_t)length;
	pthread_mutex_unlock(&log_lock);
	if (getenv("NVME_MODULE_LOG"))
		fprintf(stderr, "%s\n", line);
}

unsigned logged(const char *text)
{
	unsigned count = 0;
	pthread_mutex_lock(&log_lock);
	for (const char *at = log_text; (at = strstr(at, text)); at++)
		count++;
	pthread_mutex_unlock(&log_lock);
	return count;
}

void log_forget(void)
{
	pthread_mutex_lock(&log_lock);
	log_used = 0;
	log_text[0] = '\0';
	pthread_mutex_unlock(&log_lock);
}

/* ---- the group ---- */

static void init(unsigned reactors, bool simulate)
{
	log_set_sink(log_keep, NULL);
	log_forget();
	memset(told, 0, sizeof(told));
	made[0] = message[0] = '\0';
	bench_init(&bench, reactors, simulate, getenv("NVME_MODULE_SEED") ? strtoull(getenv("NVME_MODULE_SEED"), NULL, 0) : 11);
}

void module_init(unsigned reactors) { init(reactors, true); }
void module_init_threads(unsigned reactors) { init(reactors, false); }

void module_fini(void)
{
	bench_fini(&bench);
	log_set_sink(NULL, NULL);
}

/* cmocka takes SIGBUS at the start of each test; the guard's handler is installed once. */
static void guard_again(void)
{
	static struct sigaction guarding;
	static _Alignas(BLOCK) uint8_t page[BLOCK];
	atomic_bool unused;
	if (!guarding.sa_sigaction) {
		assert_int_equal(bar_guard_add(page, sizeof(page), &unused), 0);
		bar_guard_remove(page);
		sigaction(SIGBUS, NULL, &guarding);
	}
	sigaction(SIGBUS, &guarding, NULL);
}

void module_on(unsigned reactor, int (*fn)(void *arg), void *arg)
{
	guard_again();
	assert_int_equal(reactor_group_run(reactor_group_get(bench.group, reactor), fn, arg), 0);
}

/* ---- drives ---- */

static void device_told(enum nvme_device_event event, void *arg) { told[event]++; }

MAY_WAIT int drive_create(const char *target, enum nvme_policy policy)
{
	const struct nvme_device_options options = {.policy = policy, .event = device_told};
	return nvme_device_create(bench.registry, target, &options, made, sizeof(made), message, sizeof(message));
}

MAY_WAIT void drive_make(const char *target, enum nvme_policy policy)
{
	const int err = drive_create(target, policy);
	if (err)
		fail_msg("%s: %d: %s", target, err, message);
}

MAY_WAIT void ram_make(const char *name, uint64_t size_bytes, unsigned delay_us)
{
	const struct bdev_ram_options options = {.size_bytes = size_bytes, .block_size = 512, .asynchronous = delay_us != 0,
		.seed = 5, .delay_us_max = delay_us, .volatile_cache = true};
	assert_int_equal(bdev_ram_create(bench.registry, name, &options), 0);
}

MAY_WAIT void gone(const char *name)
{
	assert_non_null(bdev_find(bench.registry, name));
	assert_int_equal(bdev_remove(bench.registry, name, 60 * NS_PER_SEC), 0);
	assert_null(bdev_find(bench.registry, name));
}

struct nvme_device *device_of(const char *name)
{
	struct nvme_device *device = nvme_device_of(bench.registry, name);
	assert_non_null(device);
	return device;
}

struct emu *emu_of(const char *name) { return nvme_device_emu(device_of(name)); }

MAY_WAIT void rule_add(const char *name, const char *text)
{
	struct emu_rule rule;
	char why[256];
	assert_int_equal(emu_rule_parse(text, &rule, why, sizeof(why)), 0);
	assert_true(emu_add_rule(emu_of(name), &rule) >= 0);
}

/* ---- users ---- */

static void user_told(enum bdev_event event, struct bdev_desc *desc, void *arg)
{
	struct user *user = arg;
	user->removed += event == BDEV_EVENT_REMOVED;
	user->resized += event == BDEV_EVENT_RESIZED;
}

MAY_WAIT void user_open(struct user *user, const char *name)
{
	memset(user, 0, sizeof(*user));
	assert_int_equal(bdev_open(bench.registry, name, true, user_told, user, &user->desc), 0);
	assert_int_equal(bdev_channel_get(user->desc, &user->channel), 0);
}

MAY_WAIT void user_close(struct user *user) { bench_close(user->desc, user->channel); }

MAY_WAIT struct nvme_device *held_drive(const char *target, struct user *user)
{
	drive_make(target, NVME_HOLD);
	user_open(user, made);
	struct nvme_device *device = device_of(made);
	assert_int_equal(nvme_device_emu_pull(device), 0);
	assert_int_equal(nvme_device_get_state(device), NVME_DEVICE_HELD);
	assert_null(nvme_device_ctrlr(device));
	return device;
}

MAY_WAIT int reattach(struct nvme_device *device, const char *target, nvme_accept_fn accept, void *arg)
{
	return nvme_device_reattach(device, target, accept, arg, message, sizeof(message));
}

MAY_WAIT int give_up_run(void *name_text)
{
	struct nvme_device *device = nvme_device_of(bench.registry, name_text);
	if (device)
		nvme_device_give_up(device);
	return 0;
}

MAY_WAIT int pull_run(void *name_text)
{
	struct nvme_device *device = nvme_device_of(bench.registry, name_text);
	return device ? nvme_device_emu_pull(device) : 0;
}

MAY_WAIT int lost_run(void *name_text)
{
	struct nvme_device *device = nvme_device_of(bench.registry, name_text);
	if (device)
		nvme_device_lost(device);
	return 0;
}

MAY_WAIT int detach_run(void *name_text)
{
	struct nvme_device *device = nvme_device_of(bench.registry, name_text);
	return device ? nvme_device_detach(device, NS_PER_SEC) : -ENODEV;
}

MAY_WAIT int remove_run(void *name_text) { return bdev_remove(bench.registry, name_text, NS_PER_SEC); }

/* ---- I/O under way ---- */

static unsigned shots_over;

static void shot_done(struct io *io)
{
	struct shot *shot = io->arg;
	shot->result = io->result;
	shot->order = __atomic_fetch_add(&shots_over, 1, __ATOMIC_RELAXED);
	shot->answers++;
}

static void shot_submit(struct shot *shot)
{
	shot->result = SHOT_PENDING;
	shot->answers = 0;
	shot->io.done = shot_done;
	shot->io.arg = shot;
	io_submit(&shot->io);
}

void shot_start(struct shot *shot, struct bdev_channel *channel, enum io_op op, uint64_t offset, uint64_t length)
{
	if (!shot->buffer)
		shot->buffer = dma_alloc(SHOT_BYTES, BLOCK);
	assert_non_null(shot->buffer);
	assert_in_range(length, 0, SHOT_BYTES);
	io_prepare(&shot->io, channel, op, op == IO_READ || op == IO_WRITE ? shot->buffer : NULL, offset, length);
	shot_submit(shot);
}

void shot_write(struct shot *shot, struct bdev_channel *channel, uint64_t offset, uint64_t length, uint8_t fill)
{
	if (!shot->buffer)
		shot->buffer = dma_alloc(SHOT_BYTES, BLOCK);
	assert_non_null(shot->buffer);
	memset(shot->buffer, fill, length);
	shot_start(shot, channel, IO_WRITE, offset, length);
}

void shot_abort(struct shot *shot, struct shot *target)
{
	io_prepare(&shot->io, target->io.channel, IO_ABORT, NULL, 0, 0);
	shot->io.abort_target = &target->io;
	shot_submit(shot);
}

/* Nobody waits for ever. */
enum { PATIENCE_S = 100 };

MAY_WAIT int shot_wait(struct shot *shot)
{
	const uint64_t end_ns = reactor_now_ns() + PATIENCE_S * NS_PER_SEC;
	for (uint64_t nap_ns = 10 * NS_PER_US; shot->result == SHOT_PENDING; nap_ns = MIN(nap_ns + nap_ns / 8, NS_PER_MS)) {
		assert_true(reactor_now_ns() < end_ns);
		fiber_sleep(nap_ns);
	}
	assert_int_equal(shot->answers, 1);
	return shot->result;
}

void shot_free(struct shot *shot)
{
	if (shot->buffer)
		dma_free(shot->buffer);
	shot->buffer = NULL;
}

MAY_WAIT bool filled(struct bdev_channel *channel, uint64_t offset, uint8_t fill)
{
	static struct shot shots[REACTOR_COUNT_MAX];
	struct shot *shot = &shots[reactor_index(reactor_self())];
	const uint32_t length = BLOCK;
	shot_start(shot, channel, IO_READ, offset, length);
	assert_int_equal(shot_wait(shot), 0);
	for (uint32_t i = 0; i < length; i++)
		if (shot->buffer[i] != fill)
			return false;
	return true;
}

/* ---- fibers ---- */

static void background_main(void *arg)
{
	struct background *background = arg;
	background->result = background->fn(background->arg);
	__atomic_store_n(&background->done, true, __ATOMIC_RELEASE);
}

void background_start(struct background *background, unsigned reactor, int (*fn)(void *arg), void *arg)
{
	*background = (struct background){.fn = fn, .arg = arg,
		.remote.start = {.fn = background_main, .arg = background, .name = "background of a test"}};
	fiber_start_on(reactor_group_get(bench.group, reactor), &background->remote);
}

MAY_WAIT int background_wait(struct background *background)
{
	const uint64_t end_ns = reactor_now_ns() + PATIENCE_S * NS_PER_SEC;
	uint64_t nap_ns = 50 * NS_PER_US;
	for (; !__atomic_load_n(&background->done, __ATOMIC_ACQUIRE); nap_ns = MIN(nap_ns + nap_ns / 8, NS_PER_MS)) {
		assert_true(reactor_now_ns() < end_ns);
		fiber_sleep(nap_ns);
	}
	return background->result;
}

uint64_t random_next(uint64_t *state)
{
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	return *state * 0x2545f4914f6cdd1dull;
}
