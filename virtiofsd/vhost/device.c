/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation
 *
 * One VMM is connected to one device; each message from it is one row of the table below.
 * The row says how long the message is, which descriptors it brings, which agreement it
 * needs and whether rings must be idle; what a row says is checked here, before its
 * function runs, and nowhere else.
 *
 * Security model. The VMM is less trusted than we are: it may run unprivileged, and it
 * passes on what the guest chose. So
 * - a message that is not as its row says (size, descriptors, ring index, an agreement
 *   that was not made) is refused with one log line, and the connection ends;
 * - a message that is well-formed but cannot be obeyed is answered with failure if the
 * VMM asked for an answer. If not, the connection ends, for the VMM would go on with a
 * false belief; except where the guest can cause the failure (GUEST_CAN_FAIL): it must
 * not be able to end the daemon, and only its own ring stays unusable;
 * - descriptors belong to the message until a function takes them; what nobody took is
 *   closed with the message, on every path;
 * - memory descriptors must be files that are large enough, and kick, call and error
 *   descriptors must be anonymous inodes (eventfds), so that the VMM cannot have us write
 *   to a file or block on a pipe;
 * - nothing is allocated by size from a message, and no wait is without an end other than
 *   the VMM leaving or the process being asked to end.
 *
 * Order is not enforced beyond this: a ring runs when it has size, addresses, memory, a
 * kick message and is enabled, in whatever order they came.
 *
 * Quiescing. A row that takes memory away (IDLE) runs while all rings are paused and
 * drained of what runs; a request that is parked uses no memory and stays. GET_VRING_BASE
 * and RESET_DEVICE stop rings and drain them of everything, then answer. A request that
 * waits for the VMM itself (window.c) gives up when it is waited for: the VMM, which
 * waits for us, would never answer. Unmapping a file makes the VMM take away memory,
 * which is never used (device-shmem.c): for that nobody has to be idle.
 */
#include "virtiofsd/vhost/device.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "virtiofsd/log.h"
#include "virtiofsd/vhost/device-requests.h"

/** enum Index - where a payload names its ring. */
typedef enum Index {
    NO_INDEX,
    INDEX_U32, /* its first four bytes */
    INDEX_FD,  /* bits 0-7; bit 8 says whether a descriptor comes along */
} Index;

/* Flags of a row. */
#define OWN_REPLY 1u      /* its function leaves the reply in the message */
#define IDLE 2u           /* all rings are paused and drained while it runs */
#define GUEST_CAN_FAIL 4u /* its failure does not end the connection */

/** struct Request - one row. */
typedef struct Request {
    const char *name;
    int (*run)(VuDevice *device, VuMessage *message);
    uint16_t min_size; /* of the payload; functions of variable ones check exactly */
    uint16_t max_size;
    uint8_t min_fds; /* INDEX_FD decides by its bit 8 instead */
    uint8_t max_fds;
    uint8_t flags;
    Index index;
    uint64_t needs; /* protocol features that must have been acknowledged */
    /* NULL, or which messages of an IDLE row take no memory away after all */
    bool (*is_harmless)(const VuDevice *device, const VuMessage *message);
} Request;

#define SIZE(n) .min_size = (n), .max_size = (n)
#define FDS(low, high) .min_fds = (low), .max_fds = (high)

