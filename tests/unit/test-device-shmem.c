/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A device with a DAX window: what it offers, when it asks the VMM for mappings, and what
 * becomes of the memory that the VMM adds for them.
 */
#include <errno.h>

#include "tests/unit/vhost-vmm.h"
#include "tests/unit/vhost-window.h"
#include "virtiofsd/log.h"

#define SIZE (8 * PAGE)

typedef struct Device {
    Vmm vmm;
    Mapper mapper;
    VuWindow *window;
    int file;
} Device;

static void give_channel(Device *f)
{
    const Outgoing out = {VU_SET_BACKEND_REQ_FD, NR, NULL, 0, &f->mapper.peer, 1};

    g_assert_cmpint(vmm_do(&f->vmm, &out), ==, VU_OK);
    g_assert_cmpuint(vmm_ack(&f->vmm), ==, 0);
    close(f->mapper.peer);
}

static void kick(Device *f, uint32_t ring)
{
    vmm_ring(&f->vmm, ring, 0);
    g_assert_cmpint(vmm_ring_fd(&f->vmm, VU_SET_VRING_KICK, ring, f->vmm.interrupt_fd),
                    ==, VU_OK);
}

static void enable(Device *f, uint32_t ring, uint32_t on)
{
    g_assert_cmpint(vmm_say_state(&f->vmm, VU_SET_VRING_ENABLE, ring, on), ==, VU_OK);
}

/* Two rings run. */
static void run(Device *f)
{
    kick(f, 0);
    kick(f, 1);
    enable(f, 0, 1);
    f->mapper.may_be_asked = true;
    enable(f, 1, 1);
}

static void setup(Device *f, gconstpointer data)
{
    const unsigned int fds_before = count_fds();

    mapper_init(&f->mapper);
    f->mapper.may_be_asked = false;
    f->file = mapper_file(16 * PAGE);
    vmm_init_device(&f->vmm, (VuDeviceConfig){.tag = "tag", .window_size = SIZE});
    vmm_negotiate(&f->vmm);
    f->window = vu_device_window(f->vmm.device);
    give_channel(f);
    f->vmm.fds_before = fds_before;
    g_assert_cmpuint(vmm_memory(&f->vmm, 0, GUEST_SIZE, f->vmm.guest.fd), ==, 0);
    g_assert_true(vu_window_is_ready(f->window));
}

static void teardown(Device *f, gconstpointer data)
{
    f->mapper.may_be_asked = false;
    mapper_clear(&f->mapper);
    close(f->file);
    vmm_clear(&f->vmm);
}

/* Map page @page of the window, in a thread, for it may wait. */
typedef struct Mapping {
    VuWindow *window;
    VuWindowMap map;
    VuRing *ring; /* whose request it is; NULL: of none */
    VuChain *chain;
    _Atomic int result;
    pthread_t thread;
} Mapping;

static void *mapping_main(void *opaque)
{
    Mapping *self = opaque;

    self->result = vu_window_map(self->window, &self->map);
    if (self->ring != NULL) {
        vu_ring_push(self->ring, self->chain, 0);
    }
    return NULL;
}

static void begin(Device *f, Mapping *mapping, uint64_t page)
{
    *mapping = (Mapping){
        .window = f->window, .map = {page * PAGE, page * PAGE, f->file}, .result = 1};
    pthread_create(&mapping->thread, NULL, mapping_main, mapping);
}

/* The same as a request on a ring, that a stop of the ring waits for. */
static void begin_on(Device *f, Mapping *mapping, uint64_t page, unsigned int ring)
{
    Guest *guest = &f->vmm.guest;

    guest_desc(guest, GUEST_DESC, 0,
               (GuestDesc){GUEST_GPA + GUEST_DATA, 10, VRING_DESC_F_WRITE, 0});
    guest_offer(guest, 0);
    *mapping = (Mapping){.window = f->window,
                         .map = {page * PAGE, page * PAGE, f->file},
                         .ring = vu_device_ring(f->vmm.device, ring),
                         .chain = vu_chain_new(),
                         .result = 1};
    g_assert_true(vu_ring_pop(mapping->ring, mapping->chain));
    pthread_create(&mapping->thread, NULL, mapping_main, mapping);
}

