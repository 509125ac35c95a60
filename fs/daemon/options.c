/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The command line and the option list. Each option is one row of a table: what kind of value it takes and which field
 * of struct mount_config it sets. libmount splits the list, so quoting works as everywhere else.
 */
#include "fs/daemon/options_internal.h"

#include <errno.h>
#include <getopt.h>
#include <libmount/libmount.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum option_kind {
	OPTION_SET,     /* field = true */
	OPTION_CLEAR,   /* field = false */
	OPTION_NUMBER,  /* min..max */
	OPTION_SIZE,    /* bytes with an optional K, M or G */
	OPTION_SECONDS, /* to milliseconds */
	OPTION_LCORES,
	OPTION_REMOVAL, /* unmount, wait, wait=SECONDS */
	OPTION_RELATIME,
	OPTION_CONFIG,  /* has been read before the others */
	OPTION_IGNORE,  /* for others: mount(8), systemd, fstab */
	OPTION_KEEP,    /* the same, and shown in utab */
};

struct option_row {
	const char *name;
	enum option_kind kind;
	size_t field;
	uint64_t min, max;
	bool live;      /* a remount may change it */
};
#define FIELD(f) offsetof(struct mount_config, f)
#define LIVE .live = true

static const struct option_row rows[] = {
	{"ro", OPTION_SET, FIELD(read_only), LIVE},
	{"rw", OPTION_CLEAR, FIELD(read_only), LIVE},
	{"allow_other", OPTION_SET, FIELD(allow_other)},
	{"default_permissions", OPTION_SET, FIELD(default_permissions)},
	{"nosuid", OPTION_SET, FIELD(nosuid), LIVE},
	{"suid", OPTION_CLEAR, FIELD(nosuid), LIVE},
	{"nodev", OPTION_SET, FIELD(nodev), LIVE},
	{"dev", OPTION_CLEAR, FIELD(nodev), LIVE},
	{"noexec", OPTION_SET, FIELD(noexec), LIVE},
	{"exec", OPTION_CLEAR, FIELD(noexec), LIVE},
	{"sync", OPTION_SET, FIELD(sync), LIVE},
	{"async", OPTION_CLEAR, FIELD(sync), LIVE},
	{"noatime", OPTION_SET, FIELD(noatime), LIVE},
	{"atime", OPTION_CLEAR, FIELD(noatime), LIVE},
	{"strictatime", OPTION_SET, FIELD(strictatime), LIVE},
	{"nostrictatime", OPTION_CLEAR, FIELD(strictatime), LIVE},
	{"relatime", OPTION_RELATIME},
	{"nodiratime", OPTION_SET, FIELD(nodiratime), LIVE},
	{"diratime", OPTION_CLEAR, FIELD(nodiratime), LIVE},
	{"nosymfollow", OPTION_SET, FIELD(nosymfollow), LIVE},
	{"symfollow", OPTION_CLEAR, FIELD(nosymfollow), LIVE},
	{"dirsync", OPTION_SET, FIELD(sync), LIVE},
	{"remount", OPTION_SET, FIELD(remount), LIVE},
	{"discard", OPTION_SET, FIELD(discard), LIVE},
	{"nodiscard", OPTION_CLEAR, FIELD(discard), LIVE},
	{"cache", OPTION_SIZE, FIELD(cache_bytes), MIB(1), GIB(1024)},
	{"commit", OPTION_SECONDS, FIELD(commit_ms), 1, 300, LIVE},
	{"writeback", OPTION_SET, FIELD(writeback)},
	{"noopen", OPTION_SET, FIELD(noopen)},
	{"io_uring", OPTION_SET, FIELD(io_uring)},
	{"noio_uring", OPTION_CLEAR, FIELD(io_uring)},
	{"max_background", OPTION_NUMBER, FIELD(max_background), 1, 65535},
	{"reactors", OPTION_NUMBER, FIELD(reactors), 1, REACTOR_COUNT_MAX},
	{"lcores", OPTION_LCORES},
	{"poll", OPTION_SET, FIELD(poll)},
	{"hugepages", OPTION_SET, FIELD(hugepages)},
	{"on_removal", OPTION_REMOVAL},
	{"hotplug", OPTION_CLEAR, FIELD(no_hotplug)},
	{"nohotplug", OPTION_SET, FIELD(no_hotplug)},
	{"auto_bind", OPTION_SET, FIELD(auto_bind)},
	{"noauto_bind", OPTION_CLEAR, FIELD(auto_bind)},
	{"confine", OPTION_CLEAR, FIELD(no_confine)},
	{"noconfine", OPTION_SET, FIELD(no_confine)},
	{"config", OPTION_CONFIG},
	{"defaults", OPTION_IGNORE},
	{"auto", OPTION_IGNORE},
	{"noauto", OPTION_IGNORE},
	{"nofail", OPTION_IGNORE},
	{"user", OPTION_IGNORE},
	{"users", OPTION_IGNORE},
	{"owner", OPTION_IGNORE},
	{"group", OPTION_IGNORE},
	{"nouser", OPTION_IGNORE},
	{"norelatime", OPTION_IGNORE},
	{"lazytime", OPTION_IGNORE}, /* times are always logged lazily */
	{"nolazytime", OPTION_IGNORE},
	{"iversion", OPTION_IGNORE},
	{"noiversion", OPTION_IGNORE},
	{"mand", OPTION_IGNORE},
	{"nomand", OPTION_IGNORE},
	{"silent", OPTION_IGNORE},
	{"loud", OPTION_IGNORE},
	{"acl", OPTION_IGNORE}, /* always there */
	{"user_xattr", OPTION_IGNORE},
	/* What the kernel's table says of a FUSE mount: mount(8) hands it back at a remount. */
	{"user_id", OPTION_IGNORE},
	{"group_id", OPTION_IGNORE},
	{"rootmode", OPTION_IGNORE},
	{"max_read", OPTION_IGNORE},
	{"blksize", OPTION_IGNORE},
	{"subtype", OPTION_IGNORE},
	{"fsname", OPTION_IGNORE},
	{"comment", OPTION_IGNORE},
	{"uhelper", OPTION_IGNORE},
	{"_netdev", OPTION_KEEP},
};

