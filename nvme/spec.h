/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the NVM Express specifications fix: registers, queue entries, data structures, codes. Names and numbers follow
 * NVM Express Base 2.0 and NVM Command Set 1.0; only what the driver or the emulated controller uses is here.
 *
 *   BAR 0                                   host memory
 *   0x0000 CAP  VS  INTMS INTMC CC          submission queue: nvme_command[n]   (host writes, doorbell = tail)
 *          CSTS NSSR AQA ASQ ACQ            completion queue: nvme_completion[n] (controller writes, phase bit flips
 *   0x1000 doorbells: SQ0T CQ0H SQ1T ...                       at each wrap, doorbell = head)
 */
#ifndef LANEFS_NVME_SPEC_H
#define LANEFS_NVME_SPEC_H

#include "reactor/base.h"

/* ---- register fields: FIELD_GET(CAP_TO, value), FIELD_SET(CC_EN, 1) ---- */
#define FIELD_GET_(shift, width, value) (((uint64_t)(value) >> (shift)) & ((1ull << (width)) - 1))
#define FIELD_GET(field, value) FIELD_GET_(field, value)
#define FIELD_SET_(shift, width, value) (((uint64_t)(value) & ((1ull << (width)) - 1)) << (shift))
#define FIELD_SET(field, value) FIELD_SET_(field, value)

enum nvme_register {
	NVME_REG_CAP = 0x00,   /* 64 bits */
	NVME_REG_VS = 0x08,
	NVME_REG_INTMS = 0x0c,
	NVME_REG_INTMC = 0x10,
	NVME_REG_CC = 0x14,
	NVME_REG_CSTS = 0x1c,
	NVME_REG_NSSR = 0x20,
	NVME_REG_AQA = 0x24,
	NVME_REG_ASQ = 0x28,   /* 64 bits */
	NVME_REG_ACQ = 0x30,   /* 64 bits */
	NVME_REG_DOORBELLS = 0x1000,
};
#define CAP_MQES 0, 16    /* entries, zero-based */
#define CAP_CQR 16, 1
#define CAP_TO 24, 8      /* 500 ms units */
#define CAP_DSTRD 32, 4   /* doorbell stride: 4 << DSTRD bytes */
#define CAP_NSSRS 36, 1
#define CAP_CSS 37, 8     /* bit 0: NVM command set */
#define CAP_CSS_NVM 37, 1
#define CAP_MPSMIN 48, 4  /* 4096 << MPSMIN bytes */
#define CAP_MPSMAX 52, 4

#define CC_EN 0, 1
#define CC_CSS 4, 3
#define CC_MPS 7, 4
#define CC_AMS 11, 3
#define CC_SHN 14, 2
#define CC_IOSQES 16, 4   /* log2 of bytes: 6 */
#define CC_IOCQES 20, 4   /* 4 */
enum { CC_SHN_NONE = 0, CC_SHN_NORMAL = 1, CC_SHN_ABRUPT = 2 };

#define CSTS_RDY 0, 1
#define CSTS_CFS 1, 1     /* controller fatal status */
#define CSTS_SHST 2, 2
#define CSTS_NSSRO 4, 1
enum { CSTS_SHST_NORMAL = 0, CSTS_SHST_OCCURRING = 1, CSTS_SHST_COMPLETE = 2 };
#define NVME_CSTS_GONE 0xffffffffu

#define AQA_ASQS 0, 12    /* entries, zero-based */
#define AQA_ACQS 16, 12

static inline uint32_t nvme_sq_doorbell(uint16_t qid, unsigned dstrd)
{
	return NVME_REG_DOORBELLS + 2u * qid * (4u << dstrd);
}
static inline uint32_t nvme_cq_doorbell(uint16_t qid, unsigned dstrd)
{
	return NVME_REG_DOORBELLS + (2u * qid + 1) * (4u << dstrd);
}

/* ---- queue entries ---- */
struct nvme_command {
	uint8_t opcode;
	uint8_t flags;       /* FUSE, PSDT: 0 (PRPs) */
	le16_t cid;
	le32_t nsid;
	le32_t cdw2, cdw3;
	le64_t mptr;
	le64_t prp1, prp2;
	le32_t cdw10, cdw11, cdw12, cdw13, cdw14, cdw15;
};
_Static_assert(sizeof(struct nvme_command) == 64, "NVMe Base 2.0, Figure 87");

