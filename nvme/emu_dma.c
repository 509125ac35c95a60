/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Host memory as the controller sees it: addresses, physical region pages (Base 2.0, 4.1.1), copying.
 *
 *   PRP1 -> first page, from any offset that is a multiple of 4
 *   PRP2 -> second page, when the data ends there; otherwise a list:
 *           [page][page]...[page][next list]     the last entry of a list page leads on when more than one page is left
 *
 * The environment layer runs with IOVA as VA, so an address is a pointer of this process. It is checked as far as
 * that goes: a hostile command is answered with an error unless its address lies where the process has mapped nothing.
 */
#include "nvme/emu_internal.h"

#define ADDRESS_MIN ((uint64_t)EMU_PAGE)
#define ADDRESS_END (1ull << 47)

void *emu_dma_pointer(const struct emu *emu, uint64_t address, uint64_t size)
{
	if (address < ADDRESS_MIN || address >= ADDRESS_END || size > ADDRESS_END - address)
		return NULL;
	if (emu->window) {
		const uint64_t start = (uintptr_t)emu->window;
		const uint64_t offset = address - start;
		if (address < start || offset > emu->window_bytes || size > emu->window_bytes - offset)
			return NULL;
	}
	return (void *)(uintptr_t)address;
}

void emu_dma_window(struct emu *emu, const void *start, uint64_t size)
{
	emu->window = start;
	emu->window_bytes = size;
}

static uint16_t bad_address(uint64_t address)
{
	return address ? NVME_SC_DATA_TRANSFER_ERROR : NVME_SC_INVALID_FIELD | EMU_DNR;
}

uint16_t emu_dma_page(const struct emu *emu, uint64_t address, uint64_t size, void **out)
{
	if (address % EMU_PAGE)
		return NVME_SC_PRP_OFFSET_INVALID | EMU_DNR;
	*out = emu_dma_pointer(emu, address, size);
	return *out ? 0 : bad_address(address);
}

/* ---- PRPs ---- */

uint16_t emu_prp_begin(struct emu_command *command, uint64_t length)
{
	struct emu_prp *prp = &command->prp;
	const uint64_t first = le64_get(command->entry.prp1);
	*prp = (struct emu_prp){.address = first, .second = le64_get(command->entry.prp2)};
	prp->length = MIN(length, EMU_PAGE - first % EMU_PAGE);
	prp->left = length - prp->length;
	if (first % sizeof(uint32_t))
		return NVME_SC_PRP_OFFSET_INVALID | EMU_DNR;
	if (prp->left <= EMU_PAGE)
		return 0;
	prp->list = prp->second;
	if (prp->list % sizeof(uint64_t))
		return NVME_SC_PRP_OFFSET_INVALID | EMU_DNR;
	return prp->list ? 0 : NVME_SC_INVALID_FIELD | EMU_DNR;
}

static uint16_t list_read(const struct emu *emu, uint64_t at, uint64_t *out)
{
	const le64_t *entry = emu_dma_pointer(emu, at, sizeof(*entry));
	if (!entry)
		return bad_address(at);
	*out = le64_get(*entry);
	return 0;
}

/* Takes the next entry, going to the next list page when this one's last entry leads there. */
static uint16_t list_next(const struct emu *emu, struct emu_prp *prp)
{
	uint16_t status = 0;
	if (prp->list % EMU_PAGE == EMU_PAGE - sizeof(uint64_t) && prp->left > EMU_PAGE) {
		status = list_read(emu, prp->list, &prp->list);
		if (!status && prp->list % EMU_PAGE)
			status = NVME_SC_PRP_OFFSET_INVALID | EMU_DNR;
	}
	if (!status)
		status = list_read(emu, prp->list, &prp->address);
	prp->list += sizeof(uint64_t);
	return status;
}

static uint16_t segment_next(const struct emu *emu, struct emu_prp *prp)
{
	uint16_t status = 0;
	if (prp->list)
		status = list_next(emu, prp);
	else
		prp->address = prp->second;
	if (!status && prp->address % EMU_PAGE)
		status = NVME_SC_PRP_OFFSET_INVALID | EMU_DNR;
	prp->length = MIN(prp->left, (uint64_t)EMU_PAGE);
	prp->left -= prp->length;
	return status;
}

static uint16_t segment_add(struct emu_command *command)
{
	struct emu_prp *prp = &command->prp;
	uint8_t *start = emu_dma_pointer(command->emu, prp->address, prp->length);
	if (!start)
		return bad_address(prp->address);
	struct iovec *last = command->iov_count ? &command->iov[command->iov_count - 1] : NULL;
	if (last && (uint8_t *)last->iov_base + last->iov_len == start)
		last->iov_len += prp->length;
	else
		command->iov[command->iov_count++] = (struct iovec){.iov_base = start, .iov_len = prp->length};
	command->piece += prp->length;
	prp->address += prp->length;
	prp->length = 0;
	return 0;
}

uint16_t emu_prp_fill(struct emu_command *command, uint32_t granularity)
{
	struct emu_prp *prp = &command->prp;
	command->iov_count = 0;
	command->piece = 0;
	while (prp->length + prp->left > 0 && command->iov_count < EMU_IOV_MAX) {
		uint16_t status = prp->length ? 0 : segment_next(command->emu, prp);
		if (!status)
			status = segment_add(command);
		if (status)
			return status;
	}
	/* What is too much goes back. It is less than a page, and the last vector is at least that. */
	const uint64_t excess = prp->left ? command->piece % granularity : 0;
	command->iov[command->iov_count - 1].iov_len -= excess;
	command->piece -= excess;
	prp->address -= excess;
	prp->length = excess;
	return 0;
}

/* ---- copying ---- */

void emu_iov_copy(const struct emu_command *command, struct emu_cursor *cursor, void *buffer, size_t size, bool to_host)
{
	uint8_t *at = buffer;
	while (size > 0) {
		const struct iovec *iov = &command->iov[cursor->index];
		const size_t part = MIN(size, iov->iov_len - cursor->offset);
		uint8_t *host = (uint8_t *)iov->iov_base + cursor->offset;
		if (buffer) {
			memcpy(to_host ? host : at, to_host ? at : host, part);
			at += part;
		}
		size -= part;
		cursor->offset += part;
		if (cursor->offset < iov->iov_len)
			continue;
		cursor->index++;
		cursor->offset = 0;
	}
}

static void send_piece(struct emu_command *command, const uint8_t *data, size_t size)
{
	for (unsigned i = 0; i < command->iov_count; i++) {
		const struct iovec *iov = &command->iov[i];
		const size_t part = MIN(size, iov->iov_len);
		memcpy(iov->iov_base, data, part);
		memset((uint8_t *)iov->iov_base + part, 0, iov->iov_len - part);
		data += part;
		size -= part;
	}
}

uint16_t emu_dma_send(struct emu_command *command, const void *data, size_t size, uint64_t length)
{
	const uint8_t *from = data;
	uint16_t status = emu_prp_begin(command, length);
	size = MIN(size, length);
	for (uint64_t sent = 0; !status && sent < length; sent += command->piece) {
		status = emu_prp_fill(command, sizeof(uint32_t));
		if (!status) {
			const size_t part = MIN(size, command->piece);
			send_piece(command, from, part);
			from += part;
			size -= part;
		}
	}
	return status;
}