static int parse_number(const char *text, uint64_t *out)
{
	char *end;

	if (text[0] < '0' || text[0] > '9')
		return -EINVAL;
	errno = 0;
	*out = strtoull(text, &end, 10);
	return errno || *end ? -EINVAL : 0;
}

static int parse_size(const char *text, uint64_t *out)
{
	char number[32];
	size_t length = strlen(text);
	unsigned shift = 0;

	if (length == 0 || length >= sizeof(number))
		return -EINVAL;
	memcpy(number, text, length + 1);
	switch (number[length - 1]) {
	case 'k': case 'K': shift = 10; break;
	case 'm': case 'M': shift = 20; break;
	case 'g': case 'G': shift = 30; break;
	}
	if (shift)
		number[length - 1] = '\0';
	if (parse_number(number, out) || *out > UINT64_MAX >> 30)
		return -EINVAL;
	*out <<= shift;
	return 0;
}

/* "0@0,1@1,2@0": reactor@core, numbered from 0 without a gap. ':' separates as well, since ',' ends a mount option. */
static int parse_lcores(const char *text, struct mount_config *config)
{
	unsigned count = 0;

	while (*text) {
		unsigned reactor;
		int core, used = 0;

		if (count == REACTOR_COUNT_MAX || sscanf(text, "%u@%d%n", &reactor, &core, &used) != 2 || reactor != count ||
		    core < 0)
			return -EINVAL;
		config->cores[count++] = core;
		text += used;
		if (*text && *text != ',' && *text != ':')
			return -EINVAL;
		if (*text && !*++text)
			return -EINVAL;
	}
	config->core_count = count;
	return count ? 0 : -EINVAL;
}

