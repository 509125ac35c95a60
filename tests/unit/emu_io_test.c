/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Goal: I/O commands move the right bytes for every shape of PRP, and refuse what they must. Method: commands
 * written by hand, compared with the medium in memory; then many at once, of random shape, against a model.
 */
#include "emu_bench.h"

#include <errno.h>

enum { DATA = 16, LIST = 8, BLOCK = 4096 }; /* pages of the bench */

static const struct emu_options none;

static uint8_t pattern(uint64_t at) { return (uint8_t)(at * 131 + (at >> 8) * 17 + 1); }

static void medium_fill(struct bench *bench)
{
	for (uint64_t i = 0; i < BENCH_MEDIUM_BYTES; i++)
		bench->medium[i] = pattern(i);
}

static void expect_pattern(const uint8_t *data, uint64_t offset, size_t size)
{
	for (size_t i = 0; i < size; i++)
		if (data[i] != pattern(offset + i))
			fail_msg("byte %zu of %zu is %u", i, size, data[i]);
}

/* ---- shapes ---- */

/* A list that begins at entry @entry of the list page, of pages from @first_page in descending order. */
static uint64_t list_make(struct bench *bench, unsigned entry, unsigned first_page, unsigned count)
{
	le64_t *list = (le64_t *)bench_page(bench, LIST);
	const uint64_t start = bench_address(&list[entry]);
	unsigned page = 0, next_list = 1;
	while (page < count) {
		if (entry == 511 && page + 1 < count) {
			uint8_t *next = bench_page(bench, LIST + next_list++);
			list[entry] = le64_set(bench_address(next));
			list = (le64_t *)next;
			entry = 0;
		}
		list[entry++] = le64_set(bench_address(bench_page(bench, first_page + count - 1 - page++)));
	}
	return start;
}

/* Reads @blocks at LBA 3 to an offset in a page, the rest through PRP2 or a list, and looks at every page. */
MAY_WAIT static void read_shape(struct bench *bench, unsigned offset, unsigned blocks, unsigned list_entry)
{
	const uint32_t lba_bytes = bench->options.lba_bytes ? bench->options.lba_bytes : BLOCK;
	const uint64_t start = 3 * lba_bytes, size = (uint64_t)blocks * lba_bytes, first = MIN(size, EMU_PAGE - offset);
	const unsigned pages = (unsigned)div_round_up(size - first, EMU_PAGE);
	struct nvme_command command = bench_rw(NVME_CMD_READ, 3, blocks, bench_page(bench, DATA) + offset);
	memset(bench_page(bench, DATA), 0, (size_t)(pages + 2) * EMU_PAGE);
	if (pages == 1)
		command.prp2 = le64_set(bench_address(bench_page(bench, DATA + 1)));
	else if (pages > 1)
		command.prp2 = le64_set(list_make(bench, list_entry, DATA + 1, pages));
	assert_int_equal(bench_do(bench, 1, command, NULL), 0);
	expect_pattern(bench_page(bench, DATA) + offset, start, first);
	for (unsigned i = 0; i < pages; i++) {
		const uint64_t done = first + (uint64_t)i * EMU_PAGE;
		const unsigned page = pages == 1 ? 0 : pages - 1 - i;
		expect_pattern(bench_page(bench, DATA + 1 + page), start + done, MIN(size - done, (uint64_t)EMU_PAGE));
	}
	assert_int_equal(bench_page(bench, DATA)[offset ? offset - 1 : EMU_PAGE * (pages + 1)], 0);
}

MAY_WAIT static void shapes(struct bench *bench)
{
	bench_bring_up(bench);
	medium_fill(bench);
	read_shape(bench, 0, 1, 0);
	read_shape(bench, 512, 1, 0);
	read_shape(bench, 4092, 1, 0);
	read_shape(bench, 0, 2, 0);
	read_shape(bench, 0, 3, 0);
	read_shape(bench, 2048, 2, 0);
	read_shape(bench, 2048, 2, 17);
	read_shape(bench, 0, 3, 510);
	read_shape(bench, 0, 3, 511);
	read_shape(bench, 4, 8, 509);
	read_shape(bench, 0, 32, 0);
	read_shape(bench, 2048, 32, 100);
}

static void test_every_shape_of_prp(void **state)
{
	bench_test(&none, shapes);
	bench_test(&(struct emu_options){.lba_bytes = 512}, shapes);
	bench_test(&(struct emu_options){.cache_bytes = KIB(64)}, shapes);
}

