/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The log sink. A line is built on the stack and handed over in one call, so lines of different threads do not mix.
 * Syslog is reached through our own non-blocking datagram socket: the C library's syslog() waits when the logger is
 * slow, and the logger may be writing to our own mount. A line that does not fit the socket is dropped.
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
#include <sys/uio.h>
#include <unistd.h>

enum { LOG_LINE_MAX = 480 };

static pthread_mutex_t sink_lock = PTHREAD_MUTEX_INITIALIZER; /* guards the pair below; not held while it is called */
static log_sink_fn current_sink;
static void *current_arg;
static enum log_level current_level = LOG_LEVEL_INFO;

/* Set once by log_use_syslog. */
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

void log_use_syslog(const char *identity)
{
	const struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "/dev/log"};
	snprintf(syslog_identity, sizeof(syslog_identity), "%s", identity);
	if (syslog_fd < 0)
		syslog_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (syslog_fd < 0 || connect(syslog_fd, (const struct sockaddr *)&address, sizeof(address)) != 0) {
		log_warn("log: /dev/log cannot be reached (errno %d); lines stay on stderr", errno);
		return;
	}
	log_set_sink(sink_syslog, NULL);
}

void log_write(enum log_level level, const char *format, ...)
{
	if (level > log_get_level())
		return;
	char line[LOG_LINE_MAX] = "lanefs: ";
	const size_t prefix = strlen(line);
	va_list args;
	va_start(args, format);
	vsnprintf(line + prefix, sizeof(line) - prefix, format, args);
	va_end(args);

	pthread_mutex_lock(&sink_lock);
	log_sink_fn sink = current_sink ? current_sink : sink_stderr;
	void *arg = current_arg;
	pthread_mutex_unlock(&sink_lock);
	sink(level, line, arg);
}