static int parse_removal(const char *text, struct mount_config *config)
{
	uint64_t seconds = HOLD_SECONDS_DEFAULT;
	bool wait = !strncmp(text, "wait", 4);

	if (wait && text[4] == '=' && (parse_number(text + 5, &seconds) || seconds < 1 || seconds > HOLD_SECONDS_MAX))
		return -EINVAL;
	if (wait ? text[4] && text[4] != '=' : strcmp(text, "unmount"))
		return -EINVAL;
	config->hold_on_removal = wait;
	config->hold_ms = seconds * 1000;
	return 0;
}

static void keep_for_utab(struct mount_config *config, const char *name, const char *value)
{
	size_t used = strlen(config->utab_options);

	snprintf(config->utab_options + used, sizeof(config->utab_options) - used, "%s%s%s%s", used ? "," : "", name,
		value ? "=" : "", value ? value : "");
}

static int apply_number(const struct option_row *row, struct mount_config *config, const char *value, char *message,
	size_t message_size)
{
	uint64_t *field = (uint64_t *)((char *)config + row->field);
	int err = row->kind == OPTION_SIZE ? parse_size(value, field) : parse_number(value, field);

	if (err || *field < row->min || *field > row->max) {
		snprintf(message, message_size, "option %s=%s: wanted %s from %llu to %llu", row->name, value,
			row->kind == OPTION_SIZE ? "a size (K, M and G may follow)" : row->kind == OPTION_SECONDS ? "seconds" :
			"a number", (unsigned long long)row->min, (unsigned long long)row->max);
		return -EINVAL;
	}
	if (row->kind == OPTION_SECONDS)
		*field *= 1000;
	return 0;
}

static bool wants_value(enum option_kind kind)
{
	switch (kind) {
	case OPTION_NUMBER: case OPTION_SIZE: case OPTION_SECONDS: case OPTION_LCORES: case OPTION_REMOVAL: case OPTION_CONFIG:
		return true;
	default:
		return false;
	}
}

static int apply(const struct option_row *row, struct mount_config *config, const char *value, char *message,
	size_t message_size)
{
	bool may_have_one = row->kind == OPTION_IGNORE || row->kind == OPTION_KEEP;

	if (wants_value(row->kind) != (value != NULL) && !may_have_one) {
		snprintf(message, message_size, wants_value(row->kind) ? "option %s wants a value: %s=..." :
			"option %s takes no value", row->name, row->name);
		return -EINVAL;
	}
	switch (row->kind) {
	case OPTION_SET:
	case OPTION_CLEAR:
		*(bool *)((char *)config + row->field) = row->kind == OPTION_SET;
		if (row->kind == OPTION_SET && row->field == FIELD(noatime))
			config->strictatime = false;
		if (row->kind == OPTION_SET && row->field == FIELD(strictatime))
			config->noatime = false;
		return 0;
	case OPTION_RELATIME:
		config->noatime = config->strictatime = false;
		return 0;
	case OPTION_LCORES:
		if (parse_lcores(value, config) == 0)
			return 0;
		snprintf(message, message_size, "option lcores=%s: wanted reactor@core pairs such as 0@0:1@1", value);
		return -EINVAL;
	case OPTION_REMOVAL:
		if (parse_removal(value, config) == 0)
			return 0;
		snprintf(message, message_size, "option on_removal=%s: wanted unmount, wait, or wait=SECONDS from 1 to %u", value,
			(unsigned)HOLD_SECONDS_MAX);
		return -EINVAL;
	case OPTION_CONFIG:
	case OPTION_IGNORE:
		return 0;
	case OPTION_KEEP:
		keep_for_utab(config, row->name, value);
		return 0;
	default:
		return apply_number(row, config, value, message, message_size);
	}
}

static const struct option_row *row_find(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		if (!strcmp(rows[i].name, name))
			return &rows[i];
	return NULL;
}

static bool is_private(const char *name) { return !strncmp(name, "x-", 2) || !strncmp(name, "X-", 2); }