MAY_WAIT static void large_transfers(struct bench *bench)
{
	bench_bring_up(bench);
	medium_fill(bench);
	read_shape(bench, 100, 63, 0);
	read_shape(bench, 0, 64, 0);
	read_shape(bench, 4, 65, 0);
	read_shape(bench, 100, 129, 0);
	read_shape(bench, 4, 512, 3);
	read_shape(bench, 2048, 1000, 0);
}

static void test_transfers_without_limit_go_in_pieces_over_chained_lists(void **state)
{
	bench_test(&(struct emu_options){.mdts = 15}, large_transfers);
	bench_test(&(struct emu_options){.mdts = 15, .cache_bytes = KIB(64)}, large_transfers);
	bench_test(&(struct emu_options){.mdts = 15, .lba_bytes = 512}, large_transfers);
}

MAY_WAIT static void large_write(struct bench *bench)
{
	struct nvme_command command = bench_rw(NVME_CMD_WRITE, 1, 600, bench_page(bench, DATA) + 400);
	bench_bring_up(bench);
	for (unsigned i = 0; i < 601 * EMU_PAGE; i++)
		bench_page(bench, DATA)[i] = pattern(i);
	le64_t *list = (le64_t *)bench_page(bench, LIST);
	for (unsigned i = 0; i < 600; i++)
		list[i + (i >= 511)] = le64_set(bench_address(bench_page(bench, DATA + 1 + i)));
	list[511] = le64_set(bench_address(&list[512]));
	command.prp2 = le64_set(bench_address(list));
	assert_int_equal(bench_do(bench, 1, command, NULL), 0);
	assert_int_equal(bench_flush(bench), 0);
	expect_pattern(bench->durable + BLOCK, 400, 600 * BLOCK);
	assert_int_equal(bench->durable[601 * BLOCK], 0);
}

static void test_a_large_write(void **state)
{
	bench_test(&(struct emu_options){.mdts = 15}, large_write);
	bench_test(&(struct emu_options){.mdts = 15, .cache_bytes = KIB(32)}, large_write);
}

MAY_WAIT static uint16_t read_prps(struct bench *bench, uint32_t blocks, uint64_t prp1, uint64_t prp2)
{
	struct nvme_command command = bench_rw(NVME_CMD_READ, 0, blocks, NULL);
	command.prp1 = le64_set(prp1);
	command.prp2 = le64_set(prp2);
	return bench_do(bench, 1, command, NULL);
}

MAY_WAIT static void bad_prps(struct bench *bench)
{
	const uint64_t data = bench_address(bench_page(bench, DATA)), list = bench_address(bench_page(bench, LIST));
	le64_t *entries = (le64_t *)bench_page(bench, LIST);
	bench_bring_up(bench);
	assert_int_equal(read_prps(bench, 1, data + 1, 0), NVME_SC_PRP_OFFSET_INVALID);
	assert_int_equal(read_prps(bench, 1, 0, 0), NVME_SC_INVALID_FIELD);
	assert_int_equal(read_prps(bench, 1, data + 512, 0), NVME_SC_INVALID_FIELD);
	assert_int_equal(read_prps(bench, 1, data + 512, data + 8192 + 512), NVME_SC_PRP_OFFSET_INVALID);
	assert_int_equal(read_prps(bench, 3, data, 0), NVME_SC_INVALID_FIELD);
	assert_int_equal(read_prps(bench, 3, data, list + 4), NVME_SC_PRP_OFFSET_INVALID);
	entries[0] = le64_set(data + 4096);
	entries[1] = le64_set(data + 8192 + 512);
	assert_int_equal(read_prps(bench, 3, data, list), NVME_SC_PRP_OFFSET_INVALID);
	entries[1] = le64_set(0);
	assert_int_equal(read_prps(bench, 3, data, list), NVME_SC_INVALID_FIELD);
	entries[1] = le64_set(UINT64_MAX & ~4095ull);
	assert_int_equal(read_prps(bench, 3, data, list), NVME_SC_DATA_TRANSFER_ERROR);
	entries[511] = le64_set(list + 2048);
	assert_int_equal(read_prps(bench, 3, data, list + 4088), NVME_SC_PRP_OFFSET_INVALID);
	entries[511] = le64_set(1ull << 63);
	assert_int_equal(read_prps(bench, 3, data, list + 4088), NVME_SC_DATA_TRANSFER_ERROR);
	emu_dma_window(bench->emu, bench->pages, BENCH_PAGES * EMU_PAGE);
	assert_int_equal(read_prps(bench, 1, bench_address(bench->medium), 0), NVME_SC_DATA_TRANSFER_ERROR);
	assert_int_equal(read_prps(bench, 1, bench_address(bench_page(bench, BENCH_PAGES)), 0), NVME_SC_DATA_TRANSFER_ERROR);
	assert_int_equal(read_prps(bench, 1, bench_address(bench_page(bench, BENCH_PAGES - 1)), 0), 0);
}

