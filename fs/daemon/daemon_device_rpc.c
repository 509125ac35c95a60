/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Methods of the control socket that speak of devices. Parameters and answers: lanefs-rpc(7).
 */
#include "fs/daemon/daemon_device_rpc.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "fs/daemon/rpc_client.h"
#include "reactor/log.h"

/* ---- bdev_list ---- */
static void list_one(struct bdev *bdev, void *arg)
{
	struct device_call *call = arg;
	const struct bdev_limits *limits = bdev_get_limits(bdev);
	struct bdev_facts *facts;

	if (call->count == BDEV_LIST_MAX)
		return;
	facts = &call->out.bdevs[call->count++];
	snprintf(facts->name, sizeof(facts->name), "%s", limits->name);
	facts->block_size = limits->block_size;
	facts->block_count = limits->block_count;
}

static MAY_WAIT int list_run(struct device_call *call, struct nvme_device *device)
{
	struct bdev_registry *registry = call->base.task.daemon->registry;

	bdev_for_each(registry, list_one, call);
	for (unsigned i = 0; i < call->count; i++)
		call->out.bdevs[i].nvme = nvme_device_of(registry, call->out.bdevs[i].name);
	return 0;
}

static struct json_object *list_report(const struct device_call *call)
{
	struct json_object *array = json_object_new_array();
	const struct daemon *daemon = call->base.task.daemon;

	for (unsigned i = 0; i < call->count; i++) {
		const struct bdev_facts *facts = &call->out.bdevs[i];
		struct json_object *object = json_object_new_object();

		put_text(object, "name", facts->name);
		put_number(object, "block_size", facts->block_size);
		put_number(object, "blocks", facts->block_count);
		put_bool(object, "nvme", facts->nvme);
		put_bool(object, "mounted", !strcmp(facts->name, daemon->bdev_name));
		if (facts->nvme && !strcmp(facts->name, daemon->bdev_name))
			put_bool(object, "held", daemon->removal.held);
		json_object_array_add(array, object);
	}
	return array;
}

/* ---- nvme_identify, nvme_health, nvme_reset ---- */
static struct nvme_ctrlr *controller(struct device_call *call, struct nvme_device *device)
{
	struct nvme_ctrlr *ctrlr = nvme_device_ctrlr(device);

	if (!ctrlr)
		snprintf(call->base.message, sizeof(call->base.message), "%s: the device is away", nvme_device_target(device));
	return ctrlr;
}

static MAY_WAIT int identify_run(struct device_call *call, struct nvme_device *device)
{
	struct nvme_ctrlr *ctrlr = controller(call, device);

	if (!ctrlr)
		return -ENODEV;
	call->facts.info = *nvme_ctrlr_get_info(ctrlr);
	snprintf(call->facts.target, sizeof(call->facts.target), "%s", nvme_ctrlr_name(ctrlr));
	call->facts.emulated = nvme_device_emu(device);
	for (unsigned i = 0; i < nvme_ctrlr_ns_count(ctrlr) && i < NVME_NAMESPACES_MAX; i++)
		call->out.namespaces[call->count++] = *nvme_ctrlr_ns_at(ctrlr, i);
	return 0;
}

static void put_bytes(struct json_object *object, const char *key, const uint8_t *bytes, unsigned count)
{
	char text[2 * 16 + 1] = "";
	bool any = false;

	for (unsigned i = 0; i < count; i++) {
		snprintf(text + (size_t)2 * i, 3, "%02x", bytes[i]);
		any |= bytes[i];
	}
	if (any)
		put_text(object, key, text);
}

static struct json_object *namespace_report(const struct nvme_ns_info *ns)
{
	struct json_object *object = json_object_new_object();

