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
	{"flags_immutable_file_is_not_opened_for_writing", "noopen", "open(2) ends in the kernel; writing fails"},
	{"flags_append_file_is_not_opened_for_overwriting", "noopen", "open(2) ends in the kernel; overwriting fails"},
	{"flags_immutable_stops_those_who_opened_it_before", "writeback", "write(2) ends in the page cache"},
	{"flags_append_file_opened_before_is_not_overwritten", "writeback", "write(2) ends in the page cache"},
	{"flags_changing_them_changes_ctime", "writeback", "ctime is the kernel's, which does not know of it"},
	{"write_past_the_largest_size_is_EFBIG", "writeback", "fsync(2) reports it"},
	{"seek_finds_data_between_holes", "writeback", "dirty pages are unknown: everything counts as data"},
	{"seek_finds_a_punched_hole", "writeback", "dirty pages are unknown: everything counts as data"},
	{"utimens_null_is_now", "writeback", "mtime is the kernel's now, atime the daemon's"},
	{"times_truncate_to_the_same_size_changes_them_too", "writeback", "mtime is the kernel's, which sees no change"},
	{"times_relatime_reading_again_does_not_move_atime", "strictatime", "this is what the option asks for"},
	{"times_reading_after_a_change_moves_atime", "noatime", "this is what the option asks for"},
	{"times_relatime_reading_again_does_not_move_atime", "noatime", "this is what the option asks for"},
	{"times_relatime_a_day_old_atime_moves", "noatime", "this is what the option asks for"},
	{"times_reading_a_directory_moves_its_atime", "noatime", "this is what the option asks for"},
	{"times_reading_a_symlink_moves_its_atime", "noatime", "this is what the option asks for"},
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
