/* SPDX-License-Identifier: BSD-3-Clause */
/* The fake controller's transport, and its beginning and end, see nvme_fake.h. */
#include <stdio.h>
#include <stdlib.h>

#include "nvme_fake_internal.h"

/* ---- the transport ---- */

static int fake_interrupt_fd(struct nvme_transport *transport, uint16_t qid) { return -1; }

static bool fake_alive(struct nvme_transport *transport)
{
	return CONTAINER_OF(transport, struct nvme_fake, transport)->alive_answer;
}

static int fake_request_fd(struct nvme_transport *transport)
{
	return CONTAINER_OF(transport, struct nvme_fake, transport)->request_fd;
}

static void fake_stop_dma(struct nvme_transport *transport)
{
	struct nvme_fake *fake = CONTAINER_OF(transport, struct nvme_fake, transport);
	fake->stop_dmas++;
	fake->dma_off = true;
	if (!fake->gone)
		fake_forget_all(fake, true);
}

static void fake_release_transport(struct nvme_transport *transport)
{
	struct nvme_fake *fake = CONTAINER_OF(transport, struct nvme_fake, transport);
	fake->releases++;
	fake_stop(fake);
}

static const struct nvme_transport_ops fake_ops = {
	.name = "fake",
	.interrupt_fd = fake_interrupt_fd,
	.wrote = fake_wrote,
	.alive = fake_alive,
	.request_fd = fake_request_fd,
	.stop_dma = fake_stop_dma,
	.release = fake_release_transport,
};

/* ---- life ---- */

static void text_set(char *to, size_t size, const char *text)
{
	memset(to, ' ', size);
	memcpy(to, text, strlen(text));
}

static void identify_init(struct nvme_id_ctrlr *identify)
{
	text_set(identify->sn, sizeof(identify->sn), "0042");
	text_set(identify->mn, sizeof(identify->mn), "Fake controller");
	text_set(identify->fr, sizeof(identify->fr), "1.0");
	identify->vid = le16_set(0x1234);
	identify->mdts = 5;
	identify->acl = identify->aerl = 3;
	identify->rtd3e = le32_set(2000000);
	identify->oaes = le32_set(NVME_OAES_NS_ATTRIBUTE);
	identify->sqes = 0x66;
	identify->cqes = 0x44;
	identify->nn = le32_set(FAKE_NS_MAX);
	identify->oncs = le16_set(NVME_ONCS_DSM | NVME_ONCS_WRITE_ZEROES);
	identify->vwc = NVME_VWC_PRESENT;
	identify->awupf = le16_set(7);
}

void fake_init(struct nvme_fake *fake, const char *name, uint64_t seed)
{
	memset(fake, 0, sizeof(*fake));
	fake->transport.ops = &fake_ops;
	fake->transport.bar = dma_zalloc(FAKE_BAR_BYTES, FAKE_PAGE);
	fake->transport.bar_bytes = FAKE_BAR_BYTES;
	assert(fake->transport.bar);
	snprintf(fake->transport.name, sizeof(fake->transport.name), "%s", name);
	fake->random = seed;
	fake->cap = FIELD_SET(CAP_MQES, 63) | FIELD_SET(CAP_CQR, 1) | FIELD_SET(CAP_TO, 4) | FIELD_SET(CAP_CSS_NVM, 1);
	fake->version = 0x00010400;
	fake->io_queues = FAKE_QUEUES_MAX;
	fake->cache_on = true;
	fake->ready_delay_ns = fake->stop_delay_ns = fake->shutdown_delay_ns = 2 * NS_PER_MS;
	fake->alive_answer = true;
	fake->request_fd = -1;
	fake->namespaces[0] = (struct fake_ns){.nsid = 1, .blocks = 1024, .shift = 9};
	identify_init(&fake->identify);
	CDS_INIT_LIST_HEAD(&fake->commands);
}

void fake_start(struct nvme_fake *fake)
{
	fake->reactor = reactor_self();
	assert(fake->reactor);
	fake_set(fake, NVME_REG_CAP, (uint32_t)fake->cap);
	fake_set(fake, NVME_REG_CAP + 4, (uint32_t)(fake->cap >> 32));
	fake_set(fake, NVME_REG_VS, fake->version);
	poller_register(fake->reactor, &fake->poller, "fake controller", fake_poll, 0);
}

void fake_stop(struct nvme_fake *fake)
{
	timer_stop(&fake->timer);
	poller_unregister(&fake->poller);
}

void fake_fini(struct nvme_fake *fake)
{
	fake_forget_all(fake, false);
	for (unsigned i = 0; i < FAKE_NS_MAX; i++)
		free(fake->namespaces[i].data);
	dma_free((void *)fake->transport.bar);
}

struct fake_rule *fake_rule(struct nvme_fake *fake, struct fake_rule rule)
{
	assert(fake->rule_count < FAKE_RULES_MAX);
	fake->rules[fake->rule_count] = rule;
	return &fake->rules[fake->rule_count++];
}

void fake_rules_clear(struct nvme_fake *fake) { fake->rule_count = 0; }
