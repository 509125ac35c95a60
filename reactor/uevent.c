/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The netlink socket, who is believed on it, and the parser.
 *
 * Anybody with CAP_NET_ADMIN in the network namespace can send to the group, and what is believed here moves devices. So
 * three marks that the kernel sets itself must agree (see message_is_the_kernels), and even then the text is parsed as if
 * it came from a stranger: an address is made of hexadecimal digits, colons and a dot, since it becomes part of a path.
 */
#include "reactor/uevent.h"

#include <errno.h>
#include <linux/netlink.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "reactor/log.h"

enum {
	KERNEL_GROUP = 1,             /* group 2 is udev's */
	RECEIVE_BUFFER_BYTES = 1 << 20,
	DROPPED_PER_CALL_MAX = 64,    /* then the caller polls again: a flood must not hold its thread */
};

struct uevent_monitor {
	int fd;
	uint64_t dropped; /* not believed, cut or not understood */
	char bytes[UEVENT_BYTES_MAX];
};

static int socket_prepare(int fd)
{
	const int on = 1, size = RECEIVE_BUFFER_BYTES;
	const struct sockaddr_nl address = {.nl_family = AF_NETLINK, .nl_groups = KERNEL_GROUP};
	if (setsockopt(fd, SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)))
		return -errno;
	/* More room for bursts where that is allowed; what does not fit is reported as lost in any case. */
	if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size)) &&
		setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size)))
		log_debug("uevents: small receive buffer: %s", strerror(errno));
	return bind(fd, (const struct sockaddr *)&address, sizeof(address)) ? -errno : 0;
}

int uevent_monitor_open(struct uevent_monitor **out)
{
	struct uevent_monitor *monitor = calloc(1, sizeof(*monitor));
	if (!monitor)
		return -ENOMEM;
	monitor->fd = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_KOBJECT_UEVENT);
	int err = monitor->fd < 0 ? -errno : socket_prepare(monitor->fd);
	if (err) {
		uevent_monitor_close(monitor);
		return err;
	}
	*out = monitor;
	return 0;
}

void uevent_monitor_close(struct uevent_monitor *monitor)
{
	if (!monitor)
		return;
	if (monitor->fd >= 0)
		close(monitor->fd);
	free(monitor);
}

int uevent_monitor_fd(const struct uevent_monitor *monitor) { return monitor->fd; }

/* Port 0 is the kernel's; the group is set on what was sent to all (a message to our own port has none); the credentials
 * are those of the process that sent, and the kernel is none. */
static bool message_is_the_kernels(struct msghdr *message)
{
	const struct sockaddr_nl *sender = message->msg_name;
	if (message->msg_namelen != sizeof(*sender) || sender->nl_family != AF_NETLINK || sender->nl_pid != 0)
		return false;
	if (!(sender->nl_groups & KERNEL_GROUP))
		return false;
	for (struct cmsghdr *part = CMSG_FIRSTHDR(message); part; part = CMSG_NXTHDR(message, part)) {
		if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_CREDENTIALS)
			continue;
		struct ucred credentials;
		if (part->cmsg_len != CMSG_LEN(sizeof(credentials)))
			return false;
		memcpy(&credentials, CMSG_DATA(part), sizeof(credentials));
		return credentials.uid == 0 && credentials.pid == 0;
	}
	return false;
}

/* One message: 0, -EBADMSG (dropped), -EAGAIN, -ENOBUFS, another errno of the socket. */
static int monitor_receive(struct uevent_monitor *monitor, struct uevent *out)
{
	struct sockaddr_nl sender = {};
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(struct ucred))];
	} control = {};
	struct iovec text = {.iov_base = monitor->bytes, .iov_len = sizeof(monitor->bytes)};
	struct msghdr message = {.msg_name = &sender, .msg_namelen = sizeof(sender), .msg_iov = &text, .msg_iovlen = 1,
		.msg_control = &control, .msg_controllen = sizeof(control)};
	const ssize_t length = recvmsg(monitor->fd, &message, MSG_DONTWAIT);
	if (length < 0)
		return errno == EINTR ? -EAGAIN : -errno;
	if ((message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) || !message_is_the_kernels(&message))
		return -EBADMSG;
	return uevent_parse(monitor->bytes, (size_t)length, out);
}

