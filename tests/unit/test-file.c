/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/scratch.h"

#include <linux/capability.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>

/*
 * Open files: which may be opened and how, data, and what the guest is told about its
 * caches.
 */

static int descriptor_flags(const Scratch *s, const char *name)
{
    /* The newest descriptor of the file that is no O_PATH one tells its flags. */
    struct stat want = host_stat(s, name);
    int flags = -1;
    for (int fd = 3; fd < 64; fd++) {
        struct stat st;
        int now = fcntl(fd, F_GETFL);
        if (now >= 0 && !(now & O_PATH) && fstat(fd, &st) == 0 &&
            st.st_ino == want.st_ino && st.st_dev == want.st_dev) {
            g_assert_cmpint(fcntl(fd, F_GETFD), ==, FD_CLOEXEC);
            flags = now;
        }
    }
    return flags;
}

/* ---- what may be opened ----------------------------------------------------------- */

static void test_special_files(void)
{
    static const struct {
        const char *name;
        mode_t mode;
    } nodes[] = {
        {"fifo", S_IFIFO}, {"sock", S_IFSOCK}, {"chr", S_IFCHR}, {"blk", S_IFBLK}};
    const uint32_t flags[] = {O_RDONLY,
                              O_WRONLY,
                              O_RDWR,
                              O_RDONLY | O_TRUNC,
                              O_WRONLY | O_CREAT,
                              O_PATH,
                              O_RDONLY | O_NONBLOCK};
    Scratch s = scratch_open();
    PtOpened opened;
    PtAttr attr;
    PtSetattr set = {.valid = PT_SET_SIZE, .handle = PT_NO_HANDLE};
    g_test_timer_start();
    for (size_t i = 0; i < G_N_ELEMENTS(nodes); i++) {
        g_assert_cmpint(
            mknodat(s.dir, nodes[i].name, nodes[i].mode | 0666, makedev(1, 5)), ==, 0);
        uint64_t node = lookup(&s, PT_ROOT_ID, nodes[i].name).nodeid;
        for (size_t f = 0; f < G_N_ELEMENTS(flags); f++) {
            g_assert_cmpint(pt_open(s.fs, node, flags[f], true, &opened), ==, -ENXIO);
        }
        g_assert_cmpint(pt_opendir(s.fs, node, 0, &opened), ==, -ENOTDIR);
        g_assert_cmpint(pt_setattr(s.fs, node, &set, &attr), ==, -EINVAL);
        g_assert_cmpint(pt_syncfs(s.fs, node), ==, -EINVAL);
    }
    g_assert_cmpint(pt_open(s.fs, PT_ROOT_ID, O_RDONLY, false, &opened), ==, -EISDIR);
    g_assert_cmpint(pt_setattr(s.fs, PT_ROOT_ID, &set, &attr), ==, -EISDIR);
    g_assert_cmpfloat(g_test_timer_elapsed(), <, 2.0);
    g_assert_cmpuint(scratch_stats(&s).handles, ==, 0);
    scratch_close(&s);
}

typedef struct FlagCase {
    uint32_t asked;
    uint32_t got; /* of those in CHECKED */
} FlagCase;

enum { CHECKED = O_ACCMODE | O_APPEND | O_DIRECT | O_NOATIME | O_SYNC | O_NONBLOCK };

static void check_flags(const PtConfig *config, const PtAgreed *agreed,
                        const FlagCase *cases, size_t n)
{
    for (size_t i = 0; i < 2 * n; i++) {
        Scratch s = scratch_open_with(config);
        PtEntry entry;
        PtOpened opened;
        const FlagCase *c = &cases[i / 2];
        pt_fs_agree(s.fs, agreed);
        if (i % 2 == 0) {
            host_write(&s, "f", "1");
            open_node(&s, lookup(&s, PT_ROOT_ID, "f").nodeid, c->asked);
        } else {
            PtMake make = make_of(&root_caller, PT_ROOT_ID, "f", 0644);
            make.open_flags = c->asked;
            g_assert_cmpint(pt_create(s.fs, &make, &entry, &opened), ==, 0);
        }
        g_assert_cmphex((uint32_t)descriptor_flags(&s, "f") & CHECKED, ==, c->got);
        scratch_close(&s);
    }
}

