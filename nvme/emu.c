/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The life of an emulated drive, and its poller.
 *
 * Leaving (pull, the rule VANISH, release by the driver) and a power cut go in steps, since host memory may be in
 * use by the backing: at once, the model stops: the poller does nothing more, everything inside is dropped. When no
 * backing I/O uses host memory any more, the BAR is cut: from here on the driver finds a device that is gone. When
 * all backing I/O has come back and what the power cut lets survive is written, the drive is out. emu_settle looks
 * which steps can be taken.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <unistd.h>

#include "nvme/emu_internal.h"
#include "reactor/log.h"

/* ---- leaving ---- */

static void bar_cut(struct emu *emu)
{
	if (!emu->bar)
		return;
	if (ftruncate(emu->port->memory_fd, 0) != 0)
		log_error("%s: the registers cannot be cut off: %s", emu->name, strerror(errno));
	munmap((void *)emu->bar, EMU_BAR_BYTES);
	emu->bar = NULL;
}

static void leave_finish(struct emu *emu)
{
	reactor_unwatch_fd(emu->reactor, emu->port->wake_fd);
	emu_port_put(emu->port);
	emu->port = NULL;
	emu->state = EMU_OUT;
	fiber_cond_broadcast(&emu->settled);
}

static void cut_finish(struct emu *emu)
{
	emu_queues_clear(emu);
	emu_registers_init(emu);
	fiber_cond_broadcast(&emu->settled);
}

/* Everything that the host started ends here. */
static void stop(struct emu *emu, enum emu_state state)
{
	if (emu->state >= EMU_ENABLING && emu->state <= EMU_RESETTING && !emu->shut_down)
		emu->counters.unsafe_shutdowns++;
	emu->saved = emu->shut_down;
	emu->state = state;
	timer_stop(&emu->ready_timer);
	emu_commands_drop(emu);
	emu_cache_cut(emu);
}

static void save_flushed(struct emu_command *command, int error)
{
	if (error)
		log_warn("%s: not everything was written: %s", command->emu->name, strerror(-error));
	emu_settle(command->emu);
}

/* True: what survives is on the medium. With capacitors, so is what the medium had in its own cache. */
static bool save(struct emu *emu)
{
	if (!emu_cache_drained(emu) || emu->backing_ios > 0)
		return false;
	if (emu->saved || emu->options.cut != EMU_CUT_NONE)
		return true;
	emu->saved = true;
	emu_flush_run(&emu->own, save_flushed);
	return false;
}

void emu_settle(struct emu *emu)
{
	if (emu->state == EMU_RESETTING && emu->host_ios == 0 && emu->own.place != EMU_AT_BACKING)
		emu_reset_finish(emu);
	if (emu->state == EMU_LEAVING && emu->host_ios == 0) {
		bar_cut(emu);
		emu_queues_clear(emu);
	}
	if (emu->state == EMU_LEAVING && save(emu))
		leave_finish(emu);
	else if (emu->state == EMU_CUTTING && save(emu))
		cut_finish(emu);
}

void emu_leave(struct emu *emu)
{
	if (emu->state == EMU_OUT || emu->state == EMU_LEAVING)
		return;
	stop(emu, EMU_LEAVING);
	emu_settle(emu);
}

static bool released(const struct emu *emu) { return emu->port && atomic_load(&emu->port->released); }

MAY_WAIT static void settle_wait(struct emu *emu)
{
	while (emu->state == EMU_LEAVING || emu->state == EMU_CUTTING)
		fiber_cond_wait(&emu->settled, "I/O of the emulated drive");
}

MAY_WAIT void emu_pull(struct emu *emu)
{
	emu_leave(emu);
	settle_wait(emu);
}

MAY_WAIT void emu_power_cut(struct emu *emu)
{
	if (emu->state != EMU_OUT && emu->state != EMU_LEAVING && emu->state != EMU_CUTTING) {
		stop(emu, EMU_CUTTING);
		emu->counters.power_cycles++;
		emu_settle(emu);
	}
	settle_wait(emu);
}

/* ---- the poller ---- */

/* The signal may come after we looked: then the next sleep is a short one. */
static void wake_over(struct emu *emu)
{
	uint64_t count;
	emu->announced = false;
	atomic_store(&emu->port->asleep, false);
	if (read(emu->port->wake_fd, &count, sizeof(count)) > 0)
		emu->stats.doorbell_wakes++;
}

static unsigned emu_poll(struct poller *poller)
{
	struct emu *emu = CONTAINER_OF(poller, struct emu, poller);
	if (emu->state == EMU_OUT)
		return 0;
	emu->seen_writes = atomic_load_explicit(&emu->port->writes, memory_order_acquire);
	if (emu->announced)
		wake_over(emu);
	if (emu->state == EMU_LEAVING || emu->state == EMU_CUTTING)
		return 0;
	if (released(emu)) {
		emu_leave(emu);
		return 1;
	}
	emu->polling = true;
	unsigned work = emu_registers_poll(emu);
	if (emu->state == EMU_READY)
		work += emu_queues_poll(emu);
	emu->polling = false;
	if (emu->state == EMU_READY)
		emu_queues_signal(emu);
	return work;
}

/* Announced first, looked at afterwards; see emu_port.c. */
static bool emu_before_sleep(struct poller *poller)
{
	struct emu *emu = CONTAINER_OF(poller, struct emu, poller);
	if (emu->state == EMU_OUT || emu->state == EMU_LEAVING || emu->state == EMU_CUTTING)
		return true;
	emu->announced = true;
	atomic_store(&emu->port->asleep, true);
	if (atomic_load(&emu->port->writes) != emu->seen_writes || released(emu))
		return false;
	return emu_bar_load(emu, NVME_REG_CC) == emu->cc && !(emu->state == EMU_READY && emu_queues_news(emu));
}

