/* SPDX-License-Identifier: BSD-3-Clause */
/* The filesystem that every case of the fault sweep begins with: one of everything that has a shape of its own on disk. */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/sim/acl_model.h"
#include "tests/sim/fault_sweep.h"

#define ROOT FS_ROOT_INODE

const char *const place_names[PLACE_COUNT] = {"tree", "block", "inline-dir", "empty", "acl", "inline", "plain", "fragments",
	"big", "unwritten", "hole", "small-xattr", "many-xattrs", "large-xattr", "linked", "suid", "link", "long-link", "fifo"};

void fault_pattern(uint8_t *buffer, char letter, uint64_t offset, uint32_t length)
{
	for (uint32_t i = 0; i < length; i++)
		buffer[i] = (uint8_t)(letter + (offset + i) / 97 * 7) | 1;
}

const char *fault_long_name(unsigned number)
{
	static char name[256];
	memset(name, 'L', 180);
	name[180] = '\0';
	const int at = snprintf(name, sizeof(name), "n%02u", number);
	name[at] = 'L';
	return name;
}

uint32_t fault_acl(uint8_t bytes[FAULT_ACL_BYTES], unsigned named)
{
	static struct acl acl;
	acl = (struct acl){.present = true, .owner = 7, .group = 5, .other = 1, .has_mask = true, .mask = 7, .user_count = named};
	for (unsigned i = 0; i < named; i++)
		acl.users[i] = (struct acl_named){.id = 2000 + i, .permissions = 6};
	return acl_encode(&acl, bytes);
}

static void must(int error, const char *what)
{
	if (error)
		sim_fail("making the image: %s: %s", what, strerror(-error));
}

static uint64_t make(struct machine *machine, uint64_t directory, const char *name, uint32_t mode)
{
	struct fs_entry entry;
	must(call_create(machine, directory, name, mode, &entry), name);
	return entry.ino;
}

static void fill(struct machine *machine, uint64_t ino, char letter, uint64_t offset, uint32_t length)
{
	uint8_t *buffer = malloc(length);
	fault_pattern(buffer, letter, offset, length);
	must(call_write(machine, ino, buffer, offset, length), "writing");
	free(buffer);
}

static void set_xattr(struct machine *machine, uint64_t ino, const char *name, char letter, uint32_t length)
{
	uint8_t *value = malloc(length);
	fault_pattern(value, letter, 0, length);
	must(call_setxattr(machine, ino, name, value, length), name);
	free(value);
}

static void make_directories(struct machine *machine, uint64_t ino[PLACE_COUNT])
{
	uint8_t bytes[FAULT_ACL_BYTES];
	char name[64];
	struct fs_entry entry;
	for (unsigned i = P_TREE; i <= P_ACL; i++)
		ino[i] = make(machine, ROOT, place_names[i], S_IFDIR | 0755);
	for (unsigned i = 0; i < TREE_NAMES; i++)
		make(machine, ino[P_TREE], fault_long_name(i), S_IFREG | 0600);
	for (unsigned i = 0; i < 12; i++) {
		snprintf(name, sizeof(name), "entry-of-a-block-%u", i);
		make(machine, ino[P_BLOCK], name, S_IFREG | 0600);
	}
	make(machine, ino[P_INLINE_DIR], "i", S_IFREG | 0600);
	must(call_setxattr(machine, ino[P_ACL], "system.posix_acl_default", bytes, fault_acl(bytes, 40)), "default ACL");
	must(call_create(machine, ino[P_TREE], "sub", S_IFDIR | 0755, &entry), "sub");
	must(call_create(machine, entry.ino, "under-sub", S_IFREG | 0600, &entry), "under-sub");
}

static void make_files(struct machine *machine, uint64_t ino[PLACE_COUNT])
{
	for (unsigned i = P_INLINE; i <= P_SUID; i++)
		ino[i] = make(machine, ROOT, place_names[i], S_IFREG | (i == P_SUID ? 04755 : 0644));
	fill(machine, ino[P_INLINE], 'i', 0, 60);
	fill(machine, ino[P_PLAIN], 'p', 0, PLAIN_BYTES);
	for (unsigned i = 0; i < FRAGMENTS; i++)
		fill(machine, ino[P_FRAGMENTS], 'f', (uint64_t)i * 2 * FS_BLOCK_SIZE, FS_BLOCK_SIZE);
	fill(machine, ino[P_BIG], 'b', 0, BIG_BYTES);
	must(call_fallocate(machine, ino[P_UNWRITTEN], 0, 0, UNWRITTEN_BYTES), "fallocate");
	fill(machine, ino[P_UNWRITTEN], 'u', 5 * FS_BLOCK_SIZE + 100, 3000);
	fill(machine, ino[P_HOLE], 'h', HOLE_AT, 5000);
	set_xattr(machine, ino[P_SMALL_XATTR], "user.small", 's', 10);
	set_xattr(machine, ino[P_LARGE_XATTR], "user.large", 'l', LARGE_VALUE_BYTES);
	for (unsigned i = 0; i < MANY_XATTRS; i++) {
		char name[32];
		snprintf(name, sizeof(name), "user.many%u", i);
		set_xattr(machine, ino[P_MANY_XATTRS], name, 'm', MANY_VALUE_BYTES);
	}
	fill(machine, ino[P_SUID], 's', 0, 9000);
	set_xattr(machine, ino[P_SUID], "security.capability", 'c', 20);
	/* Writing has cleared the bits. */
	struct fs_attr attr = {.mode = S_IFREG | 04755};
	must(call_setattr(machine, ino[P_SUID], &attr, FS_SET_MODE, &attr), "suid");
}

