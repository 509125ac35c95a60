/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The log sink. A line is built on the stack and handed over in one call, so lines of different threads do not mix.
 * Syslog is reached through our own non-blocking datagram socket: the C library's syslog() waits when the logger is
 * slow, and the logger may be writing to our own mount. A line that does not fit the socket is dropped.
 *
 * Something broken can say the same thousands of times a second. Of lines made by one statement, no more than LIMIT_LINES
 * get through in LIMIT_SECONDS; the next that does says how many did not. Debug lines, and a test's own sink, get all.
 */
#include "reactor/log.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#include "reactor/printable.h"

enum { LOG_LINE_MAX = 480, LIMIT_LINES = 30, LIMIT_SECONDS = 60, LIMIT_STATEMENTS = 64 };

static pthread_mutex_t sink_lock = PTHREAD_MUTEX_INITIALIZER; /* guards the pair below; not held while it is called */
static log_sink_fn current_sink;
static void *current_arg;
static enum log_level current_level = LOG_LEVEL_INFO;

/* By format string, where its address leads; one that finds another there takes its place. Under sink_lock. */
static struct {
	const char *format;
	int64_t since_s;        /* when the first of these lines came */
	unsigned count, dropped;
} limits[LIMIT_STATEMENTS];
static unsigned limit_lines = LIMIT_LINES, limit_seconds = LIMIT_SECONDS;

/* Set once by log_open_syslog. */
static int syslog_fd = -1;
static char syslog_identity[32];

void log_set_level(enum log_level level) { __atomic_store_n(&current_level, level, __ATOMIC_RELAXED); }
enum log_level log_get_level(void) { return __atomic_load_n(&current_level, __ATOMIC_RELAXED); }

void log_set_sink(log_sink_fn sink, void *arg)
{
	pthread_mutex_lock(&sink_lock);
	current_sink = sink;
	current_arg = arg;
	pthread_mutex_unlock(&sink_lock);
}

static void write_all_or_nothing(const struct iovec *parts, int count)
{
	/* One system call: partial lines and errors of the log have nobody to be told to. */
	ssize_t written = writev(STDERR_FILENO, parts, count);
	(void)written;
}

static void sink_stderr(enum log_level level, const char *line, void *arg)
{
	const struct iovec parts[] = {{(void *)line, strlen(line)}, {"\n", 1}};
	write_all_or_nothing(parts, ARRAY_SIZE(parts));
}

static void sink_syslog(enum log_level level, const char *line, void *arg)
{
	static const int priority[] = {LOG_ERR, LOG_WARNING, LOG_INFO, LOG_DEBUG};
	char head[64];
	const int length = snprintf(head, sizeof(head), "<%d>%s[%d]: ", LOG_DAEMON | priority[level], syslog_identity,
		getpid());
	struct iovec parts[] = {{head, (size_t)length}, {(void *)line, strlen(line)}};
	const struct msghdr datagram = {.msg_iov = parts, .msg_iovlen = ARRAY_SIZE(parts)};
	ssize_t sent = sendmsg(syslog_fd, &datagram, MSG_DONTWAIT | MSG_NOSIGNAL);
	(void)sent;
}

int log_open_syslog(const char *identity)
{
	const struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "/dev/log"};
	snprintf(syslog_identity, sizeof(syslog_identity), "%s", identity);
	if (syslog_fd >= 0)
		return 0;
	const int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0 || connect(fd, (const struct sockaddr *)&address, sizeof(address)) != 0) {
		const int err = -errno;
		if (fd >= 0)
			close(fd);
		return err;
	}
	syslog_fd = fd;
	return 0;
}

void log_use_syslog(void)
{
	if (syslog_fd >= 0)
		log_set_sink(sink_syslog, NULL);
}

void log_set_limit(unsigned lines, unsigned seconds)
{
	pthread_mutex_lock(&sink_lock);
	limit_lines = lines ? lines : LIMIT_LINES;
	limit_seconds = lines ? seconds : LIMIT_SECONDS;
	memset(limits, 0, sizeof(limits));
	pthread_mutex_unlock(&sink_lock);
}

/* False: enough of these. @dropped: how many were, before this one. Under sink_lock. */
static bool limit_pass(const char *format, unsigned *dropped)
{
	const size_t index = ((uintptr_t)format * 0x9e3779b97f4a7c15ull >> 32) % LIMIT_STATEMENTS;
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	if (limits[index].format != format) {
		memset(&limits[index], 0, sizeof(limits[index]));
		limits[index].format = format;
		limits[index].since_s = now.tv_sec;
	} else if (now.tv_sec - limits[index].since_s >= (int64_t)limit_seconds) {
		*dropped = limits[index].dropped;
		limits[index].since_s = now.tv_sec;
		limits[index].count = limits[index].dropped = 0;
	}
	if (limits[index].count < limit_lines) {
		limits[index].count++;
		return true;
	}
	limits[index].dropped++;
	return false;
}

void log_write(enum log_level level, const char *format, ...)
{
	if (level > log_get_level())
		return;
	pthread_mutex_lock(&sink_lock);
	log_sink_fn sink = current_sink ? current_sink : sink_stderr;
	void *arg = current_arg;
	unsigned dropped = 0;
	const bool pass = level == LOG_LEVEL_DEBUG || (sink != sink_stderr && sink != sink_syslog) ||
		limit_pass(format, &dropped);
	pthread_mutex_unlock(&sink_lock);
	if (!pass)
		return;
	char line[LOG_LINE_MAX] = "lanefs: ";
	const size_t prefix = strlen(line);
	va_list args;
	va_start(args, format);
	vsnprintf(line + prefix, sizeof(line) - prefix, format, args);
	va_end(args);
	text_make_printable(line, strlen(line));
	if (dropped) {
		const size_t used = strlen(line);
		snprintf(line + used, sizeof(line) - used, " (%u more like it were not logged)", dropped);
	}
	sink(level, line, arg);
}
