/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A device whose rings run: start, stop, reboot, memory that comes and goes, and waits
 * for requests in flight.
 */
#include <pthread.h>
#include <stdatomic.h>

#include "tests/unit/vhost-vmm.h"
#include "virtiofsd/log.h"

#define DATA (GUEST_GPA + GUEST_DATA)

static void offer(Vmm *v)
{
    guest_desc(&v->guest, GUEST_DESC, 0, (GuestDesc){DATA, 10, VRING_DESC_F_WRITE, 0});
    guest_offer(&v->guest, 0);
}

/* Take what is offered on ring 1. Return: whether there was something. */
static gboolean serve(Vmm *v, VuChain *chain)
{
    VuRing *ring = vu_device_ring(v->device, 1);

    if (!vu_ring_pop(ring, chain)) {
        return FALSE;
    }
    g_assert_cmpuint(chain->n_out, ==, 1);
    g_assert_cmpuint(chain->out[0].iov_len, ==, 10);
    memset(chain->out[0].iov_base, 0x5a, 10);
    vu_ring_push(ring, chain, 10);
    return TRUE;
}

static void expect_served(Vmm *v)
{
    VuChain *chain = vu_chain_new();
    uint32_t id = 0, length = 0;

    v->guest.memory[GUEST_DATA + 9] = 0;
    offer(v);
    g_assert_true(serve(v, chain));
    g_assert_false(serve(v, chain));
    g_assert_true(guest_reap(&v->guest, &id, &length));
    g_assert_cmpuint(length, ==, 10);
    g_assert_cmpint(v->guest.memory[GUEST_DATA + 9], ==, 0x5a);
    vu_chain_free(chain);
}

static void expect_not_served(Vmm *v)
{
    VuChain *chain = vu_chain_new();

    offer(v);
    g_assert_false(serve(v, chain));
    v->guest.offered--; /* offered again by the next */
    guest_store16(&v->guest, GUEST_AVAIL + 2, v->guest.offered);
    vu_chain_free(chain);
}

/* Start ring 1 as QEMU does. */
static void start(Vmm *v, uint32_t base)
{
    vmm_ring(v, 1, base);
    g_assert_cmpint(vmm_ring_fd(v, VU_SET_VRING_KICK, 1, v->interrupt_fd), ==, VU_OK);
    expect_calls(v, "start1 ");
    g_assert_cmpint(vmm_say_state(v, VU_SET_VRING_ENABLE, 1, 1), ==, VU_OK);
    expect_calls(v, "wake1 ");
}

static void begin(Vmm *v)
{
    vmm_init(v, NULL);
    vmm_negotiate(v);
    g_assert_cmpuint(vmm_memory(v, 0, GUEST_SIZE, v->guest.fd), ==, 0);
    start(v, 0);
    expect_served(v);
}

/* GET_VRING_BASE. Return: the base. */
static uint32_t stop(Vmm *v)
{
    const struct vu_vring_state state = {1, 0};
    Reply reply = {0};

    g_assert_cmpint(vmm_say(v, VU_GET_VRING_BASE, PLAIN, &state, sizeof(state)), ==,
                    VU_OK);
    g_assert_true(vmm_receive(v, &reply));
    g_assert_cmpuint(reply.header.size, ==, 8);
    g_assert_cmpuint(reply.payload.state.index, ==, 1);
    expect_calls(v, "stop1 ");
    g_assert_false(is_open(v->kick_fds[1]));
    return reply.payload.state.num;
}

/* ---- one after the other -------------------------------------------------------------
 */

static void test_stop_and_cont(void)
{
    Vmm v;

    begin(&v);
    for (unsigned int i = 1; i < 300; i++) {
        uint32_t base = stop(&v);
        g_assert_cmpuint(base, ==, i);
        expect_not_served(&v);
        start(&v, base);
        expect_served(&v);
    }
    g_assert_cmpint(vmm_say_state(&v, VU_SET_VRING_ENABLE, 1, 0), ==, VU_OK);
    expect_not_served(&v);
    vmm_clear(&v);
}

