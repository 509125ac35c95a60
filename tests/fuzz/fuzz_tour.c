/* SPDX-License-Identifier: BSD-3-Clause */
/* See fuzz_tour.h. */
#include "tests/fuzz/fuzz_tour.h"

#include <string.h>

enum { DIRECTORIES_MAX = 12 };

static bool note_entry(const struct fs_dirent *dirent, void *arg)
{
	struct fuzz_tour *tour = arg;
	if (tour->visits == FUZZ_VISITS_MAX)
		return false;
	FUZZ_REQUIRE(dirent->name.length <= FS_NAME_MAX, "a name of %u bytes", dirent->name.length);
	if (dirent->cookie <= FS_COOKIE_DOTDOT)
		return true;
	struct fuzz_visit *one = &tour->visit[tour->visits++];
	one->ino = dirent->ino;
	one->directory = tour->directory;
	one->type = dirent->type;
	memcpy(one->name, dirent->name.bytes, dirent->name.length);
	one->name[dirent->name.length] = 0;
	return true;
}

struct list_call {
	struct fs *fs;
	char *buffer;
	uint64_t ino;
	uint32_t length;
};

static MAY_WAIT int list_xattrs(void *arg)
{
	struct list_call *call = arg;
	const struct fs_cred cred = {.privileged = true};
	return fs_xattr_list(call->fs, call->ino, &cred, call->buffer, FUZZ_TOUR_BYTES, &call->length);
}

static void look_at(struct machine *machine, uint8_t *buffer, const struct fuzz_visit *one)
{
	struct fs_attr attr;
	struct fs_entry entry;
	uint32_t length;
	unsigned link_length = 0;
	uint64_t place;
	struct list_call list = {.fs = machine->sim.fs, .buffer = (char *)buffer, .ino = one->ino};
	(void)call_lookup(machine, one->directory, one->name, &entry);
	(void)call_getattr(machine, one->ino, &attr);
	(void)call_read(machine, one->ino, buffer, 0, FUZZ_TOUR_BYTES, &length);
	if (call_readlink(machine, one->ino, (char *)buffer, &link_length) == 0)
		FUZZ_REQUIRE(link_length <= FS_SYMLINK_MAX, "a target of %u bytes", link_length);
	if (sim_on(&machine->sim, one->ino, list_xattrs, &list) == 0) {
		FUZZ_REQUIRE(list.length <= FUZZ_TOUR_BYTES, "a list of %u bytes", list.length);
		for (uint32_t at = 0, names = 0; at < list.length && names < 4; at += (uint32_t)strlen((char *)buffer + at) + 1, names++) {
			char name[300];
			snprintf(name, sizeof(name), "%s", (char *)buffer + at);
			(void)call_getxattr(machine, one->ino, name, buffer + FUZZ_TOUR_BYTES / 2, FUZZ_TOUR_BYTES / 2, &length);
		}
	}
	(void)call_seek(machine, one->ino, 4 /* SEEK_HOLE */, 0, &place);
	(void)call_seek(machine, one->ino, 3 /* SEEK_DATA */, 5000, &place);
}

void fuzz_tour(struct machine *machine, struct fuzz_tour *tour)
{
	uint64_t directory[DIRECTORIES_MAX] = {FS_ROOT_INODE};
	unsigned count = 1;
	tour->visits = 0;
	for (unsigned next = 0; next < count; next++) {
		unsigned first = tour->visits;
		tour->directory = directory[next];
		(void)call_readdir(machine, tour->directory, 0, next % 2, note_entry, tour);
		for (; first < tour->visits; first++) {
			bool known = tour->visit[first].type != 4 /* DT_DIR */ || count == DIRECTORIES_MAX;
			for (unsigned at = 0; at < count && !known; at++)
				known = directory[at] == tour->visit[first].ino;
			if (!known)
				directory[count++] = tour->visit[first].ino;
		}
	}
	for (unsigned i = 0; i < tour->visits; i++)
		look_at(machine, tour->buffer, &tour->visit[i]);
}
