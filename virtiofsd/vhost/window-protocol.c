/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A row for each way to ask a VMM for mappings.
 *
 * Whichever it is, what is mapped can be written: QEMU (11.1) maps no other way as the
 * standard says; and a guest whose mapping could only be read would stop its whole
 * machine by a store. So the same files suit everywhere, and a page that is mapped for
 * reading needs no other mapping to be written.
 */
#include "virtiofsd/vhost/window-protocol.h"

/* Without these a mapping cannot be asked for, or nobody knows when it is there. */
#define CHANNEL (VU_PROTOCOL_F_BACKEND_REQ | VU_PROTOCOL_F_REPLY_ACK)
/* And without this no descriptor can be sent along. */
#define CHANNEL_FOR_FDS (CHANNEL | VU_PROTOCOL_F_BACKEND_SEND_FD)

typedef struct Protocol {
    VuWindowRules rules;
    enum vu_backend_number map;
    enum vu_backend_number unmap;
    uint32_t size;
    void (*encode)(const VuWindowPiece *piece, union vu_backend_payload *payload);
} Protocol;

static void encode_shmem(const VuWindowPiece *piece, union vu_backend_payload *payload)
{
    payload->shmem = (struct vu_shmem_map){
        .id = VU_SHMEM_WINDOW,
        .file_offset = piece->file_offset,
        .offset = piece->offset,
        .length = piece->length,
        .flags = piece->maps ? VU_SHMEM_WRITABLE : 0,
    };
}

static uint64_t fs_flags(const VuWindowPiece *piece)
{
    return piece->maps ? VU_FS_READABLE | VU_FS_WRITABLE : 0;
}

static void encode_arrays(const VuWindowPiece *piece, union vu_backend_payload *payload)
{
    payload->arrays = (struct vu_fs_arrays){
        .file_offset = {piece->file_offset},
        .offset = {piece->offset},
        .length = {piece->length},
        .flags = {fs_flags(piece)},
    };
}

static void encode_entries(const VuWindowPiece *piece, union vu_backend_payload *payload)
{
    payload->entries = (struct vu_fs_entries){
        .count = 1,
        .entries = {{
            .file_offset = piece->file_offset,
            .offset = piece->offset,
            .length = piece->length,
            .flags = fs_flags(piece),
        }},
    };
}

/* As the standard has it, who agrees on SHMEM takes SHMEM_MAP, which brings a descriptor:
 * crosvm has the one and not BACKEND_SEND_FD. Legacy VMMs map before they answer, into
 * memory that they tell nobody of. */
static const Protocol protocols[] = {
    [VU_WINDOW_STANDARD] =
        {
            .rules = {.offers = VU_PROTOCOL_F_SHMEM,
                      .needs = CHANNEL | VU_PROTOCOL_F_SHMEM,
                      .adds_memory = true},
            .map = VU_BACKEND_SHMEM_MAP,
            .unmap = VU_BACKEND_SHMEM_UNMAP,
            .size = sizeof(struct vu_shmem_map),
            .encode = encode_shmem,
        },
    [VU_WINDOW_LEGACY] =
        {
            .rules = {.needs = CHANNEL_FOR_FDS, .outlives_reset = true},
            .map = VU_BACKEND_FS_MAP,
            .unmap = VU_BACKEND_FS_UNMAP,
            .size = sizeof(struct vu_fs_arrays),
            .encode = encode_arrays,
        },
    [VU_WINDOW_LEGACY_V3] =
        {
            .rules = {.needs = CHANNEL_FOR_FDS, .outlives_reset = true},
            .map = VU_BACKEND_FS_MAP,
            .unmap = VU_BACKEND_FS_UNMAP,
            .size = sizeof(struct vu_fs_entries),
            .encode = encode_entries,
        },
};

const VuWindowRules *vu_window_protocol_rules(VuWindowProtocol protocol)
{
    return &protocols[protocol].rules;
}

void vu_window_protocol_encode(VuWindowProtocol protocol, const VuWindowPiece *piece,
                               VuBackendRequest *ret_request)
{
    const Protocol *row = &protocols[protocol];

    *ret_request = (VuBackendRequest){
        .number = piece->maps ? row->map : row->unmap,
        .size = row->size,
        .fd = piece->fd,
    };
    row->encode(piece, &ret_request->payload);
}
