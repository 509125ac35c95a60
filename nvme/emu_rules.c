/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Rules: what goes wrong, and when.
 */
#include <errno.h>

#include "nvme/emu_internal.h"

int emu_add_rule(struct emu *emu, const struct emu_rule *rule)
{
	if (emu->options.rule_count == EMU_RULES_MAX)
		return -ENOSPC;
	emu->options.rules[emu->options.rule_count] = *rule;
	return (int)emu->options.rule_count++;
}

void emu_clear_rules(struct emu *emu) { emu->options.rule_count = 0; }

const struct emu_rule *emu_get_rule(const struct emu *emu, unsigned index)
{
	return index < emu->options.rule_count ? &emu->options.rules[index] : NULL;
}

void emu_set_cut(struct emu *emu, enum emu_power_cut cut, uint64_t seed)
{
	emu->options.cut = cut;
	emu->options.seed = seed;
}
