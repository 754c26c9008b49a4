/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The request table against every wrong form of every message.
 */
#include "virtiofsd/vhost/device.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/resource.h>

#include "tests/unit/vhost-vmm.h"
#include "virtiofsd/log.h"

#define PROTOCOL                                                                         \
    (VU_PROTOCOL_F_MQ | VU_PROTOCOL_F_LOG_SHMFD | VU_PROTOCOL_F_REPLY_ACK |              \
     VU_PROTOCOL_F_BACKEND_REQ | VU_PROTOCOL_F_BACKEND_SEND_FD |                         \
     VU_PROTOCOL_F_RESET_DEVICE | VU_PROTOCOL_F_CONFIGURE_MEM_SLOTS)

/* What went to stderr, as the log writer's lines. */
typedef struct Capture {
    int saved;
    int file;
} Capture;

static Capture capture_begin(void)
{
    Capture c = {.saved = dup(STDERR_FILENO), .file = memfd_create("log", MFD_CLOEXEC)};

    dup2(c.file, STDERR_FILENO);
    log_threshold = LOG_LEVEL_INFO;
    return c;
}

/* Return: the text, to be freed. */
static char *capture_end(Capture *c)
{
    char *text = g_malloc0(65536);

    log_threshold = LOG_LEVEL_OFF;
    dup2(c->saved, STDERR_FILENO);
    close(c->saved);
    g_assert_cmpint(pread(c->file, text, 65535, 0), >=, 0);
    close(c->file);
    return text;
}

static unsigned int count_lines(const char *text)
{
    unsigned int n = 0;

    for (; *text != '\0'; text++) {
        n += *text == '\n' ? 1 : 0;
    }
    return n;
}

/* ---- what is offered -----------------------------------------------------------------
 */

static void test_offers(void)
{
    const char *tags[] = {NULL, "t", "123456789012345678901234567890123456"};

    for (size_t i = 0; i < G_N_ELEMENTS(tags); i++) {
        Vmm v;
        vmm_init(&v, tags[i]);
        g_assert_cmpuint(vmm_ask(&v, VU_GET_FEATURES), ==, OFFERED_FEATURES);
        g_assert_cmpuint(vmm_ask(&v, VU_GET_PROTOCOL_FEATURES), ==,
                         PROTOCOL | (tags[i] != NULL ? VU_PROTOCOL_F_CONFIG : 0));
        vmm_negotiate(&v);
        g_assert_cmpuint(vmm_ask(&v, VU_GET_QUEUE_NUM), ==, N_QUEUES);
        g_assert_cmpuint(vmm_ask(&v, VU_GET_MAX_MEM_SLOTS), ==, 509);
        g_assert_cmpint(vmm_say(&v, VU_SET_OWNER, PLAIN, NULL, 0), ==, VU_OK);
        g_assert_cmpint(vmm_say(&v, VU_RESET_OWNER, PLAIN, NULL, 0), ==, VU_OK);
        expect_calls(&v, "");
        vmm_clear(&v);
    }
}

static void test_bad_configurations(void)
{
    const VuDeviceConfig bad[] = {
        {.n_queues = 0},
        {.n_queues = 1},
        {.n_queues = 257},
        {.n_queues = 2, .tag = ""},
        {.n_queues = 2, .tag = "1234567890123456789012345678901234567"},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        g_autoptr(GError) error = NULL;
        g_assert_null(vu_device_new(&bad[i], &error));
        g_assert_error(error, G_FILE_ERROR, G_FILE_ERROR_INVAL);
    }
    vu_device_free(NULL);
}

/* Exactly what was offered may be acknowledged. */
static void test_acknowledging(void)
{
    for (unsigned int bit = 0; bit < 64; bit++) {
        const uint64_t value = 1ull << bit;
        Vmm v;
        vmm_init(&v, NULL);
        g_assert_cmpint(vmm_say_u64(&v, VU_SET_FEATURES, value), ==,
                        (value & OFFERED_FEATURES) != 0 ? VU_OK : VU_BAD_PEER);
        vmm_clear(&v);
        vmm_init(&v, NULL);
        g_assert_cmpint(vmm_say_u64(&v, VU_SET_PROTOCOL_FEATURES, value), ==,
                        (value & PROTOCOL) != 0 ? VU_OK : VU_BAD_PEER);
        vmm_clear(&v);
    }
}

