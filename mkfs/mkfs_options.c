/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Options, sizes, labels: everything that can be refused without looking at the target.
 */
#include "mkfs/mkfs_options.h"

#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <uuid/uuid.h>

static enum mkfs_exit usage_fail(const char *object, const char *format, ...) PRINTF_LIKE(2, 3);
static enum mkfs_exit usage_fail(const char *object, const char *format, ...)
{
	va_list arguments;

	fprintf(stderr, "mkfs.lanefs: %s: ", object);
	va_start(arguments, format);
	vfprintf(stderr, format, arguments);
	va_end(arguments);
	fputc('\n', stderr);
	return MKFS_EXIT_USAGE;
}

static void help_print(void)
{
	fputs("usage: mkfs.lanefs [options] TARGET [SIZE]\n"
	      "Makes a lanefs on TARGET: an image file or a block device. With SIZE an image file that does not exist is\n"
	      "created (sparse), and one that does is used as far as SIZE.\n\n"
	      "  -f, --force              overwrite what TARGET already holds\n"
	      "  -L, --label LABEL        up to 32 bytes\n"
	      "  -U, --uuid UUID          instead of a random one\n"
	      "  -j, --journal-size SIZE  4M to 1G; default 1/64 of TARGET, at most 64M\n"
	      "  -g, --ag-size SIZE       of allocation groups, 8M to 4G; default 1G, less on small targets\n"
	      "      --no-discard         do not tell the device first that its blocks are unused\n"
	      "  -n, --dry-run            check everything and print the summary, but write nothing\n"
	      "  -q, --quiet              no progress, no summary\n"
	      "  -h, --help; -V, --version\n\n"
	      "A SIZE is in bytes, or in KiB, MiB, GiB, TiB with K, M, G or T behind it.\n"
	      "Exit status: 0 done, 1 refused or failed, 2 usage.\n", stdout);
}

/* ---- values ---- */

/* "64M", "64MiB", "65536". */
static bool size_parse(const char *text, uint64_t *out_bytes)
{
	static const char suffixes[] = "KMGT";
	unsigned shift = 0;
	char *end;

	if (!isdigit((unsigned char)text[0]))
		return false;
	errno = 0;
	const unsigned long long number = strtoull(text, &end, 10);
	if (errno || !number)
		return false;
	if (*end) {
		const char *suffix = strchr(suffixes, toupper((unsigned char)*end));
		if (!suffix || (end[1] && strcmp(end + 1, "iB")))
			return false;
		shift = 10 * (unsigned)(suffix - suffixes + 1);
	}
	if (number > (uint64_t)INT64_MAX >> shift)
		return false;
	*out_bytes = (uint64_t)number << shift;
	return true;
}

static enum mkfs_exit size_option(const char *object, const char *text, uint64_t *out_bytes)
{
	if (size_parse(text, out_bytes))
		return MKFS_EXIT_OK;
	return usage_fail(object, "\"%s\" is not a size; write a number with K, M, G or T, for example 64M", text);
}

/* Length of the UTF-8 sequence at @text; 0: none, or a control character. Overlong forms are not told apart. */
static size_t utf8_length(const char *text)
{
	const unsigned char first = (unsigned char)text[0];

	if (first < 0x80)
		return first >= 0x20 && first != 0x7f;
	const size_t length = first >= 0xf0 && first < 0xf8 ? 4 : first >= 0xe0 ? 3 : first >= 0xc2 ? 2 : 0;
	for (size_t i = 1; i < length; i++)
		if (((unsigned char)text[i] & 0xc0) != 0x80)
			return 0;
	return first < 0xf8 ? length : 0;
}

static enum mkfs_exit label_option(const char *text, struct mkfs_options *options)
{
	if (strlen(text) > FS_LABEL_BYTES)
		return usage_fail("-L", "the label is %zu bytes long; choose one of at most %d", strlen(text),
			FS_LABEL_BYTES);
	for (const char *at = text; *at;) {
		const size_t length = utf8_length(at);
		if (!length)
			return usage_fail("-L", "the label has control characters or is no UTF-8; choose printable text");
		at += length;
	}
	snprintf(options->label, sizeof(options->label), "%s", text);
	return MKFS_EXIT_OK;
}

