/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Goal: no sequence of messages on /dev/fuse, whatever lengths, numbers and flags they have, brings the front end or the
 * filesystem behind it down; each request that wants an answer gets exactly one, well formed and of the size that its
 * opcode asks for; and the filesystem is sound afterwards, as fsck sees it.
 * Method: the front end on one end of a socket pair that keeps messages apart, over a filesystem on simulated reactors; the
 * other end is the kernel (fuzz_fuse.h).
 *
 * Covers: fs/fuse/front_answer.c fs/fuse/front_attr.c fs/fuse/front_data.c fs/fuse/front_decode.c fs/fuse/front_dev.c
 *   fs/fuse/front_dev_answer.c fs/fuse/front_dev_spare.c fs/fuse/front_dispatch.c fs/fuse/front_hold.c fs/fuse/front_ioctl.c
 *   fs/fuse/front_names.c fs/fuse/front_negotiate.c fs/fuse/front_payload.c fs/fuse/fuse_front.c
 * Length: 1500
 * Runs: 400
 */
#include "tests/fuzz/fuzz_fuse.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct fuzz_fuse_way only_socket;
	fuzz_fuse_run(&only_socket, data, size);
	return 0;
}