	put_number(object, "nsid", ns->nsid);
	put_number(object, "block_size", ns->block_size);
	put_number(object, "blocks", ns->block_count);
	put_number(object, "optimal_boundary_blocks", ns->optimal_boundary_blocks);
	put_number(object, "atomic_write_blocks", ns->atomic_write_blocks);
	put_bool(object, "read_only", ns->read_only);
	put_bool(object, "deallocate_zeroes", ns->deallocate_zeroes);
	put_bytes(object, "nguid", ns->nguid, 16);
	put_bytes(object, "eui64", ns->eui64, 8);
	put_bytes(object, "uuid", ns->uuid, 16);
	if (ns->refused)
		put_foreign_text(object, "refused", ns->refused);
	return object;
}

static struct json_object *identify_report(const struct device_call *call)
{
	const struct nvme_ctrlr_info *info = &call->facts.info;
	struct json_object *object = json_object_new_object(), *namespaces = json_object_new_array();
	char version[24];

	snprintf(version, sizeof(version), "%u.%u.%u", info->version >> 16, info->version >> 8 & 0xff, info->version & 0xff);
	put_text(object, "name", call->facts.target);
	put_foreign_text(object, "model", info->model);
	put_foreign_text(object, "serial", info->serial);
	put_foreign_text(object, "firmware", info->firmware);
	put_number(object, "vendor", info->vendor);
	put_text(object, "version", version);
	put_bool(object, "emulated", call->facts.emulated);
	put_bool(object, "cache_present", info->cache_present);
	put_bool(object, "cache_on", info->cache_on);
	put_number(object, "transfer_bytes_max", info->transfer_bytes_max);
	put_number(object, "queue_depth", info->queue_depth);
	put_number(object, "io_queues", info->io_queues);
	put_bool(object, "interrupts", info->interrupts);
	put_bool(object, "shadow_doorbells", info->shadow_doorbells);
	put_bool(object, "dsm", info->dsm);
	put_bool(object, "write_zeroes", info->write_zeroes);
	for (unsigned i = 0; i < call->count; i++)
		json_object_array_add(namespaces, namespace_report(&call->out.namespaces[i]));
	json_object_object_add(object, "namespaces", namespaces);
	return object;
}

static MAY_WAIT int health_run(struct device_call *call, struct nvme_device *device)
{
	struct nvme_ctrlr *ctrlr = controller(call, device);

	return ctrlr ? nvme_log_page_read(ctrlr, NVME_LOG_SMART, UINT32_MAX, &call->out.smart, sizeof(call->out.smart)) :
		-ENODEV;
}

/* 128 bits, little endian; what does not fit in 63 is as good as infinite. */
static void put_large(struct json_object *object, const char *key, const uint8_t bytes[16])
{
	uint64_t value = 0;
	bool more = bytes[7] & 0x80;

	for (unsigned i = 8; i < 16; i++)
		more |= bytes[i];
	for (unsigned i = 8; i-- > 0;)
		value = value << 8 | bytes[i];
	put_number(object, key, more ? INT64_MAX : value);
}

static struct json_object *health_report(const struct device_call *call)
{
	static const char *const warnings[] = {"spare", "temperature", "reliability", "read-only", "backup", "memory-region"};
	const struct nvme_log_smart *smart = &call->out.smart;
	struct json_object *object = json_object_new_object(), *array = json_object_new_array();
	int kelvin = smart->temperature[0] | smart->temperature[1] << 8;

	put_number(object, "critical_warning", smart->critical_warning);
	for (unsigned i = 0; i < ARRAY_SIZE(warnings); i++)
		if (smart->critical_warning & 1u << i)
			json_object_array_add(array, json_object_new_string(warnings[i]));
	json_object_object_add(object, "warnings", array);
	json_object_object_add(object, "temperature_celsius", json_object_new_int(kelvin - 273));
	put_number(object, "available_spare_percent", smart->available_spare);
	put_number(object, "spare_threshold_percent", smart->spare_threshold);
	put_number(object, "used_percent", smart->percentage_used);
	put_large(object, "data_units_read", smart->data_units_read);
	put_large(object, "data_units_written", smart->data_units_written);
	put_large(object, "host_reads", smart->host_reads);
	put_large(object, "host_writes", smart->host_writes);
	put_large(object, "busy_minutes", smart->busy_minutes);
	put_large(object, "power_cycles", smart->power_cycles);
	put_large(object, "power_on_hours", smart->power_on_hours);
	put_large(object, "unsafe_shutdowns", smart->unsafe_shutdowns);
	put_large(object, "media_errors", smart->media_errors);
	put_large(object, "error_entries", smart->error_entries);
	return object;
}

