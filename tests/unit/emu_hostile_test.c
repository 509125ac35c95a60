/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Goal: no command, doorbell or register value brings the emulated controller down, or makes it touch memory or
 * medium that is not its own; a reset always brings it back. Method: seeded garbage that looks enough like commands
 * to get far, under the sanitizers. DMA is limited to some pages; the medium of the bench checks every request that
 * reaches it.
 */
#include "emu_bench.h"

enum { STEPS = 1500, SEEDS = 24, ARENA = 64, ARENA_PAGES = 256, QUEUES = 3 };

static uint64_t random_state;

static uint64_t pick(uint64_t bound) { return (emu_random(&random_state) >> 16) % bound; }
static bool chance(unsigned of) { return pick(of) == 0; }

static uint64_t address(struct bench *bench)
{
	uint8_t *page = bench_page(bench, ARENA + (unsigned)pick(ARENA_PAGES));
	switch (pick(12)) {
	case 0: return 0;
	case 1: return emu_random(&random_state);
	case 2: return bench_address(page) + pick(EMU_PAGE);
	case 3: return bench_address(page) + pick(EMU_PAGE / 8) * 8;
	case 4: return bench_address(page) + EMU_PAGE - 8;
	case 5: return UINT64_MAX - pick(3 * EMU_PAGE);
	default: return bench_address(page);
	}
}

static uint32_t word(void)
{
	switch (pick(6)) {
	case 0: return 0;
	case 1: return (uint32_t)emu_random(&random_state);
	case 2: return UINT32_MAX - (uint32_t)pick(3);
	case 3: return (uint32_t)(pick(70) << 16 | pick(5));
	default: return (uint32_t)pick(64);
	}
}

static struct nvme_command garbage(struct bench *bench, uint16_t queue)
{
	static const uint8_t io[] = {0, 1, 2, 8, 9}, admin[] = {0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 0x7c};
	const uint32_t nsids[] = {1, 1, 1, 2, 0, EMU_NSID_ALL, word()};
	struct nvme_command command = {
		.opcode = queue ? io[pick(sizeof(io))] : admin[pick(sizeof(admin))],
		.nsid = le32_set(nsids[pick(ARRAY_SIZE(nsids))]),
		.prp1 = le64_set(address(bench)),
		.prp2 = le64_set(address(bench)),
		.cdw10 = le32_set(word()),
		.cdw11 = le32_set(queue ? (chance(8) ? word() : 4 * chance(2)) : word() | chance(2)),
		.cdw12 = le32_set(word()),
		.cdw13 = le32_set(chance(8) ? word() : 0),
	};
	if (chance(50))
		command.opcode = (uint8_t)pick(256);
	if (chance(50))
		command.flags = (uint8_t)pick(256);
	if (queue == 0 && command.opcode == NVME_ADMIN_DELETE_SQ && !chance(10))
		command.cdw10 = le32_set(3); /* let the others live */
	return command;
}

/* Lists that lead somewhere, and ranges. */
static void arena_fill(struct bench *bench)
{
	for (unsigned page = 0; page < ARENA_PAGES; page++)
		for (unsigned i = 0; i < EMU_PAGE / 8; i++)
			((le64_t *)bench_page(bench, ARENA + page))[i] = le64_set(chance(4) ? word() : address(bench));
}

static void completions_take(struct bench *bench)
{
	struct nvme_completion completion;
	for (uint16_t queue = 0; queue < QUEUES; queue++)
		for (unsigned i = 0; i < 64 && bench_poll(bench, queue, &completion); i++)
			;
}

MAY_WAIT static void step(struct bench *bench)
{
	const uint16_t queue = (uint16_t)pick(QUEUES);
	if (chance(200))
		bench_write32(bench, nvme_sq_doorbell((uint16_t)pick(300), 0), word());
	else if (chance(200))
		bench_write32(bench, nvme_cq_doorbell((uint16_t)pick(300), 0), word());
	else if (chance(300))
		arena_fill(bench);
	else
		bench_submit(bench, queue, garbage(bench, queue));
	if (chance(3))
		completions_take(bench);
	if (chance(4))
		fiber_sleep(pick(5000));
}

MAY_WAIT static void garbage_run(struct bench *bench)
{
	arena_fill(bench);
	for (unsigned round = 0; round < 3; round++) {
		bench_bring_up(bench);
		bench_create_queue(bench, 2, 16);
		emu_dma_window(bench->emu, bench_page(bench, ARENA), ARENA_PAGES * EMU_PAGE);
		for (unsigned i = 0; i < STEPS; i++)
			step(bench);
		if (round == 1)
			bench_write32(bench, NVME_REG_CC, word());
		emu_dma_window(bench->emu, NULL, 0);
		bench_disable(bench);
	}
	bench_bring_up(bench);
	assert_int_equal(bench_write(bench, 2, 1, 0x22, 0), 0);
	assert_int_equal(bench_read(bench, 2), 0x22);
}

static void test_garbage(void **state)
{
	static struct bench bench;
	static const struct emu_options variants[] = {
		{.mdts = 15},
		{.cache_bytes = KIB(64), .lba_bytes = 512, .mdts = 15},
		{.namespaces = 2, .latency_ns = 3000},
		{.cache_bytes = KIB(32), .no_volatile_cache = true, .namespaces = 2},
	};
	for (uint64_t seed = 1; seed <= SEEDS; seed++) {
		random_state = seed * 0x9e3779b97f4a7c15;
		bench_init(&bench, &variants[seed % ARRAY_SIZE(variants)], seed);
		bench.mixed = true;
		bench_run(&bench, garbage_run);
		bench_fini(&bench);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_garbage),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
