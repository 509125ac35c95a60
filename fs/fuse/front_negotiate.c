/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * INIT: what is switched on, always masked by what the kernel offers.
 *
 * Left off on purpose:
 *   SPLICE_*              copying is faster (measured: 0.26-0.75x)
 *   AUTO_INVAL_DATA       nobody else changes the files; EXPLICIT_INVAL_DATA keeps the page cache
 *   POSIX_LOCKS, FLOCK    locks stay in the kernel
 *   CREATE_SUPP_GROUP, SECURITY_CTX   messages then carry extensions
 *   HAS_RESEND            requests sent twice are not recognised
 *   HANDLE_KILLPRIV       V2 says more, and the kernel then stops asking for security.capability at every write
 *
 * POSIX_ACL: the kernel checks and caches access ACLs, and forgets them after each SETATTR, SETXATTR and REMOVEXATTR of its
 * own; nothing else changes them. DONT_MASK goes with it: only who knows the directory's default ACL knows whether the
 * umask counts.
 */
#include <errno.h>

#include "fs/fuse/front_request.h"
#include "reactor/log.h"

struct feature {
	uint64_t flag;
	const char *name;
};

static const struct feature features[] = {
	{FUSE_ASYNC_READ, "async_read"},
	{FUSE_ASYNC_DIO, "async_dio"},
	{FUSE_BIG_WRITES, "big_writes"},
	{FUSE_MAX_PAGES, "max_pages"},
	{FUSE_PARALLEL_DIROPS, "parallel_dirops"},
	{FUSE_DO_READDIRPLUS, "readdirplus"},
	{FUSE_READDIRPLUS_AUTO, "readdirplus_auto"},
	{FUSE_HANDLE_KILLPRIV_V2, "handle_killpriv_v2"},
	{FUSE_CACHE_SYMLINKS, "cache_symlinks"},
	{FUSE_EXPLICIT_INVAL_DATA, "explicit_inval_data"},
	{FUSE_EXPORT_SUPPORT, "export_support"},
	{FUSE_HAS_IOCTL_DIR, "ioctl_dir"},
	{FUSE_HAS_EXPIRE_ONLY, "expire_only"},
	{FUSE_NO_OPENDIR_SUPPORT, "no_opendir"},
	{FUSE_SETXATTR_EXT, "setxattr_ext"},
	{FUSE_POSIX_ACL, "posix_acl"},
	{FUSE_DONT_MASK, "dont_mask"},
	{FUSE_INIT_EXT, "init_ext"},
	{WIRE_DIRECT_IO_ALLOW_MMAP, "direct_io_allow_mmap"},
	/* By option. */
	{FUSE_ATOMIC_O_TRUNC, "atomic_o_trunc"},
	{FUSE_NO_OPEN_SUPPORT, "no_open"},
	{FUSE_WRITEBACK_CACHE, "writeback_cache"},
	{WIRE_OVER_IO_URING, "over_io_uring"},
};

static uint64_t features_wanted(const struct front_session *session)
{
	uint64_t wanted = 0;
	for (size_t i = 0; i < ARRAY_SIZE(features); i++)
		wanted |= features[i].flag;
	/* With ENOSYS to OPEN nobody would truncate for open(O_TRUNC): the kernel must do it by SETATTR. */
	wanted &= session->noopen ? ~(uint64_t)FUSE_ATOMIC_O_TRUNC : ~(uint64_t)FUSE_NO_OPEN_SUPPORT;
	if (!session->writeback)
		wanted &= ~(uint64_t)FUSE_WRITEBACK_CACHE;
	if (!session->ring)
		wanted &= ~WIRE_OVER_IO_URING;
	return wanted;
}

unsigned front_feature_names(uint64_t flags, const char *names[FUSE_FRONT_FEATURES_MAX])
{
	unsigned count = 0;
	for (size_t i = 0; i < ARRAY_SIZE(features); i++)
		if (flags & features[i].flag)
			names[count++] = features[i].name;
	return count;
}

int front_negotiate(struct front_session *session, const struct fuse_init_in *in, bool extended,
	struct fuse_init_out *out)
{
	if (in->major != FUSE_KERNEL_VERSION || in->minor < WIRE_MINOR_MIN) {
		log_error("fuse: the kernel speaks protocol %u.%u; %u.%u or newer is needed (Linux 5.4)", in->major,
			in->minor, FUSE_KERNEL_VERSION, WIRE_MINOR_MIN);
		return -EPROTO;
	}
	uint64_t offered = in->flags;
	if (extended && (in->flags & FUSE_INIT_EXT))
		offered |= (uint64_t)in->flags2 << 32;
	uint64_t agreed = offered & features_wanted(session);

	session->kernel_minor = in->minor;
	session->minor = MIN(in->minor, WIRE_MINOR);
	session->offered = offered;
	session->negotiated = agreed;
	session->max_readahead = in->max_readahead;
	session->dialect.setxattr_ext = agreed & FUSE_SETXATTR_EXT;
	*out = (struct fuse_init_out){
		.major = FUSE_KERNEL_VERSION,
		.minor = session->minor,
		.max_readahead = in->max_readahead,
		.flags = (uint32_t)agreed,
		.flags2 = (uint32_t)(agreed >> 32),
		.max_background = (uint16_t)session->max_background,
		.congestion_threshold = (uint16_t)(session->max_background * 3 / 4),
		.max_write = WIRE_WRITE_BYTES_MAX,
		.max_pages = WIRE_PAGES_MAX,
		.time_gran = 1,
	};
	return 0;
}

/* ---- what another front end has negotiated ---- */

void front_go_on(struct front_session *session, const struct fuse_front_agreement *agreement)
{
	session->kernel_minor = agreement->kernel_minor;
	session->minor = agreement->minor;
	session->offered = agreement->offered;
	session->negotiated = agreement->negotiated;
	session->max_readahead = agreement->max_readahead;
	session->dialect.setxattr_ext = agreement->negotiated & FUSE_SETXATTR_EXT;
	atomic_store(&session->suid_seen, agreement->suid_seen);
	session->ready = true;
}

void front_agreement(const struct front_session *session, struct fuse_front_agreement *out)
{
	*out = (struct fuse_front_agreement){
		.kernel_minor = session->kernel_minor,
		.minor = session->minor,
		.max_readahead = session->max_readahead,
		.max_write = WIRE_WRITE_BYTES_MAX,
		.offered = session->offered,
		.negotiated = session->negotiated,
		.suid_seen = atomic_load(&session->suid_seen),
	};
}

bool front_knows(const struct front_session *session, const struct fuse_front_agreement *agreement)
{
	return agreement->minor >= WIRE_MINOR_MIN && agreement->minor <= WIRE_MINOR &&
		agreement->max_write <= WIRE_WRITE_BYTES_MAX && !(agreement->negotiated & ~features_wanted(session));
}
