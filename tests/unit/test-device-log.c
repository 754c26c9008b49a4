/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages about the dirty log: as QEMU sends them, in any other order, and as they
 * should not be.
 */
#include <fcntl.h>

#include "tests/unit/vhost-log.h"
#include "tests/unit/vhost-vmm.h"
#include "virtiofsd/vhost/guard.h"

#define DATA (GUEST_GPA + GUEST_DATA) /* page 40010 */
#define USED_GPA 0x1000000ull         /* page 1000 */

typedef struct LogVmm {
    Vmm vmm;
    Log log;
    VuChain *chain;
} LogVmm;

static void begin(LogVmm *v)
{
    vmm_init(&v->vmm, NULL);
    log_init(&v->log);
    v->chain = vu_chain_new();
    vmm_negotiate(&v->vmm);
    g_assert_cmpuint(vmm_memory(&v->vmm, 0, GUEST_SIZE, v->vmm.guest.fd), ==, 0);
    vmm_ring(&v->vmm, 1, 0);
    g_assert_cmpint(vmm_ring_fd(&v->vmm, VU_SET_VRING_KICK, 1, v->vmm.interrupt_fd), ==,
                    VU_OK);
    g_assert_cmpint(vmm_say_state(&v->vmm, VU_SET_VRING_ENABLE, 1, 1), ==, VU_OK);
}

/* Without a single log mapped when the VMM has left. */
static void end(LogVmm *v)
{
    log_clear(&v->log);
    vu_chain_free(v->chain);
    vmm_clear(&v->vmm);
    g_assert_cmpuint(count_logs(), ==, 0);
}

static VuStatus set_log(const LogVmm *v, int fd, struct vu_log wire)
{
    const Outgoing out = {VU_SET_LOG_BASE, PLAIN, &wire, sizeof(wire), &fd, 1};

    return vmm_do(&v->vmm, &out);
}

/* It is answered, whether that was asked for or not. */
static void set_log_base(const LogVmm *v, int fd)
{
    Reply reply = {0};

    g_assert_cmpint(set_log(v, fd, (struct vu_log){LOG_SIZE, 0}), ==, VU_OK);
    g_assert_true(vmm_receive(&v->vmm, &reply));
    g_assert_cmpuint(reply.header.request, ==, VU_SET_LOG_BASE);
    g_assert_cmpuint(reply.header.size, ==, 8);
    g_assert_cmpuint(reply.payload.u64, ==, 0);
}

static void set_features(const LogVmm *v, uint64_t features)
{
    g_assert_cmpint(vmm_say(&v->vmm, VU_SET_FEATURES, NR, &features, sizeof(features)),
                    ==, VU_OK);
    g_assert_cmpuint(vmm_ack(&v->vmm), ==, 0);
}

/* The ring's addresses again. Return: what the acknowledgement says. */
static uint64_t set_ring_logged(const LogVmm *v, bool is_logged, uint64_t shift)
{
    const struct vu_vring_addr addr = {.index = 1,
                                       .flags = is_logged ? VU_VRING_F_LOG : 0,
                                       .desc = GUEST_UVA + GUEST_DESC + shift,
                                       .used = GUEST_UVA + GUEST_USED,
                                       .avail = GUEST_UVA + GUEST_AVAIL,
                                       .log = USED_GPA};

    g_assert_cmpint(vmm_say(&v->vmm, VU_SET_VRING_ADDR, NR, &addr, sizeof(addr)), ==,
                    VU_OK);
    return vmm_ack(&v->vmm);
}

static VuRing *ring_of(const LogVmm *v)
{
    return vu_device_ring(v->vmm.device, 1);
}

static void take(LogVmm *v)
{
    guest_desc(&v->vmm.guest, GUEST_DESC, 0,
               (GuestDesc){DATA, 16, VRING_DESC_F_WRITE, 0});
    guest_offer(&v->vmm.guest, 0);
    g_assert_true(vu_ring_pop(ring_of(v), v->chain));
}

static void serve(LogVmm *v)
{
    take(v);
    vu_ring_push(ring_of(v), v->chain, 16);
}

/* QEMU's order, on a ring that runs, with a request in flight. */
static void test_migration(void)
{
    LogVmm v;

    begin(&v);
    serve(&v);
    take(&v);
    set_log_base(&v, v.log.fd);
    set_features(&v, ALL_FEATURES);
    g_assert_cmpuint(set_ring_logged(&v, true, 0), ==, 0);
    vu_ring_push(ring_of(&v), v.chain, 16);
    expect_pages(&v.log, "1000 40010 ");
    serve(&v);
    expect_pages(&v.log, "1000 40010 ");
    g_assert_cmpuint(set_ring_logged(&v, true, 16), !=, 0); /* elsewhere: refused */
    take(&v);
    set_features(&v, USUAL_FEATURES);
    g_assert_cmpuint(set_ring_logged(&v, false, 0), ==, 0);
    vu_ring_push(ring_of(&v), v.chain, 16);
    serve(&v);
    expect_pages(&v.log, "");
    end(&v);
}

