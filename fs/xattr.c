/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Names and searching, and the operations that read: get and list.
 */
#include "fs/xattr.h"

#include "fs/op.h"

static const struct prefix {
	const char *text;
	unsigned length;
	enum xattr_namespace namespace;
} prefixes[] = {
	{"user.", 5, XATTR_USER},
	{"trusted.", 8, XATTR_TRUSTED},
	{"security.", 9, XATTR_SECURITY},
	{"system.", 7, XATTR_SYSTEM},
};

static bool name_is(const struct xattr_name *name, const char *text)
{
	return name->length == strlen(text) && !memcmp(name->bytes, text, name->length);
}

int xattr_name_parse(struct fs_name name, struct xattr_name *out)
{
	for (unsigned i = 0; i < ARRAY_SIZE(prefixes); i++) {
		const struct prefix *prefix = &prefixes[i];
		if (name.length < prefix->length || memcmp(name.bytes, prefix->text, prefix->length))
			continue;
		out->namespace = prefix->namespace;
		out->bytes = name.bytes + prefix->length;
		out->length = name.length - prefix->length;
		if (!out->length || memchr(out->bytes, 0, out->length))
			return -EINVAL;
		if (out->length > FS_NAME_MAX)
			return -ERANGE;
		const bool acl = name_is(out, XATTR_ACL_ACCESS) || name_is(out, XATTR_ACL_DEFAULT);
		return out->namespace == XATTR_SYSTEM && !acl ? -EOPNOTSUPP : 0;
	}
	return -EOPNOTSUPP;
}

/* ---- searching ---- */

MAY_WAIT static int area_block(struct inode *inode, struct xattr_area *area, uint64_t block)
{
	if (!block) {
		area->records = NULL;
		return 0;
	}
	if (++area->index > XATTR_CHAIN_MAX)
		return fs_corrupt(inode->owner->fs, block, "next");
	const int error = buf_get(inode->owner, block, BLOCK_XATTR, inode->ino, &area->buf);
	if (error)
		return error;
	const struct xattr_block *xattrs = (const struct xattr_block *)area->buf->data;
	area->records = xattrs->records;
	area->bytes = le16_get(xattrs->bytes);
	return 0;
}

void xattr_area_first(struct inode *inode, struct xattr_area *area)
{
	*area = (struct xattr_area){.records = xattr_fork_records(inode), .bytes = inode->disk.xattr_bytes};
}

void xattr_area_put(struct inode *inode, struct xattr_area *area)
{
	if (area->buf)
		buf_put(inode->owner, area->buf);
	area->buf = NULL;
}

MAY_WAIT int xattr_area_next(struct inode *inode, struct xattr_area *area)
{
	const uint64_t next =
		le64_get(area->buf ? ((const struct xattr_block *)area->buf->data)->next : inode->disk.xattr_block);

	xattr_area_put(inode, area);
	return area_block(inode, area, next);
}

unsigned xattr_area_find(const struct xattr_area *area, struct xattr_name name)
{
	unsigned at = 0;

	while (at < area->bytes) {
		const struct disk_xattr *record = xattr_record(area, at);
		if (record->namespace == name.namespace && record->name_length == name.length &&
			!memcmp(record->name, name.bytes, name.length))
			break;
		at += xattr_record_bytes(record);
	}
	return at;
}

/* ---- get ---- */

/* Reads a value from its blocks. @blocks is not in a block that may leave the cache. */
MAY_WAIT static int value_read(struct inode *inode, const le64_t *blocks, uint8_t *value, uint32_t length)
{
	uint32_t done = 0;

	for (uint32_t i = 0; done < length; i++) {
		const uint32_t bytes = MIN(length - done, (uint32_t)FS_XATTR_VALUE_BLOCK_BYTES);
		struct buf *buf;
		const int error = buf_get(inode->owner, le64_get(blocks[i]), BLOCK_XATTR_VALUE, inode->ino, &buf);
		if (error)
			return error;
		const struct xattr_value_block *block = (const struct xattr_value_block *)buf->data;
		const bool good = le32_get(block->index) == i && le32_get(block->bytes) == bytes;
		if (good)
			memcpy(value + done, block->data, bytes);
		buf_put(inode->owner, buf);
		if (!good)
			return fs_corrupt(inode->owner->fs, le64_get(blocks[i]), "xattr value: index or bytes");
		done += bytes;
	}
	return 0;
}

