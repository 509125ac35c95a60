/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Identify: what the drive says of itself (Base 2.0, 5.17; NVM Command Set 1.0, 4.1.5).
 *
 * Identifiers of namespaces are made from the serial number, so they are the same each time that an image is
 * plugged in, and others for another image.
 */
#include <stdio.h>

#include "nvme/emu_internal.h"

enum { VENDOR = 0x4c46, TEMPERATURE_WARNING = 343, TEMPERATURE_CRITICAL = 353, SHUTDOWN_US = 10000000 };
enum { VWC_FLUSH_ALL = 3 << 1, LPA_EXTENDED = 1 << 2, CTRLR_IO = 1, SQ_ENTRY_LOG2 = 0x66, CQ_ENTRY_LOG2 = 0x44 };

static void text_pad(char *out, size_t size, const char *text)
{
	memset(out, ' ', size);
	memcpy(out, text, MIN(strlen(text), size));
}

/* splitmix64 over the serial number, the namespace and a counter. */
static uint64_t identifier(const struct emu *emu, uint32_t nsid, unsigned number)
{
	uint64_t z = (uint64_t)nsid << 32 | number;
	for (const char *at = emu->serial; *at; at++) {
		z = (z ^ (uint8_t)*at) + 0x9e3779b97f4a7c15;
		z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
		z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
		z ^= z >> 31;
	}
	return z;
}

static void identifier_16(const struct emu *emu, uint32_t nsid, unsigned number, uint8_t out[16])
{
	const uint64_t halves[2] = {identifier(emu, nsid, number), identifier(emu, nsid, number + 1)};
	memcpy(out, halves, sizeof(halves));
}

/* RFC 9562, version 8: bits of our own choice. */
static void ns_uuid(const struct emu *emu, uint32_t nsid, uint8_t out[16])
{
	identifier_16(emu, nsid, 4, out);
	out[6] = (uint8_t)((out[6] & 0x0f) | 0x80);
	out[8] = (uint8_t)((out[8] & 0x3f) | 0x80);
}

static void ns_eui64(const struct emu *emu, uint32_t nsid, uint8_t out[8])
{
	const uint64_t value = identifier(emu, nsid, 2);
	memcpy(out, &value, sizeof(value));
}

static void capacity_set(uint8_t out[16], uint64_t bytes)
{
	const le64_t value = le64_set(bytes);
	memcpy(out, &value, sizeof(value));
}

static void fill_ctrlr(const struct emu *emu, struct nvme_id_ctrlr *id)
{
	const struct emu_options *options = &emu->options;
	id->vid = id->ssvid = le16_set(VENDOR);
	text_pad(id->sn, sizeof(id->sn), emu->serial);
	text_pad(id->mn, sizeof(id->mn), "lanefs emulated NVMe");
	text_pad(id->fr, sizeof(id->fr), LANEFS_VERSION);
	id->mdts = options->mdts == 15 ? 0 : (uint8_t)options->mdts;
	id->ver = le32_set(0x00010400);
	id->rtd3e = le32_set(SHUTDOWN_US);
	id->oaes = le32_set(NVME_OAES_NS_ATTRIBUTE);
	id->cntrltype = CTRLR_IO;
	id->oacs = le16_set(options->no_shadow_doorbells ? 0 : NVME_OACS_DOORBELL_BUFFER);
	id->acl = EMU_ADMIN_COMMANDS / 2 - 1;
	id->aerl = EMU_EVENTS_MAX - 1;
	id->frmw = 1 << 1 | 1;
	id->lpa = LPA_EXTENDED;
	id->elpe = EMU_ERRORS_MAX - 1;
	id->wctemp = le16_set(TEMPERATURE_WARNING);
	id->cctemp = le16_set(TEMPERATURE_CRITICAL);
	capacity_set(id->tnvmcap, emu->backing.size_bytes);
	id->sqes = SQ_ENTRY_LOG2;
	id->cqes = CQ_ENTRY_LOG2;
	id->nn = id->mnan = le32_set(options->namespaces);
	id->oncs = le16_set((uint16_t)((options->no_dsm ? 0 : NVME_ONCS_DSM) |
		(options->no_write_zeroes ? 0 : NVME_ONCS_WRITE_ZEROES)));
	id->vwc = (uint8_t)((options->no_volatile_cache ? 0 : NVME_VWC_PRESENT) | VWC_FLUSH_ALL);
	snprintf(id->subnqn, sizeof(id->subnqn), "nqn.2024-01.org.lanefs:emulated:%s", emu->serial);
}

