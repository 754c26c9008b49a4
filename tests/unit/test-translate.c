/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/scratch.h"

#include "passthrough/translate.h"

/*
 * Ids that are not the same in the guest and on the host: what rules may say, what they
 * do, and that they are obeyed wherever an id passes.
 */

static PtTranslation *parse(const char *const *rules)
{
    PtTranslation *translation = NULL;
    for (; *rules != NULL; rules++) {
        GError *error = NULL;
        bool added = pt_translation_add(&translation, *rules, &error);
        g_assert_no_error(error);
        g_assert_true(added);
    }
    return translation;
}

#define RULES(...) parse((const char *const[]){__VA_ARGS__, NULL})

static void assert_ids(const PtTranslation *t, uint32_t guest, uint32_t host)
{
    uint32_t id = 4711;
    g_assert_cmpint(pt_translate_to_host(t, guest, &id), ==, 0);
    g_assert_cmpuint(id, ==, host);
}

/* ---- what rules do ---------------------------------------------------------------- */

static void test_none(void)
{
    const uint32_t ids[] = {0, 1, 1000, 65534, 4294967294};
    for (size_t i = 0; i < G_N_ELEMENTS(ids); i++) {
        assert_ids(NULL, ids[i], ids[i]);
        g_assert_cmpuint(pt_translate_to_guest(NULL, ids[i]), ==, ids[i]);
    }
}

static void test_one_way(void)
{
    g_autoptr(PtTranslation) t = RULES("guest:10:100:5", "host:200:20:5");
    assert_ids(t, 9, 9);
    assert_ids(t, 10, 100);
    assert_ids(t, 14, 104);
    assert_ids(t, 15, 15);
    assert_ids(t, 20, 20);
    g_assert_cmpuint(pt_translate_to_guest(t, 100), ==, 100);
    g_assert_cmpuint(pt_translate_to_guest(t, 199), ==, 199);
    g_assert_cmpuint(pt_translate_to_guest(t, 200), ==, 20);
    g_assert_cmpuint(pt_translate_to_guest(t, 204), ==, 24);
    g_assert_cmpuint(pt_translate_to_guest(t, 205), ==, 205);
}

static void test_map(void)
{
    g_autoptr(PtTranslation) t = RULES("map:0:100000:65536", "MAP/70000/0/1");
    for (uint32_t id = 0; id < 65536; id += 13) {
        assert_ids(t, id, 100000 + id);
        g_assert_cmpuint(pt_translate_to_guest(t, 100000 + id), ==, id);
    }
    assert_ids(t, 70000, 0);
    g_assert_cmpuint(pt_translate_to_guest(t, 0), ==, 70000);
}

static void test_squash(void)
{
    g_autoptr(PtTranslation) t =
        RULES("squash-guest:0:1001:4294967295", "squash-host:0:0:1001",
              "host:1001:1000:1", "squash-host:1002:65534:4294966293");
    assert_ids(t, 0, 1001);
    assert_ids(t, 4294967294, 1001);
    g_assert_cmpuint(pt_translate_to_guest(t, 0), ==, 0);
    g_assert_cmpuint(pt_translate_to_guest(t, 1000), ==, 0);
    g_assert_cmpuint(pt_translate_to_guest(t, 1001), ==, 1000);
    g_assert_cmpuint(pt_translate_to_guest(t, 1002), ==, 65534);
    g_assert_cmpuint(pt_translate_to_guest(t, 4294967294), ==, 65534);
}

static void test_forbid(void)
{
    g_autoptr(PtTranslation) t =
        RULES("forbid-guest:1:999", "forbid-guest@1001@4294966294");
    uint32_t id;
    assert_ids(t, 0, 0);
    assert_ids(t, 1000, 1000);
    g_assert_cmpint(pt_translate_to_host(t, 1, &id), ==, -EPERM);
    g_assert_cmpint(pt_translate_to_host(t, 999, &id), ==, -EPERM);
    g_assert_cmpint(pt_translate_to_host(t, 4294967294, &id), ==, -EPERM);
    /* What is on the host can be seen. */
    g_assert_cmpuint(pt_translate_to_guest(t, 1), ==, 1);
}