struct nvme_completion {
	le32_t dw0, dw1;
	le16_t sq_head, sq_id;
	le16_t cid;
	le16_t status;       /* bit 0: phase; 15:1 the status field */
};
_Static_assert(sizeof(struct nvme_completion) == 16, "NVMe Base 2.0, Figure 90");

/* The status field without the phase bit. */
#define STATUS_SC 0, 8
#define STATUS_SCT 8, 3
#define STATUS_CRD 11, 2
#define STATUS_MORE 13, 1
#define STATUS_DNR 14, 1
#define NVME_STATUS(sct, sc) ((uint16_t)((sct) << 8 | (sc)))

enum nvme_sct { NVME_SCT_GENERIC = 0, NVME_SCT_SPECIFIC = 1, NVME_SCT_MEDIA = 2, NVME_SCT_PATH = 3, NVME_SCT_VENDOR = 7 };
enum nvme_status_code { /* sct << 8 | sc; Base 2.0, Figures 94 to 101 */
	NVME_SC_SUCCESS = 0x000,
	NVME_SC_INVALID_OPCODE = 0x001,
	NVME_SC_INVALID_FIELD = 0x002,
	NVME_SC_CID_CONFLICT = 0x003,
	NVME_SC_DATA_TRANSFER_ERROR = 0x004,
	NVME_SC_POWER_LOSS_ABORT = 0x005,
	NVME_SC_INTERNAL_ERROR = 0x006,
	NVME_SC_ABORTED_BY_REQUEST = 0x007,
	NVME_SC_ABORTED_SQ_DELETION = 0x008,
	NVME_SC_INVALID_NAMESPACE = 0x00b,
	NVME_SC_SEQUENCE_ERROR = 0x00c,
	NVME_SC_SANITIZE_IN_PROGRESS = 0x01d,
	NVME_SC_PRP_OFFSET_INVALID = 0x013,
	NVME_SC_NS_WRITE_PROTECTED = 0x020,
	NVME_SC_COMMAND_INTERRUPTED = 0x021,
	NVME_SC_TRANSIENT_TRANSPORT = 0x022,
	NVME_SC_LBA_OUT_OF_RANGE = 0x080,
	NVME_SC_CAPACITY_EXCEEDED = 0x081,
	NVME_SC_NS_NOT_READY = 0x082,
	NVME_SC_FORMAT_IN_PROGRESS = 0x084,
	NVME_SC_INVALID_CQ = 0x100,
	NVME_SC_INVALID_QID = 0x101,
	NVME_SC_INVALID_QUEUE_SIZE = 0x102,
	NVME_SC_ABORT_LIMIT_EXCEEDED = 0x103,
	NVME_SC_AER_LIMIT_EXCEEDED = 0x105,
	NVME_SC_INVALID_INTERRUPT_VECTOR = 0x108,
	NVME_SC_INVALID_LOG_PAGE = 0x109,
	NVME_SC_INVALID_QUEUE_DELETION = 0x10c,
	NVME_SC_FEATURE_NOT_SAVEABLE = 0x10d,
	NVME_SC_FEATURE_NOT_CHANGEABLE = 0x10e,
	NVME_SC_ATTEMPTED_WRITE_TO_RO = 0x182,
	NVME_SC_WRITE_FAULT = 0x280,
	NVME_SC_UNRECOVERED_READ = 0x281,
	NVME_SC_GUARD_CHECK = 0x282,
	NVME_SC_ACCESS_DENIED = 0x286,
	NVME_SC_DEALLOCATED = 0x287,
};

enum nvme_admin_opcode {
	NVME_ADMIN_DELETE_SQ = 0x00,
	NVME_ADMIN_CREATE_SQ = 0x01,
	NVME_ADMIN_GET_LOG_PAGE = 0x02,
	NVME_ADMIN_DELETE_CQ = 0x04,
	NVME_ADMIN_CREATE_CQ = 0x05,
	NVME_ADMIN_IDENTIFY = 0x06,
	NVME_ADMIN_ABORT = 0x08,
	NVME_ADMIN_SET_FEATURES = 0x09,
	NVME_ADMIN_GET_FEATURES = 0x0a,
	NVME_ADMIN_ASYNC_EVENT = 0x0c,
	NVME_ADMIN_DOORBELL_BUFFER = 0x7c,
};
enum nvme_opcode {
	NVME_CMD_FLUSH = 0x00,
	NVME_CMD_WRITE = 0x01,
	NVME_CMD_READ = 0x02,
	NVME_CMD_WRITE_ZEROES = 0x08,
	NVME_CMD_DSM = 0x09,
};
/* Create I/O CQ, cdw11: vector << 16 | IEN << 1 | PC. Create I/O SQ, cdw11: cqid << 16 | qprio << 1 | PC. Both, cdw10:
 * (entries - 1) << 16 | qid. */
