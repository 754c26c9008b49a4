/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The map of attribute names: its grammar, with every mistake told where it is, and what
 * becomes of names, with the maps that the manuals of other daemons show.
 */
#include "passthrough/xattr-map.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static PtXattrMap *parse(const char *rules)
{
    g_autoptr(GError) error = NULL;
    PtXattrMap *map = pt_xattr_map_parse(rules, &error);

    g_assert_no_error(error);
    g_assert_nonnull(map);
    return map;
}

static void assert_refused(const char *rules, const char *message)
{
    g_autoptr(GError) error = NULL;

    g_assert_null(pt_xattr_map_parse(rules, &error));
    g_assert_error(error, G_OPTION_ERROR, G_OPTION_ERROR_BAD_VALUE);
    if (strstr(error->message, message) == NULL) {
        g_test_message("%s: %s", rules, error->message);
        g_test_fail();
    }
}

static void assert_client(const PtXattrMap *map, const char *name, const char *host)
{
    PtXattrName mapped;

    g_assert_cmpint(pt_xattr_map_client(map, name, &mapped), ==, 0);
    g_assert_cmpstr(mapped.text, ==, host);
}

static void assert_client_error(const PtXattrMap *map, const char *name, int error)
{
    PtXattrName mapped;

    g_assert_cmpint(pt_xattr_map_client(map, name, &mapped), ==, -error);
}

static void assert_server(const PtXattrMap *map, const char *name, const char *guest)
{
    g_assert_cmpstr(pt_xattr_map_server(map, name), ==, guest);
}

/* ---- grammar ----------------------------------------------------------------------- */

static void test_good(void)
{
    static const char *const good[] = {
        ":ok:all:::",
        "  :ok:all:::  ",
        "\n\t/bad/all///\n",
        ":ok:client::::bad:server:::",
        ":ok:client::: :bad:server:::",
        "xokxallxxx",
        ",map,,user.,",
        ":map:trusted.:user.virtiofs.:  ",
        ":bad:all:user.x:user.x:/map//user./",
        ":prefix:all::user.virtiofs.::bad:all:::",
        ":ok:all::::bad:all:never:reached:",
        "\"ok\"all\"\"\"",
        /* a catch-all of each side may be of any type */
        ":unsupported:client::x::prefix:server:y::",
    };

    for (size_t i = 0; i < G_N_ELEMENTS(good); i++) {
        pt_xattr_map_free(parse(good[i]));
    }
    pt_xattr_map_free(NULL);
}

static void test_mistakes(void)
{
    static const char *const cases[][2] = {
        {"", "rule 0, character 1: there are no rules"},
        {" \n ", "rule 0, character 4: there are no rules"},
        {":", "rule 1, character 2: the type does not end with :"},
        {"::", "rule 1, character 2: the type must be one of prefix, ok, bad,"},
        {":ok", "rule 1, character 2: the type does not end with :"},
        {":OK:all:::", "rule 1, character 2: the type must be one of"},
        {":okay:all:::", "rule 1, character 2: the type must be one of"},
        {":o:all:::", "rule 1, character 2: the type must be one of"},
        {": ok:all:::", "rule 1, character 2: the type must be one of"},
        {":ok:", "rule 1, character 5: the scope does not end with :"},
        {":ok:al:::",
         "rule 1, character 5: the scope must be one of client, server, all"},
        {":ok:allx:::", "rule 1, character 5: the scope must be one of"},
        {":ok::::", "rule 1, character 5: the scope must be one of"},
        {":ok:all:", "rule 1, character 9: the key does not end with :"},
        {":ok:all:k", "rule 1, character 9: the key does not end with :"},
        {":ok:all:k:", "rule 1, character 11: the prepend does not end with :"},
        {":ok:all:/k:p", "rule 1, character 12: the prepend does not end with :"},
        {":ok:all:::x", "rule 2, character 12: the type does not end with x"},
        {":ok:all::: /bad/some///", "rule 2, character 17: the scope must be one of"},
        {":ok:client:::bad:server:::", "rule 2, character 15: the type does not end"},
        {":map:", "rule 1, character 6: the key does not end with :"},
        {":map::", "rule 1, character 7: the prepend does not end with :"},
        {":map:all:a:b:", "rule 1, character 12: nothing may follow a map rule"},
        {":map::user.: :ok:all:::", "rule 1, character 14: nothing may follow"},
        {":map::user.::map::user.:", "rule 1, character 13: nothing may follow"},
        /* A name without a rule ended the daemon, at the guest's word. */
        {":prefix:all:trusted.:user.:", "rule 1, character 28: no rule is left for other"
                                        " names from the guest: end with :bad:all:::"},
        {":ok:client:::", "rule 1, character 14: no rule is left for other names from the"
                          " host"},
        {":ok:server:::", "no rule is left for other names from the guest"},
        {":ok:all::user.:", "no rule is left for other names from the host"},
        {":ok:all:user.::", "no rule is left for other names from the guest"},
        {":prefix:all::user.:", "no rule is left for other names from the host"},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        assert_refused(cases[i][0], cases[i][1]);
    }
    g_assert_null(pt_xattr_map_parse(":", NULL));
}