/* ---- form ----------------------------------------------------------------------------
 */

typedef struct Form {
    uint32_t request;
    size_t size;
    size_t n_fds;
    size_t max_fds;
    size_t index_size; /* of the ring's index at the payload's begin; 0: none */
    uint64_t needs;
} Form;

static const Form forms[] = {
    {VU_GET_FEATURES, 0, 0, 0, 0, 0},
    {VU_SET_FEATURES, 8, 0, 0, 0, 0},
    {VU_SET_OWNER, 0, 0, 0, 0, 0},
    {VU_RESET_OWNER, 0, 0, 0, 0, 0},
    {VU_SET_MEM_TABLE, 8 + 32, 1, 1, 0, 0},
    {VU_SET_LOG_BASE, 16, 1, 1, 0, VU_PROTOCOL_F_LOG_SHMFD},
    {VU_SET_LOG_FD, 0, 1, 1, 0, VU_PROTOCOL_F_LOG_SHMFD},
    {VU_SET_VRING_NUM, 8, 0, 0, 4, 0},
    {VU_SET_VRING_ADDR, 40, 0, 0, 4, 0},
    {VU_SET_VRING_BASE, 8, 0, 0, 4, 0},
    {VU_GET_VRING_BASE, 8, 0, 0, 4, 0},
    {VU_SET_VRING_KICK, 8, 1, 1, 8, 0},
    {VU_SET_VRING_CALL, 8, 1, 1, 8, 0},
    {VU_SET_VRING_ERR, 8, 1, 1, 8, 0},
    {VU_GET_PROTOCOL_FEATURES, 0, 0, 0, 0, 0},
    {VU_SET_PROTOCOL_FEATURES, 8, 0, 0, 0, 0},
    {VU_GET_QUEUE_NUM, 0, 0, 0, 0, VU_PROTOCOL_F_MQ},
    {VU_SET_VRING_ENABLE, 8, 0, 0, 4, 0},
    {VU_SET_BACKEND_REQ_FD, 0, 1, 1, 0, VU_PROTOCOL_F_BACKEND_REQ},
    {VU_GET_CONFIG, 12 + 4, 0, 0, 0, VU_PROTOCOL_F_CONFIG},
    {VU_SET_CONFIG, 12 + 4, 0, 0, 0, VU_PROTOCOL_F_CONFIG},
    {VU_RESET_DEVICE, 0, 0, 0, 0, VU_PROTOCOL_F_RESET_DEVICE},
    {VU_GET_MAX_MEM_SLOTS, 0, 0, 0, 0, VU_PROTOCOL_F_CONFIGURE_MEM_SLOTS},
    {VU_ADD_MEM_REG, 40, 1, 1, 0, VU_PROTOCOL_F_CONFIGURE_MEM_SLOTS},
    {VU_REM_MEM_REG, 40, 0, 1, 0, VU_PROTOCOL_F_CONFIGURE_MEM_SLOTS},
};

/* A sound payload for the form. */
static void fill_payload(const Form *form, union vu_payload *payload)
{
    memset(payload, 0, sizeof(*payload));
    if (form->request == VU_SET_MEM_TABLE) {
        payload->table.count = 1;
        payload->table.regions[0] = vmm_region(0, GUEST_SIZE).region;
    } else if (form->request == VU_ADD_MEM_REG || form->request == VU_REM_MEM_REG) {
        payload->single = vmm_region(0, GUEST_SIZE);
    } else if (form->request == VU_GET_CONFIG || form->request == VU_SET_CONFIG) {
        payload->config.size = 4;
    } else if (form->request == VU_SET_VRING_ADDR) {
        payload->addr.desc = payload->addr.used = payload->addr.avail = GUEST_UVA;
    } else if (form->request == VU_SET_LOG_BASE) {
        payload->log.mmap_size = GUEST_SIZE;
    } else if (form->request == VU_SET_VRING_NUM) {
        payload->state.num = GUEST_QUEUE;
    } else if (form->request == VU_SET_PROTOCOL_FEATURES) {
        payload->u64 = PROTOCOL | VU_PROTOCOL_F_CONFIG;
    }
}