static void test_bad_prps_are_refused(void **state)
{
	bench_test(&none, bad_prps);
	bench_test(&(struct emu_options){.cache_bytes = KIB(64)}, bad_prps);
}

/* ---- refusals ---- */

MAY_WAIT static int detach_1(void *arg) { return emu_ns_attach(((struct bench *)arg)->emu, 1, false); }
MAY_WAIT static int attach_1(void *arg) { return emu_ns_attach(((struct bench *)arg)->emu, 1, true); }
MAY_WAIT static int shrink_1(void *arg) { return emu_ns_resize(((struct bench *)arg)->emu, 1, 10); }

MAY_WAIT static void refusals(struct bench *bench)
{
	const uint64_t blocks = BENCH_MEDIUM_BYTES / 2 / BLOCK;
	uint8_t *data = bench_page(bench, 0);
	bench_bring_up(bench);
	assert_int_equal(bench_do(bench, 1, bench_rw(NVME_CMD_READ, blocks, 1, data), NULL), NVME_SC_LBA_OUT_OF_RANGE);
	assert_int_equal(bench_do(bench, 1, bench_rw(NVME_CMD_READ, blocks - 1, 2, data), NULL), NVME_SC_LBA_OUT_OF_RANGE);
	assert_int_equal(bench_do(bench, 1, bench_rw(NVME_CMD_READ, UINT64_MAX, 1, data), NULL), NVME_SC_LBA_OUT_OF_RANGE);
	assert_int_equal(bench_do(bench, 1, bench_rw(NVME_CMD_WRITE, UINT64_MAX, 65536, data), NULL),
		NVME_SC_LBA_OUT_OF_RANGE);
	assert_int_equal(bench_do(bench, 1, bench_rw(NVME_CMD_READ, 0, 33, data), NULL), NVME_SC_INVALID_FIELD);
	struct nvme_command read = bench_rw(NVME_CMD_READ, 0, 1, data);
	const uint32_t bad_nsids[] = {0, 3, 4000, EMU_NSID_ALL};
	for (unsigned i = 0; i < ARRAY_SIZE(bad_nsids); i++) {
		read.nsid = le32_set(bad_nsids[i]);
		assert_int_equal(bench_do(bench, 1, read, NULL), NVME_SC_INVALID_NAMESPACE);
	}
	assert_int_equal(bench_do(bench, 1, bench_command(NVME_CMD_FLUSH, EMU_NSID_ALL), NULL), 0);
	assert_int_equal(bench_do(bench, 1, bench_command(NVME_CMD_FLUSH, 3), NULL), NVME_SC_INVALID_NAMESPACE);
	bench_on_model(bench, detach_1);
	assert_int_equal(bench_flush(bench), NVME_SC_INVALID_NAMESPACE);
	bench_on_model(bench, attach_1);
	bench_on_model(bench, shrink_1);
	assert_int_equal(bench_do(bench, 1, bench_rw(NVME_CMD_READ, 10, 1, data), NULL), NVME_SC_LBA_OUT_OF_RANGE);
	assert_int_equal(bench_do(bench, 1, bench_rw(NVME_CMD_READ, 9, 1, data), NULL), 0);
}

static void test_io_that_is_refused(void **state) { bench_test(&(struct emu_options){.namespaces = 2}, refusals); }

MAY_WAIT static void second_namespace(struct bench *bench)
{
	bench_bring_up(bench);
	struct nvme_command write = bench_rw(NVME_CMD_WRITE, 1, 1, bench_page(bench, 0));
	memset(bench_page(bench, 0), 0x22, BLOCK);
	write.nsid = le32_set(2);
	assert_int_equal(bench_do(bench, 1, write, NULL), 0);
	assert_int_equal(bench->medium[BENCH_MEDIUM_BYTES / 2 + BLOCK], 0x22);
	assert_int_equal(bench_read(bench, 1), 0);
}

