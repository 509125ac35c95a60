/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The command line of "lanefs dump", and finding a superblock to trust.
 */
#include "mkfs/dump.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "mkfs/dump_internal.h"

enum dump_exit { DUMP_EXIT_OK = 0, DUMP_EXIT_FAILED = 1, DUMP_EXIT_USAGE = 2 };

static bool inode_line(struct dump *dump, const struct disk_inode *inode, uint64_t ino, void *arg)
{
	dump_field("inode", "%" PRIu64 ": %06o, links %" PRIu32 ", generation %" PRIu32 ", size %" PRIu64 ", blocks %" PRIu64, ino,
		(unsigned)le16_get(inode->mode), le32_get(inode->nlink), le32_get(inode->generation), le64_get(inode->size),
		le64_get(inode->blocks));
	return false;
}

static void dump_inodes(struct dump *dump) { dump_inodes_each(dump, inode_line, NULL); }

/* Everything but what files and directories hold. */
static void dump_all(struct dump *dump)
{
	dump_super(dump);
	dump_state(dump);
	dump_journal(dump, false);
	for (uint32_t ag = 0; ag < le32_get(dump->super.ag_count); ag++)
		dump_ag(dump, ag);
	dump_inodes(dump);
}

static void dump_journal_records(struct dump *dump)
{
	dump_journal(dump, true);
}

static const struct structure {
	const char *name, *operand, *text;
	void (*plain)(struct dump *dump);
	void (*number)(struct dump *dump, uint64_t number);
	void (*word)(struct dump *dump, const char *word);
} structures[] = {
	{"super", "", "the superblock and its copies", .plain = dump_super},
	{"state", "", "both state blocks", .plain = dump_state},
	{"journal", "", "the groups that replay would accept, with their records", .plain = dump_journal_records},
	{"ag", "N", "header, maps and orphans of an allocation group", .number = dump_ag},
	{"inode", "N", "an inode, its extents and extended attributes; 1 is the root", .number = dump_inode},
	{"dir", "N", "the entries of a directory", .number = dump_dir},
	{"path", "/A/B", "the inode of a path", .word = dump_path},
	{"names", "N", "the paths of an inode", .number = dump_names},
	{"block", "N", "any block: what it is for, and what it holds", .number = dump_block},
	{"owner", "N", "the file that has a block, and its paths", .number = dump_owner},
	{"inodes", "", "a line for each inode in use", .plain = dump_inodes},
	{"all", "", "all of super, state, journal, ag and the list of inodes", .plain = dump_all},
};

static void help_print(void)
{
	puts("Usage: lanefs dump [--raw] TARGET [STRUCTURE]\n"
	     "Prints a structure of the lanefs on TARGET (any target that is not mounted) and what its verifier says.\n"
	     "After a crash the journal is applied, in memory, as the next mount will do.\n\n"
	     "  --raw         without the journal: blocks as they stand on the target");
	for (size_t i = 0; i < ARRAY_SIZE(structures); i++)
		printf("  %-7s %-5s %s\n", structures[i].name, structures[i].operand, structures[i].text);
	puts("\nWithout STRUCTURE: super. \"names\" and \"owner\" look through all inodes. Numbers are decimal, or\n"
	     "hexadecimal with 0x. Exit status: 0; 1 when something is bad, missing or not readable; 2 usage.");
}

static int usage_fail(const char *object, const char *text)
{
	fprintf(stderr, "lanefs: dump: %s: %s\n", object, text);
	return DUMP_EXIT_USAGE;
}

/* ---- what is asked for ---- */

struct request {
	const struct structure *structure;
	uint64_t number;
	const char *word;
	bool raw;
};

static bool number_parse(const char *text, uint64_t *out)
{
	char *end;

	errno = 0;
	const unsigned long long value = strtoull(text, &end, text[0] == '0' && (text[1] | 0x20) == 'x' ? 16 : 10);
	*out = value;
	return !errno && text[0] >= '0' && text[0] <= '9' && !*end;
}