/* ---- create ---- */

static void options_fill_in(struct emu_options *options)
{
	options->lba_bytes = options->lba_bytes ? options->lba_bytes : 4096;
	options->namespaces = options->namespaces ? options->namespaces : 1;
	options->queues_max = options->queues_max ? options->queues_max : 64;
	options->depth_max = options->depth_max ? options->depth_max : 1024;
	options->mdts = options->mdts ? options->mdts : 5;
	options->tear_bytes = options->tear_bytes ? options->tear_bytes : 512;
}

static bool options_good(const struct emu_options *options, uint64_t size_bytes)
{
	return (options->lba_bytes == 512 || options->lba_bytes == 4096) &&
		(options->tear_bytes == 512 || options->tear_bytes == 4096) &&
		options->namespaces <= EMU_NAMESPACES_MAX && size_bytes / options->namespaces >= EMU_PAGE &&
		options->queues_max <= EMU_QUEUES_MAX && options->depth_max >= 2 &&
		options->depth_max <= EMU_DEPTH_MAX && options->mdts <= 15 && options->rule_count <= EMU_RULES_MAX;
}

static uint64_t hash_text(const char *text)
{
	uint64_t hash = 0xcbf29ce484222325; /* FNV-1a */
	for (; *text; text++)
		hash = (hash ^ (uint8_t)*text) * 0x100000001b3;
	return hash;
}

static void identity_init(struct emu *emu, const char *name)
{
	snprintf(emu->name, sizeof(emu->name), "%s", name);
	if (emu->options.serial[0])
		snprintf(emu->serial, sizeof(emu->serial), "%.20s", emu->options.serial);
	else
		snprintf(emu->serial, sizeof(emu->serial), "LF%016llX", (unsigned long long)hash_text(name));
}

static void namespaces_init(struct emu *emu)
{
	const uint64_t part = align_down(emu->backing.size_bytes / emu->options.namespaces, EMU_PAGE);
	for (unsigned i = 0; i < emu->options.namespaces; i++) {
		const uint64_t blocks = part / emu->options.lba_bytes;
		emu->ns[i] = (struct emu_ns){.nsid = i + 1, .attached = true, .first_byte = i * part,
			.blocks = blocks, .blocks_max = blocks};
	}
}

static void emu_free(struct emu *emu)
{
	emu_queues_fini(emu);
	emu_commands_fini(emu);
	emu_cache_fini(emu);
	free(emu);
}

int emu_create(const char *name, const struct emu_options *options, const struct emu_backing *backing,
	struct reactor *reactor, struct emu **out)
{
	struct emu *emu = calloc(1, sizeof(*emu));
	if (!emu)
		return -ENOMEM;
	emu->reactor = reactor;
	emu->options = *options;
	emu->backing = *backing;
	fiber_cond_init(&emu->settled);
	options_fill_in(&emu->options);
	int err = options_good(&emu->options, backing->size_bytes) ? emu_queues_init(emu) : -EINVAL;
	if (!err)
		err = emu_commands_init(emu);
	if (!err)
		err = emu_cache_init(emu);
	if (err) {
		emu_free(emu);
		return err;
	}
	identity_init(emu, name);
	namespaces_init(emu);
	emu->created_ns = reactor_now_ns();
	emu_log_init(emu);
	emu_random_seed(emu, emu->options.seed);
	emu->poller.before_sleep = emu_before_sleep;
	poller_register(reactor, &emu->poller, "emulated drive", emu_poll, 0);
	*out = emu;
	return 0;
}

/* After reactor_group_sim_abandon nothing comes back any more: then all of it goes as it is. */
void emu_destroy(struct emu *emu)
{
	const bool abandoned = !emu->poller.reactor;
	assert(abandoned || (emu->state == EMU_OUT && emu_idle(emu)));
	poller_unregister(&emu->poller);
	if (emu->port) {
		emu_commands_drop(emu);
		bar_cut(emu);
		emu_port_put(emu->port);
	}
	emu_free(emu);
}

/* ---- plug ---- */

int emu_plug(struct emu *emu, struct nvme_transport **out)
{
	if (released(emu))
		emu_leave(emu);
	if (emu->state != EMU_OUT)
		return -EBUSY;
	const unsigned vectors = emu->options.no_interrupts ? 0 : emu->options.queues_max + 1;
	int err = emu_port_create(emu->name, vectors, &emu->port, &emu->bar);
	if (err)
		return err;
	err = reactor_watch_fd(emu->reactor, emu->port->wake_fd, EPOLLIN);
	if (err) {
		struct emu_port *port = emu->port;
		bar_cut(emu);
		emu->port = NULL;
		emu_port_put(port);
		port->transport.ops->release(&port->transport);
		return err;
	}
	emu->announced = false;
	emu->seen_writes = 0;
	emu->counters.power_cycles++;
	emu_registers_init(emu);
	*out = &emu->port->transport;
	return 0;
}

bool emu_plugged(const struct emu *emu) { return emu->state != EMU_OUT && !released(emu); }
bool emu_idle(const struct emu *emu) { return emu->backing_ios == 0; }
void emu_set_read_only(struct emu *emu, bool read_only) { emu->backing.read_only = read_only; }

void emu_request(struct emu *emu)
{
	const uint64_t one = 1;
	if (emu->port && write(emu->port->button_fd, &one, sizeof(one)) < 0)
		log_warn("%s: the request cannot be told: %s", emu->name, strerror(errno));
}

void emu_stats_read(const struct emu *emu, struct emu_stats *out)
{
	*out = emu->stats;
	out->cache_bytes = emu_cache_bytes(emu);
}
