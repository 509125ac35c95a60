/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Rules as text:
 *
 *   OPCODE:ACTION[:KEY=VALUE...]
 *   OPCODE  read write flush zeroes dsm any; admin-identify ... admin-any; enable; a number, admin-NUMBER
 *   ACTION  delay=TIME status=NUMBER stuck stuck-hard fatal lie vanish not-ready
 *   KEY     skip=N count=N ppm=N nsid=N lba=FIRST+BLOCKS
 */
#include <errno.h>
#include <stdio.h>

#include "nvme/emu_text.h"

#define OPCODES "read, write, flush, zeroes, dsm, any, enable, a number, or admin- and identify, log, abort, any, ..."
#define ACTIONS "delay=TIME, status=NUMBER, stuck, stuck-hard, fatal, lie, vanish or not-ready"
#define KEYS "skip=N, count=N, ppm=N, nsid=N or lba=FIRST+BLOCKS"

struct opcode_name {
	const char *name;
	int opcode;
};
static const struct opcode_name io_names[] = {
	{"any", -1},
	{"enable", -1},
	{"flush", NVME_CMD_FLUSH},
	{"write", NVME_CMD_WRITE},
	{"read", NVME_CMD_READ},
	{"zeroes", NVME_CMD_WRITE_ZEROES},
	{"dsm", NVME_CMD_DSM},
};
static const struct opcode_name admin_names[] = {
	{"any", -1},
	{"delete-sq", NVME_ADMIN_DELETE_SQ},
	{"create-sq", NVME_ADMIN_CREATE_SQ},
	{"log", NVME_ADMIN_GET_LOG_PAGE},
	{"delete-cq", NVME_ADMIN_DELETE_CQ},
	{"create-cq", NVME_ADMIN_CREATE_CQ},
	{"identify", NVME_ADMIN_IDENTIFY},
	{"abort", NVME_ADMIN_ABORT},
	{"set-features", NVME_ADMIN_SET_FEATURES},
	{"get-features", NVME_ADMIN_GET_FEATURES},
	{"event", NVME_ADMIN_ASYNC_EVENT},
	{"doorbell-buffer", NVME_ADMIN_DOORBELL_BUFFER},
};

static bool name_parse(struct text text, const struct opcode_name *names, size_t count, int *out)
{
	uint64_t number;
	for (size_t i = 0; i < count; i++) {
		if (text_is(text, names[i].name)) {
			*out = names[i].opcode;
			return true;
		}
	}
	if (!text_number(text, &number) || number > UINT8_MAX)
		return false;
	*out = (int)number;
	return true;
}

static bool opcode_parse(struct text text, struct emu_rule *out)
{
	static const char prefix[] = "admin-";
	const size_t skip = sizeof(prefix) - 1;
	out->admin = text.length > skip && memcmp(text.at, prefix, skip) == 0;
	if (!out->admin)
		return name_parse(text, io_names, ARRAY_SIZE(io_names), &out->opcode);
	const struct text name = {text.at + skip, text.length - skip};
	return name_parse(name, admin_names, ARRAY_SIZE(admin_names), &out->opcode);
}

static bool action_parse(struct text text, struct emu_rule *out)
{
	static const struct {
		const char *name;
		enum emu_rule_action action;
	} plain[] = {
		{"stuck", EMU_RULE_STUCK},
		{"stuck-hard", EMU_RULE_STUCK_HARD},
		{"fatal", EMU_RULE_FATAL},
		{"lie", EMU_RULE_LIE},
		{"vanish", EMU_RULE_VANISH},
		{"not-ready", EMU_RULE_NOT_READY},
	};
	uint64_t number = 0;
	for (size_t i = 0; i < ARRAY_SIZE(plain); i++) {
		if (text_is(text, plain[i].name)) {
			out->action = plain[i].action;
			return true;
		}
	}
	const struct text name = text_cut(&text, '=');
	if (text_is(name, "delay")) {
		out->action = EMU_RULE_DELAY;
		return text_time(text, &out->delay_ns);
	}
	out->action = EMU_RULE_STATUS;
	const bool good = text_is(name, "status") && text_number(text, &number) && number > 0 && number < 0x8000;
	out->status = (uint16_t)number;
	return good;
}

static bool blocks_parse(struct text text, struct emu_rule *out)
{
	const struct text first = text_cut(&text, '+');
	return text_number(first, &out->first_lba) && text_number(text, &out->blocks) && out->blocks > 0 &&
		out->first_lba + out->blocks > out->first_lba;
}

static bool small_parse(struct text text, uint64_t max, uint32_t *out)
{
	uint64_t number = 0;
	const bool good = text_number(text, &number) && number <= max;
	*out = (uint32_t)number;
	return good;
}

static bool key_parse(struct text text, struct emu_rule *out)
{
	const struct text name = text_cut(&text, '=');
	if (text_is(name, "skip"))
		return text_number(text, &out->skip);
	if (text_is(name, "count"))
		return text_number(text, &out->count);
	if (text_is(name, "ppm"))
		return small_parse(text, 1000000, &out->ppm);
	if (text_is(name, "nsid"))
		return small_parse(text, UINT32_MAX, &out->nsid);
	return text_is(name, "lba") && blocks_parse(text, out);
}

int emu_rule_parse(const char *text, struct emu_rule *out, char *message, size_t message_size)
{
	struct text rest = text_of(text);
	const struct text opcode = text_cut(&rest, ':'), action = text_cut(&rest, ':');
	struct text bad = opcode;
	const char *must = NULL;
	memset(out, 0, sizeof(*out));
	if (!opcode_parse(opcode, out)) {
		must = OPCODES;
	} else if (!action_parse(action, out)) {
		must = ACTIONS;
		bad = action;
	}
	while (!must && rest.length > 0) {
		bad = text_cut(&rest, ':');
		if (!key_parse(bad, out))
			must = KEYS;
	}
	if (!must)
		return 0;
	snprintf(message, message_size, "rule %.*s: \"%.*s\" must be %s", text_width(text_of(text)), text, text_width(bad),
		bad.at, must);
	return -EINVAL;
}