static MAY_WAIT int reset_run(struct device_call *call, struct nvme_device *device)
{
	struct nvme_ctrlr *ctrlr = controller(call, device);
	int err = ctrlr ? nvme_ctrlr_reset(ctrlr) : -ENODEV;

	if (err)
		return err;
	/* While it waited the device may have gone. */
	device = daemon_device(call->base.task.daemon);
	ctrlr = device ? nvme_device_ctrlr(device) : NULL;
	if (ctrlr)
		call->facts.info = *nvme_ctrlr_get_info(ctrlr);
	return ctrlr ? 0 : -ENODEV;
}

static struct json_object *reset_report(const struct device_call *call)
{
	struct json_object *object = json_object_new_object();

	put_number(object, "resets", call->facts.info.resets);
	return object;
}

/* ---- pulling it out by hand ---- */
static MAY_WAIT int surprise_run(struct device_call *call, struct nvme_device *device)
{
	if (nvme_device_emu(device))
		return nvme_device_emu_pull(device);
	nvme_device_lost(device);
	return 0;
}

static struct json_object *surprise_report(const struct device_call *call)
{
	struct json_object *object = json_object_new_object();

	put_text(object, "state", call->base.task.daemon->config->hold_on_removal ? "held" : "removed");
	return object;
}

static const struct device_method surprise_method = {"bdev_detach", NULL, surprise_run, surprise_report};
static const struct device_method device_methods[] = {
	{"bdev_list", NULL, list_run, list_report, .without_device = true},
	{"nvme_identify", NULL, identify_run, identify_report},
	{"nvme_health", NULL, health_run, health_report},
	{"nvme_reset", NULL, reset_run, reset_report},
};

/* ---- calls ---- */
static MAY_WAIT int call_run(struct daemon_task *task)
{
	struct device_call *call = CONTAINER_OF(task, struct device_call, base.task);
	struct nvme_device *device = daemon_device(task->daemon);

	if (device || call->method->without_device)
		return call->method->run(call, device);
	snprintf(call->base.message, sizeof(call->base.message), "%.100s: no device of lanefs's own NVMe driver",
		task->daemon->bdev_name);
	return -EOPNOTSUPP;
}

static struct json_object *call_report(const struct rpc_call *base)
{
	const struct device_call *call = CONTAINER_OF(base, struct device_call, base);

	return call->method->report ? call->method->report(call) : json_object_new_object();
}

static int call_start(struct daemon *daemon, const struct device_method *method, struct json_object *params, char *message,
	size_t message_size)
{
	struct device_call *call = calloc(1, sizeof(*call));

	if (!call)
		return rpc_call_refuse(NULL, message, message_size);
	call->method = method;
	if (method->parse && method->parse(call, params))
		return rpc_call_refuse(&call->base, message, message_size);
	call->base.method = method->name;
	call->base.report = call_report;
	call->base.task.run = call_run;
	call->base.task.device_only = true;
	return rpc_call_start(daemon, &call->base);
}

/* ---- bdev_attach ---- */
struct attach_call {
	struct reattach reattach;
	struct rpc_ticket ticket;
};

static void attach_done(struct daemon_task *task)
{
	struct attach_call *call = CONTAINER_OF(task, struct attach_call, reattach.task);
	struct daemon *daemon = task->daemon;
	struct json_object *object;

	reattach_report(&call->reattach);
	if (task->result) {
		rpc_server_answer(daemon->rpc, call->ticket, RPC_INTERNAL_ERROR, NULL, call->reattach.message);
	} else {
		object = json_object_new_object();
		put_text(object, "state", "attached");
		rpc_server_answer(daemon->rpc, call->ticket, 0, object, NULL);
	}
	free(call);
}