static int end(Mapping *mapping)
{
    pthread_join(mapping->thread, NULL);
    vu_chain_free(mapping->chain);
    return mapping->result;
}

/* The mapping's memory, as QEMU tells it. */
static struct vu_mem_single region_of(uint64_t page)
{
    return (struct vu_mem_single){.region = {.gpa = (UINT64_C(1) << 40) + page * PAGE,
                                             .size = PAGE,
                                             .uva = (UINT64_C(1) << 41) + page * PAGE,
                                             .mmap_offset = page * PAGE}};
}

static uint64_t memory(Device *f, uint32_t request, uint64_t page)
{
    const struct vu_mem_single single = region_of(page);
    const Outgoing out = {request,        NR,       &single,
                          sizeof(single), &f->file, request == VU_ADD_MEM_REG};

    g_assert_cmpint(vmm_do(&f->vmm, &out), ==, VU_OK);
    return vmm_ack(&f->vmm);
}

static void map(Device *f, uint64_t page)
{
    Mapping mapping;
    unsigned int n = f->mapper.n_maps;

    begin(f, &mapping, page);
    while (f->mapper.n_maps == n) {
        g_usleep(100);
    }
    g_assert_cmpuint(memory(f, VU_ADD_MEM_REG, page), ==, 0);
    g_assert_cmpint(end(&mapping), ==, 0);
}

/* ---- offers -------------------------------------------------------------------------
 */

static void test_offers(Device *f, gconstpointer data)
{
    Reply reply = {0};
    Vmm *v = &f->vmm;

    g_assert_cmpuint(vmm_ask(v, VU_GET_PROTOCOL_FEATURES) &
                         (VU_PROTOCOL_F_SHMEM | VU_PROTOCOL_F_CONFIG),
                     ==, VU_PROTOCOL_F_SHMEM | VU_PROTOCOL_F_CONFIG);
    g_assert_cmpint(vmm_say(v, VU_GET_SHMEM_CONFIG, PLAIN, NULL, 0), ==, VU_OK);
    g_assert_true(vmm_receive(v, &reply));
    g_assert_cmpuint(reply.header.size, ==, 2056);
    g_assert_cmpuint(reply.payload.shmem.count, ==, 1);
    g_assert_cmpuint(reply.payload.shmem.sizes[0], ==, SIZE);
    for (size_t i = 1; i < VU_SHMEM_MAX; i++) {
        g_assert_cmpuint(reply.payload.shmem.sizes[i], ==, 0);
    }
    g_assert_cmpint(vmm_say(v, VU_GET_SHMEM_CONFIG, PLAIN, "12345678", 8), ==,
                    VU_BAD_PEER);
}

static void test_without(void)
{
    const VuDeviceConfig bad[] = {
        {.n_queues = 2, .window_size = PAGE},
        {.n_queues = 2, .window_size = PAGE + 1, .tag = "t"},
        {.n_queues = 2, .window_size = 1, .window_protocol = VU_WINDOW_LEGACY},
    };
    Vmm v;

    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        g_autoptr(GError) error = NULL;
        g_assert_null(vu_device_new(&bad[i], &error));
        g_assert_error(error, G_FILE_ERROR, G_FILE_ERROR_INVAL);
    }
    vmm_init(&v, "tag");
    g_assert_null(vu_device_window(v.device));
    vmm_negotiate(&v);
    g_assert_cmpint(vmm_say(&v, VU_GET_SHMEM_CONFIG, PLAIN, NULL, 0), ==, VU_BAD_PEER);
    vmm_clear(&v);
    vmm_init(&v, "tag");
    g_assert_cmpint(vmm_say_u64(&v, VU_SET_PROTOCOL_FEATURES, VU_PROTOCOL_F_SHMEM), ==,
                    VU_BAD_PEER);
    vmm_clear(&v);
}

