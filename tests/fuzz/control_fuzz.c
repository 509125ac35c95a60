/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Goal: no answer of a daemon, whatever it is, brings the lanefs command down: status, stats, prometheus, trim, identify,
 * health and the others, and the tables of top.
 * Method: the first byte chooses the command; the rest, cut at line ends, is what the daemon sends to one connection after
 * the other. The connections are socket pairs; everything behind them is the real code of the command. The second byte
 * says whether the lines are put into the envelope of a good answer, as most must be to get anywhere.
 *
 * Covers: control/status.c control/stats.c control/prometheus.c control/histogram.c control/top_view.c
 *   control/top_table.c control/device.c control/ask.c fs/daemon/rpc_client.c
 * Runs: 8000
 */
#include <errno.h>
#include <locale.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "control/arguments.h"
#include "control/top.h"
#include "fs/daemon/rpc_client.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/fuzz_bytes.h"
#include "tests/fuzz/fuzz_quiet.h"

/* Instead of those that look for daemons (-Wl,--wrap). */
pid_t __wrap_rpc_find(const char *directory, const char *target, struct json_object **status);
int __wrap_rpc_connect(pid_t pid);
int __wrap_rpc_ask(pid_t pid, const char *method, struct json_object *params, struct json_object **result, char *message,
	size_t message_size);

static struct fuzz_bytes answers; /* what the daemon has still to say */
static bool enveloped;

/* ---- the daemon ---- */

static void answer_write(int fd, const char *text)
{
	static const char head[] = "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":";
	if (enveloped)
		(void)!send(fd, head, sizeof(head) - 1, MSG_NOSIGNAL);
	(void)!send(fd, text, strlen(text), MSG_NOSIGNAL);
	(void)!send(fd, enveloped ? "}\n" : "\n", enveloped ? 2 : 1, MSG_NOSIGNAL);
}

int __wrap_rpc_connect(pid_t pid)
{
	int fds[2];
	if (answers.left == 0)
		return -ECONNREFUSED;
	char *text = fuzz_string(&answers, '\n');
	const int made = socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds);
	assert(made == 0);
	answer_write(fds[1], text);
	/* The request is not read; half of the answers end with the connection in the middle of a line. */
	shutdown(fds[1], SHUT_WR);
	free(text);
	/* Closing the other end would take what it has not read with it: the command's own end holds both. */
	static int kept = -1;
	if (kept >= 0)
		close(kept);
	kept = fds[1];
	return fds[0];
}

int __wrap_rpc_ask(pid_t pid, const char *method, struct json_object *params, struct json_object **result, char *text,
	size_t text_size)
{
	const int connection = __wrap_rpc_connect(pid);
	text[0] = '\0';
	if (connection < 0) {
		json_object_put(params);
		return connection;
	}
	const int err = rpc_call(connection, method, params, RPC_TIMEOUT_MS, result, text, text_size);
	close(connection);
	return err;
}

pid_t __wrap_rpc_find(const char *directory, const char *target, struct json_object **status)
{
	if (status)
		*status = NULL;
	return 1;
}

/* ---- the commands ---- */

static int run_top(int argc, char **argv)
{
	struct top_sample sample = {.directory = NULL, .count = 2};
	struct top_rows rows = {0};
	char line[TOP_LINE_BYTES], text[256];
	for (unsigned i = 0; i < 2; i++) {
		struct top_daemon *daemon = &sample.daemons[i];
		*daemon = (struct top_daemon){.pid = 1, .state = TOP_ANSWERED, .seconds = 1};
		if (__wrap_rpc_ask(1, "stats", NULL, &daemon->now, text, sizeof(text)))
			daemon->now = NULL;
		if (daemon->now && __wrap_rpc_ask(1, "stats", NULL, &daemon->before, text, sizeof(text)))
			daemon->before = NULL;
	}
	/* Only what has answered is in a sample. */
	for (unsigned i = 0; i < sample.count;)
		if (sample.daemons[i].now)
			i++;
		else
			sample.daemons[i] = sample.daemons[--sample.count];
	top_summary(&sample, line, sizeof(line));
	for (unsigned i = 0; i < top_view_count; i++) {
		static const unsigned widths[] = {80, 20, 0, 300};
		top_rows_make(&rows, &top_views[i], &sample, top_views[i].sort);
		for (unsigned at = 0; top_line(&rows, &top_views[i], at, widths[at % ARRAY_SIZE(widths)], line); at++)
			assert(memchr(line, 0, sizeof(line)));
	}
	top_rows_free(&rows);
	top_sample_free(&sample);
	return 0;
}

static const struct {
	int (*fn)(int argc, char **argv);
	const char *argv[5];
} commands[] = {
	{control_status, {"status", "/"}},
	{control_status, {"status", "/", "--json"}},
	{control_stats, {"stats", "/"}},
	{control_stats, {"stats", "/", "--prometheus"}},
	{run_top, {"top"}},
	{control_trim, {"trim", "/", "-v"}},
	{control_identify, {"identify", "/"}},
	{control_health, {"health", "/"}},
	{control_reset, {"reset", "/"}},
	{control_attach, {"attach", "/"}},
	{control_detach, {"detach", "/"}},
	{control_emu, {"emu", "/", "stats"}},
	{control_emu, {"emu", "/", "rules"}},
	{control_log_level, {"log-level", "/"}},
	{control_scrub, {"scrub", "/proc/self/ns", "--status"}}, /* a small folder: it is looked through */
	{control_scrub, {"scrub", "/proc/self/ns", "--cancel"}},
	{control_scrub, {"scrub", "/", "--status"}},
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct fuzz_quiet quiet;
	char *argv[6];
	int argc = 0;
	if (!quiet.nowhere)
		setlocale(LC_ALL, "C.UTF-8");
	answers = fuzz_bytes_of(data, size);
	/* 'A' and on */
	const unsigned which = (unsigned)(fuzz_u8(&answers) - 'A') % ARRAY_SIZE(commands);
	enveloped = fuzz_u8(&answers) & 1;
	for (; commands[which].argv[argc]; argc++)
		argv[argc] = (char *)commands[which].argv[argc];
	argv[argc] = NULL;
	fuzz_quiet_begin(&quiet);
	const int status = commands[which].fn(argc, argv);
	fuzz_quiet_end(&quiet);
	assert(status >= 0 && status <= CONTROL_EXIT_NOT_FOUND);
	return 0;
}
