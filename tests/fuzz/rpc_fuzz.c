/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Goal: nothing that clients of the control socket send, or how they send it, brings the daemon down: lines that are no JSON,
 * parameters of any type and value for every method, clients that come, go and do not read. What is answered is one line
 * of JSON-RPC for each line that was sent, at most.
 * Method: the daemon's server and handlers over a filesystem on simulated reactors, on memory or an emulated drive. Byte 0
 * chooses the device; the rest is what clients send, and bytes below 8 are what they do (enum act). What handlers begin on
 * reactors runs between two rounds of the server, as tasks do.
 *
 * Covers: fs/daemon/rpc_server.c fs/daemon/daemon_device_rpc.c fs/daemon/daemon_emu_rpc.c fs/daemon/daemon_space_rpc.c
 *   fs/daemon/daemon_remount.c fs/daemon/daemon_status.c fs/daemon/daemon_stats.c
 * Length: 2048
 * Runs: 500
 */
#include <errno.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "fs/daemon/confine.h"
#include "fs/daemon/daemon_internal.h"
#include "reactor/log.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/fuzz_bytes.h"
#include "tests/sim/sim.h"

enum { CLIENTS = 3, IMAGE_BYTES = 16 << 20, ANSWER_BYTES = 1 << 20, ROUNDS_MAX = 64 };
enum act { ACT_NEXT_CLIENT = 1, ACT_CLOSE, ACT_READ, ACT_ROUND, ACT_SLEEP, ACT_LONG };

struct client {
	int fd;                    /* -1: not connected */
	unsigned lines, answers;   /* sent and received */
	size_t used;               /* of text */
	char text[ANSWER_BYTES];   /* of the answer that is coming */
};

static struct client clients[CLIENTS];
static struct daemon the_daemon;
static struct mount_config config;
static struct sim sim;
static struct daemon_task *tasks; /* begun and not run */
static char socket_path[64];
static int64_t now_ms;

/* ---- the daemon's other parts ---- */

/* The socket is the fuzzer's own (-Wl,--wrap). */
int __wrap_run_dir_get(bool create, char *out);
int __wrap_run_dir_socket(pid_t pid, char *out);
int __wrap_run_dir_get(bool create, char *out)
{
	strcpy(out, "/tmp");
	return 0;
}
int __wrap_run_dir_socket(pid_t pid, char *out)
{
	strcpy(out, socket_path);
	return 0;
}

struct reactor *daemon_reactor(const struct daemon *daemon) { return reactor_group_get(daemon->group, 0); }
int64_t daemon_now_ms(void) { return now_ms; }
void daemon_ask_stop(struct daemon *daemon) { daemon->stop_requests++; }
struct nvme_device *daemon_device(const struct daemon *daemon) { return nvme_device_of(daemon->registry, daemon->bdev_name); }
void removal_begin(struct daemon *daemon, const char *why) { daemon->removal.leaving = true; }
void removal_end_wait(struct daemon *daemon, const char *why) { daemon->removal.held = false; }
/* A successor is a process of its own. */
int handover_rpc(struct daemon *daemon, struct json_object *params, char *message, size_t message_size)
{
	snprintf(message, message_size, "no successor");
	return RPC_INTERNAL_ERROR;
}

struct confinement confine_status(void) { return (struct confinement){.on = true}; }
void confine_capabilities_show(uint64_t capabilities, char *out, size_t out_size) { snprintf(out, out_size, "none"); }

/* Nothing is held here that could come back. */
MAY_WAIT int reattach_run(struct daemon_task *task)
{
	struct reattach *reattach = CONTAINER_OF(task, struct reattach, task);
	snprintf(reattach->message, sizeof(reattach->message), "%s: is not waited for", reattach->target);
	return -EBUSY;
}
void reattach_report(const struct reattach *reattach) { log_info("%s", reattach->message); }

MAY_WAIT static int task_fiber(void *arg)
{
	struct daemon_task *task = arg;
	task->result = task->run(task);
	return 0;
}