/* A ring that was never started answers its base and stops nothing. */
static void test_base_of_idle(void)
{
    Reply reply = {0};
    Vmm v;

    vmm_init(&v, NULL);
    g_assert_cmpint(vmm_say_state(&v, VU_SET_VRING_BASE, 0, 77), ==, VU_OK);
    g_assert_cmpint(vmm_say_state(&v, VU_GET_VRING_BASE, 0, 0), ==, VU_OK);
    g_assert_true(vmm_receive(&v, &reply));
    g_assert_cmpuint(reply.payload.state.num, ==, 77);
    expect_calls(&v, "");
    vmm_clear(&v);
}

static void guest_reboots(Vmm *v)
{
    memset(v->guest.memory, 0, GUEST_SIZE);
    v->guest.offered = v->guest.reaped = 0;
}

/* A packed ring's base is two places, each with its wrap counter; the layout does not
 * change under a ring that runs. */
static void test_packed(void)
{
    const uint32_t bases[] = {0x80008000, 0, 0x00050005, 0xffffffff};
    const uint64_t packed = USUAL_FEATURES | VU_F_RING_PACKED;
    VuChain *chain = vu_chain_new();
    Reply reply = {0};
    Vmm v;

    begin(&v);
    (void)stop(&v);
    g_assert_cmpint(vmm_say_u64(&v, VU_SET_FEATURES, packed), ==, VU_OK);
    for (size_t i = 0; i < G_N_ELEMENTS(bases); i++) {
        if (i > 0) { /* the first is that of a ring without a past */
            g_assert_cmpint(vmm_say_state(&v, VU_SET_VRING_BASE, 1, bases[i]), ==, VU_OK);
        }
        g_assert_cmpint(vmm_say_state(&v, VU_GET_VRING_BASE, 1, 0), ==, VU_OK);
        g_assert_true(vmm_receive(&v, &reply));
        g_assert_cmpuint(reply.payload.state.num, ==, bases[i]);
    }
    guest_reboots(&v);
    packed_init(&v.guest);
    start(&v, 0x80008000);
    packed_offer(&v.guest, &(GuestDesc){GUEST_GPA + GUEST_DATA, 9, 0, 3}, 1);
    g_assert_true(vu_ring_pop(vu_device_ring(v.device, 1), chain));
    vu_ring_push(vu_device_ring(v.device, 1), chain, 0);
    vu_chain_free(chain);
    /* what is said again is no change; this is one */
    g_assert_cmpint(vmm_say_u64(&v, VU_SET_FEATURES, packed), ==, VU_OK);
    g_assert_cmpint(vmm_say_u64(&v, VU_SET_FEATURES, USUAL_FEATURES), ==, VU_BAD_PEER);
    vmm_clear(&v);
}

static void test_reboot(void)
{
    Vmm v;

    begin(&v);
    for (int i = 0; i < 1000; i++) {
        if (i % 2 == 0) { /* as vhost-user-fs does */
            g_assert_cmpint(vmm_say_state(&v, VU_SET_VRING_ENABLE, 1, 0), ==, VU_OK);
            (void)stop(&v);
            g_assert_cmpint(vmm_say(&v, VU_RESET_DEVICE, PLAIN, NULL, 0), ==, VU_OK);
            expect_calls(&v, "reset ");
        } else if (i % 4 == 1) { /* without a reset */
            (void)stop(&v);
        } else { /* with a reset of rings that run */
            g_assert_cmpint(vmm_say(&v, VU_RESET_DEVICE, PLAIN, NULL, 0), ==, VU_OK);
            expect_calls(&v, "stop1 reset ");
        }
        guest_reboots(&v);
        expect_not_served(&v);
        g_assert_cmpint(vmm_say_u64(&v, VU_SET_FEATURES, ALL_FEATURES), ==, VU_OK);
        start(&v, 0);
        expect_served(&v);
    }
    vmm_clear(&v);
}