/* Every second id, added from the middle, the end and the beginning. */
static void test_many(void)
{
    g_autoptr(PtTranslation) t = NULL;
    const uint32_t n = 3001;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t id = 2 * (i * 1009 % n) + 1; /* n is prime */
        g_autofree char *rule = g_strdup_printf("map:%u:%u:1", id, 100000 + id);
        g_autoptr(GError) error = NULL;
        bool added = pt_translation_add(&t, rule, &error);
        g_assert_no_error(error);
        g_assert_true(added);
    }
    for (uint32_t id = 0; id < 2 * n + 2; id++) {
        bool mapped = id % 2 == 1 && id < 2 * n;
        assert_ids(t, id, mapped ? 100000 + id : id);
        g_assert_cmpuint(pt_translate_to_guest(t, 100000 + id), ==,
                         mapped ? id : 100000 + id);
    }
}

/* ---- what rules may say ----------------------------------------------------------- */

static const struct {
    const char *rule;
    unsigned int character;
    const char *what;
} wrongs[] = {
    {"", 1, "the kind of rule"},
    {":0:1:2", 1, "the kind of rule"},
    {"guests:0:1:2", 1, "the kind of rule"},
    {"squash_guest:0:1:2", 1, "the kind of rule"},
    {"forbid-host:0:1", 1, "the kind of rule"},
    {"\xc3\xa4:0:1:2", 1, "the kind of rule"},
    {"guest:0:1:\xff", 1, "UTF-8"},
    {"guest", 6, "the guest id is missing"},
    {"host", 5, "the host id is missing"},
    {"guest:", 7, "the guest id must be a whole number from 0 to 4294967294"},
    {"guest:0", 8, "the host id is missing"},
    {"guest:0:1", 10, "the count is missing"},
    {"host:0:1", 9, "the count is missing"},
    {"forbid-guest:0", 15, "the count is missing"},
    {"guest:0:1:", 11, "the count must be"},
    {"guest:0:1:2:", 12, "nothing may follow"},
    {"guest:0:1:2 ", 12, "nothing may follow"},
    {"guest:0:1:2:3", 12, "nothing may follow"},
    {"forbid-guest:0:1:2", 17, "nothing may follow"},
    {"guest:-1:1:2", 7, "the guest id must"},
    {"guest:+1:1:2", 7, "the guest id must"},
    {"guest::1:2", 7, "the guest id must"},
    {"guest::0:1:2", 7, "the guest id must"},
    {"guest:0x1:1:2", 7, "the guest id must"},
    {"guest:0:1a:2", 9, "the host id must"},
    {"guest:0: 1:2", 9, "the host id must"},
    {"guest:0:1:4294967296", 11, "the count must be a whole number"},
    {"guest:0:18446744073709551617:1", 9, "the host id must"},
    {"guest:0:1:0", 11, "the count must be at least 1"},
    {"forbid-guest:0:0", 16, "the count must be at least 1"},
    {"guest:4294967295:0:1", 7, "the highest id is 4294967294"},
    {"guest:1:0:4294967295", 7, "the highest id is 4294967294"},
    {"guest:0:1:4294967295", 9, "the highest id is 4294967294"},
    {"map:0:4294967295:1", 7, "the highest id is 4294967294"},
    {"squash-guest:0:4294967295:1", 16, "the highest id is 4294967294"},
    {"squash-host:4294967295:0:1", 13, "the highest id is 4294967294"},
    {"forbid-guest:4294967290:6", 14, "the highest id is 4294967294"},
    {"forbid-guest:2:4294967294", 14, "the highest id is 4294967294"},
};

static void assert_wrong(PtTranslation **t, const char *rule, unsigned int character,
                         const char *what)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *where = g_strdup_printf("character %u: ", character);
    g_assert_false(pt_translation_add(t, rule, &error));
    g_assert_nonnull(error);
    if (!g_str_has_prefix(error->message, where) ||
        strstr(error->message, what) == NULL) {
        g_error("%s: \"%s\" is not \"%s\" and \"%s\"", rule, error->message, where, what);
    }
}

static void test_wrong(void)
{
    for (size_t i = 0; i < G_N_ELEMENTS(wrongs); i++) {
        g_autoptr(PtTranslation) t = NULL;
        assert_wrong(&t, wrongs[i].rule, wrongs[i].character, wrongs[i].what);
    }
}

