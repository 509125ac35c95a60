/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A controller that does nothing, at once: the doorbell hook itself posts the completion of every I/O command, and moves no data.
 * What is left to measure is the software above it. The hook runs on the driver's reactor, so what it costs is in the figures;
 * nvme_null_cost measures that part alone.
 *
 * One I/O queue pair, one namespace. Addresses are those of the process (DMA memory without EAL).
 */
#ifndef LANEFS_BENCH_NVME_NULL_H
#define LANEFS_BENCH_NVME_NULL_H

#include "nvme/transport.h"

enum { NULL_BLOCK_BYTES = 4096, NULL_BLOCKS = 1 << 20 };

/* NULL without memory. The driver's release frees it. */
struct nvme_transport *nvme_null_create(void);
/* Nanoseconds that the model spends on one command when @batch are rung for at once, both doorbells included. */
double nvme_null_cost(unsigned batch, unsigned rounds);

#endif
