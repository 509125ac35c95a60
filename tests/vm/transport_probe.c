/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A controller driven by hand over a PCI transport: registers, DMA memory, interrupts, leaving. It is what
 * tests/vm/guest/transport.py runs in a machine with emulated devices; by hand it shows whether a real device works
 * with lanefs:
 *
 *     transport_probe vfio|uio ADDRESS exchange     Identify and a read, by interrupts where there are any; twice
 *     transport_probe vfio|uio ADDRESS memory       memory taken and given back before and after the device was opened
 *     transport_probe vfio|uio ADDRESS hold         the same; then until it is wanted, a line on stdin, or 120 s
 *
 * One "ok" or "not ok" line per claim, "# " before everything else; ends with 1 when a claim failed or the device was
 * refused. Nothing is written to the device.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "nvme/transport.h"
#include "reactor/memory.h"

enum { PAGE = 4096, ENTRIES = 32, WAIT_MS = 10000, HOLD_MS = 120000, BLOCK_MIB = 8, RELEASE_SLOW_MS = 1000 };

static bool failed;

static bool claim(bool holds, const char *what)
{
	printf("%s - %s\n", holds ? "ok" : "not ok", what);
	failed |= !holds;
	return holds;
}

static uint64_t now_ms(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static void nap(void) { nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL); }

/* ---- a queue pair, one command at a time ---- */
struct queue {
	struct nvme_command *commands;
	struct nvme_completion *completions;
	uint16_t id, tail, head;
	bool phase;
	unsigned interrupts; /* that came */
};
struct probe {
	struct nvme_transport *transport;
	struct queue admin, io;
	unsigned stride;
	char *data;          /* one page */
};

static bool queue_create(struct queue *queue, uint16_t id)
{
	*queue = (struct queue){.id = id, .phase = true};
	queue->commands = dma_zalloc(ENTRIES * sizeof(struct nvme_command), PAGE);
	queue->completions = dma_zalloc(ENTRIES * sizeof(struct nvme_completion), PAGE);
	return queue->commands && queue->completions;
}

static void queue_destroy(struct queue *queue)
{
	dma_free(queue->commands);
	dma_free(queue->completions);
}

static bool completed(const struct queue *queue)
{
	const volatile uint16_t *status = &queue->completions[queue->head].status.raw;
	return (le16toh(*status) & 1) == queue->phase;
}

/* Where there are interrupts the completion queue is looked at only when its eventfd says so. */
static bool completion_wait(struct probe *probe, struct queue *queue)
{
	const int fd = probe->transport->ops->interrupt_fd(probe->transport, queue->id);
	const uint64_t end = now_ms() + WAIT_MS;
	while (fd < 0 && !completed(queue) && now_ms() < end)
		nap();
	struct pollfd interrupt = {.fd = fd, .events = POLLIN};
	uint64_t count;
	if (fd >= 0 && poll(&interrupt, 1, WAIT_MS) == 1 && read(fd, &count, sizeof(count)) == sizeof(count))
		queue->interrupts++;
	return completed(queue);
}

/* Sends it and waits; the status field, or -1: nothing came. */
static int command_run(struct probe *probe, struct queue *queue, struct nvme_command command)
{
	command.cid = le16_set(queue->tail);
	queue->commands[queue->tail] = command;
	queue->tail = (uint16_t)((queue->tail + 1) % ENTRIES);
	atomic_thread_fence(memory_order_seq_cst);
	nvme_write32(probe->transport, nvme_sq_doorbell(queue->id, probe->stride), queue->tail);
	if (!completion_wait(probe, queue))
		return -1;
	const int status = le16_get(queue->completions[queue->head].status) >> 1;
	queue->head = (uint16_t)((queue->head + 1) % ENTRIES);
	queue->phase ^= queue->head == 0;
	nvme_write32(probe->transport, nvme_cq_doorbell(queue->id, probe->stride), queue->head);
	return status;
}

/* ---- the controller ---- */
static bool status_wait(struct probe *probe, uint32_t mask, uint32_t wanted)
{
	const uint64_t end = now_ms() + WAIT_MS;
	while ((nvme_read32(probe->transport, NVME_REG_CSTS) & mask) != wanted && now_ms() < end)
		nap();
	return (nvme_read32(probe->transport, NVME_REG_CSTS) & mask) == wanted;
}

