/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Goal: whatever a controller says (registers, identify data, log pages, completions), the driver goes on or gives it up, but
 * does not crash or hang, and answers each request exactly once.
 * Method: the scripted controller of the unit tests, made hostile. The input first describes it (capabilities, identify data,
 * rules), then come steps of I/O and of interference; and at every completion and every page of data that the controller sends,
 * a byte says whether it is sent as it should be. An input that has come to its end sends everything well, so each run ends.
 *
 * Covers: nvme/admin.c nvme/ctrlr.c nvme/event.c nvme/init.c nvme/namespace.c nvme/prp.c nvme/qpair.c nvme/qpair_time.c
 *   nvme/release.c nvme/status.c
 * Length: 1024
 * Runs: 500
 */
#include <stdio.h>

#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/fuzz_bytes.h"
#include "tests/unit/nvme_rig.h"

/* Time-outs, aborts and resets, which may take as long as the controller says, several times over. */
enum { ANSWER_S_MAX = 1800 };
enum { SLOTS = 8, SLOT_BYTES = 16 << 10, STEPS_MAX = 100, PATCHES_MAX = 16 };

static struct rig rig;
static struct fuzz_bytes input;
static struct rig_io slots[SLOTS];
static bool busy[SLOTS];
static uint64_t began_ns[SLOTS];
static uint8_t page[FAKE_PAGE];

static uint32_t word_take(void)
{
	const uint8_t how = fuzz_u8(&input);
	return how < 0xe0 ? how : how < 0xf0 ? fuzz_u16(&input) : how < 0xf8 ? UINT32_MAX - (how & 7) : fuzz_u32(&input);
}

/* ---- lies ---- */

static void twist(struct nvme_fake *fake, struct nvme_completion *completion)
{
	const uint8_t how = fuzz_u8(&input);
	if (how < 0xc0)
		return;
	const uint16_t value = (uint16_t)word_take();
	switch (how & 7) {
	case 0: completion->cid = le16_set(value); break;
	case 1: completion->sq_id = le16_set(value); break;
	case 2: completion->sq_head = le16_set(value); break;
	case 3: completion->status = le16_set(value); break;
	case 4: completion->dw0 = le32_set(word_take()); break;
	case 5: completion->status = le16_set((uint16_t)(le16_get(completion->status) ^ 1)); break;
	case 6: completion->status = le16_set((uint16_t)(value << 1 | (le16_get(completion->status) & 1))); break;
	default: fuzz_take(&input, completion, sizeof(*completion));
	}
}

static void patch(uint8_t *bytes, uint32_t length)
{
	const uint32_t at = fuzz_u16(&input) % length;
	const uint8_t count = fuzz_u8(&input) % 32;
	fuzz_take(&input, bytes + at, MIN((uint32_t)count, length - at));
}

static void garble(struct nvme_fake *fake, const struct nvme_command *command, uint8_t *bytes, uint32_t length)
{
	const uint8_t how = fuzz_u8(&input);
	if (how < 0xc0)
		return;
	if (how >= 0xf0)
		memset(bytes, how == 0xf0 ? 0xff : how, length);
	else
		for (unsigned i = 0; i <= (how & 3u); i++)
			patch(bytes, length);
}

/* Writes what stands in a completion queue, or in the shadow doorbells, over. */
static void scribble(struct nvme_fake *fake)
{
	const uint16_t qid = fuzz_u8(&input) % (FAKE_QUEUES_MAX + 1);
	if (qid == FAKE_QUEUES_MAX && fake->shadow)
		patch((uint8_t *)(fuzz_u8(&input) & 1 ? fake->shadow : fake->events), FAKE_PAGE);
	else if (fake->cqs[qid].on && !fake->gone && !fake->dma_off)
		patch((uint8_t *)(uintptr_t)fake->cqs[qid].iova, fake->cqs[qid].entries * (uint32_t)sizeof(struct nvme_completion));
}

/* A completion that nothing led to. */
static void post_take(struct nvme_fake *fake, uint16_t qid)
{
	const uint16_t cid = (uint16_t)word_take(), status = (uint16_t)word_take();
	if (fake->ready && fake->sqs[qid].on)
		fake_post(fake, qid, cid, status);
}

/* ---- the controller ---- */

static void rule_take(struct nvme_fake *fake)
{
	const uint8_t what = fuzz_u8(&input), count = fuzz_u8(&input);
	if (fake->rule_count == FAKE_RULES_MAX)
		return;
	fake_rule(fake, (struct fake_rule){
		.admin = what & 1,
		.opcode = what & 2 ? FAKE_ANY : fuzz_u8(&input) % 16,
		.selector = FAKE_ANY,
		.skip = count & 15,
		.count = count >> 4,
		.action = (what >> 2) % (FAKE_VANISH + 1),
		.status = (uint16_t)word_take(),
		.delay_ns = (uint64_t)fuzz_u8(&input) * 10 * NS_PER_MS,
		.resists_abort = what & 128,
	});
}