static void test_flags(void)
{
    static const FlagCase plain[] = {
        {O_RDONLY, O_RDONLY},
        {O_WRONLY, O_WRONLY},
        {O_RDWR, O_RDWR},
        {O_ACCMODE, O_ACCMODE},
        {O_RDWR | O_APPEND, O_RDWR},
        {O_RDWR | O_DIRECT | O_NOATIME, O_RDWR},
        {O_WRONLY | O_SYNC, O_WRONLY | O_SYNC},
        {O_RDWR | O_NONBLOCK | O_PATH | O_TMPFILE | O_NOFOLLOW | O_ASYNC, O_RDWR},
        {O_RDWR | O_CREAT | 0x80000020u, O_RDWR},
    };
    static const FlagCase allowed[] = {
        {O_RDWR | O_DIRECT, O_RDWR | O_DIRECT},
        {O_RDONLY | O_NOATIME, O_RDONLY | O_NOATIME},
    };
    static const FlagCase writeback[] = {
        {O_WRONLY, O_RDWR},
        {O_WRONLY | O_APPEND, O_RDWR},
        {O_RDONLY, O_RDONLY},
    };
    PtConfig config = scratch_config();
    PtAgreed agreed = {0};
    check_flags(&config, &agreed, plain, G_N_ELEMENTS(plain));
    agreed.writeback = true;
    check_flags(&config, &agreed, writeback, G_N_ELEMENTS(writeback));
    agreed.writeback = false;
    config.allow_direct_io = true;
    config.preserve_noatime = true;
    check_flags(&config, &agreed, allowed, G_N_ELEMENTS(allowed));
}

/* The mode that asks for both permissions and gives neither. */
static void test_no_access(void)
{
    Scratch s = scratch_open();
    PtOpened opened;
    char byte = 'x';
    struct iovec iov = {&byte, 1};
    host_write(&s, "f", "1");
    PtIo io = {.nodeid = lookup(&s, PT_ROOT_ID, "f").nodeid, .iov = &iov, .n_iov = 1};
    g_assert_cmpint(pt_open(s.fs, io.nodeid, O_ACCMODE, false, &opened), ==, 0);
    io.handle = opened.handle;
    g_assert_cmpint(pt_read(s.fs, &io), ==, -EBADF);
    g_assert_cmpint(pt_write(s.fs, &io), ==, -EBADF);
    scratch_close(&s);
}

/* ---- data ------------------------------------------------------------------------- */