static void task_run_now(struct daemon *daemon, struct daemon_task *task)
{
	const int error = reactor_group_run(daemon_reactor(daemon), task_fiber, task);
	FUZZ_REQUIRE(!error, "a task does not run");
	if (task->done)
		task->done(task);
}

void task_start(struct daemon *daemon, struct daemon_task *task)
{
	task->daemon = daemon;
	task->next = tasks;
	tasks = task;
}

bool task_start_quick(struct daemon *daemon, struct daemon_task *task)
{
	task->daemon = daemon;
	task_run_now(daemon, task);
	return true;
}

/* ---- clients ---- */

static void client_open(struct client *client)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	strcpy(address.sun_path, socket_path);
	client->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	client->lines = client->answers = 0;
	client->used = 0;
	FUZZ_REQUIRE(client->fd >= 0, "no socket");
	if (connect(client->fd, (struct sockaddr *)&address, sizeof(address)))
		FUZZ_REQUIRE(errno == EAGAIN, "the server does not listen: %s", strerror(errno));
}

static void client_close(struct client *client)
{
	if (client->fd >= 0)
		close(client->fd);
	client->fd = -1;
}

static void answer_check(struct client *client, const char *line)
{
	struct json_object *reply = json_tokener_parse(line), *version, *value;
	FUZZ_REQUIRE(json_object_is_type(reply, json_type_object), "an answer that is no object: %.60s", line);
	FUZZ_REQUIRE(json_object_object_get_ex(reply, "jsonrpc", &version) && json_object_object_get_ex(reply, "id", NULL) &&
		!strcmp(json_object_get_string(version), "2.0"), "no JSON-RPC 2.0: %.60s", line);
	const bool error = json_object_object_get_ex(reply, "error", &value);
	FUZZ_REQUIRE(error != json_object_object_get_ex(reply, "result", NULL), "error and result, or neither: %.60s", line);
	if (error)
		FUZZ_REQUIRE(json_object_object_get_ex(value, "message", &value) && json_object_get_string_len(value) > 0,
			"an error without a word: %.60s", line);
	json_object_put(reply);
	FUZZ_REQUIRE(++client->answers <= client->lines, "more answers than lines");
}

static void client_read(struct client *client)
{
	ssize_t got;
	while (client->fd >= 0 && (got = recv(client->fd, client->text + client->used, sizeof(client->text) - 1 - client->used, 0)) > 0) {
		char *begin = client->text, *end;
		client->used += (size_t)got;
		client->text[client->used] = '\0';
		while ((end = strchr(begin, '\n'))) {
			*end = '\0';
			answer_check(client, begin);
			begin = end + 1;
		}
		client->used -= (size_t)(begin - client->text);
		memmove(client->text, begin, client->used);
	}
}

static void client_send(struct client *client, const uint8_t *text, size_t length)
{
	if (client->fd < 0)
		return;
	const ssize_t sent = send(client->fd, text, length, MSG_NOSIGNAL | MSG_DONTWAIT);
	for (ssize_t i = 0; i < sent; i++)
		client->lines += text[i] == '\n';
}

/* ---- rounds ---- */

static void round_run(void)
{
	struct pollfd fds[RPC_POLL_FDS];
	const unsigned count = rpc_server_poll_fds(the_daemon.rpc, fds);
	FUZZ_REQUIRE(count <= RPC_POLL_FDS, "%u places for poll", count);
	if (poll(fds, count, 0) > 0)
		rpc_server_handle(the_daemon.rpc, fds, count);
	while (tasks) {
		struct daemon_task *task = tasks;
		tasks = task->next;
		task_run_now(&the_daemon, task);
	}
	now_ms += 1000;
}

static void act(unsigned what, unsigned *current)
{
	static uint8_t filler[8192];
	struct client *client = &clients[*current];
	switch (what) {
	case ACT_NEXT_CLIENT:
		*current = (*current + 1) % CLIENTS;
		if (clients[*current].fd < 0)
			client_open(&clients[*current]);
		break;
	case ACT_CLOSE: client_close(client); break;
	case ACT_READ: client_read(client); break;
	case ACT_SLEEP: now_ms += 20000; break;
	case ACT_LONG:
		memset(filler, 'x', sizeof(filler));
		client_send(client, filler, sizeof(filler));
		break;
	default: break;
	}
	round_run();
}

