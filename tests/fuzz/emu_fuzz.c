/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Goal: no register access, doorbell, queue entry, PRP list or moment to pull the drive out brings the emulated controller
 * down, or makes it touch host memory outside of what it may reach, or its medium outside of its bounds; a reset always
 * brings it back, and then it works.
 * Method: byte 0 chooses the drive, then come steps: a byte of which kind, and what it needs. DMA is limited to an arena
 * that is an allocation of its own, so that the sanitizer sees what goes beyond; addresses mostly lead there, and its
 * content is the input's. The medium checks each request that reaches it.
 *
 * Covers: nvme/emu.c nvme/emu_admin.c nvme/emu_cache.c nvme/emu_cached_io.c nvme/emu_command.c nvme/emu_dma.c
 *   nvme/emu_identify.c nvme/emu_io.c nvme/emu_log.c nvme/emu_port.c nvme/emu_queue.c nvme/emu_registers.c nvme/emu_rules.c
 * Length: 2048
 * Runs: 1500
 */
#define EMU_BENCH_SMALL
#include "tests/unit/emu_bench.c"

#include <stdio.h>

#include "reactor/log.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/fuzz_bytes.h"

enum { ARENA_PAGES = 24, STEPS_MAX = 400, IO_QUEUES = 2, QUEUE_ENTRIES = 8 };

static struct bench bench;
static struct fuzz_bytes input;
static uint8_t *arena;

static const char *const drives[] = {
	"mdts=15", "cache=64K,lba=512,mdts=15", "namespaces=2,latency=3us,mdts=2", "cache=32K,vwc=off,namespaces=2",
	"cache=16K,cut=random,tear=512,lba=512", "cache=16K,cut=none,mdts=1", "depth=4,queues=1,shadow=off,interrupts=off",
	"cache=32K,rule=write:delay=5us:skip=2,rule=read:stuck:skip=3:count=1",
	"rule=any:stuck-hard:skip=4:count=1,rule=admin-any:fatal:skip=20:count=1", "rule=any:vanish:skip=6:count=1",
	"cache=32K,rule=flush:lie,rule=write:status=0x280:skip=1:count=1,cache-fixed=on", "metadata=8", "zoned=on",
	"dsm=off,zeroes=off,boundary=8,lba=512",
};

/* ---- values ---- */

static uint64_t address_take(void)
{
	const uint8_t how = fuzz_u8(&input);
	const uint64_t page = bench_address(arena) + (uint64_t)(how % ARENA_PAGES) * EMU_PAGE;
	switch (how / ARENA_PAGES) {
	case 0: case 1: case 2: case 3: case 4: case 5: return page;
	case 6: return page + (fuzz_u16(&input) & ~7u);
	case 7: return page + EMU_PAGE - 8;
	case 8: return page + fuzz_u16(&input);
	case 9: return 0;
	default: return fuzz_u64(&input);
	}
}

static uint32_t word_take(void)
{
	const uint8_t how = fuzz_u8(&input);
	if (how < 0xc0)
		return how;
	if (how < 0xe0)
		return (uint32_t)fuzz_u16(&input) << (how & 16);
	return how < 0xf0 ? UINT32_MAX - (how & 15) : fuzz_u32(&input);
}

static struct nvme_command command_take(void)
{
	struct nvme_command command = {.opcode = fuzz_u8(&input)};
	const uint8_t nsid = fuzz_u8(&input);
	command.nsid = le32_set(nsid < 0xf0 ? nsid : nsid == 0xf0 ? fuzz_u32(&input) : EMU_NSID_ALL);
	command.prp1 = le64_set(address_take());
	command.prp2 = le64_set(address_take());
	command.cdw10 = le32_set(word_take());
	command.cdw11 = le32_set(word_take());
	command.cdw12 = le32_set(word_take());
	command.cdw13 = le32_set(word_take());
	return command;
}

/* ---- coming and going ---- */

static bool is_out(void) { return bench.emu->state == EMU_OUT || bench.emu->state == EMU_LEAVING; }

MAY_WAIT static void plug_again(void)
{
	bench_pull(&bench);
	bench_release(&bench);
	bench_plug(&bench);
}