static void test_read_and_write(void)
{
    Scratch s = scratch_open();
    char buffer[64];
    host_write(&s, "f", "0123456789");
    uint64_t f = lookup(&s, PT_ROOT_ID, "f").nodeid;
    uint64_t rw = open_node(&s, f, O_RDWR).handle;
    uint64_t ro = open_node(&s, f, O_RDONLY).handle;
    uint64_t wo = open_node(&s, f, O_WRONLY).handle;
    g_assert_cmpint(read_text(&s, f, rw, 3, buffer, 4), ==, 4);
    g_assert_cmpint(memcmp(buffer, "3456", 4), ==, 0);
    g_assert_cmpint(read_text(&s, f, ro, 8, buffer, 64), ==, 2);
    g_assert_cmpint(read_text(&s, f, ro, 10, buffer, 64), ==, 0);
    g_assert_cmpint(read_text(&s, f, ro, INT64_MAX - 64, buffer, 64), ==, 0);
    g_assert_cmpint(read_text(&s, f, wo, 0, buffer, 4), ==, -EBADF);
    g_assert_cmpint(write_text(&s, f, ro, 0, "x"), ==, -EBADF);
    g_assert_cmpint(write_text(&s, f, wo, 12, "ab"), ==, 2);
    g_assert_cmpint(host_stat(&s, "f").st_size, ==, 14);
    g_assert_cmpint(read_text(&s, f, rw, 9, buffer, 64), ==, 5);
    g_assert_cmpint(memcmp(buffer, "9\0\0ab", 5), ==, 0);
    const uint64_t bad[] = {INT64_MAX + UINT64_C(1), UINT64_MAX};
    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        g_assert_cmpint(read_text(&s, f, rw, bad[i], buffer, 4), ==, -EINVAL);
        g_assert_cmpint(write_text(&s, f, rw, bad[i], "x"), ==, -EINVAL);
    }
    g_assert_cmpint(write_text(&s, f, rw, INT64_MAX, "xy"), <, 0);
    PtIo none = {.nodeid = f, .handle = rw};
    g_assert_cmpint(pt_read(s.fs, &none), ==, 0);
    g_assert_cmpint(pt_write(s.fs, &none), ==, 0);
    scratch_close(&s);
}

static void test_many_segments(void)
{
    enum { SEGMENTS = 5000 };
    static char in[SEGMENTS], out[SEGMENTS + 100];
    static struct iovec iov[SEGMENTS];
    Scratch s = scratch_open();
    for (int i = 0; i < SEGMENTS; i++) {
        in[i] = (char)(i % 251);
        iov[i] = (struct iovec){&in[i], 1};
    }
    host_write(&s, "f", "");
    uint64_t f = lookup(&s, PT_ROOT_ID, "f").nodeid;
    PtIo io = {.nodeid = f,
               .handle = open_node(&s, f, O_RDWR).handle,
               .iov = iov,
               .n_iov = SEGMENTS,
               .offset = 7};
    g_assert_cmpint(pt_write(s.fs, &io), ==, SEGMENTS);
    g_assert_cmpint(read_text(&s, f, io.handle, 7, out, sizeof(out)), ==, SEGMENTS);
    g_assert_cmpint(memcmp(in, out, SEGMENTS), ==, 0);
    memset(in, 0, sizeof(in));
    g_assert_cmpint(pt_read(s.fs, &io), ==, SEGMENTS);
    g_assert_cmpint(memcmp(in, out, SEGMENTS), ==, 0);
    /* The end of the file lies in the second part. */
    io.offset = 7 + SEGMENTS - 1500;
    g_assert_cmpint(pt_read(s.fs, &io), ==, 1500);
    /* Segments without bytes are skipped, and memory that is not there is an error. */
    iov[0].iov_len = 0;
    iov[1500].iov_len = 0;
    io.offset = 7;
    g_assert_cmpint(pt_read(s.fs, &io), ==, SEGMENTS - 2);
    iov[2000] = (struct iovec){(void *)8, 8};
    g_assert_cmpint(pt_read(s.fs, &io), ==, 2000 - 2);
    iov[0] = (struct iovec){(void *)8, 8};
    g_assert_cmpint(pt_read(s.fs, &io), ==, -EFAULT);
    scratch_close(&s);
}

static void write_at_start(const Scratch *s, uint64_t f, uint64_t handle,
                           uint32_t open_flags, uint32_t flags)
{
    struct iovec iov = {(void *)"ab", 2};
    PtIo io = {.nodeid = f,
               .handle = handle,
               .iov = &iov,
               .n_iov = 1,
               .open_flags = open_flags,
               .flags = flags};
    g_assert_cmpint(pt_write(s->fs, &io), ==, 2);
}

