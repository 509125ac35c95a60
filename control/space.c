/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * lanefs trim and grow: the space of a mounted filesystem.
 */
#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "control/arguments.h"
#include "fs/daemon/rpc_client.h"

static const char trim_help[] =
	"Usage: lanefs trim DIR [-o OFFSET] [-l LENGTH] [-m MINIMUM] [-v]\n"
	"Tells the device of the mount at DIR which space is free, as fstrim(8) does, and says how much it was.\n"
	"  -o, --offset N   begins so many bytes into the filesystem\n"
	"  -l, --length N   and goes on for so many\n"
	"  -m, --minimum N  leaves runs of free space alone that are shorter\n"
	"  -v, --verbose    says it for every part as it goes\n"
	"Numbers are bytes; K, M, G and T may follow. Status 1: the device cannot discard, or the mount cannot change.\n";
static const char grow_help[] =
	"Usage: lanefs grow DIR [SIZE]\n"
	"Makes the filesystem at DIR larger while it is mounted: to all of its device or image, or to SIZE (512M, 2T).\n"
	"An image that is smaller than SIZE is made larger first. Nothing becomes smaller. Without SIZE, make the device or\n"
	"the image larger first (truncate, lvextend, ...).\n";

/* Enough for a part to take a second or so. */
#define TRIM_PART_BYTES (64ull << 30)

struct trim_arguments {
	const char *directory;
	uint64_t offset, length, minimum;
	bool verbose;
};

/* ---- trim ---- */
static int size_take(const char *name, const char *value, uint64_t *out)
{
	if (value && !size_parse(value, out))
		return CONTROL_EXIT_OK;
	return control_fail(CONTROL_EXIT_USAGE, name, "wanted: a number of bytes, as 4096, 64K, 10G (try --help)");
}

static int trim_arguments_take(int argc, char **argv, struct trim_arguments *out)
{
	int status = CONTROL_EXIT_OK;

	for (int i = 1; i < argc && !status; i++) {
		const char *value;

		if (option_take("--offset", 'o', argc, argv, &i, &value))
			status = size_take("--offset", value, &out->offset);
		else if (option_take("--length", 'l', argc, argv, &i, &value))
			status = size_take("--length", value, &out->length);
		else if (option_take("--minimum", 'm', argc, argv, &i, &value))
			status = size_take("--minimum", value, &out->minimum);
		else if (!strcmp(argv[i], "-v") || !strcmp(argv[i], "--verbose"))
			out->verbose = true;
		else if (argv[i][0] == '-' || out->directory)
			status = control_fail(CONTROL_EXIT_USAGE, argv[i], argv[i][0] == '-' ? "not understood (try --help)" :
				"one word too many (try --help)");
		else
			out->directory = argv[i];
	}
	if (!status && !out->directory)
		status = control_fail(CONTROL_EXIT_USAGE, "trim", "wanted: DIR (try --help)");
	return status;
}

static struct json_object *trim_params(uint64_t offset, uint64_t length, uint64_t minimum)
{
	struct json_object *params = NULL;

	control_add(&params, "offset", json_object_new_uint64(offset));
	control_add(&params, "length", json_object_new_uint64(length));
	control_add(&params, "min_length", json_object_new_uint64(minimum));
	return params;
}

static int filesystem_bytes(const char *directory, uint64_t *out)
{
	struct json_object *answer, *filesystem;
	int status = control_ask(directory, "status", NULL, &answer);

	if (status)
		return status;
	filesystem = json_child(answer, "filesystem");
	*out = (uint64_t)json_number(filesystem, "blocks") * (uint64_t)json_number(filesystem, "block_size");
	json_object_put(answer);
	return CONTROL_EXIT_OK;
}

