# SPDX-License-Identifier: Apache-2.0
"""Malformed chains and rings. A chain is a list of Descriptor, written into a queue's
table or into an indirect one, or anything that is worse.
"""

import dataclasses
import itertools
import struct

import frontend as vmm
import fuse_client as fuse
import native
from frontend import DESC_INDIRECT, DESC_NEXT, DESC_WRITE

# What becomes of a chain.
RETIRED, ANSWERED, ANY = 'retired', 'answered', 'any'
NOWHERE = (0xFFFFFFFFFFFFFFFF, 0xFFFFFFFFFFFFFFF0, 1 << 63, 0)
LONG = (1 << 31, 0xFFFFFFFF)
N = 4  # descriptors of the honest chain: header, arguments; room for the reply, in two
IS_LAST = N - 1


@dataclasses.dataclass
class Descriptor:
    gpa: int
    size: int
    flags: int = 0
    follow: int = 0  # place in the chain, or any number

    def changed(self, **fields):
        return dataclasses.replace(self, **fields)


@dataclasses.dataclass
class Case:
    row: str  # of hostile_rows.py
    chain: list
    fate: str = RETIRED
    is_table: bool = False
    # Of the descriptor that points to the table.
    table: dict = dataclasses.field(default_factory=dict)


class Ring:
    """A queue of a guest's, of which some descriptors are written by hand."""

    def __init__(self, guest, index, n=12):
        self.guest, self.index = guest, index
        self.queue = guest.frontend.queues[index]
        self.size = self.queue.layout.size
        self.is_packed = self.queue.is_packed
        self.heads = self.queue.reserve(n)
        alloc = guest.frontend.alloc
        self.request, self.reply = alloc(4096, 4096), alloc(4096, 4096)
        self.table = alloc(16 * (self.size + 8), 16)
        self.bytes = guest.client.pack(fuse.LOOKUP, fuse.ROOT, b'honest\0')

    def honest(self):
        """A chain that is answered."""
        return [Descriptor(self.request.gpa, 40, DESC_NEXT, 1),
                Descriptor(self.request.gpa + 40, len(self.bytes) - 40, DESC_NEXT, 2),
                Descriptor(self.reply.gpa, 16, DESC_NEXT | DESC_WRITE, 3),
                Descriptor(self.reply.gpa + 16, 200, DESC_WRITE, 0)]

    def write(self, case):
        """Write the request and the case's chain; its head."""
        self.request.write(self.bytes)
        if case.is_table:
            data = b''.join(self.pack(d) for d in case.chain)
            self.table.write(data)
            fields = {'gpa': self.table.gpa, 'size': len(data), 'flags': DESC_INDIRECT,
                      'follow': 0, **case.table}
            self.queue.write_desc(self.heads[0], *fields.values())
            # Where NEXT of that one may lead.
            self.queue.write_desc(self.heads[1], self.reply.gpa, 16, DESC_WRITE, 0)
        else:
            for place, d in enumerate(case.chain):
                follow = self.heads[d.follow] if d.follow < len(self.heads) else d.follow
                self.queue.write_desc(self.heads[place], d.gpa, d.size, d.flags, follow)
        return self.heads[0]

    def pack(self, descriptor):
        """As it stands in an indirect table: in a packed one the id comes first."""
        d = descriptor
        if self.is_packed:
            return vmm.pack_desc(d.gpa, d.size, d.follow & 0xFFFF, d.flags)
        return vmm.pack_desc(d.gpa, d.size, d.flags, d.follow)

    def can_say(self, case):
        """Whether there is such a case in this layout: without links none is wrong, and
        what a table links is of no meaning."""
        chain = case.chain[:1] if case.is_table else case.chain
        follow = case.table.get('follow', 0)
        return not self.is_packed or (
            case.row != 'ring-loop' and follow in (0, self.heads[1])
            and all(d.follow == place + 1 for place, d in enumerate(chain)
                    if d.flags & DESC_NEXT and not case.is_table))

    def run(self, case, timeout=10):
        """Send it; what became of it."""
        self.reply.write(bytes(216))
        self.queue.post(self.write(case))
        done = self.queue.wait(timeout)
        assert done is not None, f'not retired: {case}'
        assert done[0] == self.heads[0]
        return ANSWERED if done[1] else RETIRED

    def is_entry(self):
        """Whether the reply that was written is the right one."""
        length, error = struct.unpack_from('=Ii', self.reply.read(16))
        return (length, error) == (144, 0)


