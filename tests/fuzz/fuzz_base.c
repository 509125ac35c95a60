/* SPDX-License-Identifier: BSD-3-Clause */
/* The filesystems that inputs begin with: made, used and left in some state by the filesystem itself. See fuzz_image.h. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "reactor/log.h"
#include "reactor/memory.h"
#include "tests/fuzz/fuzz_image.h"

enum { BUFFER_BYTES = 160 << 10, JOURNAL_BLOCKS = FS_JOURNAL_BLOCKS_MIN };

static struct fuzz_base base[FUZZ_BASE_COUNT];
static uint8_t *buffer;
bool fuzz_verbose;

const struct fuzz_base *fuzz_base(enum fuzz_base_kind kind) { return &base[kind]; }

#define MUST(call) FUZZ_REQUIRE((call) == 0, "a base image cannot be made")

/* ---- what stands in them ---- */

static void make(struct machine *machine, uint64_t in, const char *name, uint32_t mode, struct fs_entry *out)
{
	MUST(call_create(machine, in, name, mode, out));
}

static void populate_files(struct machine *machine, uint64_t in)
{
	struct fs_entry file;
	make(machine, in, "empty", S_IFREG | 0644, &file);
	make(machine, in, "inline", S_IFREG | 0644, &file);
	MUST(call_write(machine, file.ino, buffer, 0, 50));
	make(machine, in, "extents", S_IFREG | 04755, &file);
	for (unsigned i = 0; i < 3; i++)
		MUST(call_write(machine, file.ino, buffer, i * 5 * FS_BLOCK_SIZE, 6000));
	make(machine, in, "tree", S_IFREG | 0600, &file);
	for (unsigned i = 0; i < 12; i++)
		MUST(call_write(machine, file.ino, buffer, i * 3 * FS_BLOCK_SIZE, 100 + i));
	make(machine, in, "room", S_IFREG | 0600, &file);
	MUST(call_fallocate(machine, file.ino, 1 /* FALLOC_FL_KEEP_SIZE */, 0, 8 * FS_BLOCK_SIZE));
	make(machine, in, "long", S_IFREG | 0600, &file);
	MUST(call_write(machine, file.ino, buffer, 0, 36 * FS_BLOCK_SIZE));
	make(machine, in, "pipe", S_IFIFO | 0600, &file);
	make(machine, in, "socket", S_IFSOCK | 0600, &file);
	const struct fs_create device = {
		.name = {.bytes = "device", .length = 6}, .mode = S_IFCHR | 0600, .rdev_major = 1, .rdev_minor = 3};
	MUST(call_make(machine, in, &device, &file));
}

static void populate_xattrs(struct machine *machine, uint64_t in)
{
	static const uint8_t acl[] = {2, 0, 0, 0, 1, 0, 7, 0, 255, 255, 255, 255, 4, 0, 5, 0, 255, 255, 255, 255, 32, 0, 0, 0,
		255, 255, 255, 255};
	struct fs_entry file;
	char name[32];
	make(machine, in, "small-xattr", S_IFREG | 0644, &file);
	MUST(call_setxattr(machine, file.ino, "user.small", buffer, 20));
	make(machine, in, "xattrs", S_IFREG | 0644, &file);
	for (unsigned i = 0; i < 9; i++) {
		snprintf(name, sizeof(name), "user.number-%u", i);
		MUST(call_setxattr(machine, file.ino, name, buffer, 800));
	}
	MUST(call_setxattr(machine, file.ino, "user.large", buffer, 9000));
	make(machine, in, "acl", S_IFDIR | 0755, &file);
	MUST(call_setxattr(machine, file.ino, "system.posix_acl_default", acl, sizeof(acl)));
}

static void populate_names(struct machine *machine, uint64_t in)
{
	struct fs_entry directory, file;
	char name[256];
	memset(buffer, 'x', 300);
	make(machine, in, "names", S_IFDIR | 0755, &directory);
	make(machine, directory.ino, "first", S_IFREG | 0644, &file);
	for (unsigned i = 0; i < 60; i++) {
		snprintf(name, sizeof(name), "%u-%.*s", i, 230, (char *)buffer);
		MUST(call_link(machine, directory.ino, name, file.ino, &file));
	}
	MUST(call_symlink(machine, in, "link", "names/first", &file));
	char target[2000];
	memset(target, 't', sizeof(target) - 1);
	target[sizeof(target) - 1] = 0;
	MUST(call_symlink(machine, in, "long-link", target, &file));
	for (unsigned i = 0; i < 4; i++) {
		make(machine, in, i % 2 ? "down" : "deep", S_IFDIR | 0755, &directory);
		in = directory.ino;
		make(machine, in, "file", S_IFREG | 0644, &file);
	}
}

static void populate(struct machine *machine)
{
	struct fs_entry directory;
	make(machine, FS_ROOT_INODE, "directory", S_IFDIR | 0755, &directory);
	populate_files(machine, directory.ino);
	populate_names(machine, FS_ROOT_INODE);
	populate_xattrs(machine, directory.ino);
}

