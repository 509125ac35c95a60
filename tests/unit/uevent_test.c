/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Goal: what the kernel says about devices is understood; nothing that anybody else says is believed, and no bytes hurt.
 * Method: the parser gets its bytes in heap blocks of their exact size (a sanitizer sees a step too far); the socket gets
 * messages of our own, and one that the kernel is asked for through sysfs. Where the kernel or a sandbox does not permit
 * that, the test skips itself.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "reactor/log.h"
#include "reactor/uevent.h"

#define NVME_BIND                                                                                                    \
	"bind@/devices/pci0000:00/0000:00:02.0/0000:5e:00.0\0ACTION=bind\0DEVPATH=/devices/pci0000:00/0000:5e:00.0\0" \
	"SUBSYSTEM=pci\0DRIVER=vfio-pci\0PCI_CLASS=10802\0PCI_ID=1B36:0010\0PCI_SUBSYS_ID=1AF4:1100\0"                \
	"PCI_SLOT_NAME=0000:5e:00.0\0MODALIAS=pci:v00001B36d00000010\0SEQNUM=1234\0"
static const char nvme_bind[] = NVME_BIND; /* and one zero more, from the compiler: not part of the message */
enum { NVME_BIND_BYTES = sizeof(nvme_bind) - 1 };

/* What stands in @out when the parser fails must not change. */
static int parse(const char *bytes, size_t length, struct uevent *out)
{
	char *copy = malloc(length ? length : 1);
	struct uevent before;
	memset(out, 0x5A, sizeof(*out));
	before = *out;
	memcpy(copy, bytes, length);
	const int err = uevent_parse(copy, length, out);
	free(copy);
	if (err) {
		assert_int_equal(err, -EBADMSG);
		assert_memory_equal(&before, out, sizeof(before));
	}
	return err;
}

#define PARSE(text, out) parse(text, sizeof(text) - 1, out)

static void test_a_message_of_the_kernel_is_understood(void **state)
{
	struct uevent event;
	assert_int_equal(parse(nvme_bind, NVME_BIND_BYTES, &event), 0);
	assert_int_equal(event.action, UEVENT_BIND);
	assert_string_equal(event.subsystem, "pci");
	assert_string_equal(event.driver, "vfio-pci");
	assert_string_equal(event.pci_address, "0000:5e:00.0");
	assert_int_equal(event.pci_class, 0x010802);
}

static void test_every_action_is_known_and_others_are_other(void **state)
{
	struct uevent event;
	assert_int_equal(PARSE("add@/a\0", &event), 0);
	assert_int_equal(event.action, UEVENT_ADD);
	assert_int_equal(PARSE("remove@/a\0", &event), 0);
	assert_int_equal(event.action, UEVENT_REMOVE);
	assert_int_equal(PARSE("unbind@/a\0", &event), 0);
	assert_int_equal(event.action, UEVENT_UNBIND);
	assert_int_equal(PARSE("change@/a\0", &event), 0);
	assert_int_equal(event.action, UEVENT_CHANGE);
	assert_int_equal(PARSE("online@/a\0", &event), 0);
	assert_int_equal(event.action, UEVENT_OTHER);
	assert_int_equal(PARSE("addition@/a\0", &event), 0);
	assert_int_equal(event.action, UEVENT_OTHER);
}

static void test_what_is_not_said_is_empty(void **state)
{
	struct uevent event;
	assert_int_equal(PARSE("add@/devices/virtual/mem/null\0SUBSYSTEM=mem\0\0=\0DRIVER\0XDRIVER=a\0DRIVERS=b\0", &event), 0);
	assert_string_equal(event.subsystem, "mem");
	assert_string_equal(event.driver, "");
	assert_string_equal(event.pci_address, "");
	assert_int_equal(event.pci_class, 0);
}

static void test_a_bad_head_is_refused(void **state)
{
	struct uevent event;
	assert_int_equal(PARSE("", &event), -EBADMSG);
	assert_int_equal(PARSE("\0", &event), -EBADMSG);
	assert_int_equal(PARSE("\0add@/a\0", &event), -EBADMSG);
	assert_int_equal(PARSE("add\0SUBSYSTEM=pci\0", &event), -EBADMSG);
	assert_int_equal(PARSE("@/devices\0", &event), -EBADMSG);
	assert_int_equal(PARSE("add@\0", &event), -EBADMSG);
	assert_int_equal(PARSE("add@devices\0", &event), -EBADMSG);
	assert_int_equal(PARSE("ADD@/devices\0", &event), -EBADMSG);
	assert_int_equal(PARSE("libudev\0\xfe\xed\xca\xfe\0", &event), -EBADMSG);
}

static void test_a_message_without_an_end_is_refused(void **state)
{
	struct uevent event;
	assert_int_equal(PARSE("a", &event), -EBADMSG);
	assert_int_equal(PARSE("add@/a", &event), -EBADMSG);
	assert_int_equal(PARSE("add@/a\0SUBSYSTEM=pci", &event), -EBADMSG);
}

