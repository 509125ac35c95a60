/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The log sink: one line per event, "lanefs: <object>: <what>", to stderr, syslog or a test's function. It is
 * process-wide on purpose. Safe from any thread; may be called on a reactor; never waits for the disk of our own
 * mount (syslog goes over a datagram socket).
 */
#ifndef LANEFS_REACTOR_LOG_H
#define LANEFS_REACTOR_LOG_H

#include "reactor/base.h"

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

typedef void (*log_sink_fn)(enum log_level level, const char *line, void *arg);

/* Lines above @level are dropped. Default: LOG_LEVEL_INFO, stderr. */
void log_set_level(enum log_level level);
enum log_level log_get_level(void);
/* NULL restores stderr. */
void log_set_sink(log_sink_fn sink, void *arg);
/* The socket to the logger: made early, while sockets may be made. -errno. */
int log_open_syslog(const char *identity) MUST_CHECK;
/* From here on. Without log_open_syslog, or when that failed, lines stay where they went. */
void log_use_syslog(void);
/* Lines that one statement may make within so many seconds; 0 lines: the default, 30 in 60. For tests. */
void log_set_limit(unsigned lines, unsigned seconds);
void log_write(enum log_level level, const char *format, ...) PRINTF_LIKE(2, 3);

#define log_error(...) log_write(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warn(...) log_write(LOG_LEVEL_WARN, __VA_ARGS__)
#define log_info(...) log_write(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...)                                                                                               \
	do {                                                                                                         \
		if (UNLIKELY(log_get_level() >= LOG_LEVEL_DEBUG))                                                    \
			log_write(LOG_LEVEL_DEBUG, __VA_ARGS__);                                                     \
	} while (0)

#endif