/* Changes of every kind, some files unlinked while they are in use. */
static void change(struct machine *machine)
{
	struct fs_entry directory, entry;
	MUST(call_lookup(machine, FS_ROOT_INODE, "directory", &directory));
	MUST(call_lookup(machine, directory.ino, "tree", &entry));
	MUST(call_unlink(machine, directory.ino, "tree"));
	MUST(call_lookup(machine, directory.ino, "xattrs", &entry));
	MUST(call_unlink(machine, directory.ino, "xattrs"));
	MUST(call_sync(machine)); /* a group of its own */
	MUST(call_rename(machine, directory.ino, "inline", FS_ROOT_INODE, "moved", 0));
	MUST(call_lookup(machine, directory.ino, "long", &entry));
	MUST(call_truncate(machine, entry.ino, 7 * FS_BLOCK_SIZE + 5));
	make(machine, FS_ROOT_INODE, "new", S_IFREG | 0644, &entry);
	MUST(call_write(machine, entry.ino, buffer, 0, 9000));
	MUST(call_setxattr(machine, entry.ino, "user.new", buffer, 2000));
	MUST(call_sync(machine));
	make(machine, FS_ROOT_INODE, "new-directory", S_IFDIR | 0755, &entry);
	make(machine, entry.ino, "inside", S_IFREG | 0644, &entry);
	MUST(call_sync(machine));
}

/* ---- making one ---- */

static MAY_WAIT int grow_run(void *arg)
{
	struct machine *machine = arg;
	struct fs_grown grown;
	return fs_grow(machine->sim.fs, 0, &grown, machine->sim.message, sizeof(machine->sim.message));
}

/* What was written up to the superblock's own place, which the journal names. */
static void grow(struct machine *machine, uint8_t *out)
{
	memcpy(out, machine->memory, machine->size);
	struct bdev *record = sim_bdev(&machine->sim, "record");
	bdev_record_clear(record);
	MUST(reactor_group_run(reactor_group_get(machine->sim.group, 0), grow_run, machine));
	size_t count;
	const struct record_entry *entries = bdev_record_entries(record, &count);
	for (size_t i = 0; i < count; i++) {
		if (entries[i].kind != RECORD_WRITE)
			continue;
		if (entries[i].offset == FS_SUPER_BLOCK * FS_BLOCK_SIZE)
			return;
		memcpy(out + entries[i].offset, entries[i].data, entries[i].length);
	}
	FUZZ_REQUIRE(false, "the growth never came home");
}

static void base_run(enum fuzz_base_kind kind, uint8_t *memory, uint8_t *out)
{
	struct machine machine = {.memory = memory, .size = FUZZ_IMAGE_BYTES, .owners = 1, .cred = {.uid = 1000, .gid = 1000}};
	const struct sim_options options = {
		.owners = 1, .seed = 1, .memory = memory, .size = FUZZ_IMAGE_BYTES, .record = kind == FUZZ_BASE_GROWN};
	sim_create(&machine.sim, &options);
	FUZZ_REQUIRE(sim_mount(&machine.sim, &machine.mount) == 0, "a base image cannot be mounted: %s", machine.sim.message);
	if (kind == FUZZ_BASE_USED)
		populate(&machine);
	if (kind == FUZZ_BASE_CUT)
		change(&machine);
	if (kind == FUZZ_BASE_CUT)
		memcpy(out, memory, FUZZ_IMAGE_BYTES);
	if (kind == FUZZ_BASE_GROWN)
		grow(&machine, out);
	MUST(sim_unmount(&machine.sim));
	sim_destroy(&machine.sim);
	if (kind == FUZZ_BASE_USED)
		memcpy(out, memory, FUZZ_IMAGE_BYTES);
}

static void base_make(enum fuzz_base_kind kind, uint8_t *out)
{
	uint8_t *memory = calloc(1, FUZZ_IMAGE_BYTES);
	const struct sim_format format = {.size = kind == FUZZ_BASE_GROWN ? FUZZ_IMAGE_BYTES / 2 : FUZZ_IMAGE_BYTES,
		.journal_bytes = JOURNAL_BLOCKS * FS_BLOCK_SIZE, .ag_bytes = MIB(1), .seed = 7};
	FUZZ_REQUIRE(memory, "no memory");
	if (kind == FUZZ_BASE_CUT)
		memcpy(memory, base[FUZZ_BASE_USED].memory, FUZZ_IMAGE_BYTES);
	else
		sim_mkfs(memory, &format);
	if (kind == FUZZ_BASE_FRESH)
		memcpy(out, memory, FUZZ_IMAGE_BYTES);
	else
		base_run(kind, memory, out);
	free(memory);
}

/* ---- what is where in it ---- */

