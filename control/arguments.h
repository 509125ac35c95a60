/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * "[DIR] [--json]", as several subcommands take it.
 */
#ifndef LANEFS_CONTROL_ARGUMENTS_H
#define LANEFS_CONTROL_ARGUMENTS_H

#include "control/control.h"

struct show_arguments {
	const char *directory; /* NULL: all */
	bool json;
};

static inline int show_arguments_parse(int argc, char **argv, struct show_arguments *out)
{
	*out = (struct show_arguments){};
	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--json"))
			out->json = true;
		else if (argv[i][0] == '-')
			return control_fail(CONTROL_EXIT_USAGE, argv[i], "unknown flag; wanted: [DIR] [--json]");
		else if (out->directory)
			return control_fail(CONTROL_EXIT_USAGE, argv[i], "one DIR at most");
		else
			out->directory = argv[i];
	}
	return CONTROL_EXIT_OK;
}

#endif