static bool controller_start(struct probe *probe)
{
	struct nvme_transport *transport = probe->transport;
	const uint64_t cap = nvme_read64(transport, NVME_REG_CAP);
	const uint32_t version = nvme_read32(transport, NVME_REG_VS);
	printf("# CAP %#llx, VS %#x, BAR %zu KiB, %u interrupts\n", (unsigned long long)cap, version,
		transport->bar_bytes >> 10, transport->interrupts_max);
	probe->stride = (unsigned)FIELD_GET(CAP_DSTRD, cap);
	const bool known = cap != 0 && cap != UINT64_MAX && FIELD_GET(CAP_CSS_NVM, cap) && version >> 16 >= 1 &&
		version >> 16 <= 2;
	if (!claim(known, "its registers are those of an NVMe controller"))
		return false;
	claim(!FIELD_GET(CC_EN, nvme_read32(transport, NVME_REG_CC)) && status_wait(probe, 1, 0), "it was handed over stopped");
	probe->data = dma_zalloc(PAGE, PAGE);
	if (!queue_create(&probe->admin, 0) || !queue_create(&probe->io, 1) || !probe->data)
		return claim(false, "there is memory");
	nvme_write32(transport, NVME_REG_AQA,
		(uint32_t)(FIELD_SET(AQA_ASQS, ENTRIES - 1) | FIELD_SET(AQA_ACQS, ENTRIES - 1)));
	nvme_write64(transport, NVME_REG_ASQ, dma_iova(probe->admin.commands));
	nvme_write64(transport, NVME_REG_ACQ, dma_iova(probe->admin.completions));
	nvme_write32(transport, NVME_REG_CC,
		(uint32_t)(FIELD_SET(CC_EN, 1) | FIELD_SET(CC_IOSQES, 6) | FIELD_SET(CC_IOCQES, 4)));
	return claim(status_wait(probe, 1, 1), "it becomes ready");
}

static bool identify_into(struct probe *probe, char *page)
{
	memset(page, 0, PAGE);
	const int status = command_run(probe, &probe->admin, (struct nvme_command){.opcode = NVME_ADMIN_IDENTIFY,
		.prp1 = le64_set(dma_iova(page)), .cdw10 = le32_set(NVME_CNS_CTRLR)});
	const struct nvme_id_ctrlr *id = (const struct nvme_id_ctrlr *)page;
	if (status == 0)
		printf("# model %.40s, serial %.20s\n", id->mn, id->sn);
	else
		printf("# status %d\n", status);
	return status == 0 && le16_get(id->vid) != 0 && id->mn[0] > ' ';
}

/* One I/O queue pair on vector 1, and one block through it. */
static void block_read(struct probe *probe)
{
	const bool interrupts = probe->transport->interrupts_max > 1;
	const uint32_t size = (ENTRIES - 1) << 16 | 1;
	const uint32_t how = NVME_QUEUE_CONTIGUOUS | (interrupts ? NVME_CQ_INTERRUPTS | 1u << 16 : 0);
	/* The completion queue first: the submission queue names it. */
	const bool created = command_run(probe, &probe->admin, (struct nvme_command){.opcode = NVME_ADMIN_CREATE_CQ,
		.prp1 = le64_set(dma_iova(probe->io.completions)), .cdw10 = le32_set(size),
		.cdw11 = le32_set(how)}) == 0 &&
		command_run(probe, &probe->admin, (struct nvme_command){.opcode = NVME_ADMIN_CREATE_SQ,
		.prp1 = le64_set(dma_iova(probe->io.commands)), .cdw10 = le32_set(size),
		.cdw11 = le32_set(1 << 16 | 1)}) == 0;
	if (!claim(created, "an I/O queue pair is made"))
		return;
	memset(probe->data, 0xA5, PAGE);
	const int status = command_run(probe, &probe->io, (struct nvme_command){.opcode = NVME_CMD_READ,
		.nsid = le32_set(1), .prp1 = le64_set(dma_iova(probe->data))});
	claim(status == 0 && (uint8_t)probe->data[0] != 0xA5, "a block is read");
	if (interrupts)
		claim(probe->admin.interrupts >= 3 && probe->io.interrupts == 1,
			"each completion queue signals its own interrupt");
}

static void controller_stop(struct probe *probe)
{
	const uint32_t cc = nvme_read32(probe->transport, NVME_REG_CC);
	nvme_write32(probe->transport, NVME_REG_CC, cc | (uint32_t)FIELD_SET(CC_SHN, CC_SHN_NORMAL));
	claim(status_wait(probe, (uint32_t)FIELD_SET(CSTS_SHST, 3), (uint32_t)FIELD_SET(CSTS_SHST, CSTS_SHST_COMPLETE)),
		"it shuts down");
	nvme_write32(probe->transport, NVME_REG_CC, 0);
	claim(status_wait(probe, 1, 0), "it stops");
}

static bool probe_open(struct probe *probe, const char *driver, const char *address)
{
	char message[512] = "";
	const int err = (!strcmp(driver, "uio") ? nvme_uio_open : nvme_vfio_open)(address, &probe->transport, message,
		sizeof(message));
	if (err) {
		failed = true;
		printf("refused %d %s\n", -err, message);
		return false;
	}
	return controller_start(probe);
}

static void probe_close(struct probe *probe)
{
	probe->transport->ops->release(probe->transport);
	queue_destroy(&probe->admin);
	queue_destroy(&probe->io);
	dma_free(probe->data);
	*probe = (struct probe){0};
}

/* ---- exchange ---- */
static bool exchange(struct probe *probe, const char *driver, const char *address)
{
	if (!probe_open(probe, driver, address))
		return false;
	claim(probe->transport->ops->alive(probe->transport), "its configuration space answers");
	claim(identify_into(probe, probe->data), "it identifies itself");
	block_read(probe);
	return !failed;
}

