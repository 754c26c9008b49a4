/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How much room the answer to a FUSE request needs: one table, by opcode. The fixed sizes
 * are those that fs/fuse/ of Linux 7.2 gives for a server of minor 31 and later.
 */
#include "tests/support/reply-room.h"

#include <linux/fuse.h>
#include <string.h>

#define UNKNOWN_ROOM 8192u
#define PATH_ROOM 4096u

typedef enum RoomKind {
    ROOM_UNKNOWN, /* not in the table */
    ROOM_FIXED,
    ROOM_NONE,  /* no answer at all */
    ROOM_READ,  /* struct fuse_read_in says */
    ROOM_XATTR, /* struct fuse_getxattr_in says; 0 asks for the size */
    ROOM_IOCTL, /* struct fuse_ioctl_in says */
} RoomKind;

typedef struct Room {
    RoomKind kind;
    uint32_t size;
    bool paged;
} Room;

#define ENTRY_SIZE ((uint32_t)sizeof(struct fuse_entry_out))
#define OPEN_SIZE ((uint32_t)sizeof(struct fuse_open_out))
#define ATTR_SIZE ((uint32_t)sizeof(struct fuse_attr_out))
#define FIXED(bytes)                                                                     \
    {                                                                                    \
        .kind = ROOM_FIXED, .size = (bytes)                                              \
    }

static const Room rooms[] = {
    [FUSE_LOOKUP] = FIXED(ENTRY_SIZE),
    [FUSE_FORGET] = {.kind = ROOM_NONE},
    [FUSE_GETATTR] = FIXED(ATTR_SIZE),
    [FUSE_SETATTR] = FIXED(ATTR_SIZE),
    [FUSE_READLINK] = {.kind = ROOM_FIXED, .size = PATH_ROOM - 1, .paged = true},
    [FUSE_SYMLINK] = FIXED(ENTRY_SIZE),
    [FUSE_MKNOD] = FIXED(ENTRY_SIZE),
    [FUSE_MKDIR] = FIXED(ENTRY_SIZE),
    [FUSE_UNLINK] = FIXED(0),
    [FUSE_RMDIR] = FIXED(0),
    [FUSE_RENAME] = FIXED(0),
    [FUSE_LINK] = FIXED(ENTRY_SIZE),
    [FUSE_OPEN] = FIXED(OPEN_SIZE),
    [FUSE_READ] = {.kind = ROOM_READ, .paged = true},
    [FUSE_WRITE] = FIXED(sizeof(struct fuse_write_out)),
    [FUSE_STATFS] = FIXED(sizeof(struct fuse_statfs_out)),
    [FUSE_RELEASE] = FIXED(0),
    [FUSE_FSYNC] = FIXED(0),
    [FUSE_SETXATTR] = FIXED(0),
    [FUSE_GETXATTR] = {.kind = ROOM_XATTR},
    [FUSE_LISTXATTR] = {.kind = ROOM_XATTR},
    [FUSE_REMOVEXATTR] = FIXED(0),
    [FUSE_FLUSH] = FIXED(0),
    [FUSE_INIT] = FIXED(sizeof(struct fuse_init_out)),
    [FUSE_OPENDIR] = FIXED(OPEN_SIZE),
    [FUSE_READDIR] = {.kind = ROOM_READ, .paged = true},
    [FUSE_RELEASEDIR] = FIXED(0),
    [FUSE_FSYNCDIR] = FIXED(0),
    [FUSE_GETLK] = FIXED(sizeof(struct fuse_lk_out)),
    [FUSE_SETLK] = FIXED(0),
    [FUSE_SETLKW] = FIXED(0),
    [FUSE_ACCESS] = FIXED(0),
    [FUSE_CREATE] = FIXED(ENTRY_SIZE + OPEN_SIZE),
    [FUSE_INTERRUPT] = {.kind = ROOM_NONE},
    [FUSE_BMAP] = FIXED(sizeof(struct fuse_bmap_out)),
    [FUSE_DESTROY] = FIXED(0),
    [FUSE_IOCTL] = {.kind = ROOM_IOCTL, .paged = true},
    [FUSE_POLL] = FIXED(sizeof(struct fuse_poll_out)),
    [FUSE_BATCH_FORGET] = {.kind = ROOM_NONE},
    [FUSE_FALLOCATE] = FIXED(0),
    [FUSE_READDIRPLUS] = {.kind = ROOM_READ, .paged = true},
    [FUSE_RENAME2] = FIXED(0),
    [FUSE_LSEEK] = FIXED(sizeof(struct fuse_lseek_out)),
    [FUSE_COPY_FILE_RANGE] = FIXED(sizeof(struct fuse_write_out)),
    [FUSE_SETUPMAPPING] = FIXED(0),
    [FUSE_REMOVEMAPPING] = FIXED(0),
    [FUSE_SYNCFS] = FIXED(0),
    [FUSE_TMPFILE] = FIXED(ENTRY_SIZE + OPEN_SIZE),
    [REPLY_OPCODE_STATX] = FIXED(REPLY_STATX_SIZE),
    [REPLY_OPCODE_COPY_FILE_RANGE_64] = FIXED(8),
};

static const Room *find(uint32_t opcode)
{
    static const Room unknown = {.kind = ROOM_UNKNOWN, .size = UNKNOWN_ROOM};
    if (opcode >= sizeof(rooms) / sizeof(rooms[0]) ||
        rooms[opcode].kind == ROOM_UNKNOWN) {
        return &unknown;
    }
    return &rooms[opcode];
}

/* A 32-bit field of the request's arguments, or 0 if the request is too short. */
static uint32_t field(const void *request, size_t size, size_t offset)
{
    uint32_t value = 0;
    offset += sizeof(struct fuse_in_header);
    if (size >= offset + sizeof(value)) {
        memcpy(&value, (const uint8_t *)request + offset, sizeof(value));
    }
    return value;
}

size_t reply_room(const void *request, size_t size)
{
    struct fuse_in_header header = {0};
    memcpy(&header, request, size < sizeof(header) ? size : sizeof(header));
    const Room *room = find(header.opcode);
    uint32_t asked;
    switch (room->kind) {
    case ROOM_READ:
        return field(request, size, offsetof(struct fuse_read_in, size));
    case ROOM_XATTR:
        asked = field(request, size, offsetof(struct fuse_getxattr_in, size));
        return asked > 0 ? asked : sizeof(struct fuse_getxattr_out);
    case ROOM_IOCTL:
        asked = field(request, size, offsetof(struct fuse_ioctl_in, out_size));
        return sizeof(struct fuse_ioctl_out) + asked;
    case ROOM_NONE:
        return 0;
    case ROOM_FIXED:
    case ROOM_UNKNOWN:
        break;
    }
    return room->size;
}

bool reply_is_expected(uint32_t opcode)
{
    return find(opcode)->kind != ROOM_NONE;
}

bool reply_is_paged(uint32_t opcode)
{
    return find(opcode)->paged;
}
