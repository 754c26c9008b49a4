# SPDX-License-Identifier: Apache-2.0
"""What a hostile guest, or a hostile VMM, must not achieve: one row for each thing that
is tried. A test against the real binary says which rows it shows:

    @pytest.mark.hostile('ring-loop', 'ring-nested')

tests/hostile-table runs those tests and prints every row with its tests and their result.
"""

import ast
import glob
import os

INTEGRATION = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'integration')

SECTIONS = (
    ('What the peer does wrong', (
        ('peer-malformed', 'truncated header, len unlike the chain, no NUL, too little '
         'room, wrong sizes, descriptor outside memory: error or length 0'),
        ('peer-read-room', 'READ with less than 16 writable bytes, or beyond 2^63'),
        ('peer-avail-jump', 'avail index beyond the queue: it stops, with one line'),
        ('peer-write-more', 'WRITE of 10 with 50 bytes supplied: never more than 10'),
        ('peer-read-less', 'READ of 10 with 4096 bytes of room: 10'),
        ('peer-names', 'names with /, absolute, .. with --sandbox=none: EINVAL'),
        ('peer-groups', 'supplementary groups of one caller never serve another'),
        ('peer-labels', 'labelled MKDIR x 50: no descriptor left'),
        ('peer-exit', 'the end in a sandbox touches nothing in the share'),
        ('peer-second-client', 'a second client is refused'),
        ('peer-base-in-flight', 'GET_VRING_BASE with a copy in flight: answered after'),
        ('peer-start-words', 'wrong maps at the start: exit 2, with the position'),
        ('peer-seccomp', 'argument filters; unshare, clone, prctl refused; binary tree'),
        ('peer-user-namespace', 'without root, capabilities are dropped as with root'),
        ('peer-descriptor-limit', '20 000 looked-up files against the limit: served'),
    )),
    ('Fields', (
        ('field-truncated', 'every fixed struct truncated at every byte'),
        ('field-lengths', 'every length field at 0, 1, max, max+1, 2^31, 2^32-1, 2^63, '
         '2^64-1'),
        ('field-unique', 'unique 0, and duplicates in flight'),
        ('field-opcodes', 'unknown opcodes'),
        ('field-before-init', 'every opcode before INIT'),
        ('field-init-twice', 'INIT twice'),
        ('field-init-during', 'INIT during other requests'),
        ('field-node-ids', 'random, freed, foreign and type-confused node ids'),
        ('field-handles', 'random, freed, foreign and type-confused handles'),
        ('field-forget-beyond', 'FORGET beyond the count'),
        ('field-forget-root', 'FORGET of the root'),
        ('field-batch-forget', 'BATCH_FORGET with a count that overflows'),
        ('field-cookies', 'directory cookies of other directories'),
    )),
    ('Rings', (
        ('ring-index', 'descriptor index out of range'),
        ('ring-loop', 'loops'),
        ('ring-nested', 'nested indirect tables'),
        ('ring-odd-table', 'odd indirect tables'),
        ('ring-zero-length', 'descriptors of length 0'),
        ('ring-order', 'readable after writable'),
        ('ring-region-end', 'buffers across a region\'s end'),
        ('ring-unmapped', 'ring memory unmapped'),
        ('ring-shared', 'ring memory shared with data'),
        ('ring-sizes', 'queue sizes 0, 3 and 65535'),
        ('ring-changed', 'bytes changed by another thread while they are decoded'),
        ('ring-storm', 'notify storms'),
    )),
    ('Messages of the VMM', (
        ('vmm-sizes', 'every payload size +-1'),
        ('vmm-fds', 'every count of descriptors 0-8, and kinds'),
        ('vmm-overlapping', 'regions that overlap'),
        ('vmm-wrapping', 'regions that wrap around'),
        ('vmm-unaligned', 'regions that are not aligned'),
        ('vmm-shorter', 'regions whose file is shorter than claimed'),
        ('vmm-truncated', 'regions truncated later (SIGBUS)'),
        ('vmm-log', 'dirty logs that are no file, too short, wrap around, lie on '
         'FUSE, or are truncated later'),
        ('vmm-no-eventfd', 'kick, call and error descriptors that are no eventfds'),
        ('vmm-fuse-memory', 'memory descriptors on FUSE'),
        ('vmm-order', 'messages out of order'),
        ('vmm-index', 'messages on a bad index'),
        ('vmm-running', 'messages while rings run'),
        ('vmm-cut', 'messages cut off in the middle'),
        ('vmm-bytes', 'messages one byte at a time'),
    )),
    ('Escape', (
        ('escape-symlinks', 'symbolic links out of the share'),
        ('escape-magic-links', 'magic links'),
        ('escape-dotdot', '..'),
        ('escape-mount-points', 'mount points'),
        ('escape-bind-later', 'bind mounts added later'),
        ('escape-swap', 'the host swaps a directory and a link under walks, renames and '
         'creates: a canary outside is never reached'),
        ('special-open', 'OPEN of FIFO, socket, character and block device'),
        ('special-truncate', 'O_TRUNC and SETATTR size on them'),
        ('special-copy', 'COPY_FILE_RANGE on them'),
        ('special-mapping', 'SETUPMAPPING on them'),
        ('special-xattr', 'extended attributes on them'),
        ('setid-bits', 'set-user-ID and set-group-ID dropped as on the host'),
        ('setid-capabilities', 'file capabilities dropped as on the host'),
    )),
    ('Resources', (
        ('many-listed', '10^6 files listed, with 1000 descriptors'),
        ('many-looked-up', '10^6 files looked up, with 1000 descriptors'),
        ('many-opened', '10^5 files opened one after another, with 1000 descriptors'),
        ('many-open', 'opens beyond the budget get ENFILE, everything else goes on'),
        ('many-entries', 'directories of 10^6 entries'),
        ('bounded-memory', 'memory bounded, and reported per inode'),
        ('bounded-log', 'log bounded'),
        ('idle', 'the daemon is idle when the guest is'),
        ('hang-fifo', 'a FIFO: other volumes and hiprio go on, with Kata\'s options'),
        ('hang-fuse', 'a stuck FUSE mount in the share: likewise'),
        ('hang-copy', 'a huge copy: likewise'),
    )),
    ('After the start', (
        ('cage-root', 'the root is the share'),
        ('cage-mounts', 'mountinfo shows the share only'),
        ('cage-network', 'no network'),
        ('cage-capabilities', 'capabilities and bounding set minimal'),
        ('cage-status', 'NoNewPrivs 1, Seccomp 2, Groups empty'),
        ('cage-descriptors', 'no descriptor to what is outside but the socket\'s folder'),
        ('cage-dumpable', 'not dumpable'),
        ('cage-core', 'no core with guest memory'),
        ('cage-calls-refused', 'every system call that is not in the list is refused'),
        ('cage-calls-needed', 'for every one in the list, the code that needs it'),
        ('cage-planted', 'planted localtime, gconv, libgcc_s, NSS and locale files are '
         'never opened, in any mode, on any path'),
    )),
    ('In numbers', (
        ('number-requests', '10 000 malformed requests, honest work beside them'),
        ('number-rings', '500 malformed rings'),
        ('number-messages', '300 malformed peers'),
        ('number-loris', 'slow peers: 1000 connections, 1 byte a second'),
        ('number-names', 'escape by names, on every opcode, in every sandbox'),
        ('number-log', '10^6 errors worth a line: the log stays small'),
        ('number-forget', 'games with reference counts'),
        ('number-fetch', 'requests that another thread changes'),
        ('number-million', '10^6 malformed requests: memory, descriptors, log unchanged'),
    )),
)

ROWS = {row: text for _, rows in SECTIONS for row, text in rows}


def marked_in(path):
    """The rows that tests in a file say they show."""
    with open(path, encoding='utf-8') as file:
        tree = ast.parse(file.read())
    return {argument.value for node in ast.walk(tree)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
            and node.func.attr == 'hostile'
            for argument in node.args if isinstance(argument, ast.Constant)}


def without_test():
    """The rows that no test shows."""
    shown = set()
    for path in glob.glob(os.path.join(INTEGRATION, 'test_*.py')):
        shown |= marked_in(path)
    return [row for row in ROWS if row not in shown]