/* Try a message on a fresh device. */
static VuStatus try_form(const Form *form, const union vu_payload *payload, size_t size,
                         size_t n_fds)
{
    int fds[16];
    int sockets[2];
    Vmm v;

    vmm_init(&v, "tag");
    vmm_negotiate(&v);
    if (form->request == VU_REM_MEM_REG) {
        g_assert_cmpuint(vmm_memory(&v, 0, GUEST_SIZE, v.guest.fd), ==, 0);
    }
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets), ==, 0);
    for (size_t i = 0; i < G_N_ELEMENTS(fds); i++) {
        fds[i] = v.interrupt_fd; /* an eventfd */
        if (form->request == VU_ADD_MEM_REG || form->request == VU_SET_MEM_TABLE ||
            form->request == VU_SET_LOG_BASE) {
            fds[i] = v.guest.fd;
        } else if (form->request == VU_SET_BACKEND_REQ_FD) {
            fds[i] = sockets[0];
        }
    }
    VuStatus status =
        vmm_do(&v, &(Outgoing){form->request, NR, payload, size, fds, n_fds});
    close(sockets[0]);
    close(sockets[1]);
    vmm_clear(&v); /* no descriptor is left over */
    return status;
}

static void test_sizes(void)
{
    for (size_t i = 0; i < G_N_ELEMENTS(forms); i++) {
        const Form *form = &forms[i];
        union vu_payload payload;
        fill_payload(form, &payload);
        g_test_message("request %u", form->request);
        for (size_t size = 0; size <= sizeof(payload); size++) {
            /* all sizes near the right one, some of the others */
            if (size > form->size + 2 && size % 16 != 0 && size < sizeof(payload) - 2) {
                continue;
            }
            g_assert_cmpint(try_form(form, &payload, size, form->n_fds), ==,
                            size == form->size ? VU_OK : VU_BAD_PEER);
        }
    }
}

static void test_descriptors(void)
{
    for (size_t i = 0; i < G_N_ELEMENTS(forms); i++) {
        const Form *form = &forms[i];
        union vu_payload payload;
        fill_payload(form, &payload);
        g_test_message("request %u", form->request);
        for (size_t n = 0; n <= 10; n++) {
            bool right = n >= form->n_fds && n <= form->max_fds;
            g_assert_cmpint(try_form(form, &payload, form->size, n), ==,
                            right ? VU_OK : VU_BAD_PEER);
        }
    }
}

static void test_indices(void)
{
    const uint64_t bad[] = {N_QUEUES, 100, 255, 1ull << 31, UINT32_MAX};

    for (size_t i = 0; i < G_N_ELEMENTS(forms); i++) {
        const Form *form = &forms[i];
        union vu_payload payload;
        for (size_t k = 0; form->index_size > 0 && k < G_N_ELEMENTS(bad); k++) {
            fill_payload(form, &payload);
            memcpy(&payload, &bad[k], form->index_size);
            g_assert_cmpint(try_form(form, &payload, form->size, form->n_fds), ==,
                            VU_BAD_PEER);
        }
        fill_payload(form, &payload);
        if (form->index_size == 8) { /* bits that have no meaning */
            payload.u64 = 1ull << 9;
            g_assert_cmpint(try_form(form, &payload, 8, 1), ==, VU_BAD_PEER);
            payload.u64 = 1ull << 63;
            g_assert_cmpint(try_form(form, &payload, 8, 1), ==, VU_BAD_PEER);
            payload.u64 = VU_VRING_NOFD;
            g_assert_cmpint(try_form(form, &payload, 8, 1), ==, VU_BAD_PEER);
            g_assert_cmpint(try_form(form, &payload, 8, 0), ==, VU_OK);
        }
    }
}