/* clang-format off */
static const Request requests[VU_REQUEST_COUNT] = {
    [VU_GET_FEATURES] = {"GET_FEATURES", vu_on_get_features, SIZE(0), .flags = OWN_REPLY},
    [VU_SET_FEATURES] = {"SET_FEATURES", vu_on_set_features, SIZE(8)},
    [VU_SET_OWNER] = {"SET_OWNER", vu_on_owner, SIZE(0)},
    [VU_RESET_OWNER] = {"RESET_OWNER", vu_on_owner, SIZE(0)},
    [VU_SET_MEM_TABLE] = {"SET_MEM_TABLE", vu_on_set_mem_table,
        .min_size = offsetof(struct vu_mem_table, regions),
        .max_size = sizeof(struct vu_mem_table),
        FDS(0, VU_MEM_TABLE_MAX), .flags = IDLE},
    [VU_SET_LOG_BASE] = {"SET_LOG_BASE", vu_on_set_log_base, SIZE(16), FDS(1, 1),
        .flags = OWN_REPLY, .needs = VU_PROTOCOL_F_LOG_SHMFD},
    [VU_SET_LOG_FD] = {"SET_LOG_FD", vu_on_set_log_fd, SIZE(0), FDS(1, 1),
        .needs = VU_PROTOCOL_F_LOG_SHMFD},
    [VU_SET_VRING_NUM] = {"SET_VRING_NUM", vu_on_set_vring_num, SIZE(8),
        .index = INDEX_U32, .flags = GUEST_CAN_FAIL},
    [VU_SET_VRING_ADDR] = {"SET_VRING_ADDR", vu_on_set_vring_addr, SIZE(40),
        .index = INDEX_U32, .flags = GUEST_CAN_FAIL},
    [VU_SET_VRING_BASE] = {"SET_VRING_BASE", vu_on_set_vring_base, SIZE(8),
        .index = INDEX_U32},
    [VU_GET_VRING_BASE] = {"GET_VRING_BASE", vu_on_get_vring_base, SIZE(8),
        .index = INDEX_U32, .flags = OWN_REPLY},
    [VU_SET_VRING_KICK] = {"SET_VRING_KICK", vu_on_set_vring_kick, SIZE(8),
        .index = INDEX_FD, .flags = GUEST_CAN_FAIL},
    [VU_SET_VRING_CALL] = {"SET_VRING_CALL", vu_on_set_vring_call, SIZE(8),
        .index = INDEX_FD},
    [VU_SET_VRING_ERR] = {"SET_VRING_ERR", vu_on_set_vring_err, SIZE(8),
        .index = INDEX_FD},
    [VU_GET_PROTOCOL_FEATURES] = {"GET_PROTOCOL_FEATURES", vu_on_get_protocol_features,
        SIZE(0), .flags = OWN_REPLY},
    [VU_SET_PROTOCOL_FEATURES] = {"SET_PROTOCOL_FEATURES", vu_on_set_protocol_features,
        SIZE(8)},
    [VU_GET_QUEUE_NUM] = {"GET_QUEUE_NUM", vu_on_get_queue_num, SIZE(0),
        .flags = OWN_REPLY, .needs = VU_PROTOCOL_F_MQ},
    [VU_SET_VRING_ENABLE] = {"SET_VRING_ENABLE", vu_on_set_vring_enable, SIZE(8),
        .index = INDEX_U32},
    [VU_SET_BACKEND_REQ_FD] = {"SET_BACKEND_REQ_FD", vu_on_set_backend_req_fd, SIZE(0),
        FDS(1, 1), .needs = VU_PROTOCOL_F_BACKEND_REQ},
    [VU_GET_CONFIG] = {"GET_CONFIG", vu_on_get_config,
        .min_size = offsetof(struct vu_config, bytes),
        .max_size = sizeof(struct vu_config),
        .flags = OWN_REPLY, .needs = VU_PROTOCOL_F_CONFIG},
    [VU_SET_CONFIG] = {"SET_CONFIG", vu_on_set_config,
        .min_size = offsetof(struct vu_config, bytes),
        .max_size = sizeof(struct vu_config),
        .flags = GUEST_CAN_FAIL, .needs = VU_PROTOCOL_F_CONFIG},
    [VU_RESET_DEVICE] = {"RESET_DEVICE", vu_on_reset_device, SIZE(0),
        .needs = VU_PROTOCOL_F_RESET_DEVICE},
    [VU_GET_SHMEM_CONFIG] = {"GET_SHMEM_CONFIG", vu_on_get_shmem_config, SIZE(0),
        .flags = OWN_REPLY, .needs = VU_PROTOCOL_F_SHMEM},
    [VU_GET_MAX_MEM_SLOTS] = {"GET_MAX_MEM_SLOTS", vu_on_get_max_mem_slots, SIZE(0),
        .flags = OWN_REPLY, .needs = VU_PROTOCOL_F_CONFIGURE_MEM_SLOTS},
    [VU_ADD_MEM_REG] = {"ADD_MEM_REG", vu_on_add_mem_reg, SIZE(40), FDS(1, 1),
        .needs = VU_PROTOCOL_F_CONFIGURE_MEM_SLOTS},
    [VU_REM_MEM_REG] = {"REM_MEM_REG", vu_on_rem_mem_reg, SIZE(40), FDS(0, 1),
        .flags = IDLE, .needs = VU_PROTOCOL_F_CONFIGURE_MEM_SLOTS,
        .is_harmless = vu_device_has_page},
};
/* clang-format on */

/* ---- one message ------------------------------------------------------------------- */