/* After a reset a ring has to be enabled again. */
static void test_reset_disables(void)
{
    Vmm v;

    begin(&v);
    g_assert_cmpint(vmm_say(&v, VU_RESET_DEVICE, PLAIN, NULL, 0), ==, VU_OK);
    expect_calls(&v, "stop1 reset ");
    guest_reboots(&v);
    vmm_ring(&v, 1, 0);
    g_assert_cmpint(vmm_ring_fd(&v, VU_SET_VRING_KICK, 1, -1), ==, VU_OK);
    expect_calls(&v, "start1 ");
    expect_not_served(&v);
    vmm_clear(&v);
}

/* A VMM without protocol features has no SET_VRING_ENABLE. */
static void test_old_vmm(void)
{
    const struct vu_mem_table table = {.count = 1,
                                       .regions = {vmm_region(0, GUEST_SIZE).region}};
    Vmm v;

    vmm_init(&v, NULL);
    g_assert_cmpint(vmm_say_u64(&v, VU_SET_FEATURES, VU_F_VERSION_1), ==, VU_OK);
    g_assert_cmpint(
        vmm_do(&v, &(Outgoing){VU_SET_MEM_TABLE, PLAIN, &table, 40, &v.guest.fd, 1}), ==,
        VU_OK);
    vmm_ring(&v, 1, 0);
    g_assert_cmpint(vmm_ring_fd(&v, VU_SET_VRING_KICK, 1, -1), ==, VU_OK);
    expect_served(&v);
    vmm_clear(&v);
}

/* The orders in which a ring can come to life, all but the usual one. */
static void test_odd_order(void)
{
    Vmm v;

    vmm_init(&v, NULL);
    vmm_negotiate(&v);
    g_assert_cmpint(vmm_say_state(&v, VU_SET_VRING_ENABLE, 1, 1), ==, VU_OK);
    g_assert_cmpint(vmm_ring_addr(&v, 1, 0), ==, VU_OK);
    g_assert_cmpint(vmm_say_state(&v, VU_SET_VRING_NUM, 1, GUEST_QUEUE), ==, VU_OK);
    expect_calls(&v, "");
    g_assert_cmpint(vmm_ring_fd(&v, VU_SET_VRING_KICK, 1, v.interrupt_fd), ==, VU_OK);
    expect_calls(&v, "start1 ");
    expect_not_served(&v);
    g_assert_cmpuint(vmm_memory(&v, 0, GUEST_SIZE, v.guest.fd), ==, 0);
    expect_calls(&v, "wake1 ");
    expect_served(&v);
    /* while it runs: the same addresses are fine, others and a size are not */
    g_assert_cmpint(vmm_ring_addr(&v, 1, 0), ==, VU_OK);
    g_assert_cmpint(vmm_ring_addr(&v, 1, 0x100), ==, VU_OK); /* refused, logged */
    g_assert_cmpint(vmm_say_state(&v, VU_SET_VRING_NUM, 1, 32), ==, VU_OK);
    expect_served(&v);
    g_assert_cmpint(vmm_say_state(&v, VU_SET_VRING_ENABLE, 1, 2), ==, VU_BAD_PEER);
    vmm_clear(&v);
    begin(&v);
    g_assert_cmpint(vmm_say_state(&v, VU_SET_VRING_BASE, 1, 0), ==, VU_BAD_PEER);
    vmm_clear(&v);
}

/* ---- memory
 * ---------------------------------------------------------------------------- */

static void test_hotplug(void)
{
    const uint64_t extra = 1ull << 33;
    struct vu_mem_single single = {.region = {.gpa = extra, .size = 4096, .uva = extra}};
    Vmm v;

    begin(&v);
    for (int i = 0; i < 100; i++) {
        int fd = memfd_create("dimm", MFD_CLOEXEC);
        g_assert_cmpint(ftruncate(fd, 4096), ==, 0);
        g_assert_cmpint(
            vmm_do(&v, &(Outgoing){VU_ADD_MEM_REG, NR, &single, sizeof(single), &fd, 1}),
            ==, VU_OK);
        g_assert_cmpuint(vmm_ack(&v), ==, 0);
        expect_calls(&v, "wake1 ");
        expect_served(&v);
        /* with the descriptor, as some VMMs do */
        g_assert_cmpint(
            vmm_do(&v, &(Outgoing){VU_REM_MEM_REG, NR, &single, sizeof(single), &fd, 1}),
            ==, VU_OK);
        g_assert_cmpuint(vmm_ack(&v), ==, 0);
        expect_calls(&v, "wake1 ");
        expect_served(&v);
        close(fd);
    }
    vmm_clear(&v);
}