static void test_an_address_cannot_be_a_path(void **state)
{
	struct uevent event;
	assert_int_equal(PARSE("add@/a\0PCI_SLOT_NAME=../../etc\0", &event), -EBADMSG);
	assert_int_equal(PARSE("add@/a\0PCI_SLOT_NAME=..\0", &event), -EBADMSG);
	assert_int_equal(PARSE("add@/a\0PCI_SLOT_NAME=0000:5e:00.0\n\0", &event), -EBADMSG);
	assert_int_equal(PARSE("add@/a\0PCI_SLOT_NAME=0000:5e:00.0000000000\0", &event), -EBADMSG);
	assert_int_equal(PARSE("add@/a\0PCI_SLOT_NAME=123456789abcdef\0", &event), 0); /* as long as there is room */
	assert_string_equal(event.pci_address, "123456789abcdef");
	assert_int_equal(PARSE("add@/a\0PCI_SLOT_NAME=123456789abcdef0\0", &event), -EBADMSG);
}

static void test_a_class_is_a_number(void **state)
{
	struct uevent event;
	assert_int_equal(PARSE("add@/a\0PCI_CLASS=\0", &event), -EBADMSG);
	assert_int_equal(PARSE("add@/a\0PCI_CLASS=-1\0", &event), -EBADMSG);
	assert_int_equal(PARSE("add@/a\0PCI_CLASS= 10802\0", &event), -EBADMSG);
	assert_int_equal(PARSE("add@/a\0PCI_CLASS=0x10802\0", &event), -EBADMSG);
	assert_int_equal(PARSE("add@/a\0PCI_CLASS=123456789\0", &event), -EBADMSG);
	assert_int_equal(PARSE("add@/a\0PCI_CLASS=FFFFffff\0", &event), 0);
	assert_int_equal(event.pci_class, 0xFFFFFFFF);
}

static void test_a_name_that_does_not_fit_stays_empty(void **state)
{
	struct uevent event;
	assert_int_equal(PARSE("add@/a\0DRIVER=0123456789012345678901234567890\0", &event), 0);
	assert_int_equal(strlen(event.driver), UEVENT_DRIVER_BYTES - 1);
	assert_int_equal(PARSE("add@/a\0DRIVER=01234567890123456789012345678901\0", &event), 0);
	assert_string_equal(event.driver, "");
	assert_int_equal(PARSE("add@/a\0DRIVER=../nvme\0SUBSYSTEM=p\nci\0", &event), 0);
	assert_string_equal(event.driver, "");
	assert_string_equal(event.subsystem, "");
}

static void test_every_truncation_of_a_message_is_survived(void **state)
{
	struct uevent event;
	unsigned good = 0;
	for (size_t length = 0; length <= NVME_BIND_BYTES; length++) {
		const bool ends = length > 0 && nvme_bind[length - 1] == '\0';
		assert_int_equal(parse(nvme_bind, length, &event), ends ? 0 : -EBADMSG);
		good += ends;
	}
	assert_int_equal(good, 11); /* the head, and each line */
}

static void test_every_changed_byte_of_a_message_is_survived(void **state)
{
	char bytes[NVME_BIND_BYTES];
	struct uevent event;
	for (size_t at = 0; at < NVME_BIND_BYTES; at++) {
		for (unsigned value = 0; value < 256; value++) {
			memcpy(bytes, nvme_bind, sizeof(bytes));
			bytes[at] = (char)value;
			if (parse(bytes, sizeof(bytes), &event))
				continue;
			assert_true(strnlen(event.driver, sizeof(event.driver)) < sizeof(event.driver));
			assert_null(strchr(event.driver, '/'));
			assert_null(strchr(event.pci_address, '/'));
		}
	}
}

static void test_random_bytes_are_survived(void **state)
{
	char bytes[64];
	struct uevent event;
	srand(7);
	for (unsigned round = 0; round < 200000; round++) {
		const size_t length = (size_t)rand() % (sizeof(bytes) + 1);
		for (size_t i = 0; i < length; i++)
			bytes[i] = "\0@/=abPCI_CLASS"[rand() % 16];
		(void)!parse(bytes, length, &event);
	}
}

/* ---- the socket ---- */
static unsigned warnings;
static void count_warnings(enum log_level level, const char *line, void *arg) { warnings += level == LOG_LEVEL_WARN; }

static struct uevent_monitor *monitor_or_skip(void)
{
	struct uevent_monitor *monitor;
	const int err = uevent_monitor_open(&monitor);
	if (err == -EPERM || err == -EACCES || err == -EPROTONOSUPPORT || err == -EAFNOSUPPORT)
		skip();
	assert_int_equal(err, 0);
	return monitor;
}

static bool readable(struct uevent_monitor *monitor, int timeout_ms)
{
	struct pollfd poll_fd = {.fd = uevent_monitor_fd(monitor), .events = POLLIN};
	return poll(&poll_fd, 1, timeout_ms) == 1;
}

/* Other devices of the machine may speak at any time. */
static int next_of(struct uevent_monitor *monitor, const char *subsystem, struct uevent *out)
{
	for (;;) {
		const int err = uevent_monitor_next(monitor, out);
		if (err || !strcmp(out->subsystem, subsystem))
			return err;
	}
}