static void test_unknown(void)
{
    for (uint32_t request = 0; request < 300; request++) {
        bool known = false;
        for (size_t i = 0; i < G_N_ELEMENTS(forms); i++) {
            known = known || forms[i].request == request;
        }
        if (!known) {
            const Form form = {.request = request == 299 ? UINT32_MAX : request};
            const union vu_payload payload = {0};
            g_assert_cmpint(try_form(&form, &payload, 0, 0), ==, VU_BAD_PEER);
            g_assert_cmpint(try_form(&form, &payload, 8, 1), ==, VU_BAD_PEER);
        }
    }
}

/* Requests that were in flight when a back-end died are not run again (HACKING.md): that
 * is not offered, cannot be agreed upon, and its messages are refused. */
static void test_no_inflight(void)
{
    const uint64_t feature = 1ull << 12;
    const uint8_t table[24] = {[16] = N_QUEUES, [18] = GUEST_QUEUE};
    Vmm v;

    vmm_init(&v, "tag");
    g_assert_cmphex(vmm_ask(&v, VU_GET_PROTOCOL_FEATURES) & feature, ==, 0);
    g_assert_cmpint(vmm_say_u64(&v, VU_SET_PROTOCOL_FEATURES, PROTOCOL | feature), ==,
                    VU_BAD_PEER);
    vmm_clear(&v);
    for (uint32_t request = 31; request <= 32; request++) {
        vmm_init(&v, "tag");
        vmm_negotiate(&v);
        g_assert_cmpint(vmm_do(&v, &(Outgoing){request, NR, table, sizeof(table),
                                               &v.guest.fd, request - 31}),
                        ==, VU_BAD_PEER);
        vmm_clear(&v);
    }
}

/* A request whose feature was offered, but not acknowledged. */
static void test_not_negotiated(void)
{
    for (size_t i = 0; i < G_N_ELEMENTS(forms); i++) {
        union vu_payload payload;
        Vmm v;
        if (forms[i].needs == 0) {
            continue;
        }
        fill_payload(&forms[i], &payload);
        vmm_init(&v, "tag");
        g_assert_cmpint(vmm_say_u64(&v, VU_SET_PROTOCOL_FEATURES,
                                    (PROTOCOL | VU_PROTOCOL_F_CONFIG) & ~forms[i].needs),
                        ==, VU_OK);
        g_assert_cmpint(
            vmm_do(&v, &(Outgoing){forms[i].request, PLAIN, &payload, forms[i].size,
                                   &v.guest.fd, forms[i].n_fds}),
            ==, VU_BAD_PEER);
        vmm_clear(&v);
    }
}

/* A refusal is one line; an obeyed message is none. */
static void test_lines(void)
{
    for (size_t i = 0; i < G_N_ELEMENTS(forms); i++) {
        union vu_payload payload;
        fill_payload(&forms[i], &payload);
        Capture capture = capture_begin();
        (void)try_form(&forms[i], &payload, forms[i].size, 9);
        (void)try_form(&forms[i], &payload, forms[i].size + 4, forms[i].n_fds);
        g_autofree char *refused = capture_end(&capture);
        g_assert_cmpuint(count_lines(refused), ==, 2);
        if (forms[i].request != VU_SET_CONFIG && forms[i].request != VU_SET_VRING_ADDR &&
            forms[i].request != VU_SET_VRING_KICK) {
            capture = capture_begin();
            g_assert_cmpint(try_form(&forms[i], &payload, forms[i].size, forms[i].n_fds),
                            ==, VU_OK);
            g_autofree char *obeyed = capture_end(&capture);
            g_assert_cmpstr(obeyed, ==, "");
        }
    }
}

/* ---- answers -------------------------------------------------------------------------
 */