int options_apply(struct mount_config *config, const char *name, const char *value, char *message, size_t message_size)
{
	const struct option_row *row = row_find(name);

	if (is_private(name)) {
		keep_for_utab(config, name, value);
		return 0;
	}
	if (row)
		return apply(row, config, value, message, message_size);
	snprintf(message, message_size, "unknown option '%s': the options are listed in mount.lanefs(8)", name);
	return -ENOENT;
}

int options_apply_off(struct mount_config *config, const char *name)
{
	const struct option_row *row = row_find(name);

	if (!row)
		return -ENOENT;
	if (row->kind != OPTION_SET && row->kind != OPTION_CLEAR)
		return -EINVAL;
	*(bool *)((char *)config + row->field) = row->kind == OPTION_CLEAR;
	return 0;
}

/* ---- what is in force ---- */
static void show(char *out, size_t out_size, const char *format, ...) PRINTF_LIKE(3, 4);
static void show(char *out, size_t out_size, const char *format, ...)
{
	size_t used = strlen(out);
	va_list args;

	if (used && used + 1 < out_size)
		strcpy(out + used++, ",");
	va_start(args, format);
	vsnprintf(out + used, out_size - used, format, args);
	va_end(args);
}

static void show_row(const struct option_row *row, const struct mount_config *config, char *out, size_t out_size)
{
	const char *field = (const char *)config + row->field;
	uint64_t number;

	switch (row->kind) {
	case OPTION_SET:
		if (*(const bool *)field)
			show(out, out_size, "%s", row->name);
		break;
	case OPTION_NUMBER: case OPTION_SIZE: case OPTION_SECONDS:
		number = *(const uint64_t *)field;
		if (number && row->kind == OPTION_SIZE)
			show(out, out_size, "%s=%lluK", row->name, (unsigned long long)number >> 10);
		else if (number)
			show(out, out_size, "%s=%llu", row->name,
				(unsigned long long)(row->kind == OPTION_SECONDS ? number / 1000 : number));
		break;
	case OPTION_LCORES:
		for (unsigned i = 0; i < config->core_count; i++) {
			if (i == 0)
				show(out, out_size, "lcores=%u@%d", i, config->cores[i]);
			else
				snprintf(out + strlen(out), out_size - strlen(out), ":%u@%d", i, config->cores[i]);
		}
		break;
	case OPTION_REMOVAL:
		if (config->hold_on_removal)
			show(out, out_size, "on_removal=wait=%llu", (unsigned long long)config->hold_ms / 1000);
		break;
	default:
		break;
	}
}

void options_show(const struct mount_config *config, char *out, size_t out_size)
{
	out[0] = '\0';
	if (!config->read_only)
		show(out, out_size, "rw");
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		show_row(&rows[i], config, out, out_size);
	if (!config->noatime && !config->strictatime)
		show(out, out_size, "relatime");
}

/* The command line wins over the file that it names: first only that file is looked for. */
enum apply_pass { PASS_CONFIG, PASS_OPTIONS };

static int apply_one(struct mount_config *config, enum apply_pass pass, const char *name, const char *value,
	char *message, size_t message_size)
{
	int err = 0;

	if (pass == PASS_OPTIONS)
		err = options_apply(config, name, value, message, message_size);
	else if (!strcmp(name, "config") && value)
		err = options_config_load(config, value, message, message_size);
	return err == -ENOENT && config->sloppy && pass == PASS_OPTIONS ? 0 : err;
}

static int apply_list(struct mount_config *config, enum apply_pass pass, const char *list, char *message,
	size_t message_size)
{
	char *copy = strdup(list), *cursor = copy, *name, *value;
	size_t name_size, value_size;
	int err = copy ? 0 : -ENOMEM;

	while (!err && mnt_optstr_next_option(&cursor, &name, &name_size, &value, &value_size) == 0) {
		char name_copy[128], value_copy[512];

		if (value && value_size >= 2 && value[0] == '"' && value[value_size - 1] == '"') {
			value++;
			value_size -= 2;
		}
		if (name_size >= sizeof(name_copy) || (value && value_size >= sizeof(value_copy))) {
			snprintf(message, message_size, "option %.40s...: too long", name);
			err = -EINVAL;
			break;
		}
		snprintf(name_copy, sizeof(name_copy), "%.*s", (int)name_size, name);
		snprintf(value_copy, sizeof(value_copy), "%.*s", value ? (int)value_size : 0, value ? value : "");
		err = apply_one(config, pass, name_copy, value ? value_copy : NULL, message, message_size);
	}
	free(copy);
	return err;
}

