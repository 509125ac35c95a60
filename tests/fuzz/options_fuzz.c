/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Goal: no command line, option list, configuration file or TARGET brings a parser down, and what a parser accepts keeps
 * the bounds that it promises.
 * Method: the first byte chooses the parser; words are separated by line ends. Numbers that came out are compared with the
 * limits that the messages name. An accepted list of mount options is shown, and what is shown must be accepted again
 * and be the same.
 *
 * Covers: fs/daemon/options.c fs/daemon/options_config.c fs/daemon/options_paths.c blockdev/nvme_target.c
 *   nvme/emu_options.c nvme/emu_rule_text.c mkfs/mkfs_options.c control/arguments.c
 * Length: 1024
 * Runs: 250000
 */
#include <fcntl.h>
#include <getopt.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "blockdev/nvme_internal.h"
#include "control/arguments.h"
#include "fs/daemon/options_internal.h"
#include "mkfs/mkfs_options.h"
#include "nvme/emu.h"
#include "nvme/pci.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/fuzz_bytes.h"
#include "tests/fuzz/fuzz_quiet.h"


enum { WORDS_MAX = 24 };
static char message[256];

/* control/main.c has one, too */
int control_fail(int status, const char *object, const char *text)
{
	return fprintf(stderr, "%s: %s\n", object, text) < 0 ? CONTROL_EXIT_FAILED : status;
}

/* A parser that refuses says why, in one line. */
static void check_refused(int error, bool explained)
{
	assert(error <= 0 && error > -4096);
	assert(memchr(message, 0, sizeof(message)));
	assert(!explained || error == 0 || message[0]);
}

/* ---- words ---- */

struct words {
	char *argv[WORDS_MAX + 2];
	int count;
};

static void words_take(struct words *words, struct fuzz_bytes *input, const char *name)
{
	words->argv[0] = strdup(name);
	for (words->count = 1; words->count <= WORDS_MAX && input->left > 0; words->count++)
		words->argv[words->count] = fuzz_string(input, '\n');
	words->argv[words->count] = NULL;
	optind = 0; /* getopt begins anew */
}

/* getopt sorts them, but keeps all. */
static void words_free(struct words *words)
{
	for (int i = 0; i < words->count; i++)
		free(words->argv[i]);
}

/* ---- mount.lanefs ---- */

static void check_config(const struct mount_config *config)
{
	assert(config->cache_bytes == 0 || (config->cache_bytes >= MIB(1) && config->cache_bytes <= GIB(1024)));
	assert(config->commit_ms == 0 || (config->commit_ms >= 1000 && config->commit_ms <= 300000));
	assert(config->max_background <= 65535 && config->reactors <= REACTOR_COUNT_MAX);
	assert(config->core_count <= REACTOR_COUNT_MAX && config->hold_ms <= HOLD_SECONDS_MAX * 1000ull);
	assert(!config->noatime || !config->strictatime);
}

/* What is shown is accepted, and comes to the same. */
static void check_shown(const struct mount_config *config)
{
	static char shown[4096], again[4096];
	static struct mount_config other;
	memset(&other, 0, sizeof(other));
	options_show(config, shown, sizeof(shown));
	assert(strlen(shown) < sizeof(shown));
	if (options_change(&other, shown, message, sizeof(message)))
		abort();
	options_show(&other, again, sizeof(again));
	assert(!strcmp(shown, again));
}

static void fuzz_mount(struct fuzz_bytes *input)
{
	static struct mount_config config;
	struct words words;
	words_take(&words, input, "mount.lanefs");
	const int error = options_parse(words.count, words.argv, &config, message, sizeof(message));
	check_refused(error, true);
	if (!error && !config.show_help && !config.show_version) {
		check_config(&config);
		check_shown(&config);
		check_refused(options_resolve(&config, message, sizeof(message)), false);
	}
	words_free(&words);
}

static void fuzz_remount(struct fuzz_bytes *input)
{
	static struct mount_config config, before;
	char *list = fuzz_string(input, '\0');
	memset(&config, 0, sizeof(config));
	before = config;
	const int error = options_change(&config, list, message, sizeof(message));
	check_refused(error, true);
	if (!error) {
		check_config(&config);
		(void)options_fixed_difference(&config, &before);
	}
	free(list);
}

static void fuzz_config_file(struct fuzz_bytes *input)
{
	static struct mount_config config;
	const int fd = memfd_create("config", MFD_CLOEXEC);
	char path[64];
	assert(fd >= 0);
	const ssize_t written = write(fd, input->at, input->left);
	assert(written == (ssize_t)input->left);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	memset(&config, 0, sizeof(config));
	check_refused(options_config_load(&config, path, message, sizeof(message)), true);
	close(fd);
}

/* ---- targets ---- */