static void test_need_reply(void)
{
    const uint64_t ack = VU_PROTOCOL_F_REPLY_ACK;
    const uint64_t features = ALL_FEATURES;
    Reply reply;
    Vmm v;

    vmm_init(&v, NULL);
    /* not agreed upon yet, not even by the message that does */
    g_assert_cmpint(vmm_say(&v, VU_SET_FEATURES, NR, &features, 8), ==, VU_OK);
    g_assert_cmpint(vmm_say(&v, VU_SET_PROTOCOL_FEATURES, NR, &ack, 8), ==, VU_OK);
    g_assert_false(vmm_receive(&v, &reply));
    g_assert_cmpint(vmm_say(&v, VU_SET_FEATURES, NR, &features, 8), ==, VU_OK);
    g_assert_cmpuint(vmm_ack(&v), ==, 0);
    g_assert_cmpint(vmm_say(&v, VU_SET_FEATURES, PLAIN, &features, 8), ==, VU_OK);
    g_assert_false(vmm_receive(&v, &reply));
    /* a request that is answered anyway is answered once */
    g_assert_cmpint(vmm_say(&v, VU_GET_FEATURES, NR, NULL, 0), ==, VU_OK);
    g_assert_true(vmm_receive(&v, &reply));
    g_assert_cmpuint(reply.payload.u64, ==, OFFERED_FEATURES);
    g_assert_false(vmm_receive(&v, &reply));
    vmm_clear(&v);
}

/* Well-formed, but it cannot be done. */
static void test_failure(void)
{
    struct vu_mem_single single = vmm_region(0, GUEST_SIZE);
    Vmm v;

    vmm_init(&v, NULL);
    vmm_negotiate(&v);
    single.region.size *= 2; /* larger than the file */
    const Outgoing asking = {VU_ADD_MEM_REG, NR, &single, sizeof(single), &v.guest.fd, 1};
    g_assert_cmpint(vmm_do(&v, &asking), ==, VU_OK);
    g_assert_cmpuint(vmm_ack(&v), ==, 1);
    g_assert_cmpuint(vmm_memory(&v, 0, GUEST_SIZE, -1), ==, 1);         /* not there */
    g_assert_cmpuint(vmm_memory(&v, 0, GUEST_SIZE, v.guest.fd), ==, 0); /* alive */

    Outgoing silent = asking;
    silent.flags = PLAIN;
    g_assert_cmpint(vmm_do(&v, &silent), ==, VU_BAD_PEER);
    vmm_clear(&v);
}

/* What the guest chooses must not end the connection, whether or not we are asked. */
static void test_guests_fault(void)
{
    Vmm v;

    vmm_init(&v, "tag");
    vmm_negotiate(&v);
    g_assert_cmpuint(vmm_memory(&v, 0, GUEST_SIZE, v.guest.fd), ==, 0);
    Capture capture = capture_begin();
    const struct vu_config config = {.size = 4};
    g_assert_cmpint(vmm_say(&v, VU_SET_CONFIG, PLAIN, &config, 16), ==, VU_OK);
    g_assert_cmpint(vmm_say_state(&v, VU_SET_VRING_NUM, 1, 3), ==, VU_OK);
    g_assert_cmpint(vmm_ring_addr(&v, 1, 0), ==, VU_OK);
    g_assert_cmpint(vmm_ring_fd(&v, VU_SET_VRING_KICK, 1, v.interrupt_fd), ==, VU_OK);
    g_assert_cmpint(vmm_say_state(&v, VU_SET_VRING_NUM, 1, 64), ==, VU_OK);
    g_assert_cmpint(vmm_ring_addr(&v, 1, GUEST_SIZE), ==, VU_OK); /* in no memory */
    g_assert_cmpint(vmm_ring_fd(&v, VU_SET_VRING_KICK, 1, v.interrupt_fd), ==, VU_OK);
    g_assert_cmpint(vmm_ring_addr(&v, 1, 3), ==, VU_OK); /* unaligned */
    g_assert_cmpint(vmm_ring_fd(&v, VU_SET_VRING_KICK, 1, v.interrupt_fd), ==, VU_OK);
    expect_calls(&v, "");
    for (int i = 0; i < 1000; i++) {
        g_assert_cmpint(vmm_say_state(&v, VU_SET_VRING_NUM, 1, 5), ==, VU_OK);
    }
    g_autofree char *text = capture_end(&capture);
    g_assert_cmpuint(count_lines(text), >, 0);
    g_assert_cmpuint(count_lines(text), <, 20); /* limited */

    /* the VMM that asks is told */
    const uint64_t index = 1;
    const Outgoing kick = {VU_SET_VRING_KICK, NR, &index, 8, &v.interrupt_fd, 1};
    g_assert_cmpint(vmm_do(&v, &kick), ==, VU_OK);
    g_assert_cmpuint(vmm_ack(&v), ==, 1);
    /* and a ring that is set up well then works */
    vmm_ring(&v, 1, 0);
    g_assert_cmpint(vmm_do(&v, &kick), ==, VU_OK);
    g_assert_cmpuint(vmm_ack(&v), ==, 0);
    expect_calls(&v, "start1 ");
    vmm_clear(&v);
}