static void exchange_twice(const char *driver, const char *address)
{
	struct probe probe = {0};
	for (unsigned i = 0; i < 2 && exchange(&probe, driver, address); i++) {
		controller_stop(&probe);
		probe.transport->ops->stop_dma(probe.transport);
		nvme_write32(probe.transport, NVME_REG_CC, 0); /* the registers stay usable */
		const uint64_t begin = now_ms();
		probe_close(&probe);
		claim(now_ms() - begin < RELEASE_SLOW_MS, "it is released within a second");
	}
}

/* ---- memory ---- */
static void memory(const char *driver, const char *address)
{
	struct probe probe = {0};
	char *before[3], *after[2];
	for (unsigned i = 0; i < ARRAY_SIZE(before); i++)
		before[i] = dma_alloc(BLOCK_MIB << 20, PAGE);
	if (!probe_open(&probe, driver, address))
		return;
	claim(identify_into(&probe, before[2]), "memory from before it was opened is reached");
	dma_free(before[0]);
	dma_free(before[1]);
	claim(identify_into(&probe, before[2] + (BLOCK_MIB << 20) - PAGE), "also when its neighbours were given back");
	for (unsigned i = 0; i < ARRAY_SIZE(after); i++)
		after[i] = dma_alloc(2 * BLOCK_MIB << 20, PAGE);
	claim(after[0] && identify_into(&probe, after[0]), "memory from afterwards is reached");
	dma_free(after[0]);
	claim(after[1] && identify_into(&probe, after[1] + (BLOCK_MIB << 20)),
		"also when its neighbours were given back");
	for (char *page = after[1]; page < after[1] + (2 * BLOCK_MIB << 20) && !failed; page += (2 << 20) - PAGE)
		failed |= !identify_into(&probe, page);
	claim(!failed, "all of it is");
	controller_stop(&probe);
	dma_free(before[2]);
	dma_free(after[1]);
	probe_close(&probe);
}

/* ---- hold ---- */
static void *release_in_thread(void *arg)
{
	struct probe *probe = arg;
	probe->transport->ops->release(probe->transport);
	return NULL;
}

/* While the device is let go, memory comes and goes as always. */
static void release_beside_work(struct probe *probe)
{
	pthread_t thread;
	uint64_t slowest_ms = 0;
	const uint64_t begin = now_ms();
	if (pthread_create(&thread, NULL, release_in_thread, probe))
		abort();
	for (bool running = true; running;) {
		const uint64_t start = now_ms();
		dma_free(dma_alloc(4 << 20, PAGE));
		slowest_ms = MAX(slowest_ms, now_ms() - start);
		nap();
		running = pthread_tryjoin_np(thread, NULL) == EBUSY;
	}
	printf("# released in %llu ms, slowest allocation %llu ms\n", (unsigned long long)(now_ms() - begin),
		(unsigned long long)slowest_ms);
	claim(slowest_ms < RELEASE_SLOW_MS, "allocations do not wait for the release");
}

static void hold(const char *driver, const char *address)
{
	struct probe probe = {0};
	if (!exchange(&probe, driver, address))
		return;
	printf("holding\n");
	fflush(stdout);
	struct pollfd events[2] = {{.fd = STDIN_FILENO, .events = POLLIN},
		{.fd = probe.transport->ops->request_fd(probe.transport), .events = POLLIN}};
	poll(events, 2, HOLD_MS);
	const bool alive = probe.transport->ops->alive(probe.transport);
	printf("%s, %s\n", events[1].revents ? "wanted" : events[0].revents ? "told" : "timeout",
		alive ? "alive" : "gone");
	if (alive) {
		claim(identify_into(&probe, probe.data), "it still works");
		controller_stop(&probe);
	} else {
		const uint32_t status = nvme_read32(probe.transport, NVME_REG_CSTS);
		printf("# CSTS %#x\n", status);
		claim(status == NVME_CSTS_GONE || !FIELD_GET(CSTS_RDY, status), "its registers do not pretend");
		probe.transport->ops->stop_dma(probe.transport);
	}
	release_beside_work(&probe);
}

int main(int argc, char **argv)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc != 4 || (strcmp(argv[1], "vfio") && strcmp(argv[1], "uio"))) {
		fprintf(stderr, "usage: transport_probe vfio|uio ADDRESS exchange|memory|hold\n");
		return 2;
	}
	const struct memory_options options = {.use_eal = true, .physical = !strcmp(argv[1], "uio"), .need_mib = 96};
	if (memory_init(&options))
		return 1;
	printf("# %s, %s addresses\n", memory_has_hugepages() ? "hugepages" : "no hugepages",
		memory_is_physical() ? "physical" : "virtual");
	if (!strcmp(argv[3], "hold"))
		hold(argv[1], argv[2]);
	else if (!strcmp(argv[3], "memory"))
		memory(argv[1], argv[2]);
	else
		exchange_twice(argv[1], argv[2]);
	return failed;
}