static void make_others(struct machine *machine, uint64_t ino[PLACE_COUNT])
{
	struct fs_entry entry;
	char target[FS_SYMLINK_MAX + 1];
	fill(machine, ino[P_LINKED], 'l', 0, 6000);
	must(call_link(machine, ino[P_BLOCK], "other-name", ino[P_LINKED], &entry), "link");
	must(call_symlink(machine, ROOT, place_names[P_LINK], "plain", &entry), "symlink");
	ino[P_LINK] = entry.ino;
	memset(target, 'T', 3000);
	target[3000] = '\0';
	must(call_symlink(machine, ROOT, place_names[P_LONG_LINK], target, &entry), "long symlink");
	ino[P_LONG_LINK] = entry.ino;
	ino[P_FIFO] = make(machine, ROOT, place_names[P_FIFO], S_IFIFO | 0600);
}

/* Unlinked files in use, of several shapes: after a crash they are freed. */
static void make_orphans(struct machine *machine)
{
	static const unsigned bytes[] = {0, 60, 300000};
	for (unsigned i = 0; i < 3 * ARRAY_SIZE(bytes); i++) {
		const uint64_t ino = make(machine, ROOT, "orphan", S_IFREG | 0600);
		if (bytes[i / 3])
			fill(machine, ino, 'o', 0, bytes[i / 3]);
		if (i % 3 == 1)
			set_xattr(machine, ino, "user.large", 'o', 9000);
		must(call_unlink(machine, ROOT, "orphan"), "unlink");
	}
}

/* What a mount finds, orphans freed. */
static void look(struct fault_image *image)
{
	struct machine machine = {.owners = image->owners, .cred = {.privileged = true}, .size = IMAGE_BYTES};
	machine.memory = fault_image_map(image);
	const struct sim_options options = {.owners = image->owners, .seed = 1, .memory = machine.memory, .size = IMAGE_BYTES};
	sim_create(&machine.sim, &options);
	must(sim_mount(&machine.sim, NULL), "mount");
	machine_settle(&machine);
	must(picture_read(&machine, "probe", &image->picture), "reading");
	must(sim_unmount(&machine.sim), "unmount");
	if (sim_fsck(machine.memory, IMAGE_BYTES, false, "image"))
		sim_fail("the image is not clean");
	sim_destroy(&machine.sim);
	munmap(machine.memory, IMAGE_BYTES);
}

uint8_t *fault_image_map(const struct fault_image *image)
{
	uint8_t *memory = mmap(NULL, IMAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE, image->fd, 0);
	if (memory == MAP_FAILED)
		sim_fail("no memory for an image");
	return memory;
}

void fault_image_make(struct fault_image *image, unsigned owners, bool dirty)
{
	*image = (struct fault_image){.owners = owners, .fd = memfd_create("fault-image", 0)};
	if (image->fd < 0 || ftruncate(image->fd, IMAGE_BYTES))
		sim_fail("no memory file");
	struct machine machine = {.owners = owners, .cred = {.uid = 1000, .gid = 1000, .umask = 022}, .size = IMAGE_BYTES};
	machine.memory = mmap(NULL, IMAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, image->fd, 0);
	if (machine.memory == MAP_FAILED)
		sim_fail("no memory for an image");
	const struct sim_format format = {.size = IMAGE_FS_BYTES, .journal_bytes = FS_JOURNAL_BLOCKS_MIN * FS_BLOCK_SIZE,
		.ag_bytes = IMAGE_AG_BYTES, .seed = 21};
	sim_mkfs(machine.memory, &format);
	const struct sim_options options = {.owners = owners, .seed = owners, .memory = machine.memory, .size = IMAGE_BYTES,
		.asynchronous = true};
	sim_create(&machine.sim, &options);
	must(sim_mount(&machine.sim, NULL), machine.sim.message);
	make_directories(&machine, image->ino);
	make_files(&machine, image->ino);
	make_others(&machine, image->ino);
	if (dirty) {
		make_orphans(&machine);
		must(call_sync(&machine), "sync");
		must(fs_shutdown(machine.sim.fs), "shutdown");
		if (sim_unmount(&machine.sim) != -EIO)
			sim_fail("the image was unmounted");
	} else {
		must(sim_unmount(&machine.sim), "unmount");
	}
	sim_destroy(&machine.sim);
	munmap(machine.memory, IMAGE_BYTES);
	look(image);
}

void fault_image_free(struct fault_image *image)
{
	picture_free(&image->picture);
	close(image->fd);
}
