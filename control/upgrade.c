/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * lanefs upgrade: another daemon, as a rule of a newer version, goes on with a mount. mount.lanefs does it.
 */
#include <errno.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "control/arguments.h"
#include "fs/daemon/options.h"
#include "fs/daemon/rpc_client.h"

#define PROGRAM LANEFS_SBINDIR "/mount.lanefs"

static const char upgrade_help[] =
	"Usage: lanefs upgrade DIR [--program PROGRAM]\n"
	"Starts the installed mount.lanefs (" PROGRAM "), or PROGRAM, to serve the mount at DIR in place of its daemon,\n"
	"which ends. Open files stay open; programs wait for a moment. When it is not possible, all stays as it was.\n";

static int run_program(const char *program, const char *directory)
{
	char *const words[] = {"mount.lanefs", "--take-over", (char *)directory, NULL};
	int status, err;
	pid_t pid;

	err = posix_spawn(&pid, program, NULL, NULL, words, environ);
	if (err) {
		char reason[128];

		snprintf(reason, sizeof(reason), "%s: name the program that takes over with --program", strerror(err));
		return control_fail(CONTROL_EXIT_FAILED, program, reason);
	}
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return control_fail(CONTROL_EXIT_FAILED, program, strerror(errno));
	/* It has said why. */
	return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? CONTROL_EXIT_OK : CONTROL_EXIT_FAILED;
}

int control_upgrade(int argc, char **argv)
{
	const char *program = PROGRAM, *named = NULL, *value;
	char directory[PATH_MAX];

	if (help_wanted(argc, argv, upgrade_help))
		return CONTROL_EXIT_OK;
	for (int i = 1; i < argc; i++) {
		if (option_take("--program", 0, argc, argv, &i, &value) && value)
			program = value;
		else if (argv[i][0] == '-' || named)
			return control_fail(CONTROL_EXIT_USAGE, "upgrade", "wanted: DIR [--program PROGRAM] (try --help)");
		else
			named = argv[i];
	}
	if (!named)
		return control_fail(CONTROL_EXIT_USAGE, "upgrade", "wanted: DIR [--program PROGRAM] (try --help)");
	const pid_t pid = path_resolve(named, directory) ? 0 : rpc_find(directory, NULL, NULL);
	if (pid == -ENOMEM)
		control_no_memory();
	if (!pid)
		return control_fail(CONTROL_EXIT_NOT_FOUND, named, "no daemon of yours serves a mount there");
	return run_program(program, directory);
}