enum { NVME_QUEUE_CONTIGUOUS = 1, NVME_CQ_INTERRUPTS = 2 };
enum { NVME_RW_FUA = 1u << 30, NVME_RW_LIMITED_RETRY = 1u << 31 }; /* cdw12; NLB zero-based below */
#define NVME_WRITE_ZEROES_DEAC (1u << 25)                          /* cdw12 */
enum { NVME_DSM_DEALLOCATE = 1 << 2 };                             /* cdw11 */

struct nvme_dsm_range {
	le32_t attributes, blocks;
	le64_t first_lba;
};
_Static_assert(sizeof(struct nvme_dsm_range) == 16, "NVM Command Set 1.0, Figure 39");
enum { NVME_DSM_RANGES_MAX = 256 };

enum nvme_feature {
	NVME_FEATURE_NUMBER_OF_QUEUES = 0x07, /* cdw11 and dw0: CQs - 1 << 16 | SQs - 1 */
	NVME_FEATURE_VOLATILE_CACHE = 0x06,   /* cdw11 and dw0 bit 0 */
	NVME_FEATURE_ASYNC_EVENTS = 0x0b,     /* cdw11 */
};
enum { /* Asynchronous Event Configuration */
	NVME_EVENTS_SMART = 0x1f,
	NVME_EVENTS_NS_ATTRIBUTE = 1 << 8,
};
/* Asynchronous event, dw0 of the completion: type 2:0, information 15:8, log page 23:16. */
enum nvme_event_type { NVME_EVENT_ERROR = 0, NVME_EVENT_SMART = 1, NVME_EVENT_NOTICE = 2, NVME_EVENT_IO = 6,
	NVME_EVENT_VENDOR = 7 };
enum { NVME_NOTICE_NS_CHANGED = 0 };

enum nvme_log_page { NVME_LOG_ERROR = 1, NVME_LOG_SMART = 2, NVME_LOG_CHANGED_NS = 4 };

/* ---- identify ---- */
enum nvme_cns { NVME_CNS_NS = 0, NVME_CNS_CTRLR = 1, NVME_CNS_ACTIVE_NS = 2, NVME_CNS_NS_DESCRIPTORS = 3 };
enum { NVME_IDENTIFY_BYTES = 4096, NVME_NS_LIST_MAX = 1024 };

struct nvme_id_ctrlr {
	le16_t vid, ssvid;
	char sn[20], mn[40], fr[8];   /* ASCII, padded with spaces */
	uint8_t rab, ieee[3], cmic;
	uint8_t mdts;                 /* 2^n pages of CAP.MPSMIN; 0: no limit */
	le16_t cntlid;
	le32_t ver, rtd3r, rtd3e;     /* rtd3e: shutdown latency, us */
	le32_t oaes, ctratt;
	le16_t rrls;
	uint8_t reserved102[9], cntrltype;
	uint8_t fguid[16];
	le16_t crdt[3];               /* command retry delay, 100 ms units */
	uint8_t reserved134[122];
	le16_t oacs;                  /* 256 */
	uint8_t acl;                  /* abort commands at once, zero-based */
	uint8_t aerl;                 /* event requests at once, zero-based */
	uint8_t frmw, lpa, elpe, npss, avscc, apsta;
	le16_t wctemp, cctemp, mtfa;
	le32_t hmpre, hmmin;
	uint8_t tnvmcap[16], unvmcap[16];
	uint8_t reserved312[200];
	uint8_t sqes, cqes;           /* 512: minimum 3:0, maximum 7:4, log2 */
	le16_t maxcmd;
	le32_t nn;                    /* namespaces: largest nsid */
	le16_t oncs, fuses;
	uint8_t fna, vwc;             /* vwc bit 0: volatile write cache present */
	le16_t awun, awupf;           /* blocks, zero-based */
	uint8_t icsvscc, nwpc;
	le16_t acwu;
	uint8_t reserved534[2];
	le32_t sgls, mnan;
	uint8_t reserved544[224];
	char subnqn[256];             /* 768 */
	uint8_t reserved1024[3072];
};
_Static_assert(sizeof(struct nvme_id_ctrlr) == 4096, "NVMe Base 2.0, Figure 275");
_Static_assert(offsetof(struct nvme_id_ctrlr, mdts) == 77, "");
_Static_assert(offsetof(struct nvme_id_ctrlr, oacs) == 256, "");
_Static_assert(offsetof(struct nvme_id_ctrlr, sqes) == 512, "");
_Static_assert(offsetof(struct nvme_id_ctrlr, vwc) == 525, "");
_Static_assert(offsetof(struct nvme_id_ctrlr, subnqn) == 768, "");
enum { NVME_OACS_DOORBELL_BUFFER = 1 << 8 };
enum { NVME_ONCS_DSM = 1 << 2, NVME_ONCS_WRITE_ZEROES = 1 << 3 };
enum { NVME_VWC_PRESENT = 1 };
enum { NVME_OAES_NS_ATTRIBUTE = 1 << 8 };