static void test_ring_loses_memory(void)
{
    Vmm v;

    begin(&v);
    g_assert_cmpuint(vmm_memory(&v, 0, GUEST_SIZE, -1), ==, 0);
    expect_not_served(&v);
    g_assert_cmpuint(vmm_memory(&v, 0, GUEST_SIZE, v.guest.fd), ==, 0);
    expect_served(&v);
    expect_calls(&v, "wake1 wake1 ");
    g_assert_cmpuint(stop(&v), ==, 2);
    vmm_clear(&v);
}

static void test_mem_table(void)
{
    struct vu_mem_table table = {.count = 2,
                                 .regions = {vmm_region(0, 0x40000).region,
                                             vmm_region(0x40000, GUEST_SIZE).region}};
    Vmm v;

    begin(&v);
    g_string_truncate(v.calls, 0);
    const int fds[] = {v.guest.fd, v.guest.fd, v.guest.fd};
    Outgoing out = {VU_SET_MEM_TABLE, NR, &table, 8 + 64, fds, 2};
    for (int i = 0; i < 10; i++) {
        g_assert_cmpint(vmm_do(&v, &out), ==, VU_OK);
        g_assert_cmpuint(vmm_ack(&v), ==, 0);
        expect_calls(&v, "wake1 ");
        expect_served(&v);
    }
    /* one bad region: the whole table is not taken, and the old one stays */
    table.regions[1].gpa = table.regions[0].gpa;
    g_assert_cmpint(vmm_do(&v, &out), ==, VU_OK);
    g_assert_cmpuint(vmm_ack(&v), ==, 1);
    expect_served(&v);
    table.count = 3; /* says three, brings two */
    g_assert_cmpint(vmm_do(&v, &out), ==, VU_BAD_PEER);
    vmm_clear(&v);

    begin(&v);
    table.count = 9;
    out.size = sizeof(table);
    g_assert_cmpint(vmm_do(&v, &out), ==, VU_BAD_PEER);
    vmm_clear(&v);
}

/* QEMU without shared memory: no region, then addresses in it. */
static void test_unshared(void)
{
    Vmm v;

    vmm_init(&v, NULL);
    vmm_negotiate(&v);
    int saved = dup(STDERR_FILENO);
    int log = memfd_create("log", MFD_CLOEXEC);
    dup2(log, STDERR_FILENO);
    log_threshold = LOG_LEVEL_INFO;
    for (uint32_t i = 0; i < N_QUEUES; i++) {
        vmm_ring(&v, i, 0);
        g_assert_cmpint(vmm_ring_fd(&v, VU_SET_VRING_KICK, i, v.interrupt_fd), ==, VU_OK);
        g_assert_cmpint(vmm_say_state(&v, VU_SET_VRING_ENABLE, i, 1), ==, VU_OK);
    }
    log_threshold = LOG_LEVEL_OFF;
    dup2(saved, STDERR_FILENO);
    char text[4096] = {0};
    g_assert_cmpint(pread(log, text, sizeof(text) - 1, 0), >, 0);
    g_assert_nonnull(strstr(text, "share=on"));
    g_assert_true(strchr(text, '\n') == strrchr(text, '\n')); /* once */
    close(saved);
    close(log);
    expect_not_served(&v);
    for (uint32_t i = 0; i < N_QUEUES; i++) {
        g_assert_cmpint(vmm_say_state(&v, VU_GET_VRING_BASE, i, 0), ==, VU_OK);
    }
    vmm_clear(&v);
}

/* ---- requests in flight
 * ---------------------------------------------------------------- */

/* A worker that takes its time. */
typedef struct Slow {
    Vmm *v;
    VuChain *chain;
    useconds_t delay;
    _Atomic bool pushed;
    pthread_t thread;
} Slow;