/* What the driver reads as CSTS may be what it has written there itself: ask the model. */
MAY_WAIT static void turn_off(void)
{
	uint64_t waited_ns = 0;
	if (is_out())
		plug_again();
	bench_write32(&bench, NVME_REG_CC, 0);
	for (; bench.emu->state != EMU_OFF; waited_ns += NS_PER_US) {
		FUZZ_REQUIRE(waited_ns < NS_PER_SEC, "the controller does not come back from a reset");
		if (is_out())
			plug_again();
		fiber_sleep(NS_PER_US);
	}
}

/* With the queues of the bench, which lie outside of the arena. */
MAY_WAIT static void bring_up(void)
{
	emu_dma_window(bench.emu, NULL, 0);
	bench_enable(&bench, QUEUE_ENTRIES);
}

MAY_WAIT static void bring_up_all(void)
{
	turn_off();
	bring_up();
	bool sound = true; /* no rule holds the commands back that make queues */
	for (unsigned i = 0; i < bench.emu->options.rule_count; i++)
		sound &= !bench.emu->options.rules[i].admin;
	for (uint16_t id = 1; sound && id <= MIN((unsigned)IO_QUEUES, bench.emu->options.queues_max); id++)
		bench_create_queue(&bench, id, MIN((unsigned)QUEUE_ENTRIES, bench.emu->options.depth_max));
	emu_dma_window(bench.emu, arena, ARENA_PAGES * EMU_PAGE);
}

/* ---- steps ---- */

static void step_submit(void)
{
	const uint16_t queue = fuzz_u8(&input) % (IO_QUEUES + 1);
	const struct nvme_command command = command_take();
	if (!is_out() && bench.queue[queue].entries)
		bench_submit(&bench, queue, command);
}

static void step_completions(void)
{
	struct nvme_completion completion;
	for (uint16_t queue = 0; queue <= IO_QUEUES; queue++)
		for (unsigned i = 0; i < QUEUE_ENTRIES && bench.queue[queue].entries && !is_out(); i++)
			if (!bench_poll(&bench, queue, &completion))
				break;
}

static void step_register(void)
{
	const uint32_t at = fuzz_u16(&input) % (EMU_BAR_BYTES / 4) * 4, value = word_take();
	if (!is_out())
		bench_write32(&bench, at, value);
}

static void step_doorbell(void)
{
	const uint16_t id = fuzz_u8(&input) % 4;
	const uint32_t value = word_take();
	const uint8_t completion = fuzz_u8(&input) & 1;
	if (!is_out())
		bench_write32(&bench, completion ? nvme_cq_doorbell(id, 0) : nvme_sq_doorbell(id, 0), value);
}

static void step_poke(void)
{
	const uint32_t at = fuzz_u32(&input) % (ARENA_PAGES * EMU_PAGE);
	const uint8_t count = fuzz_u8(&input);
	fuzz_take(&input, arena + at, MIN((uint32_t)count, ARENA_PAGES * EMU_PAGE - at));
}

/* An address where a PRP list could have one, or a whole command where a queue could. */
static void step_poke_address(void)
{
	le64_t *list = (le64_t *)(arena + (uint64_t)(fuzz_u8(&input) % ARENA_PAGES) * EMU_PAGE);
	const uint16_t first = fuzz_u16(&input) % (EMU_PAGE / 8);
	const uint8_t count = fuzz_u8(&input) % 32;
	for (unsigned i = first; i < first + count && i < EMU_PAGE / 8; i++)
		list[i] = le64_set(address_take());
}

static void step_poke_command(void)
{
	const uint32_t slot = fuzz_u8(&input) % 64, page = fuzz_u8(&input) % ARENA_PAGES;
	((struct nvme_command *)(arena + (size_t)page * EMU_PAGE))[slot] = command_take();
}

MAY_WAIT static void step_hostile_enable(void)
{
	turn_off();
	nvme_write32(bench.transport, NVME_REG_AQA, word_take());
	nvme_write64(bench.transport, NVME_REG_ASQ, address_take());
	nvme_write64(bench.transport, NVME_REG_ACQ, address_take());
	bench_write32(&bench, NVME_REG_CC, word_take() | (uint32_t)FIELD_SET(CC_EN, 1));
	for (unsigned i = 0; i <= IO_QUEUES; i++)
		bench.queue[i].entries = 0;
	fiber_sleep(50 * NS_PER_US);
}