/* A VMM of before the standard is told neither tag nor size, and needs no memory slots.
 */
static void test_legacy(void)
{
    const uint64_t kept_back = VU_PROTOCOL_F_SHMEM | VU_PROTOCOL_F_CONFIG;
    int pair[2];
    Vmm v;

    for (unsigned int i = VU_WINDOW_LEGACY; i <= VU_WINDOW_LEGACY_V3; i++) {
        vmm_init_device(&v, (VuDeviceConfig){.window_size = SIZE,
                                             .window_protocol = (VuWindowProtocol)i});
        uint64_t offered = vmm_ask(&v, VU_GET_PROTOCOL_FEATURES);
        g_assert_cmpuint(offered & kept_back, ==, 0);
        g_assert_cmpint(vmm_say_u64(&v, VU_SET_PROTOCOL_FEATURES,
                                    offered & ~VU_PROTOCOL_F_CONFIGURE_MEM_SLOTS),
                        ==, VU_OK);
        g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), ==, 0);
        const Outgoing out = {VU_SET_BACKEND_REQ_FD, NR, NULL, 0, &pair[1], 1};
        g_assert_cmpint(vmm_do(&v, &out), ==, VU_OK);
        g_assert_cmpuint(vmm_ack(&v), ==, 0);
        g_assert_true(vu_window_is_ready(vu_device_window(v.device)));
        g_assert_cmpint(vmm_say(&v, VU_GET_SHMEM_CONFIG, PLAIN, NULL, 0), ==,
                        VU_BAD_PEER);
        close(pair[0]);
        close(pair[1]);
        vmm_clear(&v);
    }
}

/* A VMM that lacks one of the agreements is asked for nothing. */
static void test_agreements(Device *f, gconstpointer data)
{
    const uint64_t needed[] = {VU_PROTOCOL_F_SHMEM, VU_PROTOCOL_F_BACKEND_REQ,
                               VU_PROTOCOL_F_REPLY_ACK};
    const VuWindowMap wanted = {0, 0, f->file};
    uint64_t all = vmm_ask(&f->vmm, VU_GET_PROTOCOL_FEATURES);

    run(f);
    f->mapper.may_be_asked = false;
    for (size_t i = 0; i < G_N_ELEMENTS(needed); i++) {
        g_assert_cmpint(vmm_say_u64(&f->vmm, VU_SET_PROTOCOL_FEATURES, all & ~needed[i]),
                        ==, VU_OK);
        g_assert_false(vu_window_is_ready(f->window));
        g_assert_cmpint(vu_window_map(f->window, &wanted), ==, -EIO);
    }
}

/* ---- when ---------------------------------------------------------------------------
 */

static void expect_waits(Device *f, const Mapping *mapping)
{
    g_usleep(30000);
    g_assert_cmpint(mapping->result, ==, 1);
    g_assert_cmpuint(f->mapper.n_maps, ==, 0);
}

/* Nothing is sent until all rings that were started are enabled. */
static void test_start(Device *f, gconstpointer data)
{
    Mapping mapping;

    begin(f, &mapping, 1);
    expect_waits(f, &mapping);
    kick(f, 0);
    expect_waits(f, &mapping);
    kick(f, 1);
    expect_waits(f, &mapping);
    enable(f, 0, 1);
    expect_waits(f, &mapping);
    f->mapper.may_be_asked = true;
    enable(f, 1, 1);
    while (f->mapper.n_maps == 0) {
        g_usleep(100);
    }
    g_assert_cmpuint(memory(f, VU_ADD_MEM_REG, 1), ==, 0);
    g_assert_cmpint(end(&mapping), ==, 0);
    enable(f, 1, 0);
    f->mapper.may_be_asked = false;
    mapper_expect(&f->mapper, 1, 0);
    begin(f, &mapping, 2);
    expect_waits(f, &mapping);
    f->mapper.may_be_asked = true;
    enable(f, 1, 1);
    while (f->mapper.n_maps == 0) {
        g_usleep(100);
    }
    g_assert_cmpuint(memory(f, VU_ADD_MEM_REG, 2), ==, 0);
    g_assert_cmpint(end(&mapping), ==, 0);
}