/* ---- the machine ---- */

static uint8_t *image;

static MAY_WAIT int drive_is_there(void *arg) { return bdev_find(sim.registry, SIM_NVME) ? 1 : 0; }

static void machine_start(uint8_t how)
{
	static const char *const drives[] = {NULL, "cache=64K", "vwc=off,mdts=1", NULL};
	const struct sim_format format = {.size = IMAGE_BYTES, .journal_bytes = MIB(1), .ag_bytes = MIB(2), .seed = 7};
	image = mmap(NULL, IMAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	FUZZ_REQUIRE(image != MAP_FAILED, "no memory");
	sim_mkfs(image, &format);
	sim_create(&sim, &(struct sim_options){.owners = 1, .seed = 1, .memory = image, .size = IMAGE_BYTES,
		.nvme = drives[how % ARRAY_SIZE(drives)]});
	const int error = sim_mount(&sim, &(struct fs_mount_options){.read_only = how & 4});
	FUZZ_REQUIRE(!error, "mount: %s", sim.message);
}

static void machine_stop(void)
{
	(void)!sim_unmount(&sim); /* a rule or a power cut may have stopped it */
	if (sim.nvme_device)
		sim.nvme_device = reactor_group_run(reactor_group_get(sim.group, 0), drive_is_there, NULL);
	sim_destroy(&sim);
	munmap(image, IMAGE_BYTES);
}

static void daemon_start(uint8_t how)
{
	machine_start(how);
	config = (struct mount_config){.read_only = how & 4, .hold_on_removal = how & 8};
	strcpy(config.target, "/none");
	strcpy(config.directory, "/mnt");
	the_daemon = (struct daemon){.config = &config, .settings = &config, .state = DAEMON_MOUNTED, .group = sim.group,
		.registry = sim.registry, .fs = sim.fs, .fuse_fd = -1, .signal_fd = -1, .event_fd = -1};
	snprintf(the_daemon.bdev_name, sizeof(the_daemon.bdev_name), "%s", sim.device);
	int error = fuse_front_create(sim.fs, sim.group, &(struct fuse_front_options){.fd = -1}, &the_daemon.front);
	if (!error)
		error = rpc_server_create(daemon_rpc, &the_daemon, &the_daemon.rpc);
	FUZZ_REQUIRE(!error, "no server: %s", strerror(-error));
	facts_refresh(&the_daemon);
}

static void daemon_stop(void)
{
	if (the_daemon.stop_requests & 1)
		the_daemon.state = DAEMON_CLOSING;
	rpc_server_finish(the_daemon.rpc, json_object_new_object());
	for (unsigned i = 0; i < CLIENTS; i++) {
		client_read(&clients[i]);
		client_close(&clients[i]);
	}
	while (tasks)
		round_run();
	rpc_server_destroy(the_daemon.rpc);
	fuse_front_destroy(the_daemon.front);
	machine_stop();
}

/* ---- the target ---- */

static void log_nothing(enum log_level level, const char *line, void *arg) {}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	log_set_sink(log_nothing, NULL);
	snprintf(socket_path, sizeof(socket_path), "/tmp/lanefs-fuzz-%d.sock", (int)getpid());
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_bytes input = fuzz_bytes_of(data, size);
	unsigned current = 0;
	tasks = NULL;
	now_ms = 1000;
	log_set_level(LOG_LEVEL_INFO);
	for (unsigned i = 0; i < CLIENTS; i++)
		clients[i].fd = -1;
	daemon_start(fuzz_u8(&input));
	client_open(&clients[0]);
	round_run();
	for (unsigned i = 0; i < ROUNDS_MAX && input.left > 0; i++) {
		size_t length = 0;
		while (length < input.left && input.at[length] >= 8)
			length++;
		client_send(&clients[current], input.at, length);
		input.at += length;
		input.left -= length;
		act(fuzz_u8(&input), &current);
		client_read(&clients[current]);
	}
	for (unsigned i = 0; i < 8; i++)
		round_run();
	daemon_stop();
	return 0;
}