int uevent_monitor_next(struct uevent_monitor *monitor, struct uevent *out)
{
	for (unsigned i = 0; i < DROPPED_PER_CALL_MAX; i++) {
		const int err = monitor_receive(monitor, out);
		if (err != -EBADMSG)
			return err;
		if (monitor->dropped++ == 0)
			log_warn("uevents: dropped one that the kernel did not send, or that is cut (said once)");
	}
	return -EAGAIN;
}

/* ---- the parser ---- */
static enum uevent_action action_parse(const char *text, size_t length)
{
	static const char *const names[] = {[UEVENT_ADD] = "add", [UEVENT_REMOVE] = "remove", [UEVENT_BIND] = "bind",
		[UEVENT_UNBIND] = "unbind", [UEVENT_CHANGE] = "change"};
	for (unsigned i = 0; i < ARRAY_SIZE(names); i++)
		if (strlen(names[i]) == length && !memcmp(names[i], text, length))
			return (enum uevent_action)i;
	return UEVENT_OTHER;
}

/* "action@/devices/..." */
static int head_parse(const char *head, struct uevent *out)
{
	const size_t length = strspn(head, "abcdefghijklmnopqrstuvwxyz");
	if (length == 0 || head[length] != '@' || head[length + 1] != '/')
		return -EBADMSG;
	out->action = action_parse(head, length);
	return 0;
}

/* A name that does not fit, or could not be part of a path or a line, is none that is known here: it stays empty. */
static void name_copy(const char *value, char *out, size_t size)
{
	const size_t length = strlen(value);
	bool fits = length < size;
	for (size_t i = 0; fits && i < length; i++)
		fits = value[i] >= ' ' && value[i] <= '~' && value[i] != '/';
	memcpy(out, value, fits ? length : 0);
	out[fits ? length : 0] = '\0';
}

static int address_copy(const char *value, char out[UEVENT_ADDRESS_BYTES])
{
	const size_t length = strlen(value);
	if (length >= UEVENT_ADDRESS_BYTES || strspn(value, "0123456789abcdefABCDEF:.") != length || strstr(value, ".."))
		return -EBADMSG;
	memcpy(out, value, length + 1);
	return 0;
}

/* "10802", without 0x. */
static int class_parse(const char *value, uint32_t *out)
{
	const size_t length = strspn(value, "0123456789abcdefABCDEF");
	if (length == 0 || length > 8 || value[length] != '\0')
		return -EBADMSG;
	*out = (uint32_t)strtoul(value, NULL, 16);
	return 0;
}

static const char *value_of(const char *line, const char *key)
{
	const size_t length = strlen(key);
	return !strncmp(line, key, length) && line[length] == '=' ? line + length + 1 : NULL;
}

static int line_parse(const char *line, struct uevent *out)
{
	const char *value;
	if ((value = value_of(line, "SUBSYSTEM")))
		name_copy(value, out->subsystem, sizeof(out->subsystem));
	else if ((value = value_of(line, "DRIVER")))
		name_copy(value, out->driver, sizeof(out->driver));
	else if ((value = value_of(line, "PCI_SLOT_NAME")))
		return address_copy(value, out->pci_address);
	else if ((value = value_of(line, "PCI_CLASS")))
		return class_parse(value, &out->pci_class);
	return 0;
}

int uevent_parse(const char *bytes, size_t length, struct uevent *out)
{
	struct uevent event = {};
	/* With a zero at the end every line inside is a string. */
	if (length == 0 || bytes[length - 1] != '\0')
		return -EBADMSG;
	int err = head_parse(bytes, &event);
	for (size_t at = strlen(bytes) + 1; !err && at < length; at += strlen(bytes + at) + 1)
		err = line_parse(bytes + at, &event);
	if (!err)
		*out = event;
	return err;
}