struct nvme_lba_format {
	le16_t ms;                    /* metadata bytes */
	uint8_t ds;                   /* log2 of data bytes */
	uint8_t rp;
};
struct nvme_id_ns {
	le64_t nsze, ncap, nuse;      /* blocks */
	uint8_t nsfeat, nlbaf;        /* nlbaf zero-based */
	uint8_t flbas;                /* 3:0 index, 4 extended metadata, 6:5 index high */
	uint8_t mc, dpc, dps, nmic, rescap, fpi;
	uint8_t dlfeat;               /* 2:0 read of deallocated: 1 = zeroes; bit 3: DEAC in Write Zeroes */
	le16_t nawun, nawupf, nacwu, nabsn, nabo, nabspf;
	le16_t noiob;                 /* optimal I/O boundary, blocks; 0: none */
	uint8_t nvmcap[16];
	le16_t npwg, npwa, npdg, npda, nows, mssrl;
	le32_t mcl;
	uint8_t msrc, reserved81[11];
	le32_t anagrpid;
	uint8_t reserved96[3], nsattr; /* nsattr bit 0: write protected */
	le16_t nvmsetid, endgid;
	uint8_t nguid[16], eui64[8];
	struct nvme_lba_format lbaf[64];
	uint8_t reserved384[3712];
};
_Static_assert(sizeof(struct nvme_id_ns) == 4096, "NVM Command Set 1.0, Figure 97");
_Static_assert(offsetof(struct nvme_id_ns, noiob) == 46, "");
_Static_assert(offsetof(struct nvme_id_ns, nguid) == 104, "");
_Static_assert(offsetof(struct nvme_id_ns, lbaf) == 128, "");

struct nvme_ns_descriptor {       /* CNS 03h: a list of these, each with length bytes behind it */
	uint8_t type, length, reserved[2];
};
enum { NVME_NS_ID_EUI64 = 1, NVME_NS_ID_NGUID = 2, NVME_NS_ID_UUID = 3, NVME_NS_ID_CSI = 4 };
enum { NVME_CSI_NVM = 0, NVME_CSI_ZONED = 2 };

/* ---- log pages ---- */
struct nvme_log_smart {
	uint8_t critical_warning;     /* bits: spare, temperature, reliability, read only, backup, memory region */
	uint8_t temperature[2];       /* Kelvin, little endian */
	uint8_t available_spare, spare_threshold, percentage_used, endurance, reserved7[25];
	uint8_t data_units_read[16], data_units_written[16], host_reads[16], host_writes[16], busy_minutes[16],
		power_cycles[16], power_on_hours[16], unsafe_shutdowns[16], media_errors[16], error_entries[16];
	le32_t warning_minutes, critical_minutes;
	le16_t sensor[8];
	uint8_t reserved216[296];
};
_Static_assert(sizeof(struct nvme_log_smart) == 512, "NVMe Base 2.0, Figure 207");
_Static_assert(offsetof(struct nvme_log_smart, data_units_read) == 32, "");
_Static_assert(offsetof(struct nvme_log_smart, warning_minutes) == 192, "");

struct nvme_log_error {
	le64_t count;
	le16_t sqid, cid, status, location;
	le64_t lba;
	le32_t nsid;
	uint8_t vendor, transport, reserved30[2];
	le64_t command_specific;
	le16_t transport_specific;
	uint8_t reserved42[22];
};
_Static_assert(sizeof(struct nvme_log_error) == 64, "NVMe Base 2.0, Figure 206");

#endif
