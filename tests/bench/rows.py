# SPDX-License-Identifier: Apache-2.0
"""The rows of the benchmark: what the driver calls them, their titles, and the goals,
which are ratios to QEMU's daemon.
"""

CPU, METADATA, DATA = 0.75, 0.5, 0.9
LATENCY = 0.9  # one request at a time, on one core with the daemon


class Row:
    """One kind of operation."""

    def __init__(self, name, title, goal=CPU, alone=False):
        self.name = name
        self.title = title
        self.goal = goal
        self.alone = alone  # never more than one of them at a time


ROWS = (
    Row('empty', 'unknown opcode'),
    Row('lookup', 'LOOKUP, known name', METADATA),
    Row('lookup-new', 'LOOKUP, new inode', METADATA),
    Row('lookup-none', 'LOOKUP, no such name', METADATA),
    Row('forget', 'FORGET'),
    Row('getattr', 'GETATTR', METADATA),
    Row('setattr', 'SETATTR (chmod)', METADATA),
    Row('open', 'OPEN + RELEASE'),
    Row('create', 'CREATE + WRITE 4K + RELEASE + UNLINK'),
    Row('rename', 'RENAME', METADATA),
    Row('read-4k', 'READ 4K'),
    Row('read-4k-many', 'READ 4K, 64 files'),
    Row('read-128k', 'READ 128K', DATA),
    Row('read-1m', 'READ 1M', DATA),
    Row('write-4k', 'WRITE 4K'),
    Row('write-128k', 'WRITE 128K', DATA),
    Row('flush', 'FLUSH'),
    Row('readdir', 'READDIR, {entries} entries', METADATA),
    Row('readdirplus', 'READDIRPLUS, {entries} entries', METADATA),
    Row('readdirplus-new', 'READDIRPLUS, {entries} new inodes', METADATA, alone=True),
    Row('getxattr', 'GETXATTR, absent', METADATA),
    Row('statfs', 'STATFS', METADATA),
)


def select(names):
    """The rows of these names, in the table's order; all of them for none."""
    unknown = set(names) - {row.name for row in ROWS}
    if unknown:
        raise ValueError(f'no such row: {", ".join(sorted(unknown))}')
    return [row for row in ROWS if not names or row.name in names]
