/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * lanefs log-level and unmount: what is asked of a daemon about itself.
 */
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "control/arguments.h"
#include "fs/daemon/options.h"
#include "fs/daemon/rpc_client.h"

static const char log_level_help[] =
	"Usage: lanefs log-level DIR [error|warn|info|debug]\n"
	"Shows or sets how much the daemon of the mount at DIR logs.\n";
static const char unmount_help[] =
	"Usage: lanefs unmount DIR\n"
	"Unmounts, as umount.lanefs does, and waits for the daemon's end. A mount in use is detached first: it leaves the tree,\n"
	"and ends when the last open file is closed. Status 1: it is unmounted, but needs fsck.lanefs.\n";

static int show_level(struct json_object *result)
{
	puts(json_text(result, "level"));
	return CONTROL_EXIT_OK;
}

int control_log_level(int argc, char **argv)
{
	struct json_object *params = NULL;

	if (help_wanted(argc, argv, log_level_help))
		return CONTROL_EXIT_OK;
	if (argc < 2 || argc > 3 || argv[1][0] == '-')
		return control_fail(CONTROL_EXIT_USAGE, "log-level", "wanted: DIR [error|warn|info|debug] (try --help)");
	if (argc == 3)
		control_add(&params, "level", json_object_new_string(argv[2]));
	return control_each(argv[1], "log_level", params, show_level);
}

int control_unmount(int argc, char **argv)
{
	struct json_object *report;
	char directory[PATH_MAX], message[256];
	int connection, err;
	pid_t pid;

	if (help_wanted(argc, argv, unmount_help))
		return CONTROL_EXIT_OK;
	if (argc != 2 || argv[1][0] == '-')
		return control_fail(CONTROL_EXIT_USAGE, "unmount", "wanted: DIR (try --help)");
	err = path_resolve(argv[1], directory);
	pid = err ? 0 : rpc_find(directory, NULL, NULL);
	if (pid == -ENOMEM)
		control_no_memory();
	connection = pid ? rpc_connect(pid) : -1;
	if (connection < 0)
		return control_fail(CONTROL_EXIT_NOT_FOUND, argv[1], "no daemon of yours serves a mount there");
	err = rpc_call(connection, "unmount", NULL, -1, &report, message, sizeof(message));
	close(connection);
	if (err)
		return control_fail(CONTROL_EXIT_FAILED, argv[1], message[0] ? message : strerror(-err));
	err = json_number(report, "clean") ? CONTROL_EXIT_OK : CONTROL_EXIT_FAILED;
	json_object_put(report);
	return err ? control_fail(err, argv[1], "unmounted, but not clean: run fsck.lanefs") : err;
}
