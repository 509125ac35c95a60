/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * lanefs: asks and tells running daemons, looks into images, and hands devices over.
 */
#include <stdio.h>

#include "control/arguments.h"

#ifdef HAVE_DUMP
#include "mkfs/dump.h"
#else
static int dump_main(int argc, char **argv) { return control_fail(CONTROL_EXIT_USAGE, "dump", "not in this build"); }
#endif

static int control_help(int argc, char **argv);

struct command {
	const char *name;
	int (*fn)(int argc, char **argv);
	const char *arguments, *text;
};
static const struct command commands[] = {
	{"status", control_status, "[DIR] [--json]", "device, space, journal, cache, reactors, kernel features, errors"},
	{"top", control_top, "[DIR] [--batch] ...", "the same as it happens, with rates (lanefs top --help)"},
	{"stats", control_stats, "[DIR] [--json|--prometheus]", "counts and latencies of device and kernel requests"},
	{"log-level", control_log_level, "DIR [error|warn|info|debug]", "shows or sets how much the daemon logs"},
	{"unmount", control_unmount, "DIR", "as umount.lanefs; a mount in use is detached, and waited for"},
	{"upgrade", control_upgrade, "DIR [--program PROGRAM]", "another daemon goes on with the mount; files stay open"},
	{"trim", control_trim, "DIR [-o N] [-l N] [-m N]", "tells the device which space is free"},
	{"grow", control_grow, "DIR [SIZE]", "makes the filesystem larger while it is mounted"},
	{"scrub", control_scrub, "DIR [-d] [-r N] ...", "checks a mounted filesystem (lanefs scrub --help)"},
	{"identify", control_identify, "DIR [--json]", "the NVMe controller under a mount, and its namespaces"},
	{"health", control_health, "DIR [--json]", "its SMART log: wear, temperature, errors"},
	{"reset", control_reset, "DIR", "resets the controller"},
	{"detach", control_detach, "[--surprise] DIR", "lets the device go: unmounts first, or waits, as on_removal= says"},
	{"attach", control_attach, "DIR [TARGET]", "brings a device back that a mount waits for"},
	{"emu", control_emu, "DIR ACTION ...", "makes an emulated drive fail (lanefs emu --help)"},
	{"devices", control_devices, "[--json]", "NVMe controllers: drivers, IOMMU groups, who uses them"},
	{"bind", control_bind, "ADDRESS [--driver DRIVER]", "gives a controller to vfio-pci, or another driver"},
	{"unbind", control_unbind, "ADDRESS", "gives it back to the kernel"},
	{"hugepages", control_hugepages, "[COUNT|SIZE]", "shows or sets the hugepages of 2 MiB"},
	{"dump", dump_main, "TARGET ...", "prints structures of an image (lanefs dump --help)"},
	{"version", control_version, "", "of this command"},
	{"help", control_help, "", "this text"},
};

static const struct command *command_find(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
		if (!strcmp(name, commands[i].name))
			return &commands[i];
	return NULL;
}

/* "lanefs help COMMAND" is "lanefs COMMAND --help". */
static int control_help(int argc, char **argv)
{
	const struct command *command;
	char *words[] = {argc > 1 ? argv[1] : NULL, "--help", NULL};

	if (argc > 1 && strcmp(argv[1], "--help") && strcmp(argv[1], "-h") && strcmp(argv[1], "help")) {
		command = command_find(argv[1]);
		return command ? command->fn(2, words) :
			control_fail(CONTROL_EXIT_USAGE, argv[1], "no such command: lanefs help lists them");
	}
	puts("Usage: lanefs COMMAND ...");
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
		printf("  %-9s %-27s %s\n", commands[i].name, commands[i].arguments, commands[i].text);
	puts("lanefs COMMAND --help says more. Without DIR a command speaks of all your mounts. See lanefs(1).");
	return CONTROL_EXIT_OK;
}

int control_version(int argc, char **argv)
{
	if (help_wanted(argc, argv,
		"Usage: lanefs version\nPrints the version of this command; lanefs status DIR has that of a daemon.\n"))
		return CONTROL_EXIT_OK;
	puts("lanefs " LANEFS_VERSION);
	return CONTROL_EXIT_OK;
}

int main(int argc, char **argv)
{
	const struct command *command;

	if (argc < 2) {
		control_help(1, argv);
		return CONTROL_EXIT_USAGE;
	}
	if (!strcmp(argv[1], "-h") || !strcmp(argv[1], "--help"))
		return control_help(1, argv);
	if (!strcmp(argv[1], "-V") || !strcmp(argv[1], "--version"))
		return control_version(1, argv);
	command = command_find(argv[1]);
	return command ? command->fn(argc - 1, argv + 1) :
		control_fail(CONTROL_EXIT_USAGE, argv[1], "no such command: lanefs help lists them");
}
