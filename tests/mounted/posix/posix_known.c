/* SPDX-License-Identifier: BSD-3-Clause */
/* Cases that are known to end differently than on ext4, each with the reason. doc/operating.md tells users the same. */
#include "tests/mounted/posix/posix_check.h"

static const struct known {
	const char *name;   /* of the case */
	const char *where;  /* words of which --on must have all, separated by commas */
	const char *reason;
} known[] = {
	{"truncate_drops_an_idle_sgid_outside_of_the_group", "fuse", "the protocol drops sgid with group execution only"},
	{"write_drops_an_idle_sgid_outside_of_the_group", "fuse", "the protocol drops sgid with group execution only"},
	{"direct_misaligned_io_is_EINVAL", "fuse", "direct I/O of any alignment is possible"},
	{"fallocate_collapse_range", "fuse", "the kernel does not pass it on"},
	{"fallocate_insert_range", "fuse", "the kernel does not pass it on"},
	{"times_reading_from_the_page_cache_moves_atime", "fuse", "the filesystem does not hear of such reads"},
	{"flags_immutable_is_told_by_access", "fuse", "the kernel judges access(2) by itself and knows no file flags"},
	{"flags_append_file_keeps_its_openings_appending", "fuse", "fcntl(2) ends in the kernel, which knows no file flags"},
	{"flags_statx_shows_them", "fuse", "the kernel drops them from the answer"},
	{NULL, NULL, NULL},
};

static bool has_word(const char *on, const char *word, size_t length)
{
	for (const char *at = on; *at; at = strchr(at, ',') + 1)
		if (strncmp(at, word, length) == 0 && at[length] == ',')
			return true;
	return false;
}

static bool applies(const struct known *entry, const char *on)
{
	for (const char *word = entry->where;; word += strcspn(word, ",") + 1) {
		const size_t length = strcspn(word, ",");
		if (!has_word(on, word, length))
			return false;
		if (!word[length])
			return true;
	}
}

const char *known_difference(const char *name, const char *on)
{
	for (const struct known *entry = known; entry->name; entry++)
		if (strcmp(entry->name, name) == 0 && applies(entry, on))
			return entry->reason;
	return NULL;
}

const char *known_name(unsigned index)
{
	return known[index].name;
}
