/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the methods about the device share: daemon_device_rpc.c (any, and the dispatch), daemon_emu_rpc.c (emulated ones).
 *
 * A method has three steps: parse (control thread, checks the parameters), run (a fiber of reactor 0, where the device
 * lives), report (control thread, makes the answer). The client waits meanwhile, the control thread does not.
 */
#ifndef LANEFS_FS_DAEMON_DAEMON_DEVICE_RPC_H
#define LANEFS_FS_DAEMON_DAEMON_DEVICE_RPC_H

#include "fs/daemon/daemon_internal.h"

enum { BDEV_LIST_MAX = 64 };

struct bdev_facts {
	char name[128];
	uint32_t block_size;
	uint64_t block_count;
	bool nvme;
};

struct device_call {
	struct daemon_task task;
	struct rpc_ticket ticket;
	const struct device_method *method;
	char message[256];               /* why it failed; "": what the errno says */
	/* parameters */
	bool surprise;
	uint64_t number, number2;
	enum emu_power_cut cut;
	struct emu_rule rule;
	/* results */
	struct device_facts facts;
	unsigned count;
	union {
		struct bdev_facts bdevs[BDEV_LIST_MAX];
		struct nvme_ns_info namespaces[NVME_NAMESPACES_MAX];
		struct nvme_log_smart smart;
		struct emu_rule rules[EMU_RULES_MAX];
		struct emu_stats emu;
	} out;
};

struct device_method {
	const char *name;
	/* 0, or -EINVAL with call->message. NULL: takes no parameters. */
	int (*parse)(struct device_call *call, struct json_object *params);
	/* MAY_WAIT. 0, or a negative errno. */
	int (*run)(struct device_call *call, struct nvme_device *device);
	struct json_object *(*report)(const struct device_call *call); /* NULL: an empty object */
	bool without_device;             /* run is called with NULL when the driver serves none */
};
extern const struct device_method emu_methods[];
extern const size_t emu_method_count;

/* Fields of parameters; -EINVAL with a message when there is none, or of another type or value. */
int param_text(struct device_call *call, struct json_object *params, const char *key, const char **out) MUST_CHECK;
int param_number(struct device_call *call, struct json_object *params, const char *key, uint64_t *out) MUST_CHECK;
bool param_bool(struct json_object *params, const char *key, bool otherwise);
bool param_given(struct json_object *params, const char *key);
void put_text(struct json_object *object, const char *key, const char *value);
/* Of an image or a device: control characters become '?'. */
void put_foreign_text(struct json_object *object, const char *key, const char *value);
void put_number(struct json_object *object, const char *key, uint64_t value);
void put_bool(struct json_object *object, const char *key, bool value);

#endif