/* Part by part, so that something can be shown. A minimum wants whole runs: then it is one part. */
static int trim_parts(const struct trim_arguments *arguments, uint64_t end, uint64_t *trimmed)
{
	const bool progress = isatty(STDERR_FILENO) && !arguments->verbose;
	const uint64_t part = arguments->minimum ? end : TRIM_PART_BYTES;
	bool shown = false;
	int status = CONTROL_EXIT_OK;

	for (uint64_t offset = arguments->offset; offset < end && !status;) {
		const uint64_t length = MIN(part, end - offset);
		struct json_object *answer;
		char text[16], place[16];

		status = control_ask(arguments->directory, "trim", trim_params(offset, length, arguments->minimum), &answer);
		if (status)
			break;
		const uint64_t done = (uint64_t)json_number(answer, "trimmed");
		json_object_put(answer);
		*trimmed += done;
		if (arguments->verbose)
			printf("from %llu, %s: %s trimmed\n", (unsigned long long)offset, format_bytes(length, place),
				format_bytes(done, text));
		offset += length;
		if (progress && offset < end)
			shown = fprintf(stderr, "\r%s: %3.0f %%, %s trimmed ", arguments->directory,
				100.0 * (double)(offset - arguments->offset) / (double)(end - arguments->offset),
				format_bytes(*trimmed, text)) > 0;
	}
	if (shown)
		fputs("\r\033[K", stderr);
	return status;
}

int control_trim(int argc, char **argv)
{
	struct trim_arguments arguments = {.length = UINT64_MAX};
	uint64_t size = 0, trimmed = 0;
	char text[16];
	int status;

	if (help_wanted(argc, argv, trim_help))
		return CONTROL_EXIT_OK;
	status = trim_arguments_take(argc, argv, &arguments);
	if (!status)
		status = filesystem_bytes(arguments.directory, &size);
	if (!status && arguments.offset >= size)
		status = control_fail(CONTROL_EXIT_USAGE, "--offset", "behind the end of the filesystem");
	if (!status)
		status = trim_parts(&arguments, arguments.offset + MIN(arguments.length, size - arguments.offset), &trimmed);
	if (!status)
		printf("%s: %s (%llu bytes) trimmed\n", arguments.directory, format_bytes(trimmed, text), (unsigned long long)trimmed);
	return status;
}

/* ---- grow ---- */
/* An image that is smaller becomes as large, with a hole. Devices are what they are. */
static int image_extend(const char *directory, uint64_t size)
{
	struct json_object *answer;
	struct stat image;
	int status = control_ask(directory, "status", NULL, &answer);

	if (status)
		return status;
	const char *path = json_text(answer, "target");
	if (!strcmp(json_text(json_child(answer, "device"), "kind"), "file") && !stat(path, &image) && S_ISREG(image.st_mode) &&
	    (uint64_t)image.st_size < size && truncate(path, (off_t)size))
		status = control_fail(CONTROL_EXIT_FAILED, path, strerror(errno));
	json_object_put(answer);
	return status;
}

int control_grow(int argc, char **argv)
{
	struct json_object *answer, *params = NULL;
	char before[16], after[16];
	uint64_t size;
	int status;

	if (help_wanted(argc, argv, grow_help))
		return CONTROL_EXIT_OK;
	if (argc < 2 || argc > 3 || argv[1][0] == '-')
		return control_fail(CONTROL_EXIT_USAGE, "grow", "wanted: DIR [SIZE] (try --help)");
	if (argc == 3) {
		status = size_take("SIZE", argv[2], &size);
		if (status)
			return status;
		status = image_extend(argv[1], size);
		if (status)
			return status;
		control_add(&params, "bytes", json_object_new_uint64(size));
	}
	status = control_ask(argv[1], "grow", params, &answer);
	if (status)
		return status;
	printf("%s: %s, was %s\n", argv[1], format_bytes((uint64_t)json_number(answer, "new"), after),
		format_bytes((uint64_t)json_number(answer, "old"), before));
	json_object_put(answer);
	return CONTROL_EXIT_OK;
}