/* Every good map, cut off anywhere. */
static void test_cut(void)
{
    static const char rules[] = "/prefix/all/trusted./user.virtiofs./"
                                " /bad/server//trusted./"
                                " /bad/client/user.virtiofs.//"
                                " /ok/all///";

    for (size_t length = 0; length < strlen(rules); length++) {
        g_autofree char *cut = g_strndup(rules, length);
        g_autoptr(GError) error = NULL;
        g_assert_null(pt_xattr_map_parse(cut, &error));
        g_assert_true(g_str_has_prefix(error->message, "rule "));
    }
    pt_xattr_map_free(parse(rules));
}

static void test_limits(void)
{
    g_autoptr(GString) rules = g_string_new(NULL);
    char name[XATTR_NAME_MAX + 2];

    for (int i = 0; i < 255; i++) {
        g_string_append(rules, ":ok:all:k:p:");
    }
    g_string_append(rules, ":ok:all:::");
    pt_xattr_map_free(parse(rules->str));
    g_string_append(rules, ":ok:all:::");
    assert_refused(rules->str, "rule 257, character 3071: more than 256 rules");

    memset(name, 'n', sizeof(name));
    name[XATTR_NAME_MAX + 1] = '\0';
    g_autofree char *key = g_strdup_printf(":ok:all:%s::", name);
    g_autofree char *prepend = g_strdup_printf(":prefix:all::%s:", name);
    assert_refused(key, "character 9: the key is longer than 255 bytes");
    assert_refused(prepend, "character 14: the prepend is longer than 255 bytes");
}

/* ---- names ------------------------------------------------------------------------- */

/* Each kind of rule, seen from both sides. */
static void test_types(void)
{
    g_autoptr(PtXattrMap) map = parse(":bad:all:user.bad:host.bad:"
                                      ":unsupported:all:user.no:host.no:"
                                      ":prefix:all:user.p:host.:"
                                      ":ok:all:user.ok:user.ok:"
                                      ":bad:all:::");

    assert_client_error(map, "user.bad", EPERM);
    assert_client_error(map, "user.bad.too", EPERM);
    assert_client_error(map, "user.no", EOPNOTSUPP);
    assert_client(map, "user.p", "host.user.p");
    assert_client(map, "user.path", "host.user.path");
    assert_client(map, "user.ok", "user.ok");
    assert_client_error(map, "user.", EPERM);
    assert_client_error(map, "", EPERM);
    assert_server(map, "host.bad", NULL);
    assert_server(map, "host.no", NULL);
    assert_server(map, "host.user.p", "user.p");
    assert_server(map, "host.whatever", "whatever");
    assert_server(map, "host.", NULL);
    assert_server(map, "user.ok", "user.ok");
    assert_server(map, "user.other", NULL);
}

static void test_scopes(void)
{
    g_autoptr(PtXattrMap) map = parse(
        ":prefix:client:a:x.::bad:server::x.::ok:client::::bad:server::a::ok:all:::");

    assert_client(map, "ab", "x.ab");
    assert_client(map, "b", "b");
    assert_server(map, "x.ab", NULL);
    assert_server(map, "ab", NULL);
    assert_server(map, "b", "b");
}

static void test_first_wins(void)
{
    g_autoptr(PtXattrMap) map = parse(":ok:all:user.a:user.a::bad:all:user.:user.::ok:"
                                      "all:::");

    assert_client(map, "user.ab", "user.ab");
    assert_client_error(map, "user.b", EPERM);
    assert_server(map, "user.ab", "user.ab");
    assert_server(map, "user.b", NULL);
    assert_client(map, "trusted.b", "trusted.b");
}

/* ":map::P:" is ":prefix:all::P::bad:all:::". */
static void test_map_all(void)
{
    static const char *const rules[] = {":map::user.virtiofs.:",
                                        ":prefix:all::user.virtiofs.::bad:all:::"};

    for (size_t i = 0; i < G_N_ELEMENTS(rules); i++) {
        g_autoptr(PtXattrMap) map = parse(rules[i]);
        assert_client(map, "security.capability", "user.virtiofs.security.capability");
        assert_client(map, "user.virtiofs.x", "user.virtiofs.user.virtiofs.x");
        assert_server(map, "user.virtiofs.trusted.overlay.opaque",
                      "trusted.overlay.opaque");
        assert_server(map, "security.selinux", NULL);
        assert_server(map, "user.virtiofs.", NULL);
        assert_server(map, "user.virtiofs", NULL);
        g_assert_false(pt_xattr_map_keeps(map, "user.x"));
        g_assert_false(pt_xattr_map_keeps(map, "system.posix_acl_access"));
    }
}