static void get_base(Device *f, uint32_t ring)
{
    Reply reply;

    g_assert_cmpint(vmm_say_state(&f->vmm, VU_GET_VRING_BASE, ring, 0), ==, VU_OK);
    g_assert_true(vmm_receive(&f->vmm, &reply));
}

/* A request that waits for the VMM, which waits for us: it gives up. Nothing is sent when
 * one ring has been stopped, though the others run. Mappings outlive a stop. */
static void test_stop(Device *f, gconstpointer data)
{
    Mapping mapping;

    run(f);
    map(f, 1);
    f->mapper.mood = MOOD_SILENT;
    begin_on(f, &mapping, 2, 1);
    while (f->mapper.n_maps < 2) {
        g_usleep(100);
    }
    gint64 before = g_get_monotonic_time();
    get_base(f, 1);
    g_assert_cmpint(end(&mapping), ==, -EINTR);
    g_assert_cmpint(g_get_monotonic_time() - before, <, 2000000);
    f->mapper.mood = MOOD_HONEST;
    f->mapper.may_be_asked = false;
    mapper_expect(&f->mapper, 2, 0);
    begin_on(f, &mapping, 3, 0);
    expect_waits(f, &mapping);
    get_base(f, 0);
    g_assert_cmpint(end(&mapping), ==, -EINTR);

    /* it goes on: the late answer is nobody's, what was mapped is */
    mapper_answer(&f->mapper, VU_BACKEND_SHMEM_MAP, true);
    run(f);
    g_assert_cmpint(vu_window_map(f->window, &(VuWindowMap){PAGE, PAGE, f->file}), ==, 0);
    mapper_expect(&f->mapper, 0, 0);
    map(f, 3);
    mapper_expect(&f->mapper, 1, 0);
    begin(f, &mapping, 2); /* which may have been mapped */
    while (f->mapper.n_maps == 0) {
        g_usleep(100);
    }
    g_assert_cmpuint(memory(f, VU_ADD_MEM_REG, 2), ==, 0);
    g_assert_cmpint(end(&mapping), ==, 0);
    mapper_expect(&f->mapper, 1, 1);
}

/* RESET_DEVICE: the VMM has dropped everything. */
static void test_reset(Device *f, gconstpointer data)
{
    run(f);
    map(f, 1);
    mapper_expect(&f->mapper, 1, 0);
    f->mapper.may_be_asked = false;
    g_assert_cmpint(vmm_say(&f->vmm, VU_RESET_DEVICE, PLAIN, NULL, 0), ==, VU_OK);
    memset(f->mapper.pages, 0, sizeof(f->mapper.pages));
    mapper_expect(&f->mapper, 0, 0);
    run(f);
    g_assert_cmpuint(memory(f, VU_REM_MEM_REG, 1), ==, 0); /* from before the reset */
    map(f, 1);
    mapper_expect(&f->mapper, 1, 0);
}

/* The VMM leaves while it is asked. */
static void test_disconnect(Device *f, gconstpointer data)
{
    Mapping mapping;

    run(f);
    f->mapper.mood = MOOD_SILENT;
    begin_on(f, &mapping, 2, 1);
    while (f->mapper.n_maps == 0) {
        g_usleep(100);
    }
    gint64 before = g_get_monotonic_time();
    g_assert_true(vu_device_disconnect(f->vmm.device, 10000));
    g_assert_cmpint(end(&mapping), ==, -EINTR);
    g_assert_cmpint(g_get_monotonic_time() - before, <, 2000000);
    g_assert_false(vu_window_is_ready(f->window));
    g_assert_cmpint(vu_window_map(f->window, &mapping.map), ==, -EIO);
    mapper_expect(&f->mapper, 1, 0);
}