static const Request *find_request(uint32_t number)
{
    if (number >= VU_REQUEST_COUNT || requests[number].run == NULL) {
        return NULL;
    }
    return &requests[number];
}

static bool index_is_sound(const VuDevice *device, Index kind, const VuMessage *message)
{
    switch (kind) {
    case INDEX_U32:
        return message->payload.state.index < device->n_queues;
    case INDEX_FD:
        return (message->payload.u64 & VU_VRING_INDEX_MASK) < device->n_queues &&
               (message->payload.u64 & ~(VU_VRING_INDEX_MASK | VU_VRING_NOFD)) == 0;
    case NO_INDEX:
    default:
        return true;
    }
}

static bool fds_are_sound(const Request *request, const VuMessage *message)
{
    unsigned int low = request->min_fds;
    unsigned int high = request->max_fds;

    if (request->index == INDEX_FD) {
        low = high = (message->payload.u64 & VU_VRING_NOFD) != 0 ? 0 : 1;
    }
    return message->n_fds >= low && message->n_fds <= high;
}

/* What is wrong with the message's form, or NULL. */
static const char *check_form(const VuDevice *device, const Request *request,
                              const VuMessage *message)
{
    if ((request->needs & ~device->protocol_features) != 0) {
        return "its feature was not negotiated";
    }
    if (message->header.size < request->min_size ||
        message->header.size > request->max_size) {
        return "wrong size";
    }
    if (!index_is_sound(device, request->index, message)) {
        return "no such queue";
    }
    if (!message->fds_lost && !fds_are_sound(request, message)) {
        return "wrong number of descriptors";
    }
    return NULL;
}

static bool needs_idle(const VuDevice *device, const Request *request,
                       const VuMessage *message)
{
    return (request->flags & IDLE) != 0 &&
           (request->is_harmless == NULL || !request->is_harmless(device, message));
}

/* Run the row's function, between pause and resume if it needs that. */
static int run(VuDevice *device, const Request *request, VuMessage *message)
{
    if (message->fds_lost) {
        return -EMFILE;
    }
    if (!needs_idle(device, request, message)) {
        return request->run(device, message);
    }
    int result = vu_device_pause(device);
    if (result < 0) {
        return result; /* the connection ends: nothing is to run any more */
    }
    result = request->run(device, message);
    vu_device_resume(device);
    return result;
}

/* What is done about a message that was not obeyed. */
static VuStatus fail(const Request *request, bool need_reply, int error)
{
    static LogLimit limit;
    bool ends = error == -EPROTO ||
                (!need_reply && (request->flags & GUEST_CAN_FAIL) == 0) ||
                (request->flags & OWN_REPLY) != 0;

    if (error == -EINTR) {
        return VU_INTERRUPTED;
    }
    log_write_limited(&limit, ends ? LOG_LEVEL_ERROR : LOG_LEVEL_WARN,
                      "vhost-user: %s failed: %s", request->name,
                      error == -EPROTO ? "malformed message" : strerrordesc_np(-error));
    return ends ? VU_BAD_PEER : VU_OK;
}

static VuStatus obey(VuDevice *device, VuMessage *message)
{
    const Request *request = find_request(message->header.request);
    /* Asked for before this message is obeyed: it may be the one that agrees on it. */
    bool need_reply = (message->header.flags & VU_FLAG_NEED_REPLY) != 0 &&
                      (device->protocol_features & VU_PROTOCOL_F_REPLY_ACK) != 0;

    if (request == NULL) {
        log_error("vhost-user: request %" PRIu32 " refused: unknown or not offered",
                  message->header.request);
        return VU_BAD_PEER;
    }
    const char *fault = check_form(device, request, message);
    if (fault != NULL) {
        log_error("vhost-user: %s refused: %s", request->name, fault);
        return VU_BAD_PEER;
    }
    int result = run(device, request, message);
    if (result < 0) {
        VuStatus status = fail(request, need_reply, result);
        if (status != VU_OK) {
            return status;
        }
    }
    if ((request->flags & OWN_REPLY) == 0) {
        if (!need_reply) {
            return VU_OK;
        }
        (void)vu_reply_u64(message, result < 0 ? 1u : 0u);
    }
    return vu_message_reply(message, device->connection, device->interrupt_fd);
}

VuStatus vu_device_handle(VuDevice *device)
{
    g_auto(VuMessage) message = {0};

    VuStatus status =
        vu_message_receive(&message, device->connection, device->interrupt_fd);
    return status == VU_OK ? obey(device, &message) : status;
}
