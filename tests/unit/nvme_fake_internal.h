/* SPDX-License-Identifier: BSD-3-Clause */
/* Between nvme_fake.c (registers, queues), nvme_fake_command.c (what commands do) and nvme_fake_life.c. */
#ifndef LANEFS_TESTS_NVME_FAKE_INTERNAL_H
#define LANEFS_TESTS_NVME_FAKE_INTERNAL_H

#include "nvme_fake.h"

void fake_complain(struct nvme_fake *fake, const char *format, ...) PRINTF_LIKE(2, 3);
unsigned fake_dstrd(const struct nvme_fake *fake);
uint16_t fake_sq_tail(const struct nvme_fake *fake, uint16_t qid);
uint16_t fake_cq_head(const struct nvme_fake *fake, uint16_t qid);
/* Answers it now, or removes it without an answer. */
void fake_answer(struct nvme_fake *fake, struct fake_command *held);
void fake_forget(struct fake_command *held);

/* What it had may or may not have been done: both are right. */
void fake_forget_all(struct nvme_fake *fake, bool maybe_do);
void fake_wrote(struct nvme_transport *transport);
unsigned fake_poll(struct poller *poller);

/* What a command becomes, when it is fetched: status, dw0, due_ns; and data that goes either way when it is answered. */
void fake_command_begin(struct nvme_fake *fake, struct fake_command *held);
void fake_command_do(struct nvme_fake *fake, struct fake_command *held);
/* Bytes of data that it moves. */
uint32_t fake_command_length(struct nvme_fake *fake, const struct fake_command *held);
/* Calls fn for each page of its data, in order; false when fn or the PRPs stop it. */
typedef bool (*fake_page_fn)(void *memory, uint32_t length, void *arg);
bool fake_command_pages(struct nvme_fake *fake, const struct fake_command *held, fake_page_fn fn, void *arg);

#endif