static void test_append(void)
{
    Scratch s = scratch_open();
    host_write(&s, "f", "0123");
    uint64_t f = lookup(&s, PT_ROOT_ID, "f").nodeid;
    uint64_t handle = open_node(&s, f, O_WRONLY | O_APPEND).handle;
    write_at_start(&s, f, handle, O_WRONLY | O_APPEND, 0);
    g_assert_cmpint(host_stat(&s, "f").st_size, ==, 6);
    /* The guest's page cache knows where its bytes belong. */
    write_at_start(&s, f, handle, O_WRONLY | O_APPEND, PT_IO_CACHED);
    g_assert_cmpint(host_stat(&s, "f").st_size, ==, 6);
    /* fcntl(F_SETFL) in the guest took the flag away. */
    write_at_start(&s, f, handle, O_WRONLY, 0);
    g_assert_cmpint(host_stat(&s, "f").st_size, ==, 6);
    PtAgreed agreed = {.writeback = true};
    pt_fs_agree(s.fs, &agreed);
    write_at_start(&s, f, handle, O_WRONLY | O_APPEND, 0);
    g_assert_cmpint(host_stat(&s, "f").st_size, ==, 6);
    scratch_close(&s);
}

/* ---- set-id bits ------------------------------------------------------------------ */

static mode_t mode_after(const Scratch *s)
{
    return host_stat(s, "f").st_mode & 07777;
}

static void set_mode(const Scratch *s, mode_t mode)
{
    g_assert_cmpint(fchmodat(s->dir, "f", mode, 0), ==, 0);
}

typedef struct Native {
    const char *what;
    mode_t mode;
} Native;

/* Another user's write, truncate or open: what has to become of the bits. */
static int do_natively(const Scratch *s, void *data)
{
    const Native *native = data;
    int flags = native->what[0] == 'o' ? O_WRONLY | O_TRUNC : O_WRONLY;
    int fd = openat(s->dir, "f", flags | O_CLOEXEC);
    if (fd < 0) {
        return 1;
    }
    switch (native->what[0]) {
    case 'w':
        return write(fd, "x", 1) != 1;
    case 't':
        return ftruncate(fd, 3) < 0;
    case 'a':
        return fallocate(fd, 0, 0, 4096) < 0;
    default:
        return 0;
    }
}

static void do_ours(const Scratch *s, uint64_t f, const char *what, bool kill)
{
    PtOpened opened;
    PtAttr attr;
    switch (what[0]) {
    case 'w': {
        PtOpened file = open_node(s, f, O_WRONLY);
        write_at_start(s, f, file.handle, O_WRONLY, kill ? PT_IO_KILL_SUIDGID : 0);
        break;
    }
    case 't': {
        PtSetattr set = {.handle = PT_NO_HANDLE, .size = 3};
        set.valid = PT_SET_SIZE | (kill ? PT_SET_KILL_SUIDGID : 0);
        g_assert_cmpint(pt_setattr(s->fs, f, &set, &attr), ==, 0);
        break;
    }
    case 'a': {
        PtAllocate allocate = {.nodeid = f, .length = 4096, .kill_suidgid = kill};
        allocate.handle = open_node(s, f, O_WRONLY).handle;
        g_assert_cmpint(pt_fallocate(s->fs, &allocate), ==, 0);
        break;
    }
    default:
        g_assert_cmpint(pt_open(s->fs, f, O_WRONLY | O_TRUNC, kill, &opened), ==, 0);
    }
}

static uint32_t effective_capabilities(void)
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct word[2];
    g_assert_cmpint(syscall(SYS_capget, &head, word), ==, 0);
    return word[0].effective;
}

