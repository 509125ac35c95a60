/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The subcommands of `lanefs`. Each is a function from its arguments (its own name first) to an exit status.
 */
#ifndef LANEFS_CONTROL_CONTROL_H
#define LANEFS_CONTROL_CONTROL_H

#include <json-c/json.h>

#include "reactor/base.h"

enum control_exit {
	CONTROL_EXIT_OK = 0,
	CONTROL_EXIT_FAILED = 1,     /* the daemon refused, or the filesystem has an error */
	CONTROL_EXIT_USAGE = 2,
	CONTROL_EXIT_NOT_FOUND = 3,  /* no such mount of ours, no daemon answers, or no such device */
};

int control_status(int argc, char **argv);
int control_top(int argc, char **argv);
int control_stats(int argc, char **argv);
int control_log_level(int argc, char **argv);
int control_unmount(int argc, char **argv);
int control_upgrade(int argc, char **argv);
int control_trim(int argc, char **argv);
int control_grow(int argc, char **argv);
int control_scrub(int argc, char **argv);
int control_devices(int argc, char **argv);
int control_bind(int argc, char **argv);
int control_unbind(int argc, char **argv);
int control_hugepages(int argc, char **argv);
int control_version(int argc, char **argv);
/* device.c */
int control_attach(int argc, char **argv);
int control_detach(int argc, char **argv);
int control_identify(int argc, char **argv);
int control_health(int argc, char **argv);
int control_reset(int argc, char **argv);
int control_emu(int argc, char **argv);

/* One line on stderr: "lanefs: object: text". Returns @status. */
int control_fail(int status, const char *object, const char *text);
/* For a mount whose daemon does not answer. */
extern const char control_no_answer[];
/* Want of memory: one line, and the end of the program. Commands are short, and leave what they had to the system. */
void control_no_memory(void) __attribute__((noreturn));
/* Puts @value (NULL: there was no memory for it) into *object, which is made when it is NULL. */
void control_add(struct json_object **object, const char *key, struct json_object *value);
void control_print_json(struct json_object *object);
/* Calls fn(result) with the answer of the daemon at @directory to @method, or, when directory is NULL, of every daemon.
 * The worst status wins. @params may be NULL; with several daemons it must be. */
int control_each(const char *directory, const char *method, struct json_object *params,
	int (*fn)(struct json_object *result));
/* The same, into an array of the answers, the caller's. */
int control_collect(const char *directory, const char *method, struct json_object **answers);
/* The same, printing the answer as it is; without a directory an array of the answers. */
int control_each_json(const char *directory, const char *method);
/* Asks the daemon of one mount and waits as long as it takes. The answer is the caller's. @params is taken over. */
int control_ask(const char *directory, const char *method, struct json_object *params, struct json_object **result);

/* "1.5 GiB" and "12.3 us" in @out (16 bytes); returns out. */
const char *format_bytes(uint64_t bytes, char out[16]);
const char *format_ns(double ns, char out[16]);

#endif
