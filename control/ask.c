/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Finding the daemons that a command is about, asking them, and small formatting.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "control/control.h"
#include "fs/daemon/mounts.h"
#include "fs/daemon/options.h"
#include "fs/daemon/rpc_client.h"
#include "fs/daemon/run_dir.h"

int control_fail(int status, const char *object, const char *text)
{
	fprintf(stderr, "lanefs: %s: %s\n", object, text);
	return status;
}

void control_no_memory(void)
{
	exit(control_fail(CONTROL_EXIT_FAILED, "memory", "there is none; free some and try again"));
}

void control_add(struct json_object **object, const char *key, struct json_object *value)
{
	if (!*object)
		*object = json_object_new_object();
	if (!*object || !value || json_object_object_add(*object, key, value))
		control_no_memory();
}

void control_print_json(struct json_object *object)
{
	const char *text = json_object_to_json_string_ext(object, JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_SPACED);

	if (!text)
		control_no_memory();
	puts(text);
}

/* @directory NULL: the daemon is spoken of by its number. */
static int answer_fail(pid_t pid, const char *directory, int err, const char *message)
{
	char object[32];

	snprintf(object, sizeof(object), "process %d", (int)pid);
	if (err == -EREMOTEIO)
		return control_fail(CONTROL_EXIT_FAILED, directory ?: object, message);
	if (err == -ENOMEM)
		control_no_memory();
	return control_fail(CONTROL_EXIT_NOT_FOUND, directory ?: object, err == -ETIMEDOUT ? "does not answer" : strerror(-err));
}

/* @timeout_ms < 0: as long as it takes. The answer is the caller's. */
static int ask_pid(pid_t pid, const char *directory, const char *method, struct json_object *params, int timeout_ms,
	struct json_object **result)
{
	char message[256] = "";
	int connection = rpc_connect(pid), err = connection;

	if (connection >= 0) {
		err = rpc_call(connection, method, params, timeout_ms, result, message, sizeof(message));
		close(connection);
	} else {
		json_object_put(params);
	}
	return err ? answer_fail(pid, directory, err, message) : CONTROL_EXIT_OK;
}

static int ask_one(pid_t pid, const char *directory, const char *method, struct json_object *params,
	int (*fn)(struct json_object *result))
{
	struct json_object *result;
	int status = ask_pid(pid, directory, method, params, RPC_TIMEOUT_MS, &result);

	if (status)
		return status;
	status = fn(result);
	json_object_put(result);
	return status;
}

const char control_no_answer[] = "mounted, but no daemon of yours answers "
	"(another user's; or it stands still; or it died: mount it again, or umount it)";

/* The daemon of a mount; 0 and a status when there is none. */
static pid_t find_mount(const char *directory, int *status)
{
	struct mount_found found;
	char path[PATH_MAX];
	int err = path_resolve(directory, path);
	pid_t pid = err ? 0 : rpc_find(path, NULL, NULL);

	if (pid == -ENOMEM)
		control_no_memory();
	if (err)
		*status = control_fail(CONTROL_EXIT_NOT_FOUND, directory, strerror(-err));
	else if (!pid)
		*status = control_fail(CONTROL_EXIT_NOT_FOUND, directory, !mount_at(path, &found) && !found.unknown ?
			"no lanefs is mounted there" :
			control_no_answer);
	return pid;
}

int control_ask(const char *directory, const char *method, struct json_object *params, struct json_object **result)
{
	int status = CONTROL_EXIT_OK;
	pid_t pid = find_mount(directory, &status);

	if (pid)
		return ask_pid(pid, directory, method, params, -1, result);
	json_object_put(params);
	return status;
}

static int ask_mount(const char *directory, const char *method, struct json_object *params,
	int (*fn)(struct json_object *result))
{
	int status = CONTROL_EXIT_OK;
	pid_t pid = find_mount(directory, &status);

	if (pid)
		return ask_one(pid, directory, method, params, fn);
	json_object_put(params);
	return status;
}

/* The answers of all, kept in the order of the daemons whoever was faster. */
struct answers {
	struct {
		struct json_object *result;
		int err;
		char message[256];
	} of[RUN_DAEMONS_MAX];
};

static bool answer_keep(unsigned index, int err, const char *message, struct json_object *result, void *arg)
{
	struct answers *answers = arg;

	answers->of[index].result = result;
	answers->of[index].err = err;
	snprintf(answers->of[index].message, sizeof(answers->of[index].message), "%s", message);
	return false;
}

static int ask_all(const pid_t *pids, unsigned count, const char *method, int (*fn)(struct json_object *result))
{
	struct answers *answers = calloc(1, sizeof(*answers));
	int worst = CONTROL_EXIT_OK;

	if (!answers)
		control_no_memory();
	rpc_ask_all(pids, count, method, RPC_TIMEOUT_MS, answer_keep, answers);
	for (unsigned i = 0; i < count; i++) {
		struct json_object *result = answers->of[i].result;
		int status = answers->of[i].err ? answer_fail(pids[i], NULL, answers->of[i].err, answers->of[i].message) :
			fn(result);

		json_object_put(result);
		worst = MAX(worst, status);
	}
	free(answers);
	return worst;
}

int control_each(const char *directory, const char *method, struct json_object *params,
	int (*fn)(struct json_object *result))
{
	pid_t pids[RUN_DAEMONS_MAX];
	int count;

	if (directory)
		return ask_mount(directory, method, params, fn);
	count = run_dir_list(pids);
	if (count < 0)
		control_no_memory();
	return count ? ask_all(pids, (unsigned)count, method, fn) :
		control_fail(CONTROL_EXIT_NOT_FOUND, method, "no lanefs of yours is mounted");
}

/* ---- answers as they are ---- */
static struct json_object *collected; /* of one command: an array while it asks several daemons */

static int collect_json(struct json_object *result)
{
	if (json_object_array_add(collected, json_object_get(result)))
		control_no_memory();
	return CONTROL_EXIT_OK;
}

static int print_json(struct json_object *result)
{
	control_print_json(result);
	return CONTROL_EXIT_OK;
}

int control_collect(const char *directory, const char *method, struct json_object **answers)
{
	*answers = collected = json_object_new_array();
	if (!collected)
		control_no_memory();
	return control_each(directory, method, NULL, collect_json);
}

int control_each_json(const char *directory, const char *method)
{
	struct json_object *answers;
	int status;

	if (directory)
		return control_each(directory, method, NULL, print_json);
	status = control_collect(NULL, method, &answers);
	control_print_json(answers);
	json_object_put(answers);
	return status;
}

const char *format_bytes(uint64_t bytes, char out[16])
{
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
	double value = (double)bytes;
	unsigned unit = 0;

	while (value >= 1024 && unit + 1 < ARRAY_SIZE(units)) {
		value /= 1024;
		unit++;
	}
	snprintf(out, 16, value < 10 && unit ? "%.2f %s" : value < 100 && unit ? "%.1f %s" : "%.0f %s", value, units[unit]);
	return out;
}

const char *format_ns(double ns, char out[16])
{
	static const char *const units[] = {"ns", "us", "ms", "s"};
	unsigned unit = 0;

	while (ns >= 1000 && unit + 1 < ARRAY_SIZE(units)) {
		ns /= 1000;
		unit++;
	}
	snprintf(out, 16, ns < 10 ? "%.2f %s" : ns < 100 ? "%.1f %s" : "%.0f %s", ns, units[unit]);
	return out;
}