static uint32_t port_of(struct uevent_monitor *monitor)
{
	struct sockaddr_nl address;
	socklen_t length = sizeof(address);
	assert_int_equal(getsockname(uevent_monitor_fd(monitor), (struct sockaddr *)&address, &length), 0);
	return address.nl_pid;
}

static void test_a_quiet_socket_says_again(void **state)
{
	struct uevent_monitor *monitor = monitor_or_skip();
	struct uevent event;
	assert_true(fcntl(uevent_monitor_fd(monitor), F_GETFD) & FD_CLOEXEC);
	assert_int_equal(next_of(monitor, "none such", &event), -EAGAIN);
	uevent_monitor_close(monitor);
	uevent_monitor_close(NULL);
}

static void test_what_another_process_sends_is_not_believed(void **state)
{
	/* The device's name is one that no machine has, so that a real event cannot be taken for ours. */
	static const char text[] = "bind@/devices/x\0SUBSYSTEM=made-up\0PCI_SLOT_NAME=ffff:ff:1f.7\0";
	struct uevent_monitor *monitor = monitor_or_skip();
	const struct sockaddr_nl targets[] = {{.nl_family = AF_NETLINK, .nl_pid = port_of(monitor)},
		{.nl_family = AF_NETLINK, .nl_groups = 1}};
	struct uevent event;
	unsigned sent = 0;
	warnings = 0;
	log_set_sink(count_warnings, NULL);
	const int fd = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_KOBJECT_UEVENT);
	for (unsigned i = 0; fd >= 0 && i < 200; i++)
		sent += sendto(fd, text, sizeof(text) - 1, 0, (const struct sockaddr *)&targets[i % 2], sizeof(targets[0])) > 0;
	const bool arrived = readable(monitor, 100);
	int err = 0;
	/* A call looks at some of them only. */
	for (unsigned i = 0; i < 8; i++)
		err = next_of(monitor, "made-up", &event);
	log_set_sink(NULL, NULL);
	uevent_monitor_close(monitor);
	if (fd >= 0)
		close(fd);
	if (!sent || !arrived)
		skip();
	assert_int_equal(err, -EAGAIN);
	assert_int_equal(warnings, 1);
}

static void test_what_the_kernel_sends_is_believed(void **state)
{
	struct uevent_monitor *monitor = monitor_or_skip();
	struct uevent event;
	int err = -EAGAIN;
	const int fd = open("/sys/devices/virtual/mem/null/uevent", O_WRONLY | O_CLOEXEC);
	const bool asked = fd >= 0 && write(fd, "change", 6) == 6;
	for (unsigned i = 0; asked && err == -EAGAIN && i < 20; i++)
		if (readable(monitor, 100))
			err = next_of(monitor, "mem", &event);
	if (fd >= 0)
		close(fd);
	uevent_monitor_close(monitor);
	if (!asked || err == -EAGAIN) /* a container's network namespace may not hear of it */
		skip();
	assert_int_equal(err, 0);
	assert_int_equal(event.action, UEVENT_CHANGE);
	assert_string_equal(event.pci_address, "");
}

static void test_lost_messages_are_reported(void **state)
{
	struct uevent_monitor *monitor = monitor_or_skip();
	const int size = 1;
	struct uevent event;
	int err = 0;
	setsockopt(uevent_monitor_fd(monitor), SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
	const int fd = open("/sys/devices/virtual/mem/null/uevent", O_WRONLY | O_CLOEXEC);
	bool asked = fd >= 0;
	for (unsigned i = 0; asked && i < 100; i++)
		asked = write(fd, "change", 6) == 6;
	const bool arrived = asked && readable(monitor, 200);
	while (arrived && !err)
		err = uevent_monitor_next(monitor, &event);
	if (fd >= 0)
		close(fd);
	uevent_monitor_close(monitor);
	if (!arrived)
		skip();
	assert_int_equal(err, -ENOBUFS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_message_of_the_kernel_is_understood),
		cmocka_unit_test(test_every_action_is_known_and_others_are_other),
		cmocka_unit_test(test_what_is_not_said_is_empty),
		cmocka_unit_test(test_a_bad_head_is_refused),
		cmocka_unit_test(test_a_message_without_an_end_is_refused),
		cmocka_unit_test(test_an_address_cannot_be_a_path),
		cmocka_unit_test(test_a_class_is_a_number),
		cmocka_unit_test(test_a_name_that_does_not_fit_stays_empty),
		cmocka_unit_test(test_every_truncation_of_a_message_is_survived),
		cmocka_unit_test(test_every_changed_byte_of_a_message_is_survived),
		cmocka_unit_test(test_random_bytes_are_survived),
		cmocka_unit_test(test_a_quiet_socket_says_again),
		cmocka_unit_test(test_what_another_process_sends_is_not_believed),
		cmocka_unit_test(test_what_the_kernel_sends_is_believed),
		cmocka_unit_test(test_lost_messages_are_reported),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