static void *slow_main(void *data)
{
    Slow *slow = data;

    usleep(slow->delay);
    memset(slow->chain->out[0].iov_base, 1, slow->chain->out[0].iov_len);
    atomic_store(&slow->pushed, true);
    vu_ring_push(vu_device_ring(slow->v->device, 1), slow->chain, 10);
    return NULL;
}

static void slow_begin(Slow *slow, Vmm *v, useconds_t delay)
{
    *slow = (Slow){.v = v, .chain = vu_chain_new(), .delay = delay};
    offer(v);
    g_assert_true(vu_ring_pop(vu_device_ring(v->device, 1), slow->chain));
    g_assert_cmpint(pthread_create(&slow->thread, NULL, slow_main, slow), ==, 0);
}

static void slow_end(Slow *slow)
{
    pthread_join(slow->thread, NULL);
    vu_chain_free(slow->chain);
}

/* The four that wait for requests: none is answered before the request is retired. */
static void test_draining(void)
{
    const struct vu_vring_state state = {1, 0};
    const struct vu_mem_single single = vmm_region(0, GUEST_SIZE);
    const struct vu_mem_table table = {.count = 1, .regions = {single.region}};
    const useconds_t delays[] = {0, 100, 50000};

    for (size_t i = 0; i < 4 * G_N_ELEMENTS(delays); i++) {
        Slow slow;
        Vmm v;
        begin(&v);
        const Outgoing waiting[] = {
            {VU_GET_VRING_BASE, PLAIN, &state, sizeof(state), NULL, 0},
            {VU_RESET_DEVICE, NR, NULL, 0, NULL, 0},
            {VU_REM_MEM_REG, NR, &single, sizeof(single), NULL, 0},
            {VU_SET_MEM_TABLE, NR, &table, 40, &v.guest.fd, 1},
        };
        slow_begin(&slow, &v, delays[i / 4]);
        g_assert_cmpint(vmm_do(&v, &waiting[i % 4]), ==, VU_OK);
        g_assert_true(atomic_load(&slow.pushed));
        g_assert_cmpuint(guest_used_index(&v.guest), ==, 2);
        Reply reply = {0};
        g_assert_true(vmm_receive(&v, &reply));
        if (i % 4 == 0) {
            g_assert_cmpuint(reply.payload.state.num, ==, 2);
        }
        slow_end(&slow);
        vmm_clear(&v);
    }
}

/* What needs attention meanwhile gets it, once for each time, and ends no wait. */
static void test_attention(void)
{
    const uint64_t one = 1;
    Slow slow;
    Vmm v;

    begin(&v);
    slow_begin(&slow, &v, 100000);
    g_assert_cmpint(write(v.attend_fd, &one, sizeof(one)), ==, sizeof(one));
    g_assert_cmpint(vmm_say_state(&v, VU_GET_VRING_BASE, 1, 0), ==, VU_OK);
    g_assert_true(atomic_load(&slow.pushed));
    g_assert_cmpuint(v.n_attended, ==, 1);
    slow_end(&slow);
    vmm_clear(&v);
}

/* Another ring's requests do not delay GET_VRING_BASE. */
static void test_other_ring(void)
{
    Slow slow;
    Vmm v;

    begin(&v);
    slow_begin(&slow, &v, 200000);
    g_assert_cmpint(vmm_say_state(&v, VU_GET_VRING_BASE, 2, 0), ==, VU_OK);
    g_assert_false(atomic_load(&slow.pushed));
    slow_end(&slow);
    vmm_clear(&v);
}

/* The VMM leaves, or the process is asked to end, while @waiting waits. */
static void give_up(const Outgoing *waiting, bool leave)
{
    Slow slow;
    Vmm v;

    begin(&v);
    slow_begin(&slow, &v, 300000);
    vmm_send(&v, waiting);
    if (leave) {
        close(v.peer);
        v.peer = -1;
    } else {
        uint64_t one = 1;
        g_assert_cmpint(write(v.interrupt_fd, &one, 8), ==, 8);
    }
    g_assert_cmpint(vu_device_handle(v.device), ==, VU_INTERRUPTED);
    g_assert_false(atomic_load(&slow.pushed));
    /* not in time, then in time; the request's memory stays as long as it runs */
    g_assert_false(vu_device_disconnect(v.device, 10));
    g_assert_cmpint(vu_device_fd(v.device), ==, -1);
    g_assert_true(vu_device_disconnect(v.device, 10000));
    g_assert_cmpuint(guest_used_index(&v.guest), ==, 2);
    slow_end(&slow);
    /* nothing is held back when the next one comes */
    if (leave) {
        g_string_truncate(v.calls, 0);
        guest_reboots(&v);
        vmm_connect(&v);
        vmm_negotiate(&v);
        g_assert_cmpuint(vmm_memory(&v, 0, GUEST_SIZE, v.guest.fd), ==, 0);
        start(&v, 0);
        expect_served(&v);
    }
    vmm_clear(&v);
}

