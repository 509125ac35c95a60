/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Hostile images into a mount. Input: fuzz_image.h; flags: bit 0 two owners, bit 1 read-only, bit 2 discard, bit 3 noatime; the
 * rest: operations of 4 bytes (which, on what, how much).
 * The image is mounted, every name that can be reached is looked at, the operations are done, it is unmounted. Any answer
 * is right but: nothing crashes, hangs, or touches memory that is not its own; a read-only mount writes nothing; and an
 * image without patches stays free of damage.
 * Covers: fs/alloc*.c fs/attr*.c fs/cache.c fs/dir*.c fs/discard.c fs/file*.c fs/freespace.c fs/fs.c fs/inode*.c fs/journal*.c
 *   fs/map*.c fs/mount.c fs/namei*.c fs/op.c fs/orphan.c fs/reap.c fs/tree*.c fs/tx.c fs/verify*.c fs/xattr*.c
 * Runs: 800
 */
#include <string.h>
#include <sys/mman.h>

#include "reactor/memory.h"
#include "tests/fuzz/fuzz_tour.h"

enum { OPERATIONS_MAX = 24, OPERATION_BYTES = 4 };
enum flag { TWO_OWNERS = 1, READ_ONLY = 2, DISCARD = 4, NOATIME = 8 };

static struct fuzz_tour tour;
static uint8_t *buffer;

/* ---- working: answers do not matter ---- */

static void work_on_data(struct machine *machine, unsigned which, uint64_t ino, uint64_t much)
{
	struct fs_attr attr = {.uid = 1000, .gid = 7, .mode = (uint32_t)much & 07777};
	uint64_t copied;
	switch (which) {
	case 0: (void)call_write(machine, ino, buffer, much * 64, 9000); break;
	case 1: (void)call_write(machine, ino, buffer, much, 1 + much % 300); break;
	case 2: (void)call_truncate(machine, ino, much * 16); break;
	case 3: (void)call_fallocate(machine, ino, (int)(much % 4) == 2 ? 3 : much & 1 ? 1 : 16, much * 64, 30000); break;
	case 4: (void)call_fsync(machine, ino, much & 1); break;
	case 5: (void)call_setattr(machine, ino, &attr, FS_SET_MODE | FS_SET_UID | FS_SET_GID, &attr); break;
	case 6: (void)call_copy(machine, ino, 0, tour.visit[much % tour.visits].ino, much & 0xf000, 20000, &copied); break;
	case 7: (void)call_setxattr(machine, ino, much & 1 ? "user.new" : "user.number-3", buffer, (uint32_t)much % 9000); break;
	case 8: (void)call_setxattr(machine, ino, "user.small", buffer, (uint32_t)much % 64); break;
	default: (void)call_removexattr(machine, ino, much & 1 ? "user.large" : "user.number-5");
	}
}

static void work_on_names(struct machine *machine, unsigned which, const struct fuzz_visit *one,
	const struct fuzz_visit *other, unsigned much)
{
	struct fs_entry entry;
	char name[256];
	snprintf(name, sizeof(name), "n%0*u", 1 + (int)(much >> 8 & 127), much % 4);
	switch (which) {
	case 0: (void)call_unlink(machine, one->directory, one->name); break;
	case 1: (void)call_rmdir(machine, one->directory, one->name); break;
	case 2: (void)call_rename(machine, one->directory, one->name, other->directory, name, 0); break;
	case 3: (void)call_rename(machine, one->directory, one->name, other->directory, other->name, much & 2); break;
	case 4: (void)call_link(machine, other->directory, name, one->ino, &entry); break;
	case 5: (void)call_create(machine, one->ino, name, S_IFREG | 0644, &entry); break;
	case 6: (void)call_create(machine, one->directory, name, S_IFDIR | 0755, &entry); break;
	case 7: (void)call_symlink(machine, one->directory, name, "somewhere/else", &entry); break;
	case 8: call_forget(machine, one->ino, 1); break;
	case 9: (void)call_parent(machine, one->ino, &entry); break;
	default: (void)call_sleep(machine, NS_PER_SEC);
	}
}

static void work(struct machine *machine, const struct fuzz_recipe *recipe)
{
	const uint8_t *data = recipe->rest;
	unsigned operations = (unsigned)MIN(recipe->rest_size / OPERATION_BYTES, (size_t)OPERATIONS_MAX);
	for (; tour.visits && operations > 0; operations--, data += OPERATION_BYTES) {
		const unsigned which = data[0] % 22, much = data[2] | (unsigned)data[3] << 8;
		const struct fuzz_visit *one = &tour.visit[data[1] % tour.visits], *other = &tour.visit[much % tour.visits];
		if (which < 10)
			work_on_data(machine, which, one->ino, much);
		else if (which < 21)
			work_on_names(machine, which - 10, one, other, much);
		else
			(void)call_sync(machine);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_recipe recipe;
	if (!buffer)
		buffer = tour.buffer = dma_zalloc(FUZZ_TOUR_BYTES, 4096);
	fuzz_recipe_read(data, size, &recipe);
	struct sim *sim = fuzz_sim(recipe.flags & TWO_OWNERS ? 2 : 1);
	uint8_t *image = fuzz_image_make(&recipe);
	if (recipe.flags & READ_ONLY)
		mprotect(image, FUZZ_IMAGE_BYTES, PROT_READ);
	struct machine machine = {.sim = *sim, .memory = image, .size = FUZZ_IMAGE_BYTES, .cred = {.uid = 1000, .gid = 1000},
		.owners = recipe.flags & TWO_OWNERS ? 2 : 1};
	const struct fs_mount_options options = {.read_only = recipe.flags & READ_ONLY, .discard = recipe.flags & DISCARD,
		.noatime = recipe.flags & NOATIME, .requests_max = 16, .inodes_max = 512};
	if (sim_mount(&machine.sim, &options) != 0) {
		FUZZ_REQUIRE(machine.sim.message[0], "a mount is refused without a word");
		FUZZ_REQUIRE(recipe.patch_count, "a good image is refused: %s", machine.sim.message);
		return 0;
	}
	fuzz_tour(&machine, &tour);
	work(&machine, &recipe);
	(void)call_statfs(&machine);
	const int error = sim_unmount(&machine.sim);
	if (!recipe.patch_count) {
		FUZZ_REQUIRE(!error, "a good image ends with error %d", error);
		FUZZ_REQUIRE(sim_fsck(image, FUZZ_IMAGE_BYTES, recipe.flags & READ_ONLY, "a good image") == 0, "and is damaged afterwards");
	}
	return 0;
}
