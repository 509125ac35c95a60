/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Namespaces: which are active, what they look like, and which of them lanefs refuses and why.
 */
#include <errno.h>
#include <stdlib.h>

#include "nvme/nvme_internal.h"
#include "reactor/log.h"

enum { LBA_SHIFT_MIN = 9, LBA_SHIFT_MAX = 12 };

static const char *reason_to_refuse(const struct nvme_id_ns *id, const struct nvme_lba_format *format)
{
	if (le64_get(id->nsze) == 0)
		return "has no capacity";
	if (le16_get(format->ms) != 0)
		return "is formatted with metadata (protection information): format it with: nvme format --ms=0";
	if (format->ds < LBA_SHIFT_MIN || format->ds > LBA_SHIFT_MAX)
		return "has an LBA size other than 512 to 4096 bytes: format it with: nvme format --block-size=4096";
	if (le64_get(id->nsze) > (uint64_t)INT64_MAX >> format->ds)
		return "says that it is larger than anything can be";
	return NULL;
}

static void identify_parse(struct nvme_ns_info *info, const struct nvme_id_ns *id)
{
	const unsigned index = (id->flbas & 15) | (id->flbas >> 5 & 3) << 4;
	const struct nvme_lba_format *format = &id->lbaf[index];
	info->refused = reason_to_refuse(id, format);
	info->block_size = format->ds <= 31 ? 1u << format->ds : 0;
	info->block_count = le64_get(id->nsze);
	info->optimal_boundary_blocks = le16_get(id->noiob);
	info->atomic_write_blocks = id->nsfeat & 2 ? le16_get(id->nawupf) + 1u : 1;
	info->read_only = id->nsattr & 1;
	info->deallocate_zeroes = (id->dlfeat & 7) == 1;
	memcpy(info->nguid, id->nguid, sizeof(info->nguid));
	memcpy(info->eui64, id->eui64, sizeof(info->eui64));
}

static void descriptors_parse(struct nvme_ns_info *info, const uint8_t *bytes)
{
	for (size_t at = 0; at + sizeof(struct nvme_ns_descriptor) <= NVME_IDENTIFY_BYTES;) {
		const struct nvme_ns_descriptor *descriptor = (const struct nvme_ns_descriptor *)(bytes + at);
		const uint8_t *value = bytes + at + sizeof(*descriptor);
		at += sizeof(*descriptor) + descriptor->length;
		if (descriptor->type == 0 || at > NVME_IDENTIFY_BYTES)
			return;
		if (descriptor->type == NVME_NS_ID_UUID && descriptor->length == sizeof(info->uuid))
			memcpy(info->uuid, value, sizeof(info->uuid));
		if (descriptor->type == NVME_NS_ID_CSI && descriptor->length == 1 && value[0] == NVME_CSI_ZONED)
			info->refused = "is a zoned namespace: not supported";
		else if (descriptor->type == NVME_NS_ID_CSI && descriptor->length == 1 && value[0] != NVME_CSI_NVM)
			info->refused = "has another command set than NVM: not supported";
	}
}

static MAY_WAIT int namespace_read(struct nvme_ctrlr *ctrlr, uint32_t nsid, void *page, struct nvme_ns_info *out)
{
	memset(out, 0, sizeof(*out));
	out->nsid = nsid;
	int err = admin_identify(ctrlr, NVME_CNS_NS, nsid, page);
	if (err)
		return err;
	identify_parse(out, page);
	/* Awupf of the controller holds where the namespace has none of its own. */
	if (out->atomic_write_blocks == 1)
		out->atomic_write_blocks = le16_get(ctrlr->identify->awupf) + 1u;
	err = admin_identify(ctrlr, NVME_CNS_NS_DESCRIPTORS, nsid, page);
	if (err == -ENODEV || err == -ETIMEDOUT)
		return err;
	if (err == 0)
		descriptors_parse(out, page);
	return 0;
}