static void cap_take(struct nvme_fake *fake)
{
	switch (fuzz_u8(&input) % 6) {
	case 0: fake->cap = (fake->cap & ~0xffffull) | fuzz_u16(&input); break;
	case 1: fake->cap = (fake->cap & ~FIELD_SET(CAP_TO, 255)) | FIELD_SET(CAP_TO, fuzz_u8(&input)); break;
	case 2: fake->cap ^= 1ull << fuzz_u8(&input) % 64; break;
	case 3: fake->cap = fuzz_u64(&input); break;
	case 4: fake->version = fuzz_u32(&input); break;
	default: fake->cap = UINT64_MAX;
	}
	/* The model's own doorbells must lie in its registers; a larger stride is for the driver to refuse. */
	fake->doorbells_out_of_sight = nvme_cq_doorbell(FAKE_QUEUES_MAX, (unsigned)FIELD_GET(CAP_DSTRD, fake->cap)) >= FAKE_BAR_BYTES;
}

static void flags_take(struct nvme_fake *fake)
{
	const uint16_t flags = fuzz_u16(&input);
	bool *const knobs[] = {&fake->cache_refused, &fake->cache_unknown, &fake->no_active_list, &fake->no_descriptors,
		&fake->garbled_descriptors, &fake->never_ready, &fake->never_shuts_down, &fake->fatal_when_enabled, &fake->hold,
		&fake->shadow_awake, &rig.options.write_cache_off};
	for (unsigned i = 0; i < ARRAY_SIZE(knobs); i++)
		*knobs[i] = flags >> i & 1;
	fake->vanish_as = (flags >> 12) % 3;
	fake->io_queues = fuzz_u8(&input) % 8 ? 8 : fuzz_u16(&input);
}

static void controller_take(struct nvme_fake *fake)
{
	const unsigned changes = fuzz_u8(&input) % PATCHES_MAX;
	for (unsigned i = 0; i < changes; i++) {
		switch (fuzz_u8(&input) % 5) {
		case 0: cap_take(fake); break;
		case 1: patch((uint8_t *)&fake->identify, sizeof(fake->identify)); break;
		case 2: flags_take(fake); break;
		case 3: fake->identify.oacs = le16_set(NVME_OACS_DOORBELL_BUFFER); break;
		default: rule_take(fake);
		}
	}
}

/* What a reset or a change of namespaces brings. */
static void namespaces_take(struct nvme_fake *fake)
{
	struct fake_ns *ns = &fake->namespaces[1 + fuzz_u8(&input) % (FAKE_NS_MAX - 1)];
	const uint8_t what = fuzz_u8(&input);
	if (!ns->nsid)
		*ns = (struct fake_ns){.nsid = 1 + word_take(), .blocks = 64, .shift = 9 + what % 4};
	ns->inactive = what & 16;
	fake->namespaces[0].inactive = what & 32;
	fake->namespaces[0].boundary = what & 64 ? 8 : 0;
	fake->changed_ns[what % 16] = word_take();
}

static void register_set(struct nvme_fake *fake)
{
	static const uint32_t registers[] = {NVME_REG_CSTS, NVME_REG_CSTS, NVME_REG_CAP, NVME_REG_CAP + 4, NVME_REG_VS, NVME_REG_CC};
	const uint32_t reg = registers[fuzz_u8(&input) % ARRAY_SIZE(registers)], value = word_take();
	/* The model would take its queues from registers that nobody has written. */
	if (reg != NVME_REG_CC || (fake_get(fake, NVME_REG_ASQ) && fake_get(fake, NVME_REG_AQA)))
		fake_set(fake, reg, value);
}

/* ---- the driver's side ---- */

static void slot_submit(unsigned slot)
{
	static const uint8_t opcodes[] = {NVME_CMD_READ, NVME_CMD_WRITE, NVME_CMD_FLUSH, NVME_CMD_WRITE_ZEROES, NVME_CMD_DSM};
	const uint8_t opcode = opcodes[fuzz_u8(&input) % ARRAY_SIZE(opcodes)], blocks = fuzz_u8(&input) % (SLOT_BYTES / 512);
	if (busy[slot])
		return;
	busy[slot] = true;
	began_ns[slot] = reactor_now_ns();
	rig_io_submit(&slots[slot], opcode, fuzz_u8(&input), 1u + blocks);
}

static void slot_abort(unsigned slot)
{
	if (busy[slot])
		nvme_abort(nvme_ctrlr_qpair(rig.ctrlr), &slots[slot].request);
}

