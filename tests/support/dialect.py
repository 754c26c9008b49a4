# SPDX-License-Identifier: Apache-2.0
"""What a daemon asks a VMM for mappings with: as the standard says, or in one of the two
ways from before there was one; and what each kind of VMM stumbles over.
"""

import fcntl
import os
import stat
import struct

import frontend as vmm

PAGE = 2 << 20
HEADER = struct.Struct('=III')


class Asked:
    """One message of the daemon; a class for each way."""

    MAP, UNMAP = 9, 10
    BODY = struct.Struct('=B7xQQQQ')
    FLAGS = 1  # of a mapping: for writing, too
    # What the VMM must agree on, beside what the frontend takes anyway: CONFIG and SHMEM.
    PROTOCOL = 0x8A42B | 1 << 9 | 1 << 22
    OPTIONS = ('--tag=share',)
    # It says how large the window is; what it maps becomes memory after the answer; it
    # maps nothing where something is; reset drops all.
    IS_STANDARD = True

    def __init__(self, raw, fds):
        self.request, self.flags, self.size = HEADER.unpack_from(raw)
        self.fds, self.raw_size = fds, len(raw)
        self.fits = len(raw) == HEADER.size + self.size == HEADER.size + self.BODY.size
        self.odd = None
        self._decode(raw[HEADER.size:].ljust(self.BODY.size, b'\0'))

    def _decode(self, body):
        (region, self.file_offset, self.offset, self.length, self.map_flags) = (
            self.BODY.unpack_from(body))
        if region != 0 or any(body[1:8]):
            self.odd = 'another region'

    @property
    def maps(self):
        return self.request == self.MAP

    def wrong(self):
        """What a VMM would stumble over, whatever is mapped; or None."""
        if self.request not in (self.MAP, self.UNMAP) or not self.fits:
            return 'no such message'
        if self.flags != vmm.FLAG_VERSION | vmm.FLAG_NEED_REPLY:
            return 'no answer is asked for'
        if self.odd or len(self.fds) != self.maps:
            return self.odd or 'a descriptor too many or too few'
        if self.offset % PAGE or self.length != PAGE or self.file_offset % PAGE:
            return 'not aligned'
        return self._wrong_file() if self.maps else None

    def _wrong_file(self):
        access = fcntl.fcntl(self.fds[0], fcntl.F_GETFL)
        if access & os.O_PATH or access & os.O_ACCMODE != os.O_RDWR:
            return 'not opened for reading and writing'
        if self.map_flags != self.FLAGS:
            return 'not to be written'
        return None if stat.S_ISREG(os.fstat(self.fds[0]).st_mode) else 'no regular file'

    def wrong_size(self):
        """What is wrong with the file as large as it is now, or None."""
        size = os.fstat(self.fds[0]).st_size if self.maps else None
        if size == 0:
            return 'an empty file, which QEMU would make larger'
        if self.maps and size < self.file_offset + self.length:
            return 'a file that does not cover it'
        return None


class AskedLegacy(Asked):
    """Arrays of eight."""

    MAP, UNMAP = 6, 7
    BODY = struct.Struct('=32Q')
    FLAGS = 3
    PROTOCOL = 1 << 0 | 1 << 3 | 1 << 5 | 1 << 10 | 1 << 13  # no memory slots
    OPTIONS = ('--dax-protocol=legacy',)
    IS_STANDARD = False

    def _decode(self, body):
        fields = self.BODY.unpack_from(body)
        self.file_offset, self.offset, self.length, self.map_flags = fields[::8]
        if any(field for i, field in enumerate(fields) if i % 8):
            self.odd = 'more than one entry'


class AskedLegacyV3(AskedLegacy):
    """A header and one entry."""

    BODY = struct.Struct('=IHHQQQQ')
    OPTIONS = ('--dax-protocol=legacy-v3',)

    def _decode(self, body):
        (flags, count, align, self.file_offset, self.offset, self.length,
         self.map_flags) = self.BODY.unpack_from(body)
        if (flags, count, align) != (0, 1, 0):
            self.odd = 'not one entry'


PROTOCOLS = {'standard': Asked, 'legacy': AskedLegacy, 'legacy-v3': AskedLegacyV3}