def changed(chain, place, **fields):
    """The chain with one descriptor changed."""
    return [d.changed(**fields) if i == place else d for i, d in enumerate(chain)]


# ---- chains


def wrong_indices(ring, is_table):
    """An index beyond the table, at every place."""
    size = N if is_table else ring.size
    for place in range(N):
        for follow in (size, size + 1, 2 * size, 0x7FFF, 0x8000, 0xFFFE, 0xFFFF):
            flags = ring.honest()[place].flags | DESC_NEXT
            yield Case('ring-index', changed(ring.honest(), place, flags=flags,
                                             follow=max(follow, 16)), is_table=is_table)


def loops(ring, is_table):
    """From every place back to every place that came before."""
    for place, back in itertools.product(range(N), range(N)):
        if back <= place:
            flags = ring.honest()[place].flags | DESC_NEXT
            yield Case('ring-loop', changed(ring.honest(), place, flags=flags,
                                            follow=back), is_table=is_table)


def zero_lengths(ring, is_table):
    for place in range(N):
        yield Case('ring-zero-length', changed(ring.honest(), place, size=0),
                   is_table=is_table)
    yield Case('ring-zero-length', [d.changed(size=0) for d in ring.honest()],
               is_table=is_table)


def orders(ring, is_table):
    """Every order of readable and writable but those that are allowed."""
    for writes in itertools.product((0, DESC_WRITE), repeat=N):
        chain = [d.changed(flags=d.flags & DESC_NEXT | write)
                 for d, write in zip(ring.honest(), writes)]
        if list(writes) != sorted(writes):
            yield Case('ring-order', chain, is_table=is_table)
        else:
            yield Case('ring-order', chain, fate=ANY, is_table=is_table)


def ends_of_regions(ring, is_table):
    """Across the end of each region, and nowhere at all."""
    for place, region in itertools.product(range(N), ring.guest.frontend.regions()):
        end = region.gpa + region.size
        for before, size in ((1, 2), (16, 17), (4096, 8192), (1, 1 << 31), (0, 16),
                             (1, 0xFFFFFFFF)):
            yield Case('ring-region-end', changed(ring.honest(), place, gpa=end - before,
                                                  size=size), is_table=is_table)
    for place, gpa, size in itertools.product(range(N), NOWHERE[:3], (1, 16, *LONG)):
        yield Case('ring-region-end', changed(ring.honest(), place, gpa=gpa, size=size),
                   is_table=is_table)


def unknown_flags(ring, is_table):
    """Bits that mean nothing are nothing."""
    for place, bit in itertools.product(range(N), range(3, 16)):
        flags = ring.honest()[place].flags | 1 << bit
        yield Case('ring-index', changed(ring.honest(), place, flags=flags),
                   fate=ANSWERED, is_table=is_table)


CHAINS = (wrong_indices, loops, zero_lengths, orders, ends_of_regions, unknown_flags)


# ---- indirect tables


def nested(ring):
    """A table in a table, at every place, with and without a next one, even itself."""
    inner = ring.table.gpa + 16 * ring.size
    for place, more, gpa, size in itertools.product(
            range(N), (0, DESC_NEXT, DESC_WRITE, DESC_NEXT | DESC_WRITE),
            (ring.table.gpa, inner), (16, 64)):
        yield Case('ring-nested', changed(ring.honest(), place, gpa=gpa, size=size,
                                          flags=DESC_INDIRECT | more, follow=place + 1),
                   is_table=True)
    for more in (DESC_NEXT, DESC_NEXT | DESC_WRITE):
        for follow in (*ring.heads[:2], ring.size, 0xFFFF):
            yield Case('ring-nested', ring.honest(), is_table=True,
                       table={'flags': DESC_INDIRECT | more, 'follow': follow})