static void test_set_id_bits(void)
{
    static const char *const whats[] = {"write", "truncate", "open", "allocate"};
    static const mode_t modes[] = {06777, 04766, 02777, 06773, 0666};
    const PtCaller user = {.uid = 1000, .gid = 1000};
    uint32_t before = effective_capabilities();
    for (size_t w = 0; w < G_N_ELEMENTS(whats); w++) {
        for (size_t m = 0; m < G_N_ELEMENTS(modes); m++) {
            Scratch s = scratch_open();
            host_write(&s, "f", "12345");
            uint64_t f = lookup(&s, PT_ROOT_ID, "f").nodeid;
            Native native = {whats[w], modes[m]};
            set_mode(&s, modes[m]);
            g_assert_cmpint(run_as(&s, &user, do_natively, &native), ==, 0);
            mode_t want = mode_after(&s);
            set_mode(&s, modes[m]);
            do_ours(&s, f, whats[w], true);
            g_assert_cmpuint(mode_after(&s), ==, want);
            /* Without the flag the guest's kernel sees to it, or its root wrote. */
            set_mode(&s, modes[m]);
            do_ours(&s, f, whats[w], false);
            g_assert_cmpuint(mode_after(&s), ==, modes[m]);
            g_assert_cmpuint(effective_capabilities(), ==, before);
            scratch_close(&s);
        }
    }
}

/* ---- caches ----------------------------------------------------------------------- */

static void test_cache_answers(void)
{
    static const struct {
        PtCache cache;
        uint32_t file, dir;
    } cases[] = {
        {PT_CACHE_AUTO, 0, 0},
        {PT_CACHE_ALWAYS, PT_OPEN_KEEP_CACHE, PT_OPEN_CACHE_DIR | PT_OPEN_KEEP_CACHE},
        {PT_CACHE_NEVER, PT_OPEN_DIRECT_IO | PT_OPEN_PARALLEL_DIRECT_WRITES, 0},
        {PT_CACHE_METADATA, PT_OPEN_DIRECT_IO | PT_OPEN_PARALLEL_DIRECT_WRITES,
         PT_OPEN_CACHE_DIR | PT_OPEN_KEEP_CACHE},
    };
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        PtConfig config = scratch_config();
        config.cache = cases[i].cache;
        Scratch s = scratch_open_with(&config);
        PtEntry entry;
        PtOpened opened;
        uint32_t file = cases[i].file | PT_OPEN_NOFLUSH; /* this is a local file system */
        host_write(&s, "f", "1");
        uint64_t f = lookup(&s, PT_ROOT_ID, "f").nodeid;
        g_assert_cmphex(open_node(&s, f, O_RDONLY).flags, ==, file);
        g_assert_cmphex(open_node(&s, f, O_RDWR).flags, ==, file);
        PtMake make = make_of(&root_caller, PT_ROOT_ID, "new", 0644);
        g_assert_cmpint(pt_create(s.fs, &make, &entry, &opened), ==, 0);
        g_assert_cmphex(opened.flags, ==, file);
        g_assert_cmpint(pt_opendir(s.fs, PT_ROOT_ID, 0, &opened), ==, 0);
        g_assert_cmphex(opened.flags, ==, cases[i].dir);
        scratch_close(&s);
    }
}

/* ---- the rest --------------------------------------------------------------------- */

static void test_fallocate(void)
{
    Scratch s = scratch_open();
    host_write(&s, "f", "12345678");
    uint64_t f = lookup(&s, PT_ROOT_ID, "f").nodeid;
    uint64_t h = open_node(&s, f, O_RDWR).handle;
    const uint32_t punch = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
    char buffer[8];
    g_assert_cmpint(allocate(s.fs, f, h, 0, 0, 4096), ==, 0);
    g_assert_cmpint(host_stat(&s, "f").st_size, ==, 4096);
    g_assert_cmpint(allocate(s.fs, f, h, FALLOC_FL_KEEP_SIZE, 4096, 4096), ==, 0);
    g_assert_cmpint(host_stat(&s, "f").st_size, ==, 4096);
    g_assert_cmpint(allocate(s.fs, f, h, punch, 2, 4), ==, 0);
    g_assert_cmpint(read_text(&s, f, h, 0, buffer, 8), ==, 8);
    g_assert_cmpint(memcmp(buffer,
                           "12\0\0\0\0"
                           "78",
                           8),
                    ==, 0);
    const uint64_t edge = INT64_MAX;
    const struct {
        uint64_t offset, length;
        int want;
    } bad[] = {{0, 0, -EINVAL},        {edge + 1, 1, -EINVAL},
               {1, edge + 1, -EINVAL}, {UINT64_MAX, UINT64_MAX, -EINVAL},
               {edge, edge, -EFBIG},   {edge, 1, -EFBIG},
               {1, edge, -EFBIG}};
    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        g_assert_cmpint(allocate(s.fs, f, h, 0, bad[i].offset, bad[i].length), ==,
                        bad[i].want);
    }
    g_assert_cmpint(allocate(s.fs, f, h, 0x80000000u, 0, 1), ==, -EOPNOTSUPP);
    g_assert_cmpint(allocate(s.fs, f, h, FALLOC_FL_PUNCH_HOLE, 0, 1), <, 0);
    scratch_close(&s);
}