static void test_giving_up(void)
{
    const struct vu_vring_state state = {1, 0};
    const struct vu_mem_single single = vmm_region(0, GUEST_SIZE);
    const Outgoing base = {VU_GET_VRING_BASE, PLAIN, &state, sizeof(state), NULL, 0};
    const Outgoing remove = {VU_REM_MEM_REG, NR, &single, sizeof(single), NULL, 0};
    const Outgoing reset = {VU_RESET_DEVICE, NR, NULL, 0, NULL, 0};

    for (int leave = 0; leave < 2; leave++) {
        give_up(&base, leave != 0);
        give_up(&remove, leave != 0);
        give_up(&reset, leave != 0);
    }
}

/* The next VMM finds a device that knows nothing of the first. */
static void test_next_vmm(void)
{
    Reply reply = {0};
    Vmm v;

    begin(&v);
    int call_fd = make_event();
    unsigned int fds = 0;
    g_assert_cmpint(vmm_ring_fd(&v, VU_SET_VRING_CALL, 1, call_fd), ==, VU_OK);
    for (int i = 0; i < 20; i++) {
        close(v.peer);
        g_assert_cmpint(vu_device_handle(v.device), ==, VU_CLOSED);
        g_assert_true(vu_device_disconnect(v.device, -1));
        expect_calls(&v, "stop1 ");
        expect_not_served(&v);
        vmm_connect(&v);
        fds = fds == 0 ? count_fds() : fds;
        g_assert_cmpuint(count_fds(), ==, fds);
        const uint64_t features = ALL_FEATURES;
        g_assert_cmpint(vmm_say(&v, VU_SET_FEATURES, NR, &features, 8), ==, VU_OK);
        g_assert_false(vmm_receive(&v, &reply)); /* nothing negotiated */
        guest_reboots(&v);
        vmm_negotiate(&v);
        g_assert_cmpuint(vmm_memory(&v, 0, GUEST_SIZE, v.guest.fd), ==, 0);
        start(&v, 0);
        expect_served(&v);
        g_assert_cmpuint(take_events(call_fd), ==, 0); /* the first VMM's */
    }
    close(call_fd);
    vmm_clear(&v);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    log_threshold = LOG_LEVEL_OFF;
    g_test_add_func("/device-rings/stop-and-cont", test_stop_and_cont);
    g_test_add_func("/device-rings/base-of-idle", test_base_of_idle);
    g_test_add_func("/device-rings/packed", test_packed);
    g_test_add_func("/device-rings/reboot", test_reboot);
    g_test_add_func("/device-rings/reset-disables", test_reset_disables);
    g_test_add_func("/device-rings/old-vmm", test_old_vmm);
    g_test_add_func("/device-rings/odd-order", test_odd_order);
    g_test_add_func("/device-rings/hotplug", test_hotplug);
    g_test_add_func("/device-rings/ring-loses-memory", test_ring_loses_memory);
    g_test_add_func("/device-rings/mem-table", test_mem_table);
    g_test_add_func("/device-rings/unshared", test_unshared);
    g_test_add_func("/device-rings/draining", test_draining);
    g_test_add_func("/device-rings/attention", test_attention);
    g_test_add_func("/device-rings/other-ring", test_other_ring);
    g_test_add_func("/device-rings/giving-up", test_giving_up);
    g_test_add_func("/device-rings/next-vmm", test_next_vmm);
    return g_test_run();
}
