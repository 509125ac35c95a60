/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Rules: what goes wrong, and when. Every command is held against all rules in turn; the first one that acts is the
 * one that is taken. A rule counts the commands that match it: `skip` of them pass, then `count` are hit, each with
 * the chance of `ppm`. All chances come from the seed.
 */
#include <errno.h>

#include "nvme/emu_internal.h"

enum { MILLION = 1000000 };

static uint64_t random_state(uint64_t seed, uint64_t stream)
{
	uint64_t z = seed * 0x9e3779b97f4a7c15 + stream;
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
	z ^= z >> 27;
	return z ? z : stream;
}

void emu_random_seed(struct emu *emu, uint64_t seed)
{
	emu->cut_random = random_state(seed, 1);
	emu->rule_random = random_state(seed, 2);
}

/* ---- matching ---- */

static bool blocks_match(const struct emu_rule *rule, const struct nvme_command *entry)
{
	if (rule->blocks == 0)
		return true;
	if (entry->opcode != NVME_CMD_READ && entry->opcode != NVME_CMD_WRITE && entry->opcode != NVME_CMD_WRITE_ZEROES)
		return false;
	const uint64_t first = le32_get(entry->cdw10) | (uint64_t)le32_get(entry->cdw11) << 32;
	const uint64_t blocks = (le32_get(entry->cdw12) & 0xffff) + 1;
	return first < rule->first_lba ? rule->first_lba - first < blocks : first - rule->first_lba < rule->blocks;
}

static bool rule_matches(const struct emu_rule *rule, const struct emu_command *command)
{
	const struct nvme_command *entry = &command->entry;
	return rule->action != EMU_RULE_NOT_READY && rule->admin == command->admin &&
		(rule->opcode < 0 || rule->opcode == entry->opcode) &&
		(rule->nsid == 0 || rule->nsid == le32_get(entry->nsid)) &&
		(command->admin || blocks_match(rule, entry));
}

static bool rule_hits(struct emu *emu, unsigned index)
{
	struct emu_rule *rule = &emu->options.rules[index];
	if (++emu->rule_seen[index] <= rule->skip || (rule->count && rule->hits >= rule->count))
		return false;
	if (rule->ppm && (emu_random(&emu->rule_random) >> 32) % MILLION >= rule->ppm)
		return false;
	rule->hits++;
	return true;
}

const struct emu_rule *emu_rule_match(const struct emu_command *command)
{
	struct emu *emu = command->emu;
	for (unsigned i = 0; i < emu->options.rule_count; i++)
		if (rule_matches(&emu->options.rules[i], command) && rule_hits(emu, i))
			return &emu->options.rules[i];
	return NULL;
}

bool emu_rule_not_ready(struct emu *emu)
{
	for (unsigned i = 0; i < emu->options.rule_count; i++)
		if (emu->options.rules[i].action == EMU_RULE_NOT_READY && rule_hits(emu, i))
			return true;
	return false;
}

/* ---- at run time ---- */

int emu_add_rule(struct emu *emu, const struct emu_rule *rule)
{
	const unsigned index = emu->options.rule_count;
	if (index == EMU_RULES_MAX)
		return -ENOSPC;
	emu->options.rules[index] = *rule;
	emu->rule_seen[index] = 0;
	emu->options.rule_count++;
	return (int)index;
}

void emu_clear_rules(struct emu *emu) { emu->options.rule_count = 0; }

const struct emu_rule *emu_get_rule(const struct emu *emu, unsigned index)
{
	return index < emu->options.rule_count ? &emu->options.rules[index] : NULL;
}

void emu_set_cut(struct emu *emu, enum emu_power_cut cut, uint64_t seed)
{
	emu->options.cut = cut;
	emu->cut_random = random_state(seed, 1);
}