static void test_namespaces_are_parts_of_the_medium(void **state)
{
	bench_test(&(struct emu_options){.namespaces = 2}, second_namespace);
}

MAY_WAIT static void read_only(struct bench *bench)
{
	bench_bring_up(bench);
	assert_int_equal(bench_write(bench, 0, 1, 1, 0), NVME_SC_NS_WRITE_PROTECTED);
	assert_int_equal(bench_do(bench, 1, bench_rw(NVME_CMD_WRITE_ZEROES, 0, 1, NULL), NULL), NVME_SC_NS_WRITE_PROTECTED);
	assert_int_equal(bench_do(bench, 1, bench_rw(NVME_CMD_DSM, 0, 1, NULL), NULL), NVME_SC_NS_WRITE_PROTECTED);
	assert_int_equal(bench_read(bench, 0), 0);
	assert_int_equal(bench_flush(bench), 0);
	struct nvme_command identify = bench_command(NVME_ADMIN_IDENTIFY, 1);
	identify.prp1 = le64_set(bench_address(bench_page(bench, 0)));
	assert_int_equal(bench_do(bench, 0, identify, NULL), 0);
	assert_int_equal(((struct nvme_id_ns *)bench_page(bench, 0))->nsattr, 1);
}

static void test_a_medium_that_is_read_only(void **state) { bench_test_read_only(&none, read_only); }

MAY_WAIT static void absent_commands(struct bench *bench)
{
	bench_bring_up(bench);
	assert_int_equal(bench_do(bench, 1, bench_rw(NVME_CMD_WRITE_ZEROES, 0, 1, NULL), NULL), NVME_SC_INVALID_OPCODE);
	assert_int_equal(bench_do(bench, 1, bench_rw(NVME_CMD_DSM, 0, 1, NULL), NULL), NVME_SC_INVALID_OPCODE);
}

static void test_optional_commands_can_be_absent(void **state)
{
	bench_test(&(struct emu_options){.no_dsm = true, .no_write_zeroes = true}, absent_commands);
}

MAY_WAIT static void metadata(struct bench *bench)
{
	bench_bring_up(bench);
	assert_int_equal(bench_write(bench, 0, 1, 1, 0), NVME_SC_INVALID_FIELD);
}

static void test_no_io_on_blocks_with_metadata(void **state)
{
	bench_test(&(struct emu_options){.metadata_bytes = 8}, metadata);
}

/* ---- zeroes, deallocation ---- */

MAY_WAIT static void zeroes(struct bench *bench)
{
	bench_bring_up(bench);
	medium_fill(bench);
	assert_int_equal(bench_do(bench, 1, bench_rw(NVME_CMD_WRITE_ZEROES, 2, 3, NULL), NULL), 0);
	assert_int_equal(bench_do(bench, 1, bench_rw(NVME_CMD_WRITE_ZEROES, 100, 500, NULL), NULL), 0);
	assert_int_equal(bench_read(bench, 2), 0);
	assert_int_equal(bench_read(bench, 4), 0);
	assert_int_equal(bench_read(bench, 599), 0);
	assert_int_equal(bench_flush(bench), 0);
	expect_pattern(bench->durable, 0, 2 * BLOCK);
	expect_pattern(bench->durable + 5 * BLOCK, 5 * BLOCK, 95 * BLOCK);
	expect_pattern(bench->durable + 600 * BLOCK, 600 * BLOCK, BLOCK);
}

static void test_write_zeroes(void **state)
{
	bench_test(&none, zeroes);
	bench_test(&(struct emu_options){.cache_bytes = KIB(256)}, zeroes);
}

static void range_set(struct bench *bench, unsigned index, uint64_t lba, uint32_t blocks)
{
	((struct nvme_dsm_range *)bench_page(bench, DATA))[index] =
		(struct nvme_dsm_range){.first_lba = le64_set(lba), .blocks = le32_set(blocks)};
}

MAY_WAIT static uint16_t deallocate(struct bench *bench, unsigned count, uint32_t flags)
{
	struct nvme_command command = bench_command(NVME_CMD_DSM, 1);
	command.cdw10 = le32_set(count - 1);
	command.cdw11 = le32_set(flags);
	command.prp1 = le64_set(bench_address(bench_page(bench, DATA)));
	return bench_do(bench, 1, command, NULL);
}