def odd_tables(ring):
    """Of lengths that are no tables', and of none of the guest's memory."""
    for size in (0, 1, 8, 15, 17, 24, 31, 33, 63, 65, 16 * ring.size + 16,
                 16 * ring.size + 1, 16 << 16, 1 << 31, 0xFFFFFFF0, 0xFFFFFFFF):
        yield Case('ring-odd-table', ring.honest(), is_table=True, table={'size': size})
    for size in (16, 32, 48):  # that cut the chain
        yield Case('ring-odd-table', ring.honest(), is_table=True, table={'size': size})
    for gpa in NOWHERE[:3]:
        yield Case('ring-odd-table', ring.honest(), is_table=True, table={'gpa': gpa})
    for region in ring.guest.frontend.regions():
        for before in (0, 1, 8, 15, 16, 48):
            yield Case('ring-odd-table', ring.honest(), is_table=True,
                       fate=RETIRED if before < 16 else ANY,
                       table={'gpa': region.gpa + region.size - before})
    whole = [Descriptor(ring.request.gpa, 1, DESC_NEXT, i + 1) for i in range(ring.size)]
    yield Case('ring-odd-table', whole, is_table=True)  # ends in a loop of its last


def all_chains(ring, indirect):
    """All cases that there are in the ring's layout. Flags and links in a packed table
    are ignored, so that what is malformed by them alone is as good as any."""
    for case in _all_chains(ring, indirect):
        if ring.can_say(case):
            ignored = ring.is_packed and case.is_table and case.row in (
                'ring-nested', 'ring-index', 'ring-odd-table')
            yield dataclasses.replace(case, fate=ANY) if ignored else case


def _all_chains(ring, indirect):
    for make in CHAINS:
        yield from make(ring, False)
        if indirect:
            yield from make(ring, True)
    if indirect:
        yield from nested(ring)
        yield from odd_tables(ring)
    else:
        for case in (*nested(ring), *odd_tables(ring)):
            yield dataclasses.replace(case, fate=RETIRED)


# ---- whole rings


def restart(guest, index, **settings):
    """Set a queue up anew, as after a reset of its driver; the messages' answers."""
    queue = guest.frontend.queues[index]
    guest.frontend.get_base(index)
    queue.reset()
    return set_up(guest, index, **settings)


def addresses_of(guest, index):
    """What an honest driver would say: {name: address of the VMM}."""
    layout = guest.frontend.queues[index].layout
    memory = native.library().frontend_memory(guest.frontend.handle)
    return {name: native.library().guest_memory_uva(memory, getattr(layout, name))
            for name in ('desc', 'used', 'avail')}


def set_up(guest, index, size=None, base=None, **addresses):
    """NUM, BASE, ADDR, KICK, CALL and ENABLE with these values; True for each that the
    daemon obeyed.
    """
    frontend = guest.frontend
    queue = frontend.queues[index]
    where = {**addresses_of(guest, index), **addresses}
    size = queue.layout.size if size is None else size
    base = queue.base if base is None else base
    fds = [getattr(native.library(), f'virtqueue_{name}_fd')(queue.handle)
           for name in ('kick', 'call')]
    state, fd_of = struct.Struct('=II'), struct.pack('=Q', index)
    mask = 0xFFFFFFFFFFFFFFFF
    steps = (
        (vmm.SET_VRING_NUM, state.pack(index, size & 0xFFFFFFFF), ()),
        (vmm.SET_VRING_BASE, state.pack(index, base), ()),
        (vmm.SET_VRING_ADDR, struct.pack(
            '=IIQQQQ', index, 0, where['desc'] & mask, where['used'] & mask,
            where['avail'] & mask, 0), ()),
        (vmm.SET_VRING_KICK, fd_of, fds[:1]), (vmm.SET_VRING_CALL, fd_of, fds[1:]),
        (vmm.SET_VRING_ENABLE, state.pack(index, 1), ()))
    return [frontend.ask(*step).u64 == 0 for step in steps]