static void scan_blocks(struct fuzz_base *made)
{
	for (unsigned type = 1; type < BLOCK_TYPE_COUNT; type++)
		made->block[type] = calloc(FUZZ_IMAGE_BLOCKS, sizeof(uint32_t));
	made->ino = calloc(FUZZ_IMAGE_BLOCKS * FS_INODES_PER_BLOCK, sizeof(uint64_t));
	for (uint32_t block = FS_SUPER_BLOCK; block < FUZZ_IMAGE_BLOCKS; block++) {
		const struct block_header *header = (const struct block_header *)(made->memory + (uint64_t)block * FS_BLOCK_SIZE);
		const unsigned type = le16_get(header->type);
		if (le32_get(header->magic) != FS_BLOCK_MAGIC || le64_get(header->fsid) != le64_get(made->super->fsid) ||
			le64_get(header->block) != block || !type || type >= BLOCK_TYPE_COUNT)
			continue;
		made->block[type][made->count[type]++] = block;
		if (type != BLOCK_INODES)
			continue;
		const uint64_t in_area = block - le64_get(made->super->first_ag_block);
		const uint32_t ag_blocks = le32_get(made->super->ag_blocks);
		for (unsigned slot = 0; slot < FS_INODES_PER_BLOCK; slot++)
			if (le32_get(((const struct inode_block *)header)->used_mask) >> slot & 1)
				made->ino[made->inodes++] = ino_make((uint32_t)(in_area / ag_blocks), (uint32_t)(in_area % ag_blocks), slot);
	}
}

static void scan_group(struct fuzz_base *made, const struct fuzz_group *group)
{
	uint8_t *bytes = malloc(group->length);
	for (uint32_t i = 0; i < group->length; i++)
		bytes[i] = made->memory[fuzz_ring_place(made, group->at, i)];
	for (uint32_t at = sizeof(struct journal_group); at < group->length;) {
		const struct journal_record *record = (const struct journal_record *)(bytes + at);
		const uint16_t length = le16_get(record->length);
		if (length == FS_BLOCK_SIZE)
			made->image[made->images++] = (struct fuzz_spot){.group = made->groups, .offset = at + sizeof(*record)};
		at += (uint32_t)(sizeof(*record) + align_up(length, 8));
	}
	free(bytes);
}

static void scan_journal(struct fuzz_base *made)
{
	const struct fs_state *state = NULL;
	for (unsigned i = FS_STATE_BLOCK_A; i <= FS_STATE_BLOCK_B; i++) {
		const struct fs_state *one = (const struct fs_state *)(made->memory + (size_t)i * FS_BLOCK_SIZE);
		if (!state_verify(made->super, one, i) && (!state || le64_get(one->generation) > le64_get(state->generation)))
			state = one;
	}
	FUZZ_REQUIRE(state, "a base image has no state");
	uint64_t at = le64_get(state->tail_block), sequence = le64_get(state->tail_sequence);
	made->group = calloc(JOURNAL_BLOCKS, sizeof(*made->group));
	made->image = calloc(JOURNAL_BLOCKS, sizeof(*made->image));
	while (!le32_get(state->clean)) {
		const struct journal_group *group = (const struct journal_group *)(made->memory + fuzz_ring_place(made, (uint32_t)at, 0));
		if (le32_get(group->magic) != FS_JOURNAL_MAGIC || le64_get(group->sequence) != sequence)
			break;
		made->group[made->groups] = (struct fuzz_group){.at = (uint32_t)at, .length = le32_get(group->length)};
		scan_group(made, &made->group[made->groups]);
		at = (at + div_round_up(made->group[made->groups++].length, FS_BLOCK_SIZE)) % JOURNAL_BLOCKS;
		sequence++;
	}
}

static void log_nothing(enum log_level level, const char *line, void *arg) {}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	fuzz_verbose = getenv("LANEFS_FUZZ_LOG");
	if (!fuzz_verbose)
		log_set_sink(log_nothing, NULL);
	buffer = dma_zalloc(BUFFER_BYTES, 4096);
	for (unsigned i = 0; i < BUFFER_BYTES; i++)
		buffer[i] = (uint8_t)(i / 7);
	for (unsigned kind = 0; kind < FUZZ_BASE_COUNT; kind++) {
		struct fuzz_base *made = &base[kind];
		made->fd = memfd_create("fuzz-base", MFD_CLOEXEC);
		FUZZ_REQUIRE(made->fd >= 0 && ftruncate(made->fd, FUZZ_IMAGE_BYTES) == 0, "no memory for a base image");
		made->memory = mmap(NULL, FUZZ_IMAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, made->fd, 0);
		FUZZ_REQUIRE(made->memory != MAP_FAILED, "no memory for a base image");
		made->super = (const struct fs_super *)(made->memory + FS_SUPER_BLOCK * FS_BLOCK_SIZE);
		base_make(kind, made->memory);
		MUST(mprotect(made->memory, FUZZ_IMAGE_BYTES, PROT_READ));
		scan_blocks(made);
		scan_journal(made);
		FUZZ_REQUIRE(kind == FUZZ_BASE_GROWN || sim_fsck(made->memory, FUZZ_IMAGE_BYTES, true, "base") == 0, "a base image is damaged");
	}
	dma_free(buffer);
	FUZZ_REQUIRE(base[FUZZ_BASE_CUT].images && base[FUZZ_BASE_GROWN].images, "a base image has no journal");
	return 0;
}