MAY_WAIT static void deallocation(struct bench *bench)
{
	bench_bring_up(bench);
	medium_fill(bench);
	assert_int_equal(bench_write(bench, 10, 2, 0xaa, 0), 0);
	range_set(bench, 0, 10, 1);
	range_set(bench, 1, 20, 0);
	range_set(bench, 2, 30, 2);
	assert_int_equal(deallocate(bench, 3, NVME_DSM_DEALLOCATE), 0);
	assert_int_equal(bench_read(bench, 10), 0);
	assert_int_equal(bench_read(bench, 11), 0xaa);
	assert_int_equal(bench_read(bench, 20), -1);
	assert_int_equal(bench_read(bench, 31), 0);
	assert_int_equal(bench->discards, 2);
	range_set(bench, 1, UINT64_MAX, 2);
	range_set(bench, 0, 11, 1);
	assert_int_equal(deallocate(bench, 2, NVME_DSM_DEALLOCATE), NVME_SC_LBA_OUT_OF_RANGE);
	assert_int_equal(bench_read(bench, 11), 0xaa);
	assert_int_equal(deallocate(bench, 1, 0), 0);
	assert_int_equal(bench_read(bench, 11), 0xaa);
	for (unsigned i = 0; i < NVME_DSM_RANGES_MAX; i++)
		range_set(bench, i, i, 1);
	assert_int_equal(deallocate(bench, NVME_DSM_RANGES_MAX, NVME_DSM_DEALLOCATE), 0);
	assert_int_equal(bench->discards, 2 + NVME_DSM_RANGES_MAX);
}

static void test_deallocation(void **state)
{
	bench_test(&none, deallocation);
	bench_test(&(struct emu_options){.cache_bytes = KIB(64)}, deallocation);
}

/* ---- errors of the medium ---- */

MAY_WAIT static void expect_error(struct bench *bench, enum emu_op op, int error, uint8_t opcode, uint16_t status)
{
	bench->error_op = op;
	bench->error = error;
	assert_int_equal(bench_do(bench, 1, bench_rw(opcode, 0, 1, bench_page(bench, 0)), NULL), status);
	bench->error = 0;
}

MAY_WAIT static void medium_errors(struct bench *bench)
{
	bench_bring_up(bench);
	expect_error(bench, EMU_READ, -EILSEQ, NVME_CMD_READ, NVME_SC_UNRECOVERED_READ);
	expect_error(bench, EMU_READ, -EIO, NVME_CMD_READ, NVME_SC_INTERNAL_ERROR);
	expect_error(bench, EMU_WRITE, -EILSEQ, NVME_CMD_WRITE, NVME_SC_WRITE_FAULT);
	expect_error(bench, EMU_WRITE, -ENOSPC, NVME_CMD_WRITE, NVME_SC_CAPACITY_EXCEEDED);
	expect_error(bench, EMU_WRITE, -EROFS, NVME_CMD_WRITE, NVME_SC_NS_WRITE_PROTECTED);
	expect_error(bench, EMU_FLUSH, -EIO, NVME_CMD_FLUSH, NVME_SC_INTERNAL_ERROR);
	expect_error(bench, EMU_ZERO, -ENOSPC, NVME_CMD_WRITE_ZEROES, NVME_SC_CAPACITY_EXCEEDED);
	range_set(bench, 0, 0, 1);
	bench->error_op = EMU_DISCARD;
	bench->error = -EOPNOTSUPP;
	assert_int_equal(deallocate(bench, 1, NVME_DSM_DEALLOCATE), NVME_SC_INTERNAL_ERROR);
	bench->error = 0;
	assert_int_equal(bench_read(bench, 0), 0);
}

static void test_errors_of_the_medium_become_statuses(void **state) { bench_test(&none, medium_errors); }

/* ---- many at once ---- */

enum { SLOTS = 24, SLOT_BLOCKS = 40, ROUNDS = 1500 };

/* Each slot owns some blocks, a page-aligned buffer and at most one command, so the result is certain. */
struct slot {
	uint8_t content[SLOT_BLOCKS * BLOCK];
	struct nvme_command command;
	uint16_t cid, queue;
	bool busy;
	unsigned changed;            /* when its content last changed: turns of test_turn */
	unsigned submitted;
	unsigned first, blocks, offset;
};
static struct slot slots[SLOTS];
static unsigned test_turn;           /* counts submissions and completions */

