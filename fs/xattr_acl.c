/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * POSIX ACLs in the form in which xattrs carry them: a version, then entries of tag, permissions and id, little-endian,
 * in the order in which the tags are listed here.
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

struct acl_entry {
	le16_t tag;
	le16_t permissions;
	le32_t id;
};
_Static_assert(sizeof(struct acl_entry) == 8, "size of an ACL entry");

/* Sets of tags that are complete: without named entries no mask is needed, with them it is. */
static bool tags_complete(unsigned seen)
{
	const unsigned mask = seen & (ACL_USER | ACL_GROUP) ? ACL_MASK : 0;
	const unsigned needed = ACL_USER_OBJ | ACL_GROUP_OBJ | ACL_OTHER | mask;

	return (seen & needed) == needed;
}

int xattr_acl_mode(const void *value, uint32_t length, uint32_t *out_bits, bool *out_only_mode)
{
	const uint8_t *at = value;
	le32_t version;
	unsigned seen = 0, bits[ACL_OTHER + 1] = {0};

	if (length < sizeof(version) || (length - sizeof(version)) % sizeof(struct acl_entry))
		return -EINVAL;
	memcpy(&version, at, sizeof(version));
	if (le32_get(version) != ACL_VERSION)
		return -EINVAL;
	for (at += sizeof(version); at < (const uint8_t *)value + length; at += sizeof(struct acl_entry)) {
		struct acl_entry entry;
		memcpy(&entry, at, sizeof(entry));
		const unsigned tag = le16_get(entry.tag), permissions = le16_get(entry.permissions);
		const bool one = tag && tag <= ACL_OTHER && !(tag & (tag - 1)) && permissions <= 7;
		const bool repeats = tag == ACL_USER || tag == ACL_GROUP;
		/* In order: no tag after a greater one; only named entries repeat. */
		if (!one || seen >= 2 * tag || (seen & tag && !repeats))
			return -EINVAL;
		seen |= tag;
		bits[tag] = permissions;
	}
	if (!tags_complete(seen))
		return -EINVAL;
	const unsigned group = seen & ACL_MASK ? bits[ACL_MASK] : bits[ACL_GROUP_OBJ];
	*out_bits = bits[ACL_USER_OBJ] << 6 | group << 3 | bits[ACL_OTHER];
	*out_only_mode = seen == (ACL_USER_OBJ | ACL_GROUP_OBJ | ACL_OTHER);
	return 0;
}