/* No room for the descriptors that come with a message. */
static void test_no_room(void)
{
    const struct vu_mem_single single = vmm_region(0, GUEST_SIZE);
    struct rlimit limit, none;
    Vmm v;

    vmm_init(&v, NULL);
    vmm_negotiate(&v);
    vmm_send(&v,
             &(Outgoing){VU_ADD_MEM_REG, NR, &single, sizeof(single), &v.guest.fd, 1});
    int lowest = dup(v.guest.fd);
    close(lowest);
    g_assert_cmpint(getrlimit(RLIMIT_NOFILE, &limit), ==, 0);
    none = limit;
    none.rlim_cur = (rlim_t)lowest;
    g_assert_cmpint(setrlimit(RLIMIT_NOFILE, &none), ==, 0);
    VuStatus status = vu_device_handle(v.device);
    g_assert_cmpint(setrlimit(RLIMIT_NOFILE, &limit), ==, 0);
    g_assert_cmpint(status, ==, VU_OK);
    g_assert_cmpuint(vmm_ack(&v), ==, 1);
    g_assert_cmpuint(vmm_memory(&v, 0, GUEST_SIZE, v.guest.fd), ==, 0);
    vmm_clear(&v);
}

/* ---- configuration space
 * --------------------------------------------------------------- */

static void test_config(void)
{
    const struct {
        uint32_t offset, size;
        bool sound;
    } cases[] = {
        {0, 40, true},   {0, 1, true},           {0, 36, true},
        {36, 4, true},   {39, 1, true},          {0, 0, false},
        {40, 0, false},  {0, 41, false},         {40, 1, false},
        {39, 2, false},  {1, 40, false},         {0, 256, false},
        {256, 4, false}, {UINT32_MAX, 4, false}, {UINT32_MAX - 3, 8, false},
    };
    unsigned char expected[40] = "the tag";
    Vmm v;

    expected[36] = N_QUEUES - 1;
    vmm_init(&v, "the tag");
    vmm_negotiate(&v);
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        struct vu_config config = {.offset = cases[i].offset, .size = cases[i].size};
        Reply reply = {0};
        memset(config.bytes, 0xee, sizeof(config.bytes));
        g_assert_cmpint(vmm_say(&v, VU_GET_CONFIG, PLAIN, &config, 12 + cases[i].size),
                        ==, VU_OK);
        g_assert_true(vmm_receive(&v, &reply));
        if (!cases[i].sound) {
            g_assert_cmpuint(reply.header.size, ==, 0);
            continue;
        }
        g_assert_cmpuint(reply.header.size, ==, 12 + cases[i].size);
        g_assert_cmpuint(reply.payload.config.offset, ==, cases[i].offset);
        g_assert_cmpuint(reply.payload.config.size, ==, cases[i].size);
        g_assert_cmpint(
            memcmp(reply.payload.config.bytes, expected + cases[i].offset, cases[i].size),
            ==, 0);
    }
    /* asked, the answer is no */
    const struct vu_config config = {.offset = 0, .size = 1, .flags = 1};
    g_assert_cmpint(vmm_say(&v, VU_SET_CONFIG, NR, &config, 13), ==, VU_OK);
    g_assert_cmpuint(vmm_ack(&v), ==, 1);
    /* longer than it says */
    g_assert_cmpint(vmm_say(&v, VU_GET_CONFIG, PLAIN, &config, 14), ==, VU_BAD_PEER);
    vmm_clear(&v);
}