/* An id is translated by one rule, in each direction. */
static void test_overlap(void)
{
    static const char what[] = "an earlier rule translates 10 to 19 already";
    g_autoptr(PtTranslation) t =
        RULES("guest:10:100:10", "host:10:100:10", "map:30:30:10", "guest:0:0:10",
              "guest:20:0:10", "host:0:0:10", "host:20:0:10");
    assert_wrong(&t, "guest:19:5:1", 7, what);
    assert_wrong(&t, "squash-guest:10:5:1", 14, what);
    assert_wrong(&t, "forbid-guest:15:1", 14, what);
    assert_wrong(&t, "map:12:400:1", 5, what);
    assert_wrong(&t, "map:400:12:1", 9, what);
    assert_wrong(&t, "host:19:5:1", 6, what);
    assert_wrong(&t, "squash-host:10:5:3", 13, what);
    assert_wrong(&t, "guest:39:0:1000", 7, "translates 30 to 39");
    assert_wrong(&t, "squash-guest:0:0:4294967295", 14, "already");
    /* Where they lead is another matter. */
    g_autoptr(PtTranslation) same = RULES("guest:0:5:1", "guest:1:5:1", "guest:2:5:9");
    assert_ids(same, 1, 5);
}

/* ---- where ids pass --------------------------------------------------------------- */

static void set_rules(PtConfig *config)
{
    *config = scratch_config();
    config->uids = RULES("map:0:3000:1", "map:1000:4000:10", "forbid-guest:5:1");
    config->gids =
        RULES("map:0:5000:1", "map:1000:6000:10", "forbid-guest:5:1", "host:7000:0:1");
}

static void free_rules(const PtConfig *config)
{
    pt_translation_free((PtTranslation *)config->uids);
    pt_translation_free((PtTranslation *)config->gids);
}

static void assert_owner(const Scratch *s, const char *name, uint32_t uid, uint32_t gid)
{
    struct stat st = host_stat(s, name);
    g_assert_cmpuint(st.st_uid, ==, uid);
    g_assert_cmpuint(st.st_gid, ==, gid);
}

static void assert_seen(const Scratch *s, const PtAttr *attr, uint32_t uid, uint32_t gid)
{
    uint32_t seen_uid, seen_gid;
    pt_attr_owner(s->fs, attr, &seen_uid, &seen_gid);
    g_assert_cmpuint(seen_uid, ==, uid);
    g_assert_cmpuint(seen_gid, ==, gid);
}

/* Make one of each kind, and look. */
static void make_all(const Scratch *s, const PtCaller *caller, uint32_t uid, uint32_t gid)
{
    PtEntry entries[4];
    PtOpened opened;
    PtMake make = make_of(caller, PT_ROOT_ID, "file", 0644);
    g_assert_cmpint(pt_create(s->fs, &make, &entries[0], &opened), ==, 0);
    make = make_of(caller, PT_ROOT_ID, "sub", 0755);
    g_assert_cmpint(pt_mkdir(s->fs, &make, &entries[1]), ==, 0);
    make = make_of(caller, PT_ROOT_ID, "fifo", S_IFIFO | 0644);
    g_assert_cmpint(pt_mknod(s->fs, &make, &entries[2]), ==, 0);
    g_assert_cmpint(symlink_as(s->fs, caller, PT_ROOT_ID, "link", "to", &entries[3]), ==,
                    0);
    const char *const names[] = {"file", "sub", "fifo", "link"};
    for (size_t i = 0; i < G_N_ELEMENTS(names); i++) {
        assert_owner(s, names[i], uid, gid);
        assert_seen(s, &entries[i].attr, caller->uid, caller->gid);
        PtEntry found = lookup(s, PT_ROOT_ID, names[i]);
        assert_seen(s, &found.attr, caller->uid, caller->gid);
        g_assert_cmpint(i == 1 ? pt_rmdir(s->fs, PT_ROOT_ID, names[i])
                               : pt_unlink(s->fs, PT_ROOT_ID, names[i]),
                        ==, 0);
    }
}

