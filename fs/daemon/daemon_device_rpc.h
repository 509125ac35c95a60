/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the methods about the device share: daemon_device_rpc.c (any, and the dispatch), daemon_emu_rpc.c (emulated ones).
 * A method has the three steps of a call (rpc_call.h): parse, run, report. The device lives on reactor 0.
 */
#ifndef LANEFS_FS_DAEMON_DAEMON_DEVICE_RPC_H
#define LANEFS_FS_DAEMON_DAEMON_DEVICE_RPC_H

#include "fs/daemon/rpc_call.h"

enum { BDEV_LIST_MAX = 64 };

struct bdev_facts {
	char name[128];
	uint32_t block_size;
	uint64_t block_count;
	bool nvme;
};

struct device_call {
	struct rpc_call base;
	const struct device_method *method;
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
	/* 0, or -EINVAL with call->base.message. NULL: takes no parameters. */
	int (*parse)(struct device_call *call, struct json_object *params);
	/* MAY_WAIT. 0, or a negative errno. */
	int (*run)(struct device_call *call, struct nvme_device *device);
	struct json_object *(*report)(const struct device_call *call); /* NULL: an empty object */
	bool without_device;             /* run is called with NULL when the driver serves none */
};
extern const struct device_method emu_methods[];
extern const size_t emu_method_count;

#endif
