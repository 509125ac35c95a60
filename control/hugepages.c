/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * lanefs hugepages: shows or sets how many hugepages of 2 MiB the kernel reserves. A daemon with -o hugepages
 * takes its DMA memory from them. The kernel gives what it finds, so what it gave is read back.
 */
#include "control/hugepages.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "control/control.h"

#define HUGEPAGE_BYTES MIB(2)
#define REAL_FOLDER "/sys/kernel/mm/hugepages/hugepages-2048kB"

static const char help[] =
	"Usage: lanefs hugepages [COUNT|SIZE]\n"
	"Without an argument: how many hugepages of 2 MiB the kernel has reserved, and how many of them are free.\n"
	"With one: reserves COUNT of them, or SIZE (512M, 2G) rounded up to whole ones; 0 gives them back. Needs root, and\n"
	"lasts until the next boot; for good: vm.nr_hugepages=COUNT in /etc/sysctl.d/.\n";

static const char *folder = REAL_FOLDER;

void hugepages_set_folder(const char *path) { folder = path ? path : REAL_FOLDER; }

/* ---- what was asked for ---- */
/* 0 for what is no unit. */
static uint64_t unit_bytes(const char *unit)
{
	static const struct { char letter; uint64_t bytes; } units[] = {{'K', KIB(1)}, {'M', MIB(1)}, {'G', GIB(1)},
		{'T', GIB(1024)}};
	const char *rest = unit + 1;
	if (*unit && strcmp(rest, "") && strcasecmp(rest, "B") && strcasecmp(rest, "iB"))
		return 0;
	for (unsigned i = 0; i < ARRAY_SIZE(units); i++)
		if (toupper((unsigned char)*unit) == units[i].letter)
			return units[i].bytes;
	return 0;
}

int hugepages_parse(const char *text, uint64_t *pages)
{
	char *end;
	if (!isdigit((unsigned char)text[0]))
		return -EINVAL;
	errno = 0;
	const uint64_t value = strtoull(text, &end, 10);
	if (errno)
		return -ERANGE;
	if (*end == '\0') {
		*pages = value;
		return value > UINT64_MAX / HUGEPAGE_BYTES ? -ERANGE : 0;
	}
	const uint64_t unit = unit_bytes(end);
	if (!unit)
		return -EINVAL;
	if (value > (UINT64_MAX - HUGEPAGE_BYTES) / unit)
		return -ERANGE;
	*pages = div_round_up(value * unit, HUGEPAGE_BYTES);
	return 0;
}

/* ---- the kernel's numbers ---- */
static int number_read(const char *file, uint64_t *out)
{
	char path[256];
	snprintf(path, sizeof(path), "%s/%s", folder, file);
	FILE *stream = fopen(path, "re");
	if (!stream)
		return -errno;
	const bool read = fscanf(stream, "%" SCNu64, out) == 1;
	fclose(stream);
	return read ? 0 : -EIO;
}

static int number_write(uint64_t pages)
{
	char path[256], text[32];
	snprintf(path, sizeof(path), "%s/nr_hugepages", folder);
	const int length = snprintf(text, sizeof(text), "%" PRIu64 "\n", pages);
	const int fd = open(path, O_WRONLY | O_CLOEXEC | O_TRUNC);
	if (fd < 0)
		return -errno;
	const int err = write(fd, text, (size_t)length) < 0 ? -errno : 0;
	close(fd);
	return err;
}

/* Of the whole machine, in bytes; 0 when the kernel does not say. */
static uint64_t memory_available(void)
{
	char line[128];
	uint64_t kibibytes = 0;
	FILE *stream = fopen("/proc/meminfo", "re");
	while (stream && fgets(line, sizeof(line), stream) && sscanf(line, "MemAvailable: %" SCNu64, &kibibytes) != 1)
		;
	if (stream)
		fclose(stream);
	return KIB(kibibytes);
}

/* ---- the command ---- */
static void line_print(uint64_t pages)
{
	uint64_t free_pages = 0;
	char size[16];
	if (pages == 0 || number_read("free_hugepages", &free_pages) || free_pages > pages)
		free_pages = 0;
	printf("hugepages of 2 MiB: %" PRIu64 " (%s) reserved, %" PRIu64 " in use, %" PRIu64 " free\n", pages,
		format_bytes(pages * HUGEPAGE_BYTES, size), pages - free_pages, free_pages);
}

static int PRINTF_LIKE(1, 2) fail(const char *format, ...)
{
	char text[256];
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	return control_fail(CONTROL_EXIT_FAILED, "hugepages", text);
}

static int more_than_there_is(uint64_t wanted, uint64_t limit_bytes)
{
	char wanted_size[16], limit_size[16];
	return fail("%s wanted, %s of memory can be had: lanefs hugepages %" PRIu64 " or fewer",
		format_bytes(wanted * HUGEPAGE_BYTES, wanted_size), format_bytes(limit_bytes, limit_size),
		limit_bytes / HUGEPAGE_BYTES);
}

static int write_failed(int err, uint64_t wanted)
{
	if (err == -EACCES || err == -EPERM)
		return fail("%s: sudo lanefs hugepages %" PRIu64, strerror(-err), wanted);
	return fail("%s: writing %s/nr_hugepages", strerror(-err), folder);
}

static int pages_set(uint64_t wanted, uint64_t before)
{
	const uint64_t limit_bytes = memory_available() + before * HUGEPAGE_BYTES;
	uint64_t now;
	if (wanted > before && wanted * HUGEPAGE_BYTES > limit_bytes)
		return more_than_there_is(wanted, limit_bytes);
	int err = number_write(wanted);
	if (err)
		return write_failed(err, wanted);
	err = number_read("nr_hugepages", &now);
	if (err)
		return fail("%s", strerror(-err));
	printf("hugepages of 2 MiB: %" PRIu64 " before\n", before);
	line_print(now);
	if (now < wanted)
		return fail("%" PRIu64 " wanted, %" PRIu64 " found, which stay reserved: memory is fragmented; ask soon after "
			"booting, or boot with hugepages=COUNT", wanted, now);
	if (now > wanted)
		return fail("%" PRIu64 " wanted, %" PRIu64 " are left: those in use go when the programs that use them end", wanted,
			now);
	return CONTROL_EXIT_OK;
}

int control_hugepages(int argc, char **argv)
{
	uint64_t wanted = 0, before;
	if (argc > 1 && (!strcmp(argv[1], "-h") || !strcmp(argv[1], "--help"))) {
		fputs(help, stdout);
		return CONTROL_EXIT_OK;
	}
	if (argc > 2)
		return control_fail(CONTROL_EXIT_USAGE, argv[2], "one COUNT or SIZE at most");
	int err = argc > 1 ? hugepages_parse(argv[1], &wanted) : 0;
	if (err)
		return control_fail(CONTROL_EXIT_USAGE, argv[1], err == -ERANGE ? "too large" :
			"not a COUNT or a SIZE (512M, 2G)");
	err = number_read("nr_hugepages", &before);
	if (err)
		return fail("%s", err == -ENOENT ? "this kernel has none of 2 MiB" : strerror(-err));
	if (argc > 1)
		return pages_set(wanted, before);
	line_print(before);
	return CONTROL_EXIT_OK;
}