static void test_making(void)
{
    const PtCaller root = {0};
    const PtCaller user = {.uid = 1001, .gid = 1002};
    const PtCaller same = {.uid = 77, .gid = 78};
    PtConfig config;
    set_rules(&config);
    Scratch s = scratch_open_with(&config);
    g_assert_cmpint(fchmod(s.dir, 0777), ==, 0);
    make_all(&s, &root, 3000, 5000);
    make_all(&s, &user, 4001, 6002);
    make_all(&s, &same, 77, 78);
    scratch_close(&s);
    free_rules(&config);
}

/* The guest's root is root in the share, whoever that is on the host; who is the host's
 * root by translation alone, is not. */
static void test_rights(void)
{
    const PtCaller root = {0};
    const PtCaller other = {.uid = 9};
    PtConfig config = scratch_config();
    PtEntry entry;
    config.uids = RULES("guest:0:3000:1", "guest:9:0:1");
    Scratch s = scratch_open_with(&config);
    const PtAgreed agreed = {.supp_groups = true};
    pt_fs_agree(s.fs, &agreed);
    g_assert_cmpint(fchown(s.dir, 4000, 4000), ==, 0);
    PtMake make = make_of(&other, PT_ROOT_ID, "x", 0755);
    g_assert_cmpint(pt_mkdir(s.fs, &make, &entry), ==, -EACCES);
    make = make_of(&root, PT_ROOT_ID, "d", 0755);
    g_assert_cmpint(pt_mkdir(s.fs, &make, &entry), ==, 0);
    assert_owner(&s, "d", 3000, 0);
    make = make_of(&other, PT_ROOT_ID, "y", 0755);
    g_assert_cmpint(pt_mkdir(s.fs, &make, &entry), ==, -EACCES);
    g_assert_cmpint(fchmod(s.dir, 0777), ==, 0);
    g_assert_cmpint(pt_mkdir(s.fs, &make, &entry), ==, 0);
    assert_owner(&s, "y", 0, 0);
    scratch_close(&s);
    free_rules(&config);
}

static void test_groups(void)
{
    const PtCaller member = {.uid = 1001, .gid = 1001, .n_groups = 1, .groups = {1009}};
    const PtCaller forbidden = {.uid = 1001, .gid = 1001, .n_groups = 1, .groups = {5}};
    PtConfig config;
    PtEntry entry;
    set_rules(&config);
    Scratch s = scratch_open_with(&config);
    const PtAgreed agreed = {.supp_groups = true};
    pt_fs_agree(s.fs, &agreed);
    g_assert_cmpint(fchown(s.dir, 0, 6009), ==, 0);
    g_assert_cmpint(fchmod(s.dir, 02770), ==, 0);
    PtMake make = make_of(&member, PT_ROOT_ID, "d", 0755);
    g_assert_cmpint(pt_mkdir(s.fs, &make, &entry), ==, 0);
    assert_owner(&s, "d", 4001, 6009);
    assert_seen(&s, &entry.attr, 1001, 1009);
    make = make_of(&forbidden, PT_ROOT_ID, "e", 0755);
    g_assert_cmpint(pt_mkdir(s.fs, &make, &entry), ==, -EPERM);
    g_assert_cmpint(lookup_error(&s, PT_ROOT_ID, "e"), ==, -ENOENT);
    scratch_close(&s);
    free_rules(&config);
}

static void test_forbidden(void)
{
    const PtCaller callers[] = {{.uid = 5}, {.gid = 5}, {.uid = 1001, .gid = 5}};
    PtConfig config;
    PtEntry entry;
    PtOpened opened;
    set_rules(&config);
    Scratch s = scratch_open_with(&config);
    g_assert_cmpint(fchmod(s.dir, 0777), ==, 0);
    for (size_t i = 0; i < G_N_ELEMENTS(callers); i++) {
        PtMake make = make_of(&callers[i], PT_ROOT_ID, "x", S_IFREG | 0644);
        g_assert_cmpint(pt_mkdir(s.fs, &make, &entry), ==, -EPERM);
        g_assert_cmpint(pt_mknod(s.fs, &make, &entry), ==, -EPERM);
        g_assert_cmpint(pt_create(s.fs, &make, &entry, &opened), ==, -EPERM);
        g_assert_cmpint(symlink_as(s.fs, &callers[i], PT_ROOT_ID, "x", "to", &entry), ==,
                        -EPERM);
    }
    g_assert_cmpint(lookup_error(&s, PT_ROOT_ID, "x"), ==, -ENOENT);
    scratch_close(&s);
    free_rules(&config);
}

