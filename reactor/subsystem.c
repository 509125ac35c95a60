/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Subsystems in dependency order. The order is found by taking, again and again, the first registered one whose
 * dependencies are all placed: simple, stable, and fast enough for the dozen that a daemon has.
 */
#include "reactor/subsystem.h"

#include <errno.h>
#include <stdlib.h>

#include "reactor/log.h"

struct subsystem_set {
	struct subsystem **members;    /* in the order of registration */
	struct subsystem **order;      /* in the order of starting; valid while or after starting */
	unsigned count;
	struct subsystem *asked;       /* whose answer is waited for */
	struct fiber *waiter;
	int answer;
};

int subsystem_set_create(struct subsystem_set **out)
{
	*out = calloc(1, sizeof(**out));
	return *out ? 0 : -ENOMEM;
}

void subsystem_set_destroy(struct subsystem_set *set)
{
	if (!set)
		return;
	free(set->members);
	free(set->order);
	free(set);
}

static struct subsystem *find(const struct subsystem_set *set, const char *name)
{
	for (unsigned i = 0; i < set->count; i++)
		if (strcmp(set->members[i]->name, name) == 0)
			return set->members[i];
	return NULL;
}

int subsystem_register(struct subsystem_set *set, struct subsystem *subsystem)
{
	if (find(set, subsystem->name)) {
		log_error("subsystem %s: the name is taken", subsystem->name);
		return -EEXIST;
	}
	const size_t bytes = (set->count + 1) * sizeof(*set->members);
	struct subsystem **members = realloc(set->members, bytes);
	if (members)
		set->members = members;
	struct subsystem **order = realloc(set->order, bytes);
	if (order)
		set->order = order;
	if (!members || !order)
		return -ENOMEM;
	set->members[set->count++] = subsystem;
	subsystem->set = set;
	subsystem->running = false;
	return 0;
}

/* ---- order ---- */

enum { NOT_PLACED = ~0u };

static int check_dependencies(const struct subsystem_set *set)
{
	for (unsigned i = 0; i < set->count; i++) {
		const char *const *name = set->members[i]->depends;
		for (; name && *name; name++) {
			if (find(set, *name))
				continue;
			log_error("subsystem %s: needs %s, which is not there", set->members[i]->name, *name);
			return -ENOENT;
		}
	}
	return 0;
}

static bool dependencies_placed(const struct subsystem_set *set, const struct subsystem *subsystem)
{
	const char *const *name = subsystem->depends;
	for (; name && *name; name++)
		if (find(set, *name)->order == NOT_PLACED)
			return false;
	return true;
}

static struct subsystem *next_to_place(const struct subsystem_set *set)
{
	for (unsigned i = 0; i < set->count; i++)
		if (set->members[i]->order == NOT_PLACED && dependencies_placed(set, set->members[i]))
			return set->members[i];
	return NULL;
}

static void report_cycle(const struct subsystem_set *set)
{
	for (unsigned i = 0; i < set->count; i++)
		if (set->members[i]->order == NOT_PLACED)
			log_error("subsystem %s: depends on itself, or needs one that does", set->members[i]->name);
}

static int sort(struct subsystem_set *set)
{
	for (unsigned i = 0; i < set->count; i++)
		set->members[i]->order = NOT_PLACED;
	for (unsigned i = 0; i < set->count; i++) {
		struct subsystem *next = next_to_place(set);
		if (next) {
			next->order = i;
			set->order[i] = next;
			continue;
		}
		report_cycle(set);
		return -ELOOP;
	}
	return 0;
}

/* ---- starting and stopping ---- */

void subsystem_done(struct subsystem *subsystem, int result)
{
	struct subsystem_set *set = subsystem->set;
	assert(set->asked == subsystem && "an answer that nobody asked for, or a second one");
	set->asked = NULL;
	set->answer = result;
	fiber_wake(set->waiter);
}

static MAY_WAIT int ask(struct subsystem_set *set, struct subsystem *subsystem, void (*fn)(struct subsystem *self))
{
	if (!fn)
		return 0;
	set->asked = subsystem;
	set->waiter = fiber_self();
	fn(subsystem);
	while (set->asked)
		fiber_park(subsystem->name);
	return set->answer;
}

/* Stops what runs of the first @count, in reverse. */
static MAY_WAIT void stop_from(struct subsystem_set *set, unsigned count)
{
	while (count > 0) {
		struct subsystem *subsystem = set->order[--count];
		if (!subsystem->running)
			continue;
		const int error = ask(set, subsystem, subsystem->fini);
		if (error)
			log_error("subsystem %s: did not stop cleanly: %s", subsystem->name, strerror(-error));
		subsystem->running = false;
	}
}

MAY_WAIT int subsystem_set_start(struct subsystem_set *set)
{
	int error = check_dependencies(set);
	if (!error)
		error = sort(set);
	if (error)
		return error;
	for (unsigned i = 0; i < set->count; i++) {
		struct subsystem *subsystem = set->order[i];
		assert(!subsystem->running);
		error = ask(set, subsystem, subsystem->init);
		if (error) {
			log_error("subsystem %s: did not start: %s", subsystem->name, strerror(-error));
			stop_from(set, i);
			return error;
		}
		subsystem->running = true;
	}
	return 0;
}

MAY_WAIT void subsystem_set_stop(struct subsystem_set *set)
{
	if (set->count > 0 && set->order[0])
		stop_from(set, set->count);
}
