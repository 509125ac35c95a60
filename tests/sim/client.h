/* SPDX-License-Identifier: BSD-3-Clause */
/* Clients of the explorer: they do random work in their own directories, write down what they did and what was promised, and
 * look at what is there after a crash. */
#ifndef LANEFS_TESTS_SIM_CLIENT_H
#define LANEFS_TESTS_SIM_CLIENT_H

#include "tests/sim/model.h"
#include "tests/sim/sim.h"

struct client {
	struct sim *sim;
	unsigned number;
	struct model model;
	struct model_names names;       /* as they stand now */
	uint64_t directories[MODEL_DIRS];
	uint64_t random;
	unsigned ops_wanted;
	uint8_t *buffer;                /* MODEL_SECTORS sectors, DMA */
	bool done;
	/* Something is made to fail under it. Places in the device log mean nothing then: what is in the list has begun, and what has
	 * succeeded is acknowledged. Goes on after an error while the filesystem does and the operation is all or nothing. */
	bool strict;
	int hurt;                       /* the last error that only that can have caused */
	bool lost;                      /* what of its last operation there is nobody knows: it does not go on */
	uint64_t kept[8];               /* inodes whose lookup count is kept for a while: unlinked but in use */
	unsigned kept_next;
};

void client_create(struct client *client, struct sim *sim, unsigned number, unsigned ops, uint64_t seed);
void client_destroy(struct client *client);
/* Makes the client's directories. Fiber of any reactor. */
MAY_WAIT int client_set_up(struct client *client);
/* Does the operations. Fiber of any reactor. */
MAY_WAIT void client_work(struct client *client);
/* Gives all lookup counts back. */
void client_let_go(struct client *client);
/* Reads what is there now. @fs: mounted after the crash, in the group of the calling fiber. */
MAY_WAIT int client_look(struct client *client, struct fs *fs, struct model_found *found);

#endif