static uint64_t test_random(uint64_t bound)
{
	static uint64_t state = 88172645463325252ull;
	return (emu_random(&state) >> 16) % bound;
}

enum { SLOT_PAGES = 20 };

/* Pages of the slot in a scattered order, behind an offset in the first. */
static void slot_prps(struct bench *bench, unsigned index, size_t size)
{
	struct slot *slot = &slots[index];
	uint8_t *list = bench_page(bench, DATA + SLOTS * SLOT_PAGES + index);
	const unsigned base = DATA + index * SLOT_PAGES;
	const size_t first = MIN(size, (size_t)(EMU_PAGE - slot->offset));
	const unsigned pages = (unsigned)div_round_up(size - first, EMU_PAGE);
	slot->command.prp1 = le64_set(bench_address(bench_page(bench, base) + slot->offset));
	for (unsigned i = 0; i < pages; i++)
		((le64_t *)list)[i] = le64_set(bench_address(bench_page(bench, base + 1 + (i ^ 1))));
	slot->command.prp2 = pages == 1 ? ((le64_t *)list)[0] : le64_set(bench_address(list));
}

/* Byte @at of the slot's buffer. */
static uint8_t *slot_byte(struct bench *bench, unsigned index, size_t at)
{
	const unsigned base = DATA + index * SLOT_PAGES;
	const size_t position = slots[index].offset + at;
	if (position < EMU_PAGE)
		return bench_page(bench, base) + position;
	return bench_page(bench, base + 1 + ((unsigned)(position / EMU_PAGE - 1) ^ 1)) + position % EMU_PAGE;
}

static void slot_begin(struct bench *bench, unsigned index)
{
	static const uint8_t opcodes[] = {NVME_CMD_READ, NVME_CMD_WRITE, NVME_CMD_WRITE, NVME_CMD_WRITE_ZEROES, NVME_CMD_FLUSH};
	struct slot *slot = &slots[index];
	const uint32_t lba_bytes = bench->options.lba_bytes ? bench->options.lba_bytes : BLOCK;
	const unsigned slot_blocks = SLOT_BLOCKS * BLOCK / lba_bytes;
	slot->blocks = 1 + (unsigned)test_random(16 * BLOCK / lba_bytes);
	slot->first = (unsigned)test_random(slot_blocks - slot->blocks + 1);
	slot->offset = (unsigned)test_random(EMU_PAGE / 4) * 4;
	slot->queue = 1 + (uint16_t)test_random(3);
	slot->command = bench_rw(opcodes[test_random(ARRAY_SIZE(opcodes))], (uint64_t)index * slot_blocks + slot->first,
		slot->blocks, NULL);
	if (slot->command.opcode == NVME_CMD_WRITE && test_random(8) == 0)
		slot->command.cdw12 = le32_set((slot->blocks - 1) | NVME_RW_FUA);
	const size_t size = (size_t)slot->blocks * lba_bytes, at = (size_t)slot->first * lba_bytes;
	slot_prps(bench, index, size);
	for (size_t i = 0; i < size; i++) {
		if (slot->command.opcode == NVME_CMD_WRITE)
			slot->content[at + i] = *slot_byte(bench, index, i) = (uint8_t)test_random(256);
		else if (slot->command.opcode == NVME_CMD_READ)
			*slot_byte(bench, index, i) = (uint8_t)~slot->content[at + i];
		else if (slot->command.opcode == NVME_CMD_WRITE_ZEROES)
			slot->content[at + i] = 0;
	}
	slot->busy = true;
	slot->submitted = ++test_turn;
	slot->cid = bench_submit(bench, slot->queue, slot->command);
}

/* What had completed before the flush was sent, and was left alone since, is durable. */
static void flush_check(struct bench *bench, unsigned submitted)
{
	for (unsigned i = 0; i < SLOTS; i++) {
		const struct slot *slot = &slots[i];
		const bool changing = slot->busy && slot->command.opcode != NVME_CMD_READ && slot->command.opcode != NVME_CMD_FLUSH;
		if (!changing && slot->changed < submitted)
			assert_memory_equal(bench->durable + i * sizeof(slot->content), slot->content, sizeof(slot->content));
	}
}