MAY_WAIT static void slots_wait(void)
{
	for (unsigned i = 0; i < SLOTS; i++) {
		if (busy[i])
			(void)rig_io_wait(&slots[i]);
		FUZZ_REQUIRE(slots[i].answers == busy[i], "slot %u: %u answers", i, slots[i].answers);
		FUZZ_REQUIRE(!busy[i] || slots[i].done_ns - began_ns[i] < ANSWER_S_MAX * NS_PER_SEC, "slot %u: an answer after %llu s", i,
			(unsigned long long)((slots[i].done_ns - began_ns[i]) / NS_PER_SEC));
		slots[i].answers = 0;
		busy[i] = false;
	}
}

MAY_WAIT static void ask(void)
{
	uint32_t dw0;
	const struct nvme_admin admin = {.command = {.opcode = FAKE_VENDOR_WRITE}, .data = page, .length = 512, .to_controller = true};
	switch (fuzz_u8(&input) % 4) {
	case 0: (void)!nvme_log_page_read(rig.ctrlr, fuzz_u8(&input), UINT32_MAX, page, 4 * (1 + fuzz_u8(&input))); break;
	case 1: (void)!nvme_identify(rig.ctrlr, fuzz_u8(&input), word_take(), page); break;
	case 2: (void)!nvme_admin_run(rig.ctrlr, &admin, &dw0); break;
	default: (void)!nvme_ctrlr_reset(rig.ctrlr);
	}
}

MAY_WAIT static void step(struct nvme_fake *fake)
{
	const uint8_t what = fuzz_u8(&input);
	switch (what % 16) {
	case 0: case 1: case 2: slot_submit(what / 16 % SLOTS); break;
	case 3: fiber_sleep((uint64_t)fuzz_u16(&input) * 10 * NS_PER_US); break;
	case 4: register_set(fake); break;
	case 5: post_take(fake, what / 16 % 4); break;
	case 6: scribble(fake); break;
	case 7: if (fake->ready) (void)fake_event(fake, word_take()); break;
	case 8: if (what == 0xf8) fake_vanish(fake); break;
	case 9: if (what == 0xf9) fake_fatal(fake); break;
	case 10: namespaces_take(fake); break;
	case 11: slots_wait(); break;
	case 12: ask(); break;
	case 13: slot_abort(what / 16 % SLOTS); break;
	case 14: rule_take(fake); break;
	default: fake->hold = what & 16; (void)fake_release(fake, what / 32, what & 128);
	}
}

MAY_WAIT static int run(void *arg)
{
	for (unsigned i = 0; i < STEPS_MAX && input.left > 0; i++) {
		step(&rig.fake);
		FUZZ_REQUIRE(nvme_ctrlr_ns_count(rig.ctrlr) <= NVME_NAMESPACES_MAX, "too many namespaces");
	}
	rig.fake.hold = false;
	(void)fake_release(&rig.fake, UINT32_MAX, false);
	slots_wait();
	return 0;
}

static void check_namespaces(void)
{
	for (unsigned i = 0; i < nvme_ctrlr_ns_count(rig.ctrlr); i++) {
		const struct nvme_ns_info *ns = nvme_ctrlr_ns_at(rig.ctrlr, i);
		FUZZ_REQUIRE(ns->nsid && nvme_ctrlr_ns(rig.ctrlr, ns->nsid), "namespace %u of %u", ns->nsid, i);
		FUZZ_REQUIRE(ns->refused || (ns->block_size >= 512 && !(ns->block_size & (ns->block_size - 1)) && ns->block_count &&
				ns->block_count <= INT64_MAX / ns->block_size),
			"a namespace of %llu blocks of %u bytes", (unsigned long long)ns->block_count, ns->block_size);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	input = fuzz_bytes_of(data, size);
	rig_init(&rig, 1, 1);
	rig.hostile = true;
	rig.fake.nonsense = true;
	rig.fake.stop_delay_ns = 0; /* it may say that it has stopped: then it has */
	rig.fake.twist = twist;
	rig.fake.garble = garble;
	rig.options.queue_depth = 2 + fuzz_u8(&input) % 16;
	rig.options.io_timeout_ns = rig.options.admin_timeout_ns = 300 * NS_PER_MS;
	controller_take(&rig.fake);
	for (unsigned i = 0; i < SLOTS; i++)
		rig_io_init(&slots[i], &rig, SLOT_BYTES);
	if (rig_attach(&rig) == 0) {
		check_namespaces();
		rig_run(&rig, 0, run, NULL);
	} else {
		FUZZ_REQUIRE(rig.message[0], "refused without a word");
	}
	rig_detach(&rig);
	for (unsigned i = 0; i < SLOTS; i++)
		rig_io_fini(&slots[i]);
	rig.fake.complaint[0] = '\0'; /* it knows no longer what it has said */
	rig_fini(&rig);
	return 0;
}