static int attach_start(struct daemon *daemon, struct json_object *params, char *message, size_t message_size)
{
	const char *target = json_text(params, "target");
	struct attach_call *call;

	if (strlen(target) >= sizeof(call->reattach.target)) {
		snprintf(message, message_size, "parameter \"target\": too long");
		return RPC_INVALID_PARAMS;
	}
	call = calloc(1, sizeof(*call));
	if (!call) {
		snprintf(message, message_size, "no memory");
		return RPC_INTERNAL_ERROR;
	}
	strcpy(call->reattach.target, target);
	call->reattach.task.run = reattach_run;
	call->reattach.task.done = attach_done;
	call->ticket = rpc_server_defer(daemon->rpc);
	task_start(daemon, &call->reattach.task);
	return RPC_LATER;
}

/* ---- bdev_detach ---- */
static int detach_start(struct daemon *daemon, struct json_object *params, char *message, size_t message_size)
{
	if (!daemon->facts.nvme) {
		snprintf(message, message_size, "%s: no device of lanefs's own NVMe driver", daemon->config->target);
		return RPC_INTERNAL_ERROR;
	}
	if (daemon->removal.held) {
		removal_end_wait(daemon, "asked to detach");
		return RPC_LATER; /* answered at the end, like unmount */
	}
	if (param_bool(params, "surprise", false))
		return call_start(daemon, &surprise_method, NULL, message, message_size);
	if (daemon->removal.leaving || daemon->removal.step != REMOVAL_NONE) {
		snprintf(message, message_size, "%s: is on its way out already", daemon->bdev_name);
		return RPC_INTERNAL_ERROR;
	}
	/* Under `unmount` that is the end, which is reported like that of unmount. */
	if (daemon->config->hold_on_removal) {
		daemon->removal.detach_ticket = rpc_server_defer(daemon->rpc);
		daemon->removal.detach_asked = true;
	}
	removal_begin(daemon, "asked to detach");
	return RPC_LATER;
}

/* ---- hotplug ---- */
static int hotplug_call(struct daemon *daemon, struct json_object *params, struct json_object **result)
{
	struct hotplug *hotplug = &daemon->hotplug;
	struct json_object *object = json_object_new_object();

	if (param_given(params, "enabled"))
		hotplug->enabled = param_bool(params, "enabled", true);
	put_bool(object, "enabled", hotplug->enabled);
	put_bool(object, "listening", hotplug->monitor);
	put_bool(object, "auto_bind", daemon->config->auto_bind);
	put_text(object, "address", hotplug->address);
	put_text(object, "driver", hotplug->driver);
	*result = object;
	return 0;
}

int device_rpc(struct daemon *daemon, const char *method, struct json_object *params, struct json_object **result,
	char *message, size_t message_size)
{
	const struct device_method *found = NULL;
	bool attach = !strcmp(method, "bdev_attach"), detach = !strcmp(method, "bdev_detach");

	for (size_t i = 0; i < ARRAY_SIZE(device_methods) && !found; i++)
		found = strcmp(device_methods[i].name, method) ? NULL : &device_methods[i];
	for (size_t i = 0; i < emu_method_count && !found; i++)
		found = strcmp(emu_methods[i].name, method) ? NULL : &emu_methods[i];
	if (!strcmp(method, "hotplug"))
		return hotplug_call(daemon, params, result);
	if (!found && !attach && !detach) {
		snprintf(message, message_size, "no method of that name");
		return RPC_METHOD_NOT_FOUND;
	}
	if (daemon->state == DAEMON_CLOSING || daemon->stuck) {
		snprintf(message, message_size, "the filesystem is being closed");
		return RPC_INTERNAL_ERROR;
	}
	if (attach)
		return attach_start(daemon, params, message, message_size);
	if (detach)
		return detach_start(daemon, params, message, message_size);
	return call_start(daemon, found, params, message, message_size);
}
