/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The verifiers of all block types. Input: byte 0 chooses a good block (enum sample), byte 1 whether the checksum is made good
 * again (bit 0), then patches: offset (2 bytes), length - 1 (1 byte, below 32 counts), the bytes.
 * No verifier reads outside of the block, whatever stands in it; a block without a checksum that fits is never good.
 * Covers: fs/verify.c fs/verify_inode.c fs/verify_records.c fs/verify_super.c
 */
#include <string.h>

#include "tests/fuzz/fuzz.h"
#include "tests/unit/verify_samples.h"

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	FUZZ_REQUIRE(samples_init() == 0, "no samples");
	return 0;
}

static void patch(uint8_t *block, const uint8_t *data, size_t size)
{
	while (size >= 4) {
		const size_t at = (data[0] | (size_t)data[1] << 8) % FS_BLOCK_SIZE;
		const size_t count = MIN(MIN((size_t)1 + data[2] % 32, size - 3), FS_BLOCK_SIZE - at);
		memcpy(block + at, data + 3, count);
		data += 3 + count;
		size -= 3 + count;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 2)
		return -1;
	const enum sample sample = data[0] % SAMPLE_COUNT;
	/* On the heap and no longer than the block, so that a read behind it is seen. */
	uint8_t *block = aligned_alloc(8, FS_BLOCK_SIZE);
	sample_fill(sample, block);
	patch(block, data + 2, size - 2);
	if (data[1] & 1)
		block_seal(block, le64_get(((struct block_header *)block)->sequence));
	const char *bad = block_verify(&sample_image.super, block, sample_place(sample), sample_type(sample), BLOCK_OWNER_ANY, true);
	const uint32_t crc = le32_get(((struct block_header *)block)->crc);
	FUZZ_REQUIRE(bad || crc == block_crc(block), "a block with a wrong checksum is good");
	free(block);
	return 0;
}
