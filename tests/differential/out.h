/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_DIFFERENTIAL_OUT_H
#define TESTS_DIFFERENTIAL_OUT_H

#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/stat.h>

/*
 * What an operation was answered: a sequence of fields in memory that both sides share
 * with the comparer.
 */

typedef enum FieldTag {
    FIELD_RETURN,  /* int64_t: a result, or minus errno */
    FIELD_NUMBER,  /* int64_t */
    FIELD_OFFSET,  /* int64_t: a file's offset after the call */
    FIELD_FLAGS,   /* int64_t: F_GETFL */
    FIELD_REFUSED, /* int64_t: 1 if the call failed, whatever the errno */
    FIELD_STAT,    /* OutStat */
    FIELD_DATA,    /* OutData */
    FIELD_PATH,    /* text: what the next fields are about */
    FIELD_NAME,    /* OutName and the name */
    FIELD_NAMES,   /* the end of a listing: OutNames */
    FIELD_TARGET,  /* text */
    FIELD_XATTR,   /* text: name */
    FIELD_STATFS,  /* OutStatfs */
    FIELD_LOCK,    /* OutLock */
    FIELD_SPLICED, /* OutFile: its access time is not comparable any more */
    FIELD_ROOM,    /* OutFile: room was made for what it does not hold yet */
    FIELD_CUT,     /* OutFile: a failure may have freed such room again */
    FIELD_HOLE,    /* OutHole */
    FIELD_N,
} FieldTag;

typedef struct OutTime {
    int64_t s;
    int64_t ns;
} OutTime;

typedef struct OutStat {
    uint64_t ino;
    uint64_t size;
    uint64_t blocks;
    uint32_t mask;
    uint32_t blksize;
    uint32_t mode;
    uint32_t nlink;
    uint32_t uid;
    uint32_t gid;
    uint32_t rdev_major;
    uint32_t rdev_minor;
    uint32_t same_device; /* as the root of the tree */
    uint32_t settled;     /* all is written back: blocks can be compared */
    uint32_t wanted;      /* STATX_* that the program asked for */
    uint32_t reserved;
    OutTime atime;
    OutTime mtime;
    OutTime ctime;
    OutTime btime; /* for the native side always, to tell files apart */
    uint64_t handle;
} OutStat;

/** struct OutFile - a native file, as OutStat tells it; zeros for the mount. */
typedef struct OutFile {
    uint64_t ino;
    uint64_t handle; /* hash of its file handle, if it has one */
    OutTime btime;
} OutFile;

/** struct OutHole - where a file has data or a hole, or which of both it has where. */
typedef struct OutHole {
    OutFile file;
    int64_t value; /* an offset, minus errno or a hash */
} OutHole;

typedef struct OutData {
    uint64_t size;
    uint64_t hash;
    uint8_t head[48];
} OutData;

typedef struct OutName {
    uint32_t type;
} OutName;

typedef struct OutNames {
    uint32_t n;
    uint32_t since;
    uint32_t changed; /* some name changed since then */
    uint32_t ended;   /* the end was reached */
} OutNames;

typedef struct OutStatfs {
    uint64_t bsize;
    uint64_t frsize;
    uint64_t blocks;
    uint64_t files;
    uint64_t namelen;
} OutStatfs;

typedef struct OutLock {
    int64_t type;
    int64_t whence;
    int64_t start;
    int64_t length;
} OutLock;

/** struct OutField - precedes the bytes, which are padded to eight. */
typedef struct OutField {
    uint32_t tag;
    uint32_t size;
} OutField;

typedef struct Out {
    uint8_t *bytes;
    size_t size;
    size_t room;
} Out;

void out_field(Out *out, FieldTag tag, const void *bytes, size_t size);
/** out_return() - @result as a system call gives it: -1 stands for errno. */
void out_return(Out *out, long result);
void out_number(Out *out, FieldTag tag, int64_t number);
void out_data(Out *out, const void *bytes, size_t size);
uint64_t out_hash(uint64_t hash, const void *bytes, size_t size);
/** out_next() - the field at *@at, which moves behind it; NULL at @end. */
const OutField *out_next(const uint8_t **at, const uint8_t *end);

#endif