static void test_setattr(void)
{
    const struct {
        uint32_t valid, uid, gid;
        int result;
        uint32_t host_uid, host_gid;
    } cases[] = {
        {PT_SET_UID, 1003, 5, 0, 4003, 0},
        {PT_SET_GID, 5, 1004, 0, 4003, 6004},
        {PT_SET_UID | PT_SET_GID, 0, 0, 0, 3000, 5000},
        {PT_SET_UID | PT_SET_GID, 5, 1000, -EPERM, 3000, 5000},
        {PT_SET_UID | PT_SET_GID, 1000, 5, -EPERM, 3000, 5000},
        {PT_SET_UID | PT_SET_GID, 80, 81, 0, 80, 81},
        {PT_SET_UID, UINT32_MAX, 0, -EINVAL, 80, 81},
        {PT_SET_MODE, 5, 5, 0, 80, 81},
    };
    PtConfig config;
    PtAttr attr;
    set_rules(&config);
    Scratch s = scratch_open_with(&config);
    host_write(&s, "f", "1");
    uint64_t f = lookup(&s, PT_ROOT_ID, "f").nodeid;
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        PtSetattr set = {.valid = cases[i].valid,
                         .handle = PT_NO_HANDLE,
                         .mode = 0600,
                         .uid = cases[i].uid,
                         .gid = cases[i].gid};
        g_assert_cmpint(pt_setattr(s.fs, f, &set, &attr), ==, cases[i].result);
        assert_owner(&s, "f", cases[i].host_uid, cases[i].host_gid);
    }
    g_assert_cmpint(fchownat(s.dir, "f", 4009, 7000, 0), ==, 0);
    g_assert_cmpint(pt_getattr(s.fs, f, PT_NO_HANDLE, &attr), ==, 0);
    assert_seen(&s, &attr, 1009, 0);
    scratch_close(&s);
    free_rules(&config);
}

/* Whose file it is, is asked with the guest's id. */
static void test_kill_for(void)
{
    const struct {
        uint32_t uid;
        mode_t want;
    } cases[] = {{4001, 06755}, {1001, 0755}};
    PtConfig config;
    PtAttr attr;
    set_rules(&config);
    Scratch s = scratch_open_with(&config);
    host_write(&s, "f", "1");
    g_assert_cmpint(fchownat(s.dir, "f", 4001, 0, 0), ==, 0);
    g_assert_cmpint(fchmodat(s.dir, "f", 06755, 0), ==, 0);
    uint64_t f = lookup(&s, PT_ROOT_ID, "f").nodeid;
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        PtSetattr set = {
            .valid = PT_SET_KILL_FOR_UID, .handle = PT_NO_HANDLE, .uid = cases[i].uid};
        g_assert_cmpint(pt_setattr(s.fs, f, &set, &attr), ==, 0);
        g_assert_cmphex(attr.stx.stx_mode & 07777, ==, cases[i].want);
    }
    scratch_close(&s);
    free_rules(&config);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/translate/none", test_none);
    g_test_add_func("/translate/one-way", test_one_way);
    g_test_add_func("/translate/map", test_map);
    g_test_add_func("/translate/squash", test_squash);
    g_test_add_func("/translate/forbid", test_forbid);
    g_test_add_func("/translate/many", test_many);
    g_test_add_func("/translate/wrong", test_wrong);
    g_test_add_func("/translate/overlap", test_overlap);
    if (geteuid() == 0) {
        g_test_add_func("/translate/making", test_making);
        g_test_add_func("/translate/rights", test_rights);
        g_test_add_func("/translate/groups", test_groups);
        g_test_add_func("/translate/forbidden", test_forbidden);
        g_test_add_func("/translate/setattr", test_setattr);
        g_test_add_func("/translate/kill-for", test_kill_for);
    }
    return g_test_run();
}