/* ":map:K:P:" is prefixing with K's names out of each other's reach. */
static void test_map_key(void)
{
    static const char *const rules[] = {
        "/map/trusted./user.virtiofs./",
        "/prefix/all/trusted./user.virtiofs./ /bad/server//trusted./"
        " /bad/client/user.virtiofs.// /ok/all///"};

    for (size_t i = 0; i < G_N_ELEMENTS(rules); i++) {
        g_autoptr(PtXattrMap) map = parse(rules[i]);
        assert_client(map, "trusted.a", "user.virtiofs.trusted.a");
        assert_client_error(map, "user.virtiofs.trusted.a", EPERM);
        assert_client(map, "user.a", "user.a");
        assert_server(map, "user.virtiofs.trusted.a", "trusted.a");
        assert_server(map, "trusted.a", NULL);
        assert_server(map, "user.a", "user.a");
        g_assert_true(pt_xattr_map_keeps(map, "system.posix_acl_access"));
        g_assert_true(pt_xattr_map_keeps(map, "security.capability"));
        g_assert_false(pt_xattr_map_keeps(map, "trusted.a"));
        g_assert_false(pt_xattr_map_keeps(map, "user.virtiofs.a"));
    }
}

/* The third example of the manuals. */
static void test_hide(void)
{
    g_autoptr(PtXattrMap) map = parse("/bad/all/security./security./ /ok/all///");

    assert_client_error(map, "security.selinux", EPERM);
    assert_server(map, "security.selinux", NULL);
    assert_client(map, "security", "security");
    assert_server(map, "trusted.x", "trusted.x");
    g_assert_false(pt_xattr_map_keeps(map, "security.capability"));
}

static void test_long_names(void)
{
    g_autoptr(PtXattrMap) map = parse(":map::user.virtiofs.:");
    char name[XATTR_NAME_MAX + 1];
    PtXattrName mapped;

    for (size_t length = 1; length <= XATTR_NAME_MAX; length++) {
        memset(name, 'n', length);
        name[length] = '\0';
        bool fits = length + strlen("user.virtiofs.") <= XATTR_NAME_MAX;
        g_assert_cmpint(pt_xattr_map_client(map, name, &mapped), ==, fits ? 0 : -ERANGE);
        if (fits) {
            g_assert_cmpuint(strlen(mapped.text), ==, length + 14);
            g_assert_cmpstr(pt_xattr_map_server(map, mapped.text), ==, name);
        }
    }
}

/* Whatever parses has an answer for every name; what does not has a position. */
static void test_random(void)
{
    static const char *const pieces[] = {
        ":",    "/", "ok", "bad", "prefix", "map",     "all", "client",
        "user", ".", " ",  "::",  ":::",    ":all:::", "",    "server"};
    g_autoptr(GRand) random = g_rand_new_with_seed(3);
    unsigned int n_good = 0;

    for (int i = 0; i < 300000; i++) {
        g_autoptr(GString) rules = g_string_new(i % 2 ? "" : ":ok:all::");
        g_autoptr(GError) error = NULL;
        PtXattrName mapped;
        for (int j = g_rand_int_range(random, 0, 12); j > 0; j--) {
            g_string_append(rules, pieces[g_rand_int_range(random, 0, 16)]);
        }
        g_autoptr(PtXattrMap) map = pt_xattr_map_parse(rules->str, &error);
        if (map == NULL) {
            g_assert_true(g_str_has_prefix(error->message, "rule "));
            continue;
        }
        g_assert_no_error(error);
        n_good++;
        int result = pt_xattr_map_client(map, "user.x", &mapped);
        g_assert_true(result == 0 || result == -EPERM);
        (void)pt_xattr_map_server(map, "user.x");
    }
    g_assert_cmpuint(n_good, >, 1000);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/xattr-map/good", test_good);
    g_test_add_func("/xattr-map/mistakes", test_mistakes);
    g_test_add_func("/xattr-map/cut", test_cut);
    g_test_add_func("/xattr-map/limits", test_limits);
    g_test_add_func("/xattr-map/types", test_types);
    g_test_add_func("/xattr-map/scopes", test_scopes);
    g_test_add_func("/xattr-map/first-wins", test_first_wins);
    g_test_add_func("/xattr-map/map-all", test_map_all);
    g_test_add_func("/xattr-map/map-key", test_map_key);
    g_test_add_func("/xattr-map/hide", test_hide);
    g_test_add_func("/xattr-map/long-names", test_long_names);
    g_test_add_func("/xattr-map/random", test_random);
    return g_test_run();
}
