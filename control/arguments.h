/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the command lines of the subcommands have in common.
 */
#ifndef LANEFS_CONTROL_ARGUMENTS_H
#define LANEFS_CONTROL_ARGUMENTS_H

#include "control/control.h"

/* True when -h or --help is among the arguments: the text has been printed. */
bool help_wanted(int argc, char **argv, const char *help);

/* "[DIR] [--json]", and --prometheus where it is allowed. */
struct show_arguments {
	const char *directory; /* NULL: all */
	bool json, prometheus, prometheus_allowed;
};
/* True: go on; false: end with *status. */
bool show_arguments_parse(int argc, char **argv, const char *help, struct show_arguments *out, int *status);

/* An option with its value, which may stand behind '='; @letter 0: it has no short form. True: it was this one; *value NULL:
 * nothing followed. */
bool option_take(const char *name, char letter, int argc, char **argv, int *index, const char **value);

/* "4096", "64K", "1.5G", "2T", binary; also with "iB" after the letter. -EINVAL, -ERANGE. */
int size_parse(const char *text, uint64_t *bytes) MUST_CHECK;

#endif