static void test_lseek(void)
{
    Scratch s = scratch_open();
    uint64_t at = 0;
    host_write(&s, "f", "");
    int fd = openat(s.dir, "f", O_RDWR | O_CLOEXEC);
    g_assert_cmpint(pwrite(fd, "x", 1, 1 << 20), ==, 1);
    uint64_t f = lookup(&s, PT_ROOT_ID, "f").nodeid;
    uint64_t h = open_node(&s, f, O_RDONLY).handle;
    const int whences[] = {SEEK_DATA, SEEK_HOLE, SEEK_SET, SEEK_END, 5, 1000, -1};
    const uint64_t offsets[] = {
        0, 1, 1 << 20, (1 << 20) + 1, INT64_MAX, UINT64_MAX, INT64_MAX + UINT64_C(1)};
    for (size_t w = 0; w < G_N_ELEMENTS(whences); w++) {
        for (size_t o = 0; o < G_N_ELEMENTS(offsets); o++) {
            off_t want = lseek(fd, (off_t)offsets[o], whences[w]);
            int want_error = want < 0 ? -errno : 0;
            int r = pt_lseek(s.fs, f, h, offsets[o], (uint32_t)whences[w], &at);
            g_assert_cmpint(r, ==, want_error);
            if (r == 0) {
                g_assert_cmpuint(at, ==, (uint64_t)want);
            }
        }
    }
    close(fd);
    scratch_close(&s);
}

static void test_sync(void)
{
    Scratch s = scratch_open();
    host_write(&s, "f", "1");
    uint64_t f = lookup(&s, PT_ROOT_ID, "f").nodeid;
    uint64_t h = open_node(&s, f, O_RDWR).handle;
    g_assert_cmpint(pt_fsync(s.fs, f, h, false), ==, 0);
    g_assert_cmpint(pt_fsync(s.fs, f, h, true), ==, 0);
    g_assert_cmpint(pt_flush(s.fs, f, h), ==, 0);
    g_assert_cmpint(pt_syncfs(s.fs, PT_ROOT_ID), ==, 0);
    g_assert_cmpint(pt_syncfs(s.fs, f), ==, 0);
    g_assert_cmpint(pt_syncfs(s.fs, 4711), ==, -ESTALE);
    scratch_close(&s);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    if (!need_root()) {
        return 0;
    }
    g_test_add_func("/file/special-files", test_special_files);
    g_test_add_func("/file/flags", test_flags);
    g_test_add_func("/file/no-access", test_no_access);
    g_test_add_func("/file/read-and-write", test_read_and_write);
    g_test_add_func("/file/many-segments", test_many_segments);
    g_test_add_func("/file/append", test_append);
    g_test_add_func("/file/set-id-bits", test_set_id_bits);
    g_test_add_func("/file/cache-answers", test_cache_answers);
    g_test_add_func("/file/fallocate", test_fallocate);
    g_test_add_func("/file/lseek", test_lseek);
    g_test_add_func("/file/sync", test_sync);
    return g_test_run();
}
