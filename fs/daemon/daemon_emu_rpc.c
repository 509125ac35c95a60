/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Methods for an emulated drive: rules that make it fail, power cuts, and what else happens to drives. For tests, and for
 * whoever wants to see how a filesystem takes it.
 */
#include <errno.h>
#include <stdio.h>

#include "fs/daemon/daemon_device_rpc.h"

static struct emu *drive(struct device_call *call, struct nvme_device *device)
{
	struct emu *emu = nvme_device_emu(device);

	if (!emu)
		snprintf(call->base.message, sizeof(call->base.message), "%s: a real device, not an emulated one", nvme_device_target(device));
	return emu;
}

/* ---- rules ---- */
static int rule_parse(struct device_call *call, struct json_object *params)
{
	const char *text;
	int err = param_text(&call->base, params, "rule", &text);

	return err ? err : emu_rule_parse(text, &call->rule, call->base.message, sizeof(call->base.message));
}

static MAY_WAIT int rule_add_run(struct device_call *call, struct nvme_device *device)
{
	struct emu *emu = drive(call, device);
	int index = emu ? emu_add_rule(emu, &call->rule) : -EOPNOTSUPP;

	if (index == -ENOSPC)
		snprintf(call->base.message, sizeof(call->base.message), "%u rules are there already: clear them first",
			(unsigned)EMU_RULES_MAX);
	call->number = (uint64_t)index;
	return index < 0 ? index : 0;
}

static struct json_object *rule_add_report(const struct device_call *call)
{
	struct json_object *object = json_object_new_object();

	put_number(object, "index", call->number);
	return object;
}

static MAY_WAIT int rules_run(struct device_call *call, struct nvme_device *device)
{
	struct emu *emu = drive(call, device);
	const struct emu_rule *rule;

	if (!emu)
		return -EOPNOTSUPP;
	while (call->count < EMU_RULES_MAX && (rule = emu_get_rule(emu, call->count)))
		call->out.rules[call->count++] = *rule;
	return 0;
}

static struct json_object *rule_report(const struct emu_rule *rule)
{
	static const char *const actions[] = {
		[EMU_RULE_DELAY] = "delay",
		[EMU_RULE_STATUS] = "status",
		[EMU_RULE_STUCK] = "stuck",
		[EMU_RULE_STUCK_HARD] = "stuck-hard",
		[EMU_RULE_FATAL] = "fatal",
		[EMU_RULE_LIE] = "lie",
		[EMU_RULE_VANISH] = "vanish",
		[EMU_RULE_NOT_READY] = "not-ready",
	};
	struct json_object *object = json_object_new_object();

	put_bool(object, "admin", rule->admin);
	json_object_object_add(object, "opcode", json_object_new_int(rule->opcode));
	put_text(object, "action", actions[rule->action]);
	put_number(object, "nsid", rule->nsid);
	put_number(object, "first_lba", rule->first_lba);
	put_number(object, "blocks", rule->blocks);
	put_number(object, "skip", rule->skip);
	put_number(object, "count", rule->count);
	put_number(object, "ppm", rule->ppm);
	put_number(object, "status", rule->status);
	put_number(object, "delay_ns", rule->delay_ns);
	put_number(object, "hits", rule->hits);
	return object;
}

static struct json_object *rules_report(const struct device_call *call)
{
	struct json_object *array = json_object_new_array();

	for (unsigned i = 0; i < call->count; i++)
		json_object_array_add(array, rule_report(&call->out.rules[i]));
	return array;
}

static MAY_WAIT int rules_clear_run(struct device_call *call, struct nvme_device *device)
{
	struct emu *emu = drive(call, device);

	if (!emu)
		return -EOPNOTSUPP;
	emu_clear_rules(emu);
	return 0;
}

/* ---- what happens to drives ---- */
static MAY_WAIT int power_cut_run(struct device_call *call, struct nvme_device *device)
{
	struct emu *emu = drive(call, device);

	if (!emu)
		return -EOPNOTSUPP;
	emu_power_cut(emu);
	return 0;
}

