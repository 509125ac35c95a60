/* SPDX-License-Identifier: BSD-3-Clause */
#include "tests/sim/cut.h"

/* No cut from here on can take the write away: FUA, or a FLUSH sent after its completion is completed. */
static bool is_durable(const struct cut_plan *plan, size_t index, uint64_t moment)
{
	const struct record_entry *write = &plan->entries[index];
	if (write->fua)
		return write->completed <= moment;
	for (size_t i = index + 1; i < plan->position; i++)
		if (plan->entries[i].kind == RECORD_FLUSH && plan->entries[i].submitted > write->completed &&
			plan->entries[i].completed <= moment)
			return true;
	return false;
}

void cut_make(const struct cut_plan *plan, uint8_t *image)
{
	if (!plan->position)
		return;
	uint64_t random = plan->random;
	const uint64_t moment = plan->ended ? UINT64_MAX - 1 : plan->entries[plan->position - 1].submitted;
	for (size_t i = 0; i < plan->position; i++) {
		const struct record_entry *entry = &plan->entries[i];
		if (entry->kind != RECORD_WRITE)
			continue;
		const bool kept = is_durable(plan, i, moment) || sim_rand(&random) % 100 < plan->keep_percent;
		if (kept)
			memcpy(image + entry->offset, entry->data, entry->length);
	}
}
