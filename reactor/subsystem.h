/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Subsystems: parts of the daemon that start and stop in dependency order. init and fini are asynchronous: each
 * answers by calling subsystem_done once, on the reactor that called it. A missing dependency (-ENOENT) or a cycle
 * (-ELOOP) is found before anything starts; a failing init undoes what was done, in reverse, and returns its error.
 */
#ifndef LANEFS_REACTOR_SUBSYSTEM_H
#define LANEFS_REACTOR_SUBSYSTEM_H

#include "reactor/fiber.h"

struct subsystem;
struct subsystem_set;

struct subsystem {
	const char *name;
	const char *const *depends; /* NULL-terminated names; NULL: none */
	void (*init)(struct subsystem *self); /* answers with subsystem_done */
	void (*fini)(struct subsystem *self); /* NULL: nothing to undo; answers with subsystem_done(self, 0) */
	void *arg;
	struct subsystem_set *set; /* by the set */
	bool running;
	unsigned order;
};
int subsystem_set_create(struct subsystem_set **out) MUST_CHECK;
void subsystem_set_destroy(struct subsystem_set *set);
/* -EEXIST for a name that is taken. The struct stays the caller's and must outlive the set. */
int subsystem_register(struct subsystem_set *set, struct subsystem *subsystem) MUST_CHECK;
void subsystem_done(struct subsystem *subsystem, int result);
/* From a fiber. */
MAY_WAIT int subsystem_set_start(struct subsystem_set *set) MUST_CHECK;
MAY_WAIT void subsystem_set_stop(struct subsystem_set *set);

#endif