/* Neither of the two alone is enough, and their order does not matter. */
static void test_any_order(void)
{
    LogVmm v;

    begin(&v);
    g_assert_cmpuint(set_ring_logged(&v, true, 0), ==, 0);
    set_features(&v, ALL_FEATURES);
    serve(&v);
    expect_pages(&v.log, "");
    set_log_base(&v, v.log.fd);
    serve(&v);
    expect_pages(&v.log, "1000 40010 ");
    set_features(&v, USUAL_FEATURES);
    serve(&v);
    expect_pages(&v.log, "");
    set_features(&v, ALL_FEATURES);
    serve(&v);
    expect_pages(&v.log, "1000 40010 ");
    /* neither of these ends it */
    g_assert_cmpint(vmm_say(&v.vmm, VU_RESET_OWNER, PLAIN, NULL, 0), ==, VU_OK);
    g_assert_cmpint(vmm_say(&v.vmm, VU_SET_OWNER, PLAIN, NULL, 0), ==, VU_OK);
    serve(&v);
    expect_pages(&v.log, "1000 40010 ");
    g_assert_cmpint(vmm_say(&v.vmm, VU_RESET_DEVICE, PLAIN, NULL, 0), ==, VU_OK);
    vmm_ring(&v.vmm, 1, v.vmm.guest.offered);
    g_assert_cmpint(vmm_ring_fd(&v.vmm, VU_SET_VRING_KICK, 1, v.vmm.interrupt_fd), ==,
                    VU_OK);
    g_assert_cmpint(vmm_say_state(&v.vmm, VU_SET_VRING_ENABLE, 1, 1), ==, VU_OK);
    serve(&v); /* the used ring's addresses were reset */
    expect_pages(&v.log, "40010 ");
    end(&v);
}

/* Cloud Hypervisor takes the marks out by giving another log each time. */
static void test_replaced(void)
{
    LogVmm v;

    begin(&v);
    set_features(&v, ALL_FEATURES);
    for (int i = 0; i < 5; i++) {
        Log log;
        log_init(&log);
        set_log_base(&v, log.fd);
        g_assert_cmpuint(count_logs(), ==, 3); /* the VMM's two, and one of ours */
        serve(&v);
        expect_pages(&log, "40010 ");
        take(&v);
        set_log_base(&v, v.log.fd);
        vu_ring_push(ring_of(&v), v.chain, 16);
        expect_pages(&log, "");
        expect_pages(&v.log, "40010 ");
        log_clear(&log);
    }
    end(&v);
}

/* The VMM is told of marks if it wants that. */
static void test_call(void)
{
    LogVmm v;
    int call_fd = make_event();
    int other_fd = make_event();
    const int fds[] = {call_fd, other_fd};

    begin(&v);
    v.vmm.fds_before -= 2;
    for (unsigned int i = 0; i < 2; i++) {
        g_assert_cmpint(
            vmm_do(&v.vmm, &(Outgoing){VU_SET_LOG_FD, PLAIN, NULL, 0, &fds[i], 1}), ==,
            VU_OK);
        serve(&v);
        g_assert_cmpuint(take_events(fds[i]), ==, i); /* nothing is marked at first */
        set_log_base(&v, v.log.fd);
        set_features(&v, ALL_FEATURES);
        serve(&v);
        g_assert_cmpuint(take_events(fds[i]), ==, 1);
    }
    g_assert_cmpuint(take_events(call_fd), ==, 0);
    close(call_fd);
    close(other_fd);
    end(&v);
}

/* What cannot be a log ends the connection: the VMM would go on without marks. */
static void test_refused(void)
{
    const struct vu_log wires[] = {
        {0, 0},          {LOG_SIZE + 1, 0},      {LOG_SIZE, 1},          {1, LOG_SIZE},
        {UINT64_MAX, 1}, {LOG_SIZE, UINT64_MAX}, {LOG_SIZE, 1ull << 63}, {1ull << 63, 0},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(wires); i++) {
        LogVmm v;
        begin(&v);
        set_log_base(&v, v.log.fd);
        g_assert_cmpint(set_log(&v, v.log.fd, wires[i]), ==, VU_BAD_PEER);
        end(&v);
    }
    for (int i = 0; i < 3; i++) {
        LogVmm v;
        begin(&v);
        int fd = i == 0   ? make_event()
                 : i == 1 ? open("/dev/zero", O_RDWR | O_CLOEXEC)
                          : open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        g_assert_cmpint(set_log(&v, fd, (struct vu_log){1, 0}), ==, VU_BAD_PEER);
        close(fd);
        end(&v);
    }
}

/* Only an eventfd is told of marks. */
static void test_call_refused(void)
{
    LogVmm v;

    begin(&v);
    g_assert_cmpint(
        vmm_do(&v.vmm, &(Outgoing){VU_SET_LOG_FD, PLAIN, NULL, 0, &v.log.fd, 1}), ==,
        VU_BAD_PEER);
    end(&v);
}

/* The log's file is made smaller: rings stop, rather than that marks are lost. */
static void test_truncated(void)
{
    LogVmm v;

    begin(&v);
    set_log_base(&v, v.log.fd);
    set_features(&v, ALL_FEATURES);
    g_assert_cmpint(ftruncate(v.log.fd, 0), ==, 0);
    serve(&v);
    g_assert_true(vu_guard_is_hit());
    guest_offer(&v.vmm.guest, 0);
    bool found = vu_ring_pop(ring_of(&v), v.chain);
    if (found) { /* it is the look that stops the ring */
        vu_ring_push(ring_of(&v), v.chain, 0);
    }
    g_assert_false(vu_ring_pop(ring_of(&v), v.chain));
    guest_offer(&v.vmm.guest, 0);
    g_assert_false(vu_ring_pop(ring_of(&v), v.chain));
    end(&v);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/device-log/migration", test_migration);
    g_test_add_func("/device-log/any-order", test_any_order);
    g_test_add_func("/device-log/replaced", test_replaced);
    g_test_add_func("/device-log/call", test_call);
    g_test_add_func("/device-log/refused", test_refused);
    g_test_add_func("/device-log/call-refused", test_call_refused);
    g_test_add_func("/device-log/truncated", test_truncated);
    return g_test_run();
}