static void slot_end(struct bench *bench, unsigned index)
{
	struct slot *slot = &slots[index];
	const uint32_t lba_bytes = bench->options.lba_bytes ? bench->options.lba_bytes : BLOCK;
	const size_t start = (size_t)slot->first * lba_bytes, size = (size_t)slot->blocks * lba_bytes;
	const bool changed = slot->command.opcode == NVME_CMD_WRITE || slot->command.opcode == NVME_CMD_WRITE_ZEROES;
	slot->busy = false;
	test_turn++;
	if (changed)
		slot->changed = test_turn;
	if (slot->command.opcode == NVME_CMD_FLUSH)
		flush_check(bench, slot->submitted);
	if (changed && (bench->options.no_volatile_cache || le32_get(slot->command.cdw12) & NVME_RW_FUA))
		assert_memory_equal(bench->durable + index * sizeof(slot->content) + start, slot->content + start, size);
	for (size_t i = 0; slot->command.opcode == NVME_CMD_READ && i < size; i++)
		if (*slot_byte(bench, index, i) != slot->content[start + i])
			fail_msg("slot %u: byte %zu of a read is not what was written", index, i);
}

static void slots_complete(struct bench *bench)
{
	struct nvme_completion completion;
	for (uint16_t queue = 1; queue <= 3; queue++) {
		while (bench_poll(bench, queue, &completion)) {
			assert_int_equal(bench_status(&completion), 0);
			unsigned index = 0;
			while (index < SLOTS && !(slots[index].busy && slots[index].cid == le16_get(completion.cid)))
				index++;
			assert_true(index < SLOTS && slots[index].queue == queue);
			slot_end(bench, index);
		}
	}
}

static bool slots_busy(void)
{
	bool busy = false;
	for (unsigned i = 0; i < SLOTS; i++)
		busy = busy || slots[i].busy;
	return busy;
}

MAY_WAIT static void many(struct bench *bench)
{
	memset(slots, 0, sizeof(slots));
	bench->mixed = true;
	bench_bring_up(bench);
	bench_create_queue(bench, 2, 5);
	bench_create_queue(bench, 3, 300);
	for (unsigned round = 0; round < ROUNDS; round++) {
		const unsigned index = (unsigned)test_random(SLOTS);
		unsigned queued = 0;
		if (!slots[index].busy)
			slot_begin(bench, index);
		/* The second queue has four places. */
		do {
			slots_complete(bench);
			queued = 0;
			for (unsigned i = 0; i < SLOTS; i++)
				queued += slots[i].busy && slots[i].queue == 2;
			fiber_sleep(queued == 4 ? 2000 : test_random(4) * 1000);
		} while (queued == 4);
	}
	while (slots_busy()) {
		fiber_sleep(1000);
		slots_complete(bench);
	}
	assert_int_equal(bench_flush(bench), 0);
	for (unsigned i = 0; i < SLOTS; i++)
		assert_memory_equal(bench->durable + (size_t)i * sizeof(slots[i].content), slots[i].content, sizeof(slots[i].content));
}

static void test_many_commands_at_once(void **state)
{
	bench_test(&none, many);
	bench_test(&(struct emu_options){.lba_bytes = 512}, many);
	bench_test(&(struct emu_options){.cache_bytes = KIB(32)}, many);
	bench_test(&(struct emu_options){.cache_bytes = KIB(512), .lba_bytes = 512}, many);
	bench_test(&(struct emu_options){.cache_bytes = MIB(8), .latency_ns = 3000}, many);
	bench_test(&(struct emu_options){.cache_bytes = KIB(128), .no_volatile_cache = true}, many);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_shape_of_prp),
		cmocka_unit_test(test_transfers_without_limit_go_in_pieces_over_chained_lists),
		cmocka_unit_test(test_a_large_write),
		cmocka_unit_test(test_bad_prps_are_refused),
		cmocka_unit_test(test_io_that_is_refused),
		cmocka_unit_test(test_namespaces_are_parts_of_the_medium),
		cmocka_unit_test(test_a_medium_that_is_read_only),
		cmocka_unit_test(test_optional_commands_can_be_absent),
		cmocka_unit_test(test_no_io_on_blocks_with_metadata),
		cmocka_unit_test(test_write_zeroes),
		cmocka_unit_test(test_deallocation),
		cmocka_unit_test(test_errors_of_the_medium_become_statuses),
		cmocka_unit_test(test_many_commands_at_once),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