static void fill_ns(const struct emu *emu, const struct emu_ns *ns, struct nvme_id_ns *id)
{
	const struct emu_options *options = &emu->options;
	id->nsze = id->ncap = id->nuse = le64_set(ns->blocks);
	id->flbas = options->metadata_bytes ? 1 << 4 : 0;
	id->mc = options->metadata_bytes ? 1 : 0;
	id->dlfeat = emu->backing.zeroes_by_discard ? 1 << 3 | 1 : 0;
	id->noiob = le16_set((uint16_t)options->boundary_blocks);
	capacity_set(id->nvmcap, ns->blocks * options->lba_bytes);
	id->nsattr = emu->backing.read_only;
	identifier_16(emu, ns->nsid, 0, id->nguid);
	ns_eui64(emu, ns->nsid, id->eui64);
	id->lbaf[0].ms = le16_set((uint16_t)options->metadata_bytes);
	id->lbaf[0].ds = (uint8_t)__builtin_ctz(options->lba_bytes);
}

static uint16_t identify_ns(struct emu *emu, uint32_t nsid)
{
	const struct emu_ns *ns = emu_ns_get(emu, nsid);
	if (!ns)
		return NVME_SC_INVALID_NAMESPACE | EMU_DNR;
	if (ns->attached)
		fill_ns(emu, ns, (struct nvme_id_ns *)emu->page);
	return 0;
}

static uint16_t identify_active(struct emu *emu, uint32_t after)
{
	le32_t *list = (le32_t *)emu->page;
	unsigned count = 0;
	if (after >= EMU_NSID_ALL - 1)
		return NVME_SC_INVALID_NAMESPACE | EMU_DNR;
	for (unsigned i = 0; i < emu->options.namespaces; i++)
		if (emu->ns[i].attached && emu->ns[i].nsid > after)
			list[count++] = le32_set(emu->ns[i].nsid);
	return 0;
}

static uint8_t *descriptor_add(uint8_t *at, uint8_t type, const void *value, uint8_t length)
{
	const struct nvme_ns_descriptor head = {.type = type, .length = length};
	memcpy(at, &head, sizeof(head));
	memcpy(at + sizeof(head), value, length);
	return at + sizeof(head) + length;
}

static uint16_t identify_descriptors(struct emu *emu, uint32_t nsid)
{
	const struct emu_ns *ns = emu_ns_get(emu, nsid);
	const uint8_t command_set = emu->options.zoned ? NVME_CSI_ZONED : NVME_CSI_NVM;
	uint8_t eui64[8], nguid[16], uuid[16], *at = emu->page;
	if (!ns || !ns->attached)
		return NVME_SC_INVALID_NAMESPACE | EMU_DNR;
	ns_eui64(emu, nsid, eui64);
	identifier_16(emu, nsid, 0, nguid);
	ns_uuid(emu, nsid, uuid);
	at = descriptor_add(at, NVME_NS_ID_EUI64, eui64, sizeof(eui64));
	at = descriptor_add(at, NVME_NS_ID_NGUID, nguid, sizeof(nguid));
	at = descriptor_add(at, NVME_NS_ID_UUID, uuid, sizeof(uuid));
	descriptor_add(at, NVME_NS_ID_CSI, &command_set, sizeof(command_set));
	return 0;
}

void emu_identify(struct emu_command *command)
{
	struct emu *emu = command->emu;
	const uint32_t nsid = le32_get(command->entry.nsid);
	uint16_t status = 0;
	memset(emu->page, 0, sizeof(emu->page));
	switch (le32_get(command->entry.cdw10) & 0xff) {
	case NVME_CNS_NS: status = identify_ns(emu, nsid); break;
	case NVME_CNS_CTRLR: fill_ctrlr(emu, (struct nvme_id_ctrlr *)emu->page); break;
	case NVME_CNS_ACTIVE_NS: status = identify_active(emu, nsid); break;
	case NVME_CNS_NS_DESCRIPTORS: status = identify_descriptors(emu, nsid); break;
	default: status = NVME_SC_INVALID_FIELD | EMU_DNR;
	}
	if (!status)
		status = emu_dma_send(command, emu->page, sizeof(emu->page), NVME_IDENTIFY_BYTES);
	emu_command_complete(command, status);
}