static void fuzz_target(struct fuzz_bytes *input)
{
	static struct nvme_place place;
	char *text = fuzz_string(input, '\0'), path[64], *target = calloc(1, PATH_MAX);
	bool pci;
	assert(target);
	(void)nvme_target(text, &pci);
	nvme_target_file(text, path, sizeof(path));
	assert(memchr(path, 0, sizeof(path)));
	if (nvme_place_parse(text, &place, message, sizeof(message)) == 0) {
		assert(place.emu ? place.path[0] : place.address[0]);
		assert(memchr(place.path, 0, sizeof(place.path)) && memchr(place.options, 0, sizeof(place.options)));
		assert(place.nsid != UINT32_MAX && nvme_place_equal(&place, &place));
	}
	if (strlen(text) < PATH_MAX) {
		strcpy(target, text);
		check_refused(target_resolve(target), false);
		assert(memchr(target, 0, PATH_MAX));
	}
	free(target);
	free(text);
}

static void fuzz_pci_address(struct fuzz_bytes *input)
{
	char *text = fuzz_string(input, '\0'), address[PCI_ADDRESS_BYTES], again[PCI_ADDRESS_BYTES];
	if (pci_address_parse(text, address) == 0) {
		assert(memchr(address, 0, sizeof(address)) && !strchr(address, '/'));
		if (pci_address_parse(address, again))
			abort();
		assert(!strcmp(address, again));
	}
	free(text);
}

/* ---- the emulated drive ---- */

static void check_rule(const struct emu_rule *rule)
{
	assert(rule->opcode >= -1 && rule->opcode <= UINT8_MAX && rule->ppm <= 1000000 && rule->status < 0x8000);
	assert(rule->blocks == 0 || rule->first_lba + rule->blocks > rule->first_lba);
}

static void fuzz_emu_options(struct fuzz_bytes *input)
{
	static struct emu_options options;
	char *text = fuzz_string(input, '\0');
	const int error = emu_options_parse(text, &options, message, sizeof(message));
	check_refused(error, true);
	if (!error) {
		assert(options.rule_count <= EMU_RULES_MAX && memchr(options.serial, 0, sizeof(options.serial)));
		assert(options.namespaces <= 64 && options.queues_max <= 256 && options.depth_max <= 65536 && options.mdts <= 15);
		for (unsigned i = 0; i < options.rule_count; i++)
			check_rule(&options.rules[i]);
	}
	free(text);
}

static void fuzz_emu_rule(struct fuzz_bytes *input)
{
	struct emu_rule rule;
	char *text = fuzz_string(input, '\0');
	const int error = emu_rule_parse(text, &rule, message, sizeof(message));
	check_refused(error, true);
	if (!error)
		check_rule(&rule);
	free(text);
}

/* ---- mkfs.lanefs, lanefs ---- */

static void fuzz_mkfs(struct fuzz_bytes *input)
{
	struct mkfs_command command = {0};
	enum mkfs_exit status;
	struct words words;
	words_take(&words, input, "mkfs.lanefs");
	if (mkfs_command_parse(&command, words.count, words.argv, &status)) {
		assert(command.target && memchr(command.options.label, 0, sizeof(command.options.label)));
		assert((int64_t)command.size_bytes >= 0 && (int64_t)command.options.journal_bytes >= 0);
	} else {
		assert(status <= MKFS_EXIT_USAGE);
	}
	words_free(&words);
}

static void fuzz_control(struct fuzz_bytes *input)
{
	struct show_arguments show = {.prometheus_allowed = true};
	struct words words;
	uint64_t bytes;
	int status;
	words_take(&words, input, "stats");
	if (show_arguments_parse(words.count, words.argv, "help\n", &show, &status))
		assert(!show.json || !show.prometheus);
	for (int i = 1; i < words.count; i++) {
		const char *value = NULL;
		if (size_parse(words.argv[i], &bytes) == 0)
			assert((int64_t)bytes >= 0 && words.argv[i][strspn(words.argv[i], "0123456789.")] != ' ');
		(void)option_take("--offset", 'o', words.count, words.argv, &i, &value);
	}
	words_free(&words);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static void (*const parsers[])(struct fuzz_bytes *input) = {fuzz_mount, fuzz_remount, fuzz_config_file, fuzz_target,
		fuzz_pci_address, fuzz_emu_options, fuzz_emu_rule, fuzz_mkfs, fuzz_control};
	static struct fuzz_quiet quiet;
	struct fuzz_bytes input = fuzz_bytes_of(data, size);
	/* '0' and on: seeds can be written by hand */
	const unsigned which = (unsigned)(fuzz_u8(&input) - '0') % ARRAY_SIZE(parsers);
	message[0] = '\0';
	fuzz_quiet_begin(&quiet);
	parsers[which](&input);
	fuzz_quiet_end(&quiet);
	return 0;
}