/* mount(8) passes its own -f ("fake") under the name of our foreground flag. */
static bool called_by_mount(void)
{
	char path[64], name[16] = "";
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/comm", (int)getppid());
	file = fopen(path, "re");
	if (!file)
		return false;
	if (!fgets(name, sizeof(name), file))
		name[0] = '\0';
	fclose(file);
	return !strcmp(name, "mount\n");
}

static int parse_flags(int argc, char **argv, struct mount_config *config, const char **lists, unsigned list_max,
	char *message, size_t message_size)
{
	static const struct option long_options[] = {{"help", no_argument, NULL, 'h'}, {"version", no_argument, NULL, 'V'},
		{"take-over", no_argument, NULL, 'T'}, {}};
	unsigned list_count = 0;
	int flag;

	opterr = 0;
	while ((flag = getopt_long(argc, argv, ":fnsvhVo:t:N:", long_options, NULL)) != -1) {
		switch (flag) {
		case 'f': config->foreground = true; break;
		case 'n': config->no_utab = true; break;
		case 's': config->sloppy = true; break;
		case 'v': config->verbose = true; break;
		case 'h': config->show_help = true; break;
		case 'V': config->show_version = true; break;
		case 'T': config->take_over = true; break;
		case 't': break;
		case 'o':
			if (list_count == list_max) {
				snprintf(message, message_size, "too many -o flags");
				return -EINVAL;
			}
			lists[list_count++] = optarg;
			break;
		case 'N':
			snprintf(message, message_size, "-N: mounting into another namespace is not built: use nsenter(1)");
			return -EINVAL;
		case ':':
			snprintf(message, message_size, "-%c wants a value (try -h)", optopt);
			return -EINVAL;
		default:
			if (optopt)
				snprintf(message, message_size, "unknown flag -%c (try -h)", optopt);
			else
				snprintf(message, message_size, "unknown flag %s (try -h)", argv[optind - 1]);
			return -EINVAL;
		}
	}
	return 0;
}

/* As it was said: for the daemon, at a remount. */
static int keep_list(struct mount_config *config, const char *list, char *message, size_t message_size)
{
	size_t used = strlen(config->said), room = sizeof(config->said) - used;

	if ((size_t)snprintf(config->said + used, room, "%s%s", used ? "," : "", list) < room)
		return 0;
	snprintf(message, message_size, "the options are too long");
	return -EINVAL;
}

static int apply_lists(struct mount_config *config, const char *const *lists, unsigned list_max, char *message,
	size_t message_size)
{
	uint64_t file_reactors;
	unsigned file_cores;
	int err = 0;

	for (unsigned i = 0; i < list_max && lists[i] && !err; i++)
		err = apply_list(config, PASS_CONFIG, lists[i], message, message_size);
	for (unsigned i = 0; i < list_max && lists[i] && !err; i++)
		err = keep_list(config, lists[i], message, message_size);
	file_reactors = config->reactors;
	file_cores = config->core_count;
	for (unsigned i = 0; i < list_max && lists[i] && !err; i++)
		err = apply_list(config, PASS_OPTIONS, lists[i], message, message_size);
	/* The two say the same thing in two ways: what only the file said gives way. */
	if (config->reactors && config->core_count && config->reactors != config->core_count) {
		if (file_reactors == config->reactors && file_cores != config->core_count)
			config->reactors = 0;
		else if (file_cores == config->core_count && file_reactors != config->reactors)
			config->core_count = 0;
	}
	return err;
}