static int cut_parse(struct device_call *call, struct json_object *params)
{
	static const char *const modes[] = {[EMU_CUT_ALL] = "all", [EMU_CUT_RANDOM] = "random", [EMU_CUT_NONE] = "none"};
	const char *text;
	int err = param_text(&call->base, params, "mode", &text);

	if (!err && param_given(params, "seed"))
		err = param_number(&call->base, params, "seed", &call->number);
	if (err)
		return err;
	for (unsigned i = 0; i < ARRAY_SIZE(modes); i++)
		if (!strcmp(modes[i], text)) {
			call->cut = i;
			return 0;
		}
	snprintf(call->base.message, sizeof(call->base.message), "mode is one of all, random, none: what of the unflushed is lost");
	return -EINVAL;
}

static MAY_WAIT int set_cut_run(struct device_call *call, struct nvme_device *device)
{
	struct emu *emu = drive(call, device);

	if (!emu)
		return -EOPNOTSUPP;
	emu_set_cut(emu, call->cut, call->number);
	return 0;
}

static MAY_WAIT int request_run(struct device_call *call, struct nvme_device *device)
{
	struct emu *emu = drive(call, device);

	if (!emu)
		return -EOPNOTSUPP;
	emu_request(emu);
	return 0;
}

static int resize_parse(struct device_call *call, struct json_object *params)
{
	int err = param_number(&call->base, params, "nsid", &call->number);

	if (!err && (call->number == 0 || call->number > UINT32_MAX)) {
		snprintf(call->base.message, sizeof(call->base.message), "parameter \"nsid\": namespaces are numbered from 1 on");
		err = -EINVAL;
	}
	return err ? err : param_number(&call->base, params, "blocks", &call->number2);
}

static MAY_WAIT int resize_run(struct device_call *call, struct nvme_device *device)
{
	struct emu *emu = drive(call, device);

	return emu ? emu_ns_resize(emu, (uint32_t)call->number, call->number2) : -EOPNOTSUPP;
}

static int health_parse(struct device_call *call, struct json_object *params)
{
	int err = param_number(&call->base, params, "critical_warning", &call->number);

	if (!err && call->number > UINT8_MAX) {
		snprintf(call->base.message, sizeof(call->base.message), "parameter \"critical_warning\": eight bits");
		err = -EINVAL;
	}
	return err;
}

static MAY_WAIT int set_health_run(struct device_call *call, struct nvme_device *device)
{
	struct emu *emu = drive(call, device);

	if (!emu)
		return -EOPNOTSUPP;
	emu_set_health(emu, (uint8_t)call->number);
	return 0;
}

static MAY_WAIT int stats_run(struct device_call *call, struct nvme_device *device)
{
	struct emu *emu = drive(call, device);

	if (!emu)
		return -EOPNOTSUPP;
	emu_stats_read(emu, &call->out.emu);
	call->facts.attached = emu_plugged(emu);
	return 0;
}

static struct json_object *stats_report(const struct device_call *call)
{
	const struct emu_stats *stats = &call->out.emu;
	struct json_object *object = json_object_new_object();

	put_bool(object, "plugged", call->facts.attached);
	put_number(object, "admin_commands", stats->admin_commands);
	put_number(object, "io_commands", stats->io_commands);
	put_number(object, "flushes", stats->flushes);
	put_number(object, "cache_bytes", stats->cache_bytes);
	put_number(object, "lost_bytes", stats->lost_bytes);
	put_number(object, "aborts", stats->aborts);
	put_number(object, "resets", stats->resets);
	put_number(object, "bad_commands", stats->bad_commands);
	put_number(object, "doorbell_wakes", stats->doorbell_wakes);
	put_number(object, "interrupts", stats->interrupts);
	return object;
}

const struct device_method emu_methods[] = {
	{"emu_rule_add", rule_parse, rule_add_run, rule_add_report},
	{"emu_rules", NULL, rules_run, rules_report},
	{"emu_rules_clear", NULL, rules_clear_run, NULL},
	{"emu_power_cut", NULL, power_cut_run, NULL},
	{"emu_set_cut", cut_parse, set_cut_run, NULL},
	{"emu_request", NULL, request_run, NULL},
	{"emu_ns_resize", resize_parse, resize_run, NULL},
	{"emu_set_health", health_parse, set_health_run, NULL},
	{"emu_stats", NULL, stats_run, stats_report},
};
const size_t emu_method_count = ARRAY_SIZE(emu_methods);
