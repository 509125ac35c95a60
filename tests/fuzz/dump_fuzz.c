/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Hostile images into "lanefs dump". Input: fuzz_image.h; flags: bit 0 --raw; the rest: what is asked for, 5 bytes each (which,
 * number). The image is the device: nothing is opened. Whatever stands there, the dump ends, and what it prints holds nothing
 * that could disturb a terminal.
 * Covers: mkfs/dump*.c
 * Runs: 3000
 */
#include <errno.h>
#include <string.h>
#include <sys/types.h>

#include "mkfs/dump.h"
#include "mkfs/fsck_device.h"
#include "tests/fuzz/fuzz_image.h"

enum { REQUESTS_MAX = 6, REQUEST_BYTES = 5, OUTPUT_MAX = 64 << 20 };

static uint8_t *image;
static FILE *output, *real_output, *real_error;

/* ---- the target, in place of mkfs/fsck_device.c ---- */

int fsck_device_open(const char *target, bool writable, unsigned reactors, struct fsck_device **out, char *message,
	size_t message_size)
{
	*out = (struct fsck_device *)image;
	return 0;
}

uint64_t fsck_device_blocks(const struct fsck_device *device) { return FUZZ_IMAGE_BLOCKS; }

int fsck_device_read(struct fsck_device *device, uint64_t block, void *data)
{
	if (block >= FUZZ_IMAGE_BLOCKS)
		return -EIO;
	memcpy(data, image + block * FS_BLOCK_SIZE, FS_BLOCK_SIZE);
	return 0;
}

unsigned fsck_device_jobs(const struct fsck_device *device) { return 1; }
void fsck_device_run(struct fsck_device *device, unsigned count, void (*job)(void *arg), void *arg) { abort(); }
int fsck_device_write(struct fsck_device *device, uint64_t block, const void *data) { abort(); }
int fsck_device_flush(struct fsck_device *device) { abort(); }
void fsck_device_close(struct fsck_device *device) {}

/* ---- what it prints ---- */

static uint64_t printed;
static unsigned more, lead;             /* bytes that are due of a character, and how it began */

/* Lines of printable ASCII and of UTF-8 that is no control character. */
static bool printable(uint8_t byte)
{
	if (more) {
		const bool control = lead == 0xc2 && byte < 0xa0;
		more--;
		lead = 0;
		return byte >> 6 == 2 && !control;
	}
	if (byte < 0x80)
		return byte == '\n' || (byte >= ' ' && byte != 0x7f);
	lead = byte;
	more = byte >= 0xf0 ? 3 : byte >= 0xe0 ? 2 : 1;
	return byte >= 0xc2 && byte <= 0xf4;
}

static ssize_t output_write(void *cookie, const char *text, size_t length)
{
	for (size_t i = 0; i < length; i++)
		if (!printable((uint8_t)text[i])) {
			fprintf(real_error, "fuzz: byte 0x%02x is printed in: %.*s\n", (uint8_t)text[i], (int)MIN(length, (size_t)200), text);
			abort();
		}
	printed += length;
	if (printed > OUTPUT_MAX) {
		fprintf(real_error, "fuzz: the dump of 4 MiB does not end\n");
		abort();
	}
	return (ssize_t)length;
}

static void output_open(void)
{
	output = fopencookie(NULL, "w", (cookie_io_functions_t){.write = output_write});
	FUZZ_REQUIRE(output, "no memory");
	setvbuf(output, NULL, _IOLBF, 4096);
	real_output = stdout;
	real_error = stderr;
}

static void ask(bool raw, const char *structure, const char *operand)
{
	char *argv[6];
	int argc = 0;
	argv[argc++] = "dump";
	if (raw)
		argv[argc++] = "--raw";
	argv[argc++] = "image";
	argv[argc++] = (char *)structure;
	if (operand)
		argv[argc++] = (char *)operand;
	argv[argc] = NULL;
	printed = 0;
	stdout = stderr = output;
	const int status = dump_main(argc, argv);
	fflush(output);
	stdout = real_output;
	stderr = real_error;
	FUZZ_REQUIRE(status == 0 || status == 1, "exit status %d", status);
}

static void ask_number(const struct fuzz_recipe *recipe, unsigned which, unsigned number)
{
	static const char *const paths[] = {
		"/", "/directory", "/directory/tree", "/names/first", "/deep/down/deep", "/directory/xattrs"};
	const struct fuzz_base *base = fuzz_base(recipe->base);
	const bool raw = recipe->flags & 1;
	const unsigned type = 1 + number % (BLOCK_TYPE_COUNT - 1);
	const uint64_t ino = number % 5 ? base->ino[number % base->inodes] : number;
	char text[32];
	const uint64_t operand = which < 4 ? ino : which < 6 ? number % 8 : number % FUZZ_IMAGE_BLOCKS;
	snprintf(text, sizeof(text), "%llu", (unsigned long long)operand);
	switch (which) {
	case 0:
	case 1: ask(raw, "inode", text); break;
	case 2: ask(raw, "dir", text); break;
	case 3: ask(raw, "names", text); break;
	case 4: ask(raw, "ag", text); break;
	case 5: ask(raw, "journal", NULL); break;
	case 6: ask(raw, "owner", text); break;
	case 7: ask(raw, "path", paths[number % ARRAY_SIZE(paths)]); break;
	case 8: ask(raw, "state", NULL); break;
	case 9: ask(raw, number & 1 ? "super" : "inodes", NULL); break;
	default:
		if (base->count[type])
			snprintf(text, sizeof(text), "%u", base->block[type][number / 16 % base->count[type]]);
		ask(raw, "block", text);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_recipe recipe;
	if (!output)
		output_open();
	fuzz_recipe_read(data, size, &recipe);
	image = fuzz_image_make(&recipe);
	const uint8_t *request = recipe.rest;
	for (unsigned i = 0; i < REQUESTS_MAX && (i + 1) * REQUEST_BYTES <= recipe.rest_size; i++, request += REQUEST_BYTES)
		ask_number(&recipe, request[0] % 14, request[1] | (unsigned)request[2] << 8 | (unsigned)request[3] << 16);
	return 0;
}