/* ---- descriptors
 * ----------------------------------------------------------------------- */

static void test_kinds(void)
{
    const uint32_t requests[] = {VU_SET_VRING_KICK, VU_SET_VRING_CALL, VU_SET_VRING_ERR};
    int pipes[2], sockets[2];

    g_assert_cmpint(pipe2(pipes, O_CLOEXEC), ==, 0);
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets), ==, 0);
    const int bad[] = {pipes[0],
                       pipes[1],
                       sockets[0],
                       memfd_create("file", MFD_CLOEXEC),
                       open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC),
                       open("/dev/null", O_RDWR | O_CLOEXEC)};
    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        for (size_t k = 0; k < G_N_ELEMENTS(requests); k++) {
            Vmm v;
            vmm_init(&v, NULL);
            g_assert_cmpint(vmm_ring_fd(&v, requests[k], 0, bad[i]), ==, VU_BAD_PEER);
            expect_calls(&v, "");
            vmm_clear(&v);
        }
        Vmm v;
        vmm_init(&v, NULL);
        vmm_negotiate(&v);
        g_assert_cmpint(
            vmm_do(&v, &(Outgoing){VU_SET_BACKEND_REQ_FD, PLAIN, NULL, 0, &bad[i], 1}),
            ==, bad[i] == sockets[0] ? VU_OK : VU_BAD_PEER);
        vmm_clear(&v);
    }
    for (size_t i = 3; i < G_N_ELEMENTS(bad); i++) {
        close(bad[i]);
    }
    for (int i = 0; i < 2; i++) {
        close(pipes[i]);
        close(sockets[i]);
    }
}

/* Replaced a thousand times, each kind keeps one descriptor per ring. */
static void test_replacing(void)
{
    int sockets[2];
    unsigned int after_first = 0;
    Vmm v;

    vmm_init(&v, NULL);
    vmm_negotiate(&v);
    g_assert_cmpuint(vmm_memory(&v, 0, GUEST_SIZE, v.guest.fd), ==, 0);
    vmm_ring(&v, 2, 0);
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets), ==, 0);
    int blocking = eventfd(0, EFD_CLOEXEC);
    for (int i = 0; i < 1000; i++) {
        g_assert_cmpint(vmm_ring_fd(&v, VU_SET_VRING_CALL, 2, blocking), ==, VU_OK);
        g_assert_cmpint(vmm_ring_fd(&v, VU_SET_VRING_ERR, 2, blocking), ==, VU_OK);
        g_assert_cmpint(vmm_ring_fd(&v, VU_SET_VRING_KICK, 2, v.interrupt_fd), ==, VU_OK);
        expect_calls(&v, i == 0 ? "start2 " : "stop2 start2 ");
        g_assert_cmpint(
            vmm_do(&v, &(Outgoing){VU_SET_BACKEND_REQ_FD, PLAIN, NULL, 0, sockets, 1}),
            ==, VU_OK);
        after_first = i == 0 ? count_fds() : after_first;
    }
    g_assert_cmpuint(count_fds(), ==, after_first);
    g_assert_cmpint(fcntl(blocking, F_GETFL) & O_NONBLOCK, ==, O_NONBLOCK);
    g_assert_cmpint(vmm_ring_fd(&v, VU_SET_VRING_CALL, 2, -1), ==, VU_OK);
    g_assert_cmpint(vmm_ring_fd(&v, VU_SET_VRING_ERR, 2, -1), ==, VU_OK);
    g_assert_cmpint(vmm_ring_fd(&v, VU_SET_VRING_KICK, 2, -1), ==, VU_OK);
    expect_calls(&v, "stop2 start2 ");
    g_assert_cmpint(v.kick_fds[2], ==, -1);
    g_assert_cmpuint(count_fds(), ==, after_first - 3);
    close(blocking);
    close(sockets[0]);
    close(sockets[1]);
    vmm_clear(&v);
}