static int request_parse(struct request *request, int count, char **words)
{
	const char *name = count ? words[0] : "super";

	for (size_t i = 0; i < ARRAY_SIZE(structures); i++)
		if (!strcmp(structures[i].name, name))
			request->structure = &structures[i];
	if (!request->structure)
		return usage_fail(name, "no such structure; lanefs dump --help lists them");
	const int operands = request->structure->plain ? 0 : 1;
	if (count - 1 < operands)
		return count ? usage_fail(name, "needs an operand; lanefs dump --help shows it") : DUMP_EXIT_OK;
	if (count - 1 > operands)
		return usage_fail(words[1 + operands], "is one operand too many; leave it out");
	request->word = operands ? words[1] : NULL;
	if (request->structure->number && !number_parse(words[1], &request->number))
		return usage_fail(words[1], "is not a number; write it decimal, or hexadecimal with 0x");
	return DUMP_EXIT_OK;
}

/* ---- the target ---- */

static bool super_try(struct dump *dump, uint64_t block)
{
	struct fs_super *super = &dump->super;

	return block < dump->device_blocks && !fsck_device_read(dump->device, block, super) &&
		!super_verify(super, block, dump->device_blocks);
}

static bool super_find(struct dump *dump)
{
	if (super_try(dump, FS_SUPER_BLOCK))
		return true;
	if (!super_try(dump, dump->device_blocks - 1)) {
		dump_fail(dump, "no good superblock in block 1 or at the end; fsck.lanefs -b names another copy to check with");
		return false;
	}
	dump_fail(dump, "the superblock is bad; its copy in block %" PRIu64 " is used", dump->device_blocks - 1);
	return true;
}

static int request_run(struct dump *dump, const struct request *request)
{
	char message[512];

	if (fsck_device_open(dump->target, false, 1, &dump->device, message, sizeof(message))) {
		fprintf(stderr, "lanefs: %s\n", message);
		return DUMP_EXIT_FAILED;
	}
	dump->device_blocks = fsck_device_blocks(dump->device);
	if (!dump->device_blocks) {
		dump_fail(dump, "smaller than a block; is it the right target?");
	} else if (super_find(dump)) {
		const struct fs_state *state = request->raw ? NULL : dump_state_current(dump);
		if (state && !le32_get(state->clean))
			dump_replay(dump);
		if (request->structure->plain)
			request->structure->plain(dump);
		else if (request->structure->number)
			request->structure->number(dump, request->number);
		else
			request->structure->word(dump, request->word);
	}
	fsck_device_close(dump->device);
	dump_overlay_fini(dump);
	return fflush(stdout) || dump->bad ? DUMP_EXIT_FAILED : DUMP_EXIT_OK;
}

int dump_main(int argc, char **argv)
{
	struct request request = {0};

	if (argc > 1 && (!strcmp(argv[1], "-h") || !strcmp(argv[1], "--help"))) {
		help_print();
		return DUMP_EXIT_OK;
	}
	char *words[4];
	int count = 0;
	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--raw"))
			request.raw = true;
		else if (argv[i][0] == '-')
			return usage_fail(argv[i], "no such option; lanefs dump --help says what there is");
		else if (count == (int)ARRAY_SIZE(words))
			return usage_fail(argv[i], "is one operand too many; leave it out");
		else
			words[count++] = argv[i];
	}
	if (!count)
		return usage_fail("TARGET", "is missing; name an image file or a block device (lanefs dump --help)");
	int status = request_parse(&request, count - 1, words + 1);
	if (status != DUMP_EXIT_OK)
		return status;
	struct dump *dump = calloc(1, sizeof(*dump));
	if (!dump) {
		usage_fail("memory", "there is none; free some and try again");
		return DUMP_EXIT_FAILED;
	}
	dump->target = words[0];
	status = request_run(dump, &request);
	free(dump);
	return status;
}
