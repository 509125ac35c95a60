/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Goal: whatever stands on a device, mkfs.lanefs says in plain words what it is or that there is nothing, and never that there
 * is nothing where a lanefs is, its superblock in place or its last copy.
 * Method: a device in memory, looked at by itself or as a file. Input: a byte of flags (enum flag), the room for the answer
 * (1), the blocks of the device (2), one that cannot be read (2); then pieces: what (1, enum piece_what), offset (4), length
 * (1), bytes. libblkid is part of it, though it is not ours: it runs in our process, as root.
 *
 * Covers: mkfs/mkfs_probe.c
 * Length: 2048
 * Runs: 1500
 */
#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fs/format.h"
#include "mkfs/mkfs_probe.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/fuzz_bytes.h"

enum { BLOCKS_MIN = 4, BLOCKS_MAX = 1400, TEXT_MIN = 80, PIECES_MAX = 24 };
enum flag {
	AS_FILE = 1,                    /* libblkid opens it by itself */
	UNREADABLE = 2,                 /* one block of it, for us */
	LITTLE_ROOM = 4,                /* for the answer: down to one byte */
};
enum piece_what {
	PIECE_BYTES,                    /* at the offset */
	PIECE_AT_END,                   /* the offset counts from the device's end */
	PIECE_FILL,                     /* the first byte, 256 times as often as there are bytes */
	PIECE_SUPER,                    /* ours in block 1; the bytes are its label, the offset says which magic is wrong */
	PIECE_SUPER_COPY,               /* the same in the last block */
	PIECE_COUNT,
};

struct mkfs_device {
	uint8_t *memory;
	uint64_t blocks, unreadable;
	bool asked_unreadable;
};
static struct mkfs_device device;
static int device_fd;

/* ---- the device ---- */

uint64_t mkfs_device_size(const struct mkfs_device *of) { return of->blocks * FS_BLOCK_SIZE; }

int mkfs_device_read(struct mkfs_device *from, uint64_t block, void *data)
{
	FUZZ_REQUIRE(block < from->blocks, "block %llu of %llu is read", (unsigned long long)block,
		(unsigned long long)from->blocks);
	if (block == from->unreadable) {
		from->asked_unreadable = true;
		return -EIO;
	}
	memcpy(data, from->memory + block * FS_BLOCK_SIZE, FS_BLOCK_SIZE);
	return 0;
}

static void super_write(uint64_t block, uint32_t lie, const uint8_t *label, size_t length)
{
	struct fs_super *super = (struct fs_super *)(device.memory + block * FS_BLOCK_SIZE);
	*super = (struct fs_super){.magic = le64_set(lie == 1 ? 7 : FS_SUPER_MAGIC)};
	super->header.magic = le32_set(lie == 2 ? 7 : FS_BLOCK_MAGIC);
	memcpy(super->label, label, MIN(length, sizeof(super->label)));
}

static void piece_write(struct fuzz_bytes *input)
{
	const unsigned what = fuzz_u8(input) % PIECE_COUNT;
	const uint64_t size = mkfs_device_size(&device), offset = fuzz_u32(input), length = fuzz_u8(input);
	const uint64_t at = what == PIECE_AT_END ? size - 1 - offset % size : offset % size;
	uint8_t bytes[UINT8_MAX] = {0};
	fuzz_take(input, bytes, length);
	switch (what) {
	case PIECE_FILL: memset(device.memory + at, bytes[0], MIN(length * 256, size - at)); break;
	case PIECE_SUPER: super_write(FS_SUPER_BLOCK, (uint32_t)offset, bytes, length); break;
	case PIECE_SUPER_COPY: super_write(device.blocks - 1, (uint32_t)offset, bytes, length); break;
	default: memcpy(device.memory + at, bytes, MIN(length, size - at));
	}
}

static bool super_at(uint64_t block)
{
	const struct fs_super *super = (const struct fs_super *)(device.memory + block * FS_BLOCK_SIZE);
	return block != device.unreadable && le32_get(super->header.magic) == FS_BLOCK_MAGIC &&
		le64_get(super->magic) == FS_SUPER_MAGIC;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	device_fd = memfd_create("device", MFD_CLOEXEC);
	FUZZ_REQUIRE(device_fd >= 0 && ftruncate(device_fd, BLOCKS_MAX * FS_BLOCK_SIZE) == 0, "no memory");
	device.memory = mmap(NULL, BLOCKS_MAX * FS_BLOCK_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, device_fd, 0);
	FUZZ_REQUIRE(device.memory != MAP_FAILED, "no memory");
	return 0;
}

/* ---- what it is said to hold ---- */

static int lowest_free_fd(void)
{
	const int fd = dup(device_fd);
	close(fd);
	return fd;
}

static void check_text(const char *text, size_t room)
{
	FUZZ_REQUIRE(memchr(text, 0, room), "an answer without an end");
	FUZZ_REQUIRE(text[0] || room == 1, "an answer without a word");
	for (const char *at = text; *at; at++)
		FUZZ_REQUIRE((uint8_t)*at >= ' ' && *at != 0x7f, "control character 0x%02x is shown", (uint8_t)*at);
}

static void probe(const char *path, size_t room)
{
	bool found;
	char *text = malloc(room);
	FUZZ_REQUIRE(text, "no memory");
	memset(text, 'x', room);
	const int free_before = lowest_free_fd(), error = mkfs_probe(&device, path, &found, text, room);
	FUZZ_REQUIRE(lowest_free_fd() == free_before, "a descriptor is left open");
	FUZZ_REQUIRE(error <= 0 && !(error && found), "error %d, and something found", error);
	FUZZ_REQUIRE(error || !device.asked_unreadable, "a block cannot be read, and nobody says so");
	if (error || found)
		check_text(text, room);
	if (getenv("LANEFS_FUZZ_LOG"))
		fprintf(stderr, "probe: error %d, %s\n", error, error || found ? text : "nothing");
	if (!error && !found)
		FUZZ_REQUIRE(!super_at(FS_SUPER_BLOCK) && !super_at(device.blocks - 1), "a lanefs is not seen");
	free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_bytes input = fuzz_bytes_of(data, size);
	char path[64];
	const uint8_t flags = fuzz_u8(&input), more_room = fuzz_u8(&input);
	device.blocks = BLOCKS_MIN + fuzz_u16(&input) % (BLOCKS_MAX - BLOCKS_MIN + 1);
	const uint64_t unreadable = fuzz_u16(&input) % device.blocks;
	device.unreadable = flags & UNREADABLE ? unreadable : UINT64_MAX;
	device.asked_unreadable = false;
	FUZZ_REQUIRE(ftruncate(device_fd, 0) == 0 && ftruncate(device_fd, (off_t)mkfs_device_size(&device)) == 0, "no memory");
	for (unsigned i = 0; i < PIECES_MAX && input.left > 0; i++)
		piece_write(&input);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", device_fd);
	probe(flags & AS_FILE ? path : NULL, (flags & LITTLE_ROOM ? 1 : TEXT_MIN) + more_room);
	return 0;
}