static int parse_take_over(int argc, char **argv, const char *list, struct mount_config *config, char *message, size_t message_size)
{
	if (argc - optind != 1 || list) {
		snprintf(message, message_size, "usage: mount.lanefs --take-over DIR [-fv] (try -h)");
		return -EINVAL;
	}
	if (strlen(argv[optind]) >= PATH_MAX) {
		snprintf(message, message_size, "path too long");
		return -EINVAL;
	}
	strcpy(config->directory, argv[optind]);
	return 0;
}

int options_parse(int argc, char **argv, struct mount_config *config, char *message, size_t message_size)
{
	const char *lists[16] = {NULL};
	int err;

	memset(config, 0, sizeof(*config));
	config->default_permissions = true;
	config->allow_other = config->default_permissions && geteuid() == 0;
	config->nosuid = config->nodev = geteuid() != 0;
	err = parse_flags(argc, argv, config, lists, ARRAY_SIZE(lists), message, message_size);
	if (err || config->show_help || config->show_version)
		return err;
	err = apply_lists(config, lists, ARRAY_SIZE(lists), message, message_size);
	if (err)
		return err;
	if (config->take_over)
		return parse_take_over(argc, argv, lists[0], config, message, message_size);
	if (argc - optind != 2) {
		snprintf(message, message_size, "usage: mount.lanefs TARGET DIR [-fnsv] [-o options] (try -h)");
		return -EINVAL;
	}
	if (config->reactors && config->core_count && config->reactors != config->core_count) {
		snprintf(message, message_size, "options reactors=%llu and lcores= (%u reactors) contradict each other",
			(unsigned long long)config->reactors, config->core_count);
		return -EINVAL;
	}
	if (config->io_uring && config->hold_on_removal) {
		snprintf(message, message_size, "options io_uring and on_removal=wait exclude each other: choose one");
		return -EINVAL;
	}
	if (strlen(argv[optind]) >= PATH_MAX || strlen(argv[optind + 1]) >= PATH_MAX) {
		snprintf(message, message_size, "path too long");
		return -EINVAL;
	}
	strcpy(config->target, argv[optind]);
	strcpy(config->directory, argv[optind + 1]);
	config->called_by_mount = called_by_mount();
	if (config->foreground && config->called_by_mount) {
		config->foreground = false;
		config->fake = true;
	}
	return 0;
}

/* ---- remount ---- */
int options_change(struct mount_config *config, const char *list, char *message, size_t message_size)
{
	int err = apply_list(config, PASS_CONFIG, list, message, message_size);

	return err ? err : apply_list(config, PASS_OPTIONS, list, message, message_size);
}

static bool row_differs(const struct option_row *row, const struct mount_config *a, const struct mount_config *b)
{
	const char *in_a = (const char *)a + row->field, *in_b = (const char *)b + row->field;

	switch (row->kind) {
	case OPTION_SET: case OPTION_CLEAR:
		return *(const bool *)in_a != *(const bool *)in_b;
	case OPTION_LCORES:
		return options_reactor_count(a) != options_reactor_count(b) || a->core_count != b->core_count ||
			memcmp(a->cores, b->cores, a->core_count * sizeof(a->cores[0]));
	case OPTION_REMOVAL:
		return a->hold_on_removal != b->hold_on_removal || (a->hold_on_removal && a->hold_ms != b->hold_ms);
	case OPTION_NUMBER:
		if (row->field == FIELD(reactors))
			return options_reactor_count(a) != options_reactor_count(b);
		return *(const uint64_t *)in_a != *(const uint64_t *)in_b;
	case OPTION_SIZE: case OPTION_SECONDS:
		return *(const uint64_t *)in_a != *(const uint64_t *)in_b;
	default:
		return false;
	}
}

const char *options_fixed_difference(const struct mount_config *a, const struct mount_config *b)
{
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		if (!rows[i].live && row_differs(&rows[i], a, b))
			return rows[i].name;
	return NULL;
}

unsigned options_reactor_count(const struct mount_config *config)
{
	return config->core_count ? config->core_count : config->reactors ? (unsigned)config->reactors : 1;
}