/* ---- anything ------------------------------------------------------------------------
 */

static void random_payload(GRand *rand, const Form *form, union vu_payload *payload)
{
    fill_payload(form, payload);
    for (int i = g_rand_int_range(rand, -9, 4); i > 0; i--) {
        uint8_t *bytes = (uint8_t *)payload;
        int at = g_rand_int_range(rand, 0, form->size > 0 ? (int)form->size : 8);
        bytes[at] = (uint8_t)g_rand_int(rand);
    }
    if (form->index_size > 0 && g_rand_int_range(rand, 0, 30) != 0) {
        payload->state.index = g_rand_int(rand) % N_QUEUES;
    }
}

/* Random messages, most of them nearly right: no crash, no hang, no descriptor lost. */
static void test_random(void)
{
    GRand *rand = g_rand_new_with_seed(20260101);
    unsigned int obeyed = 0;

    for (int round = 0; round < 300; round++) {
        VuStatus status = VU_OK;
        Vmm v;
        vmm_init(&v, "tag");
        vmm_negotiate(&v);
        for (int i = 0; i < 200 && status == VU_OK; i++) {
            const Form *form = &forms[g_rand_int_range(rand, 0, G_N_ELEMENTS(forms))];
            const int kinds[] = {v.guest.fd, v.interrupt_fd, v.peer};
            union vu_payload payload;
            Reply reply;
            int fds[10];
            size_t n = form->n_fds;
            size_t size = form->size;
            random_payload(rand, form, &payload);
            if (g_rand_int_range(rand, 0, 50) == 0) {
                n = (size_t)g_rand_int_range(rand, 0, 10);
                size = (size_t)g_rand_int_range(rand, 0, sizeof(payload) + 1);
            }
            for (size_t k = 0; k < n; k++) {
                bool memory = form->needs == VU_PROTOCOL_F_CONFIGURE_MEM_SLOTS ||
                              form->request == VU_SET_MEM_TABLE;
                fds[k] = g_rand_int_range(rand, 0, 40) == 0
                             ? kinds[g_rand_int_range(rand, 0, 3)]
                             : kinds[memory ? 0 : 1];
            }
            status = vmm_do(&v, &(Outgoing){form->request, NR, &payload, size, fds, n});
            while (vmm_receive(&v, &reply)) {
            }
            obeyed += status == VU_OK ? 1 : 0;
        }
        vmm_clear(&v);
    }
    g_test_message("%u obeyed", obeyed);
    g_assert_cmpuint(obeyed, >, 1000);
    g_rand_free(rand);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    log_threshold = LOG_LEVEL_OFF;
    g_test_add_func("/device/offers", test_offers);
    g_test_add_func("/device/bad-configurations", test_bad_configurations);
    g_test_add_func("/device/acknowledging", test_acknowledging);
    g_test_add_func("/device/sizes", test_sizes);
    g_test_add_func("/device/descriptors", test_descriptors);
    g_test_add_func("/device/indices", test_indices);
    g_test_add_func("/device/unknown", test_unknown);
    g_test_add_func("/device/no-inflight", test_no_inflight);
    g_test_add_func("/device/not-negotiated", test_not_negotiated);
    g_test_add_func("/device/lines", test_lines);
    g_test_add_func("/device/need-reply", test_need_reply);
    g_test_add_func("/device/failure", test_failure);
    g_test_add_func("/device/guests-fault", test_guests_fault);
    g_test_add_func("/device/no-room", test_no_room);
    g_test_add_func("/device/config", test_config);
    g_test_add_func("/device/kinds", test_kinds);
    g_test_add_func("/device/replacing", test_replacing);
    g_test_add_func("/device/random", test_random);
    return g_test_run();
}
