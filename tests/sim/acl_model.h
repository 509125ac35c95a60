/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What acl(5) says of ACLs, as a model for tests: entries in a list, one kind after another. It shares no code with the
 * filesystem, and knows the bytes of an xattr only to compare them.
 */
#ifndef LANEFS_TESTS_SIM_ACL_MODEL_H
#define LANEFS_TESTS_SIM_ACL_MODEL_H

#include <stdbool.h>
#include <stdint.h>

enum { ACL_ENTRIES_MAX = 511, ACL_BYTES_MAX = 4 + 8 * (ACL_ENTRIES_MAX + 1) };

struct acl_named {
	uint32_t id;
	unsigned permissions;
};
struct acl {
	bool present;
	unsigned owner, group, mask, other;
	bool has_mask;
	unsigned user_count, group_count;
	struct acl_named users[ACL_ENTRIES_MAX], groups[ACL_ENTRIES_MAX];
};

/* Up to @named_max named entries; mostly few. */
void acl_random(struct acl *acl, uint64_t *random, unsigned named_max);
/* Returns the number of bytes. */
uint32_t acl_encode(const struct acl *acl, uint8_t bytes[ACL_BYTES_MAX]);
bool acl_says_only_mode(const struct acl *acl);
/* The permission bits that an access ACL stands for. */
uint32_t acl_permissions(const struct acl *acl);

/* A new file or directory: @mode is wanted, @directory_default is what its directory hands down. Returns the mode and sets
 * the new access ACL. */
uint32_t acl_for_new(const struct acl *directory_default, uint32_t mode, uint32_t umask, struct acl *access);
/* The access ACL after a chmod. */
void acl_after_chmod(struct acl *access, uint32_t mode);

#endif