/* ---- memory -------------------------------------------------------------------------
 */

/* Is this address of the guest's in memory that requests may use? */
static bool is_memory(Device *f, uint64_t gpa)
{
    VuChain *chain = vu_chain_new();
    VuRing *ring = vu_device_ring(f->vmm.device, 1);
    Guest *guest = &f->vmm.guest;

    guest_desc(guest, GUEST_DESC, 0, (GuestDesc){gpa, 10, VRING_DESC_F_WRITE, 0});
    guest_offer(guest, 0);
    bool found = vu_ring_pop(ring, chain);
    if (found) {
        vu_ring_push(ring, chain, 0);
    }
    vu_chain_free(chain);
    return found;
}

/* A page of the window is no buffer, and comes and goes while a request runs. */
static void test_pages(Device *f, gconstpointer data)
{
    VuChain *chain = vu_chain_new();
    Vmm *v = &f->vmm;

    run(f);
    map(f, 1);
    g_assert_false(is_memory(f, region_of(1).region.gpa));
    g_assert_true(is_memory(f, GUEST_GPA + GUEST_DATA));

    guest_desc(&v->guest, GUEST_DESC, 0,
               (GuestDesc){GUEST_GPA + GUEST_DATA, 10, VRING_DESC_F_WRITE, 0});
    guest_offer(&v->guest, 0);
    g_assert_true(vu_ring_pop(vu_device_ring(v->device, 1), chain));
    for (unsigned int i = 0; i < 2000; i++) { /* its note goes with it */
        g_assert_cmpuint(memory(f, VU_REM_MEM_REG, 1), ==, 0);
        g_assert_cmpuint(memory(f, VU_ADD_MEM_REG, 1), ==, 0);
    }
    vu_ring_push(vu_device_ring(v->device, 1), chain, 10);
    vu_chain_free(chain);
    g_assert_cmpuint(memory(f, VU_REM_MEM_REG, 1), ==, 0);
    g_assert_cmpuint(memory(f, VU_REM_MEM_REG, 1), ==, 1); /* gone */
    /* once it is unmapped it is a file as any other */
    g_assert_cmpint(vu_window_unmap(f->window, PAGE, PAGE), ==, 0);
    g_assert_cmpuint(memory(f, VU_ADD_MEM_REG, 1), ==, 0);
    g_assert_true(is_memory(f, region_of(1).region.gpa));
}

/* A VMM that adds without end is refused at some point, and goes on. */
static void test_many_pages(Device *f, gconstpointer data)
{
    run(f);
    map(f, 1);
    for (unsigned int i = 1; i < VU_MEMORY_MAX_REGIONS; i++) {
        g_assert_cmpuint(memory(f, VU_ADD_MEM_REG, 1 + i % 8), ==, 0);
    }
    g_assert_cmpuint(memory(f, VU_ADD_MEM_REG, 1), ==, 1);
    g_assert_cmpuint(memory(f, VU_REM_MEM_REG, 1), ==, 0);
    g_assert_cmpuint(memory(f, VU_ADD_MEM_REG, 1), ==, 0);
    g_assert_cmpuint(memory(f, VU_REM_MEM_REG, 1), ==, 0);
    map(f, 2);
}

#define TEST(name, function)                                                             \
    g_test_add("/device-shmem/" name, Device, NULL, setup, function, teardown)

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    log_threshold = LOG_LEVEL_OFF;
    g_test_add_func("/device-shmem/without", test_without);
    g_test_add_func("/device-shmem/legacy", test_legacy);
    TEST("offers", test_offers);
    TEST("agreements", test_agreements);
    TEST("start", test_start);
    TEST("stop", test_stop);
    TEST("reset", test_reset);
    TEST("disconnect", test_disconnect);
    TEST("pages", test_pages);
    TEST("many-pages", test_many_pages);
    return g_test_run();
}
