/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_SUPPORT_FUSE_HARNESS_H
#define TESTS_SUPPORT_FUSE_HARNESS_H

#include <linux/fuse.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tests/support/null-fs.h"
#include "virtiofsd/fuse/request.h"

/*
 * Runs FUSE requests, given as bytes, through request_run() against null-fs or another
 * file system, and holds every answer to the rules that no request may break.
 */

/** Opcodes are below this. */
#define HARNESS_OPCODES 54u
/** Room for any reply that a test asks for. */
#define HARNESS_OUT_SIZE (72 * 1024)
/** The bit of harness_config_of() that is for those who have a DAX window. */
#define HARNESS_WINDOW 0x8000u
/** What harness_run() returns for a request that is put aside. */
#define HARNESS_WAITS 2

/** struct Harness - a session, one worker, and the last reply. */
typedef struct Harness {
    PtFs *fs;
    Session *session;
    RequestWorker *worker;
    unsigned int split; /* how segments are cut: see harness_run() */
    bool may_wait;      /* a request may be put aside: HARNESS_WAITS */
    uint64_t unique;
    size_t length; /* of the reply; 0 for none */
    union {
        struct fuse_out_header out;
        unsigned char bytes[HARNESS_OUT_SIZE];
    } reply;
} Harness;

/** struct Message - a request being put together. */
typedef struct Message {
    union {
        struct fuse_in_header header;
        unsigned char bytes[8192];
    };
    size_t size;
} Message;

/** harness_config() - the defaults of --cache=auto. */
SessionConfig harness_config(void);
/** harness_config_of() - one that bits of fuzz choose; 0 is harness_config(). */
SessionConfig harness_config_of(uint16_t modes);

/** harness_new() - on a new null-fs. @config: NULL for harness_config(). */
Harness *harness_new(const SessionConfig *config);
/** harness_new_on() - on any file system, which is owned now. */
Harness *harness_new_on(const SessionConfig *config, PtFs *fs_take);
void harness_free(Harness *harness);

/** harness_init() - an honest INIT with these flags; fails the test if refused. */
void harness_init(Harness *harness, uint64_t flags);

/** message_begin() - a header from uid 1000, gid 1000, on the root. */
void message_begin(Message *message, uint32_t opcode);
void message_add(Message *message, const void *bytes, size_t size);
/** message_add_name() - @name with its NUL. */
void message_add_name(Message *message, const char *name);

/** message_honest() - what an honest guest sends. Return: false if there is no such
 * opcode. */
bool message_honest(Message *message, uint32_t opcode);

/**
 * harness_run() - run a request as it is; its header.len is set before, if @fix_length.
 * @room: writable bytes.
 *
 * Segments are allocated one by one, so that a sanitizer sees a step over any end.
 * harness->split: 0 whole; 1 single bytes; 2 empty ones between; 3 and up: pieces of
 * that size.
 *
 * Fails the test if the reply is not well-formed.
 * Return: the reply's error, 1 if there was none (no reply), HARNESS_WAITS.
 */
int harness_run(Harness *harness, Message *message, size_t room, bool fix_length);

/** harness_call() - harness_run() with ample room and the right length. */
int harness_call(Harness *harness, Message *message);

/** harness_body() - what follows the last reply's header. */
const void *harness_body(const Harness *harness);
size_t harness_body_size(const Harness *harness);

/** harness_check_alive() - an honest GETATTR of the root is answered. */
void harness_check_alive(Harness *harness);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(Harness, harness_free)

#endif