/* The record was found: takes what is needed out of it, and lets it go before it waits. */
MAY_WAIT static int record_read(struct inode *inode, struct xattr_area *area, unsigned at, void *value, uint32_t size,
	uint32_t *out_length)
{
	const struct disk_xattr *record = xattr_record(area, at);
	const uint32_t length = le32_get(record->value_length);
	le64_t blocks[XATTR_VALUE_BLOCKS_MAX];
	int error = size && size < length ? -ERANGE : 0;

	*out_length = length;
	const unsigned block_count = xattr_value_blocks(length);
	if (!error && size && block_count)
		memcpy(blocks, xattr_payload(record), block_count * sizeof(*blocks));
	else if (!error && size && length)
		memcpy(value, xattr_payload(record), length);
	xattr_area_put(inode, area);
	if (!error && size && block_count)
		error = value_read(inode, blocks, value, length);
	return error;
}

MAY_WAIT int xattr_get(struct inode *inode, struct xattr_name name, void *value, uint32_t size, uint32_t *out_length)
{
	struct xattr_area area;
	int error = 0;

	xattr_area_first(inode, &area);
	while (!error && area.records) {
		const unsigned at = xattr_area_find(&area, name);
		if (at < area.bytes)
			return record_read(inode, &area, at, value, size, out_length);
		error = xattr_area_next(inode, &area);
	}
	return error ? error : -ENODATA;
}

MAY_WAIT int fs_xattr_get(struct fs *fs, uint64_t ino, struct fs_name name, void *value, uint32_t size,
	uint32_t *out_length)
{
	struct inode_lock lock = {.ino = ino};
	struct xattr_name parsed;
	int error = xattr_name_parse(name, &parsed);

	if (!error)
		error = inode_lock_many(fs, &lock, 1);
	if (error)
		return error;
	error = xattr_get(lock.inode, parsed, value, size, out_length);
	inode_unlock_many(fs, &lock, 1);
	return error;
}

/* ---- list ---- */

static const struct prefix *prefix_of(unsigned namespace)
{
	for (unsigned i = 0; i < ARRAY_SIZE(prefixes); i++)
		if (prefixes[i].namespace == namespace)
			return &prefixes[i];
	assert(!"a namespace that no verifier lets through");
	return NULL;
}

struct listing {
	char *buffer;
	uint32_t size, length;
	bool trusted; /* the caller may know of these */
};

/* Adds a name; what does not fit is only counted. */
static void list_record(struct listing *listing, const struct disk_xattr *record)
{
	const struct prefix *prefix = prefix_of(record->namespace);
	const unsigned bytes = prefix->length + record->name_length + 1;
	const uint32_t before = listing->length;
	if (record->namespace == XATTR_TRUSTED && !listing->trusted)
		return;
	listing->length += bytes;
	if (listing->length > listing->size)
		return;
	char *at = listing->buffer + before;
	memcpy(at, prefix->text, prefix->length);
	memcpy(at + prefix->length, record->name, record->name_length);
	at[bytes - 1] = 0;
}

MAY_WAIT static int list_all(struct inode *inode, struct listing *listing)
{
	struct xattr_area area;
	int error = 0;

	xattr_area_first(inode, &area);
	while (!error && area.records) {
		for (unsigned at = 0; at < area.bytes; at += xattr_record_bytes(xattr_record(&area, at)))
			list_record(listing, xattr_record(&area, at));
		error = xattr_area_next(inode, &area);
	}
	return error || !listing->size || listing->length <= listing->size ? error : -ERANGE;
}

MAY_WAIT int fs_xattr_list(struct fs *fs, uint64_t ino, const struct fs_cred *cred, char *buffer, uint32_t size,
	uint32_t *out_length)
{
	struct listing listing = {.buffer = buffer, .size = size, .trusted = cred->privileged};
	struct inode_lock lock = {.ino = ino};
	int error = inode_lock_many(fs, &lock, 1);

	if (error)
		return error;
	error = list_all(lock.inode, &listing);
	*out_length = listing.length;
	inode_unlock_many(fs, &lock, 1);
	return error;
}
