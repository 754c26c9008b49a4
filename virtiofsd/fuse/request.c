/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A request's life: its header is copied once and checked, the table is asked what it is,
 * it runs, and the reply's header is written, here and nowhere else.
 */
#include "virtiofsd/fuse/request.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "virtiofsd/fuse/dispatch.h"
#include "virtiofsd/fuse/op-lock.h"

/* More readable bytes than this are no request: header, the largest fixed part with data,
 * extensions. */
#define MAX_IN                                                                           \
    (sizeof(struct fuse_in_header) + sizeof(struct fuse_write_in) + SESSION_MAX_WRITE +  \
     64 * 1024)
/* The kernel's own codes begin here; no errno that a guest may see is as large. */
#define FIRST_KERNEL_ERROR 512

struct RequestWorker {
    SessionMember member;
    Session *session;
    Wait *wait; /* of the last request, if it was put aside */
    OpScratch
        scratch; /* last, and not zeroed: only pages that are used become resident */
};

RequestWorker *request_worker_new(Session *session)
{
    RequestWorker *worker = aligned_alloc(GATE_LINE, sizeof(*worker));

    if (worker != NULL) {
        memset(worker, 0, offsetof(RequestWorker, scratch));
        worker->session = session;
        session_join(session, &worker->member);
    }
    return worker;
}

void request_worker_free(RequestWorker *worker)
{
    if (worker != NULL) {
        session_leave(worker->session, &worker->member);
        free(worker);
    }
}

/* The only writer of fuse_out_header. @start: the reply's first byte. */
static size_t finish(IovWriter *start, const Request *request, int result)
{
    const size_t alone = sizeof(struct fuse_out_header);
    struct fuse_out_header out = {
        .len = (uint32_t)(result < 0 ? alone : request->writer.written),
        .error = result < 0 ? result : 0,
        .unique = request->header.unique,
    };

    return iov_write(start, &out, sizeof(out)) ? out.len : 0;
}

/* Make sure that what leaves is an errno (the guest refuses a reply with anything else).
 */
static int clean_result(const Request *request, int result)
{
    if (result <= -FIRST_KERNEL_ERROR || (result >= 0 && request->writer.at.overrun)) {
        return -EIO;
    }
    return result;
}

static int run(const Op *op, Request *request, size_t size, GateSlot *slot)
{
    if (request->header.len != size || size > MAX_IN) {
        return op_malformed(request, "its length is not its segments'");
    }
    if (op == NULL) {
        return -ENOSYS;
    }
    if (request->only_short && (op->flags & OP_LONG) != 0) {
        request->is_long = true;
        return -EAGAIN;
    }
    return clean_result(request, dispatch_run(op, request, slot));
}

static int64_t now_us(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now); /* cannot fail for this clock */
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static const char *name_of(const Op *op)
{
    return op != NULL ? op->name : "unknown";
}

static void log_done(const Request *request, const Op *op, int result)
{
    if (request->start_us == 0) {
        return;
    }
    log_write(LOG_LEVEL_DEBUG, "%s (%u) node 0x%llx: %d in %lld us", name_of(op),
              request->header.opcode, (unsigned long long)request->header.nodeid, result,
              (long long)(now_us() - request->start_us));
}

static void count(SessionMember *member, const Request *request, const Op *op, int result)
{
    session_count(&member->requests);
    if (result < 0) {
        session_count(&member->errors);
    }
    if (request->malformed == NULL) {
        return;
    }
    session_count(&member->malformed);
    if (log_enabled(LOG_LEVEL_WARN)) {
        log_write_limited(&request->session->malformed_limit, LOG_LEVEL_WARN,
                          "the guest sent a malformed request: %s (%u): %s", name_of(op),
                          request->header.opcode, request->malformed);
    }
}

/* Serve the request whose header is in @request; @start stands at the reply's first byte.
 */
static size_t serve(RequestWorker *worker, Request *request, size_t size,
                    IovWriter *start)
{
    const Op *op = dispatch_find(request->header.opcode);
    bool is_answered = op == NULL || (op->flags & OP_NO_REPLY) == 0;
    int result;

    request->start_us = log_enabled(LOG_LEVEL_DEBUG) ? now_us() : 0;
    /* What cannot be answered is not done. */
    if (is_answered && request->writer.at.overrun) {
        result = op_malformed(request, "no room for a reply");
    } else {
        result = run(op, request, size, &worker->member.slot);
    }
    if (request->is_long) {
        return REQUEST_LONG;
    }
    if (request->wait != NULL) {
        worker->wait = request->wait;
        return REQUEST_WAITS;
    }
    count(&worker->member, request, op, result);
    log_done(request, op, result);
    return is_answered ? finish(start, request, result) : 0;
}

size_t request_run(RequestWorker *worker, const RequestBuffers *buffers)
{
    Request request;
    IovWriter start;

    memset(&request, 0, sizeof(request));
    request.session = worker->session;
    request.fs = worker->session->fs;
    request.scratch = &worker->scratch;
    request.may_wait = buffers->may_wait;
    request.only_short = buffers->only_short;
    iov_reader_init(&request.reader, buffers->in, buffers->n_in);
    iov_writer_init(&start, buffers->out, buffers->n_out);
    request.writer = start;
    (void)iov_writer_commit(&request.writer, sizeof(struct fuse_out_header));

    size_t size = iov_reader_left(&request.reader);
    if (!iov_read(&request.reader, &request.header, sizeof(request.header))) {
        (void)op_malformed(&request, "too short for a header");
        count(&worker->member, &request, NULL, -EINVAL);
        return 0;
    }
    return serve(worker, &request, size, &start);
}

/* ---- what waits ---------------------------------------------------------------------
 */

Wait *request_waiting(const RequestWorker *worker)
{
    return worker->wait;
}

bool request_retry(RequestWorker *worker, Wait *wait)
{
    Session *session = worker->session;
    int result = -EAGAIN;

    gate_enter(&session->gate, &worker->member.slot);
    /* In the gate: an end of the session has ended it, or will wait for us. */
    if (!waits_is_over(session->waits, wait)) {
        result = op_lock_retry(session, waits_request(wait));
    }
    gate_leave(&session->gate, &worker->member.slot);
    return waits_tried(session->waits, wait, result);
}

size_t request_answer(RequestWorker *worker, Wait *wait, const RequestBuffers *buffers)
{
    const WaitAnswer answer = waits_answer(wait);
    Request request;
    IovWriter start;

    memset(&request, 0, sizeof(request));
    request.header.opcode = answer.request->opcode;
    request.header.nodeid = answer.request->lock.nodeid;
    request.header.unique = answer.request->unique;
    request.start_us = answer.request->start_us;
    iov_writer_init(&start, buffers->out, buffers->n_out);
    request.writer = start;
    request.writer.written = sizeof(struct fuse_out_header);

    const Op *op = dispatch_find(request.header.opcode);
    int result = clean_result(&request, answer.result);
    count(&worker->member, &request, op, result);
    log_done(&request, op, result);
    waits_give(worker->session->waits, wait);
    return finish(&start, &request, result);
}
