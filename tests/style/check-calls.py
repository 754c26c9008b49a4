#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Calls that the daemon must not make, because a guest could then end, stop or mislead
it: see each rule's reason.
"""

import re

import source

# Code that runs before the sandbox is entered, or that only ends the process.
START = ('virtiofsd/main.c', 'virtiofsd/options', 'virtiofsd/socket.c', 'sandbox/')

# Rules: (why, names of the functions called, files where they are allowed).
EVERYWHERE = (
    ('only main() ends the process',
     'exit _exit _Exit quick_exit err errx',
     ('virtiofsd/main.c', 'sandbox/idmap-helper.c')),
    ('nothing may abort', r'abort g_abort g_error g_return_\w+', ()),
    ('would load libgcc_s after the pivot', 'pthread_exit pthread_cancel', ()),
    ('blocks, and reconnects after the filter', 'syslog vsyslog openlog closelog', ()),
    ('the served process is the spawned one, and has no children',
     r'system popen exec[lv]\w* fork vfork', ('sandbox/idmap-helper.c',)),
    ('ThreadSanitizer does not see it',
     r'g_(mutex|rec_mutex|rw_lock|cond|thread|once|private)_\w+', ()),
    ('unbounded',
     'gets strcpy strcat sprintf vsprintf alloca g_alloca g_newa g_newa0', ()),
)

ON_REQUESTS = (
    ('refused after the filter: use openat2',
     'open open64 openat openat64 creat creat64', ()),
    ('a library that opens a path may load the code of a guest',
     r'fopen\w* opendir scandir nftw ftw realpath strerror(_r|_l)? perror mktime tzset '
     r'localtime\w* strftime setlocale iconv\w* dlopen getpw\w+ getgr(nam|gid|ent)\w* '
     r'getaddrinfo g_strerror dcgettext gettext', ()),
    ('guest data must not end the process', r'g_assert\w* assert', ()),
)

# What GLib does by allocating or by aborting; lookups, unrefs and frees do neither.
ABORTS_WITHOUT_MEMORY = (
    r'g_new0? g_renew g_(m|re)alloc\w* g_strn?dup\w* g_str(concat|join|split)\w* '
    r'g_memdup2? g_build_\w+ g_slice_\w+ g_byte_array_\w+ g_queue_\w+ g_tree_\w+ '
    r'g_variant_\w+ g_bytes_new\w* g_s?list_(?!free)\w+ g_string_(?!free)\w+ '
    r'g_hash_table_(?!lookup|unref|destroy|size)\w+ '
    r'g_(ptr_)?array_(?!unref|free|index)\w+ '
    r'g_set_error\w* g_error_new\w* g_propagate_\w*error g_prefix_error g_log\w* '
    r'g_message g_warning g_critical g_info g_debug g_print\w*')


def one_of(names):
    return re.compile('|'.join(names.split()))


def compiled(rules):
    return [(why, one_of(names), files) for why, names, files in rules]


def calls_of(function):
    """(name, line) of every call in the body."""
    for (before, _), (text, line), (after, _) in zip(
            [('', 0), *function.body], function.body, function.body[1:]):
        if after == '(' and re.match(r'[A-Za-z_]', text) and before not in ('.', '>'):
            yield text, line


def start_functions(functions):
    """Functions that run before there is a guest: those that report by GError, and
    helpers that only such functions call.
    """
    known = {f.name for f in functions if any('GError' in p for p in f.parameters)}
    users, values = {}, set()
    for function in functions:
        called = [call for call, _ in calls_of(function)]
        for call in called:
            users.setdefault(call, set()).add(function.name)
        words = [text for text, _ in function.body]
        # A function that is handed around may be called by anybody.
        values |= {w for w in words if words.count(w) > called.count(w)}
    while True:
        more = {f.name for f in functions if f.is_static and f.name not in known | values
                and users.get(f.name) and users[f.name] <= known}
        if not more:
            return known
        known |= more


def faults_of(root, name):
    on_requests = not name.startswith(START)
    rules = compiled(EVERYWHERE + (ON_REQUESTS if on_requests else ()))
    aborting = one_of(ABORTS_WITHOUT_MEMORY)
    functions = source.functions(source.read(root, name))
    at_start = start_functions(functions)
    for function in functions:
        for call, line in calls_of(function):
            where = f'{name}:{line}: {function.name}() calls {call}()'
            for why, pattern, files in rules:
                if pattern.fullmatch(call) and name not in files:
                    yield f'{where}: {why}'
            if (on_requests and function.name not in at_start
                    and aborting.fullmatch(call)):
                yield f'{where}: aborts when memory runs out'


def main():
    root = source.arguments(__doc__).root
    names = source.c_files(root, *source.DAEMON_ROOMS)
    faults = [f for name in names for f in faults_of(root, name)]
    source.finish(faults, 'calls')


if __name__ == '__main__':
    main()