/* Fills @nsids with up to NVME_NAMESPACES_MAX active ones. */
static MAY_WAIT int active_list(struct nvme_ctrlr *ctrlr, void *page, uint32_t *nsids, unsigned *count)
{
	const le32_t *list = page;
	*count = 0;
	int err = admin_identify(ctrlr, NVME_CNS_ACTIVE_NS, 0, page);
	if (err == -EINVAL) { /* before NVMe 1.1 all are active */
		for (uint32_t nsid = 1; nsid <= le32_get(ctrlr->identify->nn) && *count < NVME_NAMESPACES_MAX; nsid++)
			nsids[(*count)++] = nsid;
		return 0;
	}
	if (err)
		return err;
	for (unsigned i = 0; i < NVME_NS_LIST_MAX && le32_get(list[i]) != 0; i++) {
		if (*count == NVME_NAMESPACES_MAX) {
			log_warn("%s: has more than %u namespaces: the rest is not looked at", ctrlr->transport->name,
				NVME_NAMESPACES_MAX);
			break;
		}
		nsids[(*count)++] = le32_get(list[i]);
	}
	return 0;
}

static void tell(struct nvme_ctrlr *ctrlr, enum nvme_event event, uint32_t nsid)
{
	if (ctrlr->options.event)
		ctrlr->options.event(ctrlr, event, nsid, ctrlr->options.arg);
}

static void tell_differences(struct nvme_ctrlr *ctrlr, const struct nvme_ns_info *old, unsigned old_count)
{
	for (unsigned i = 0; i < old_count; i++) {
		const struct nvme_ns_info *now = nvme_ctrlr_ns(ctrlr, old[i].nsid);
		if (!now)
			tell(ctrlr, NVME_EVENT_NS_REMOVED, old[i].nsid);
		else if (now->block_count != old[i].block_count || now->block_size != old[i].block_size)
			tell(ctrlr, NVME_EVENT_NS_RESIZED, old[i].nsid);
	}
	for (unsigned i = 0; i < ctrlr->namespace_count; i++) {
		bool known = false;
		for (unsigned j = 0; j < old_count; j++)
			known |= old[j].nsid == ctrlr->namespaces[i].nsid;
		if (!known)
			tell(ctrlr, NVME_EVENT_NS_ADDED, ctrlr->namespaces[i].nsid);
	}
}

/* On the heap: too large for a fiber's stack. */
struct scan {
	uint8_t page[PAGE_BYTES];
	uint32_t nsids[NVME_NAMESPACES_MAX];
	struct nvme_ns_info old[NVME_NAMESPACES_MAX], found[NVME_NAMESPACES_MAX];
};

MAY_WAIT int namespaces_read(struct nvme_ctrlr *ctrlr, bool tell_them)
{
	struct scan *scan = calloc(1, sizeof(*scan));
	if (!scan)
		return -ENOMEM;
	unsigned count, found = 0;
	int err = active_list(ctrlr, scan->page, scan->nsids, &count);
	for (unsigned i = 0; i < count && !err; i++) {
		err = namespace_read(ctrlr, scan->nsids[i], scan->page, &scan->found[found]);
		if (err && err != -ENODEV && err != -ETIMEDOUT) {
			log_warn("%s: namespace %u cannot be identified: %s", ctrlr->transport->name, scan->nsids[i], strerror(-err));
			err = 0;
		} else if (!err) {
			found++;
		}
	}
	if (!err) {
		const unsigned old_count = ctrlr->namespace_count;
		memcpy(scan->old, ctrlr->namespaces, sizeof(scan->old));
		memcpy(ctrlr->namespaces, scan->found, sizeof(scan->found));
		ctrlr->namespace_count = found;
		if (tell_them)
			tell_differences(ctrlr, scan->old, old_count);
	}
	free(scan);
	return err;
}

unsigned nvme_ctrlr_ns_count(const struct nvme_ctrlr *ctrlr) { return ctrlr->namespace_count; }

const struct nvme_ns_info *nvme_ctrlr_ns_at(const struct nvme_ctrlr *ctrlr, unsigned index)
{
	assert(index < ctrlr->namespace_count);
	return &ctrlr->namespaces[index];
}

const struct nvme_ns_info *nvme_ctrlr_ns(const struct nvme_ctrlr *ctrlr, uint32_t nsid)
{
	for (unsigned i = 0; i < ctrlr->namespace_count; i++)
		if (ctrlr->namespaces[i].nsid == nsid)
			return &ctrlr->namespaces[i];
	return NULL;
}
