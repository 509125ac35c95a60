/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * POSIX ACLs in the form in which xattrs carry them: a version, then entries of tag, permissions and id, little-endian,
 * in the order in which the tags are listed here. The class of the group is the mask where there is one, else the
 * owning group; owner, class of the group and others are what the permission bits of the mode say.
 */
#include "fs/xattr.h"

enum { ACL_VERSION = 2 };
enum acl_tag {
	ACL_USER_OBJ = 0x01,
	ACL_USER = 0x02,
	ACL_GROUP_OBJ = 0x04,
	ACL_GROUP = 0x08,
	ACL_MASK = 0x10,
	ACL_OTHER = 0x20,
};
#define ACL_ID_NONE UINT32_MAX

struct acl_entry {
	le16_t tag;
	le16_t permissions;
	le32_t id;
};
_Static_assert(sizeof(struct acl_entry) == 8, "size of an ACL entry");

/* What a value says: which tags it has, and where the last entry of each stands. */
struct acl {
	unsigned seen;
	uint32_t at[ACL_OTHER + 1];     /* by tag; offset in the value */
	uint32_t permissions[ACL_OTHER + 1];
};

/* Sets of tags that are complete: without named entries no mask is needed, with them it is. */
static bool tags_complete(unsigned seen)
{
	const unsigned mask = seen & (ACL_USER | ACL_GROUP) ? ACL_MASK : 0;
	const unsigned needed = ACL_USER_OBJ | ACL_GROUP_OBJ | ACL_OTHER | mask;

	return (seen & needed) == needed;
}

static bool entry_add(struct acl *acl, const struct acl_entry *entry, uint32_t at)
{
	const unsigned tag = le16_get(entry->tag), permissions = le16_get(entry->permissions);
	const bool one = tag && tag <= ACL_OTHER && !(tag & (tag - 1)) && permissions <= 7;
	const bool named = tag == ACL_USER || tag == ACL_GROUP;

	/* In order: no tag after a greater one; only named entries repeat. */
	if (!one || acl->seen >= 2 * tag || (acl->seen & tag && !named))
		return false;
	if (named && le32_get(entry->id) == ACL_ID_NONE)
		return false;
	acl->seen |= tag;
	acl->at[tag] = at;
	acl->permissions[tag] = permissions;
	return true;
}

static int acl_read(const void *value, uint32_t length, struct acl *acl)
{
	le32_t version;

	*acl = (struct acl){0};
	if (length < sizeof(version) || (length - sizeof(version)) % sizeof(struct acl_entry))
		return -EINVAL;
	memcpy(&version, value, sizeof(version));
	if (le32_get(version) != ACL_VERSION)
		return -EINVAL;
	for (uint32_t at = sizeof(version); at < length; at += sizeof(struct acl_entry)) {
		struct acl_entry entry;
		memcpy(&entry, (const uint8_t *)value + at, sizeof(entry));
		if (!entry_add(acl, &entry, at))
			return -EINVAL;
	}
	return tags_complete(acl->seen) ? 0 : -EINVAL;
}

static unsigned group_class(const struct acl *acl) { return acl->seen & ACL_MASK ? ACL_MASK : ACL_GROUP_OBJ; }

static uint32_t permission_bits(const struct acl *acl)
{
	return acl->permissions[ACL_USER_OBJ] << 6 | acl->permissions[group_class(acl)] << 3 |
		acl->permissions[ACL_OTHER];
}

static void permissions_put(uint8_t *value, const struct acl *acl, unsigned tag, uint32_t permissions)
{
	const le16_t field = le16_set((uint16_t)(permissions & 7));

	memcpy(value + acl->at[tag] + offsetof(struct acl_entry, permissions), &field, sizeof(field));
}

static void permission_bits_put(uint8_t *value, const struct acl *acl, uint32_t bits)
{
	permissions_put(value, acl, ACL_USER_OBJ, bits >> 6);
	permissions_put(value, acl, group_class(acl), bits >> 3);
	permissions_put(value, acl, ACL_OTHER, bits);
}

static bool only_mode(const struct acl *acl) { return acl->seen == (ACL_USER_OBJ | ACL_GROUP_OBJ | ACL_OTHER); }

int xattr_acl_mode(const void *value, uint32_t length, uint32_t *out_bits, bool *out_only_mode)
{
	struct acl acl;
	const int error = acl_read(value, length, &acl);

	if (error)
		return error;
	*out_bits = permission_bits(&acl);
	*out_only_mode = only_mode(&acl);
	return 0;
}

int xattr_acl_inherit(void *value, uint32_t length, uint32_t *mode, bool *out_only_mode)
{
	struct acl acl;
	const int error = acl_read(value, length, &acl);

	if (error)
		return error;
	*mode &= permission_bits(&acl) | ~(uint32_t)XATTR_ACL_MODE_BITS;
	permission_bits_put(value, &acl, *mode);
	*out_only_mode = only_mode(&acl);
	return 0;
}

int xattr_acl_chmod(void *value, uint32_t length, uint32_t mode)
{
	struct acl acl;
	const int error = acl_read(value, length, &acl);

	if (!error)
		permission_bits_put(value, &acl, mode);
	return error;
}
