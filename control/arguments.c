/* SPDX-License-Identifier: BSD-3-Clause */
#include "control/arguments.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

bool help_wanted(int argc, char **argv, const char *help)
{
	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "-h") && strcmp(argv[i], "--help"))
			continue;
		fputs(help, stdout);
		return true;
	}
	return false;
}

bool show_arguments_parse(int argc, char **argv, const char *help, struct show_arguments *out, int *status)
{
	*status = CONTROL_EXIT_OK;
	if (help_wanted(argc, argv, help))
		return false;
	for (int i = 1; i < argc && !*status; i++) {
		if (!strcmp(argv[i], "--json"))
			out->json = true;
		else if (!strcmp(argv[i], "--prometheus") && out->prometheus_allowed)
			out->prometheus = true;
		else if (argv[i][0] == '-')
			*status = control_fail(CONTROL_EXIT_USAGE, argv[i], "not understood (try --help)");
		else if (out->directory)
			*status = control_fail(CONTROL_EXIT_USAGE, argv[i], "one DIR at most (try --help)");
		else
			out->directory = argv[i];
	}
	if (!*status && out->json && out->prometheus)
		*status = control_fail(CONTROL_EXIT_USAGE, argv[0], "--json or --prometheus, not both");
	return !*status;
}

bool option_take(const char *name, char letter, int argc, char **argv, int *index, const char **value)
{
	const size_t length = strlen(name);
	const char *argument = argv[*index];
	const bool is_short = letter && argument[0] == '-' && argument[1] == letter;

	if (!is_short && (strncmp(argument, name, length) || (argument[length] && argument[length] != '=')))
		return false;
	if (is_short)
		*value = argument[2] ? argument + 2 : NULL;
	else
		*value = argument[length] ? argument + length + 1 : NULL;
	if (!*value && *index + 1 < argc)
		*value = argv[++*index];
	return true;
}

int size_parse(const char *text, uint64_t *bytes)
{
	static const char units[] = "KMGTPE";
	const size_t digits = strspn(text, "0123456789.");
	const char *rest = text + digits, *unit;
	char number[32], *end;
	double value;

	if (digits == 0 || digits >= sizeof(number))
		return -EINVAL;
	memcpy(number, text, digits);
	number[digits] = '\0';
	value = strtod(number, &end);
	if (*end)
		return -EINVAL;
	if (*rest) {
		unit = strchr(units, *rest & ~0x20);
		if (!unit || !*unit || (rest[1] && strcmp(rest + 1, "iB")))
			return -EINVAL;
		for (const char *i = units; i <= unit; i++)
			value *= 1024;
	}
	if (value >= 9.2e18)
		return -ERANGE;
	*bytes = (uint64_t)value;
	return 0;
}
