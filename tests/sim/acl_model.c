/* SPDX-License-Identifier: BSD-3-Clause */
#include "tests/sim/acl_model.h"

#include "tests/sim/sim.h"

static unsigned draw(uint64_t *random, unsigned below) { return (unsigned)(sim_rand(random) % below); }

static unsigned draw_named(uint64_t *random, struct acl_named *named, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		named[i] = (struct acl_named){.id = 1000 + 3 * i + draw(random, 3), .permissions = draw(random, 8)};
	return count;
}

void acl_random(struct acl *acl, uint64_t *random, unsigned named_max)
{
	*acl = (struct acl){.present = true, .owner = draw(random, 8), .group = draw(random, 8), .mask = draw(random, 8),
		.other = draw(random, 8)};
	const unsigned often = MIN(named_max, 6u), most = draw(random, 4) ? often : named_max;
	const unsigned named = draw(random, most + 1), users = named ? draw(random, named + 1) : 0;
	acl->user_count = draw_named(random, acl->users, users);
	acl->group_count = draw_named(random, acl->groups, named - users);
	acl->has_mask = named || draw(random, 3) == 0;
}

static uint8_t *encode_entry(uint8_t *at, unsigned tag, unsigned permissions, uint32_t id)
{
	const uint8_t bytes[8] = {(uint8_t)tag, 0, (uint8_t)permissions, 0, (uint8_t)id, (uint8_t)(id >> 8),
		(uint8_t)(id >> 16), (uint8_t)(id >> 24)};
	memcpy(at, bytes, sizeof(bytes));
	return at + sizeof(bytes);
}

uint32_t acl_encode(const struct acl *acl, uint8_t bytes[ACL_BYTES_MAX])
{
	uint8_t *at = bytes + 4;
	memcpy(bytes, "\2\0\0", 4);
	at = encode_entry(at, 1, acl->owner, UINT32_MAX);
	for (unsigned i = 0; i < acl->user_count; i++)
		at = encode_entry(at, 2, acl->users[i].permissions, acl->users[i].id);
	at = encode_entry(at, 4, acl->group, UINT32_MAX);
	for (unsigned i = 0; i < acl->group_count; i++)
		at = encode_entry(at, 8, acl->groups[i].permissions, acl->groups[i].id);
	if (acl->has_mask)
		at = encode_entry(at, 16, acl->mask, UINT32_MAX);
	at = encode_entry(at, 32, acl->other, UINT32_MAX);
	return (uint32_t)(at - bytes);
}

bool acl_says_only_mode(const struct acl *acl) { return !acl->has_mask && !acl->user_count && !acl->group_count; }

uint32_t acl_permissions(const struct acl *acl)
{
	return acl->owner * 0100 + (acl->has_mask ? acl->mask : acl->group) * 010 + acl->other;
}

uint32_t acl_for_new(const struct acl *directory_default, uint32_t mode, uint32_t umask, struct acl *access)
{
	if (!directory_default->present) {
		access->present = false;
		return mode - (mode & umask);
	}
	*access = *directory_default;
	acl_after_chmod(access, acl_permissions(directory_default) & mode);
	access->present = !acl_says_only_mode(access);
	return mode / 01000 * 01000 + acl_permissions(access);
}

void acl_after_chmod(struct acl *access, uint32_t mode)
{
	access->owner = mode / 0100 % 8;
	if (access->has_mask)
		access->mask = mode / 010 % 8;
	else
		access->group = mode / 010 % 8;
	access->other = mode % 8;
}