static enum mkfs_exit uuid_option(const char *text, struct mkfs_command *command)
{
	command->uuid_given = true;
	if (!uuid_parse(text, command->options.uuid) && !uuid_is_null(command->options.uuid))
		return MKFS_EXIT_OK;
	return usage_fail("-U", "\"%s\" is not a uuid; take one from uuidgen, or leave the option out", text);
}

/* ---- the command line ---- */

enum { OPTION_NO_DISCARD = 0x100 };
static const struct option long_options[] = {
	{"force", no_argument, NULL, 'f'},
	{"label", required_argument, NULL, 'L'},
	{"uuid", required_argument, NULL, 'U'},
	{"journal-size", required_argument, NULL, 'j'},
	{"ag-size", required_argument, NULL, 'g'},
	{"no-discard", no_argument, NULL, OPTION_NO_DISCARD},
	{"dry-run", no_argument, NULL, 'n'},
	{"quiet", no_argument, NULL, 'q'},
	{"version", no_argument, NULL, 'V'},
	{"help", no_argument, NULL, 'h'},
	{0},
};

/* What getopt could not make sense of, as it was written. */
static enum mkfs_exit option_refuse(int option, char **argv)
{
	const char letter[] = {'-', (char)optopt, '\0'};
	/* A long one stands whole just before optind; of short ones, only the letter is known. */
	const char *object = optopt && optopt < OPTION_NO_DISCARD && strncmp(argv[optind - 1], "--", 2) ? letter :
		argv[optind - 1];

	if (option == ':')
		return usage_fail(object, "needs a value; mkfs.lanefs --help explains it");
	return usage_fail(object, "is no option; mkfs.lanefs --help lists them");
}

static enum mkfs_exit option_apply(struct mkfs_command *command, int option, char **argv)
{
	command->force |= option == 'f';
	command->no_discard |= option == OPTION_NO_DISCARD;
	command->dry_run |= option == 'n';
	command->quiet |= option == 'q';
	switch (option) {
	case 'L':
		return label_option(optarg, &command->options);
	case 'U':
		return uuid_option(optarg, command);
	case 'j':
		return size_option("-j", optarg, &command->options.journal_bytes);
	case 'g':
		return size_option("-g", optarg, &command->options.ag_bytes);
	case '?':
	case ':':
		return option_refuse(option, argv);
	default:
		return MKFS_EXIT_OK;
	}
}

static enum mkfs_exit operands_parse(struct mkfs_command *command, int count, char **operands)
{
	if (!count)
		return usage_fail("TARGET", "is missing; name an image file or a block device (mkfs.lanefs --help)");
	if (count > 2)
		return usage_fail(operands[2], "one TARGET and one SIZE are all that is taken; leave it out");
	command->target = operands[0];
	return count == 2 ? size_option("SIZE", operands[1], &command->size_bytes) : MKFS_EXIT_OK;
}

bool mkfs_command_parse(struct mkfs_command *command, int argc, char **argv, enum mkfs_exit *out_status)
{
	int option;

	opterr = 0;
	*out_status = MKFS_EXIT_OK;
	while ((option = getopt_long(argc, argv, ":fL:U:j:g:nqVh", long_options, NULL)) != -1) {
		if (option == 'h')
			help_print();
		if (option == 'V')
			puts("mkfs.lanefs " LANEFS_VERSION);
		if (option == 'h' || option == 'V')
			return false;
		*out_status = option_apply(command, option, argv);
		if (*out_status != MKFS_EXIT_OK)
			return false;
	}
	*out_status = operands_parse(command, argc - optind, argv + optind);
	return *out_status == MKFS_EXIT_OK;
}

const char *mkfs_size_text(uint64_t bytes, char out[24])
{
	static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
	unsigned unit = 0;

	while (unit + 1 < ARRAY_SIZE(units) && bytes >> (10 * (unit + 1)))
		unit++;
	const uint64_t whole = bytes >> (10 * unit);
	if (whole << (10 * unit) == bytes)
		snprintf(out, 24, "%" PRIu64 " %s", whole, units[unit]);
	else
		snprintf(out, 24, "%.1f %s", (double)bytes / (double)(1ull << (10 * unit)), units[unit]);
	return out;
}