MAY_WAIT static int change(void *arg)
{
	const uint8_t what = fuzz_u8(&input);
	const uint32_t value = word_take();
	switch (what % 8) {
	case 0: (void)!emu_ns_attach(bench.emu, value % 4, what & 8); break;
	case 1: (void)!emu_ns_resize(bench.emu, what >> 3 & 3, value); break;
	case 2: emu_set_health(bench.emu, (uint8_t)value); break;
	case 3: emu_request(bench.emu); break;
	case 4: emu_set_read_only(bench.emu, value & 1); break;
	case 5: emu_set_cut(bench.emu, value % 3, value); break;
	case 6: bench.error = value & 1 ? -5 : 0; bench.error_op = value >> 1 & 3; break;
	default: bench.hold = false;
	}
	return 0;
}

MAY_WAIT static void step_power(void)
{
	if (fuzz_u8(&input) & 1) {
		plug_again();
	} else if (!is_out()) {
		bench_power_cut(&bench);
	}
	bring_up_all();
}

static void step_shutdown(void)
{
	if (!is_out())
		bench_write32(&bench, NVME_REG_CC, nvme_read32(bench.transport, NVME_REG_CC) |
			(uint32_t)FIELD_SET(CC_SHN, 1 + fuzz_u8(&input) % 3));
}

MAY_WAIT static void step(void)
{
	switch (fuzz_u8(&input) % 20) {
	case 7: step_register(); break;
	case 8: step_doorbell(); break;
	case 9: fiber_sleep(fuzz_u16(&input)); break;
	case 10: step_completions(); break;
	case 11: step_poke(); break;
	case 12: step_poke_address(); break;
	case 13: step_poke_command(); break;
	case 14: step_hostile_enable(); break;
	case 15: bring_up_all(); break;
	case 16: bench_on_model(&bench, change); break;
	case 17: step_power(); break;
	case 18: step_shutdown(); break;
	default: step_submit();
	}
}

MAY_WAIT static int make_sound(void *arg)
{
	emu_clear_rules(bench.emu);
	emu_set_read_only(bench.emu, false);
	bench.error = 0;
	for (uint32_t nsid = 1; nsid <= bench.emu->options.namespaces; nsid++) {
		const int error = emu_ns_attach(bench.emu, nsid, true);
		FUZZ_REQUIRE(!error, "namespace %u", nsid);
		(void)!emu_ns_resize(bench.emu, nsid, emu_ns_get(bench.emu, nsid)->blocks_max);
	}
	return 0;
}

MAY_WAIT static void run(struct bench *unused)
{
	bring_up_all();
	for (unsigned i = 0; i < STEPS_MAX && input.left > 0; i++)
		step();
	turn_off();
	bench_on_model(&bench, make_sound);
	bring_up_all();
	emu_dma_window(bench.emu, NULL, 0);
	if (bench.emu->options.zoned || bench.emu->options.metadata_bytes)
		return;
	FUZZ_REQUIRE(bench_write(&bench, 1, 1, 0x22, 0) == 0, "no write after a reset");
	FUZZ_REQUIRE(bench_read(&bench, 1) == 0x22, "something else is read than was written");
}

/* ---- the target ---- */

static void log_nothing(enum log_level level, const char *line, void *arg) {}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	log_set_sink(log_nothing, NULL);
	arena = aligned_alloc(EMU_PAGE, ARENA_PAGES * EMU_PAGE);
	FUZZ_REQUIRE(arena, "no memory");
	return 0;
}

/* Pages of addresses of each other: lists that lead somewhere. */
static void arena_init(void)
{
	memset(arena, 0, ARENA_PAGES * EMU_PAGE);
	for (unsigned page = ARENA_PAGES / 2; page < ARENA_PAGES; page++)
		for (unsigned i = 0; i < EMU_PAGE / 8; i++)
			((le64_t *)(arena + (size_t)page * EMU_PAGE))[i] =
				le64_set(bench_address(arena) + (uint64_t)(i % ARENA_PAGES) * EMU_PAGE);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct emu_options options;
	char message[128];
	input = fuzz_bytes_of(data, size);
	const uint8_t which = fuzz_u8(&input);
	const int error = emu_options_parse(drives[which % ARRAY_SIZE(drives)], &options, message, sizeof(message));
	FUZZ_REQUIRE(!error, "%s", message);
	arena_init();
	bench_init(&bench, &options, 1 + which / ARRAY_SIZE(drives));
	bench.mixed = which & 1;
	bench_run(&bench, run);
	bench_fini(&bench);
	return 0;
}
