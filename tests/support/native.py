# SPDX-License-Identifier: Apache-2.0
"""The C library behind frontend.py and fuse_client.py, its structures and functions.

The shared library is looked for in $VIRTIOFSD_FRONTEND (a path to libfrontend.so), else
in the meson build directory $VIRTIOFSD_BUILD. A library built with a sanitizer needs its
run-time preloaded; give the path of an ordinary build in $VIRTIOFSD_FRONTEND instead.
"""

import ctypes as C
import os


class Config(C.Structure):
    _fields_ = [
        ("n_request_queues", C.c_uint),
        ("queue_size", C.c_uint),
        ("table_size", C.c_uint),
        ("features", C.c_uint64),
        ("protocol_features", C.c_uint64),
        ("n_regions", C.c_uint),
        ("memory_size", C.c_size_t),
        ("separate_files", C.c_bool),
        ("timeout_ms", C.c_int),
    ]


class ClientConfig(C.Structure):
    _fields_ = [
        ("n_slots", C.c_uint),
        ("data_size", C.c_size_t),
        ("split", C.c_int),
        ("split_size", C.c_size_t),
        ("uid", C.c_uint32),
        ("gid", C.c_uint32),
        ("pid", C.c_uint32),
        ("timeout_ms", C.c_int),
        ("poison", C.c_bool),
    ]


class Header(C.Structure):
    _fields_ = [("request", C.c_uint32), ("flags", C.c_uint32), ("size", C.c_uint32)]


class Message(C.Structure):
    _fields_ = [
        ("header", Header),
        ("payload", C.c_char_p),
        ("payload_size", C.c_size_t),
        ("fds", C.POINTER(C.c_int)),
        ("n_fds", C.c_uint),
    ]


class VhostReply(C.Structure):
    _fields_ = [
        ("header", Header),
        ("payload", C.c_uint8 * 4096),
        ("fds", C.c_int * 8),
        ("n_fds", C.c_uint),
    ]


class OutHeader(C.Structure):
    _fields_ = [("len", C.c_uint32), ("error", C.c_int32), ("unique", C.c_uint64)]


class Raw(C.Structure):
    _fields_ = [
        ("bytes", C.c_char_p),
        ("size", C.c_size_t),
        ("room", C.c_size_t),
        ("queue", C.c_uint),
    ]


class Reply(C.Structure):
    _fields_ = [
        ("used", C.c_uint32),
        ("header", OutHeader),
        ("payload", C.c_void_p),
        ("size", C.c_size_t),
        ("room", C.c_void_p),
        ("room_size", C.c_size_t),
        ("tag", C.c_void_p),
        ("slot", C.c_void_p),
    ]


class Region(C.Structure):
    _fields_ = [
        ("gpa", C.c_uint64),
        ("size", C.c_uint64),
        ("uva", C.c_uint64),
        ("offset", C.c_uint64),
        ("fd", C.c_int),
        ("host", C.c_void_p),
    ]


class Segment(C.Structure):
    _fields_ = [("gpa", C.c_uint64), ("size", C.c_uint32)]


class Request(C.Structure):
    _fields_ = [
        ("into", C.POINTER(Segment)),
        ("n_in", C.c_uint),
        ("out", C.POINTER(Segment)),
        ("n_out", C.c_uint),
        ("tag", C.c_void_p),
        ("no_kick", C.c_bool),
    ]


class Completion(C.Structure):
    _fields_ = [("tag", C.c_void_p), ("length", C.c_uint32), ("head", C.c_uint32)]


class Counters(C.Structure):
    """Kicks, interrupts and requests of one queue."""

    _fields_ = [
        ("submitted", C.c_uint64),
        ("completed", C.c_uint64),
        ("kicks", C.c_uint64),
        ("kicks_suppressed", C.c_uint64),
        ("interrupts", C.c_uint64),
    ]


class Layout(C.Structure):
    _fields_ = [
        ("size", C.c_uint),
        ("desc", C.c_void_p),
        ("avail", C.c_void_p),
        ("used", C.c_void_p),
        ("tables", C.c_void_p),
        ("table_size", C.c_uint),
        ("plan", C.c_void_p),
    ]


class ScribblerConfig(C.Structure):
    _fields_ = [
        ("at", C.c_void_p),
        ("size", C.c_size_t),
        ("one", C.c_char_p),
        ("other", C.c_char_p),
        ("random_from", C.c_size_t),
        ("seed", C.c_uint),
    ]


POINTER = C.c_void_p
# name: (result, arguments)
_FUNCTIONS = {
    "frontend_config_init": (None, [C.POINTER(Config)]),
    "frontend_new": (POINTER, [C.POINTER(Config)]),
    "frontend_free": (None, [POINTER]),
    "frontend_error": (C.c_char_p, [POINTER]),
    "frontend_connect": (C.c_int, [POINTER, C.c_char_p]),
    "frontend_attach_take": (None, [POINTER, C.c_int]),
    "frontend_disconnect": (None, [POINTER]),
    "frontend_negotiate": (C.c_int, [POINTER]),
    "frontend_start": (C.c_int, [POINTER]),
    "frontend_stop": (C.c_int, [POINTER]),
    "frontend_reset": (C.c_int, [POINTER]),
    "frontend_add_region": (C.c_int, [POINTER, C.c_size_t]),
    "frontend_remove_region": (C.c_int, [POINTER, C.c_uint]),
    "frontend_set_memory": (C.c_int, [POINTER]),
    "frontend_set_ring": (C.c_int, [POINTER, C.c_uint]),
    "frontend_enable_ring": (C.c_int, [POINTER, C.c_uint, C.c_bool]),
    "frontend_get_base": (C.c_int, [POINTER, C.c_uint, C.POINTER(C.c_uint32)]),
    "frontend_swap_call": (C.c_int, [POINTER, C.c_uint]),
    "frontend_get_config": (C.c_int, [POINTER, C.c_uint32, C.c_uint32, POINTER]),
    "frontend_send_raw": (C.c_int, [POINTER, C.POINTER(Message)]),
    "frontend_receive": (C.c_int, [POINTER, C.POINTER(VhostReply), C.c_int]),
    "frontend_is_closed": (C.c_bool, [POINTER, C.c_int]),
    "frontend_n_queues": (C.c_uint, [POINTER]),
    "frontend_queue": (POINTER, [POINTER, C.c_uint]),
    "frontend_memory": (POINTER, [POINTER]),
    "frontend_socket": (C.c_int, [POINTER]),
    "frontend_backend_socket": (C.c_int, [POINTER]),
    "frontend_offered": (C.c_uint64, [POINTER, C.c_bool]),
    "frontend_agreed": (C.c_uint64, [POINTER, C.c_bool]),
    "frontend_peer_queues": (C.c_uint, [POINTER]),
    "vhost_message_send_bytes": (C.c_int, [C.c_int, C.c_char_p, C.c_size_t]),
    "guest_memory_n_regions": (C.c_uint, [POINTER]),
    "guest_memory_region": (C.POINTER(Region), [POINTER, C.c_uint]),
    "guest_memory_add": (C.c_int, [POINTER, C.c_size_t]),
    "guest_memory_remove": (None, [POINTER, C.c_uint]),
    "guest_memory_alloc": (POINTER, [POINTER, C.c_size_t, C.c_size_t]),
    "guest_memory_alloc_in": (POINTER, [POINTER, C.c_uint, C.c_size_t, C.c_size_t]),
    "guest_memory_gpa": (C.c_uint64, [POINTER, POINTER]),
    "guest_memory_uva": (C.c_uint64, [POINTER, POINTER]),
    "guest_memory_host": (POINTER, [POINTER, C.c_uint64, C.c_size_t]),
    "virtqueue_submit": (C.c_int, [POINTER, C.POINTER(Request)]),
    "virtqueue_kick": (None, [POINTER]),
    "virtqueue_kick_always": (None, [POINTER]),
    "virtqueue_wait": (C.c_int, [POINTER, C.POINTER(Completion), C.c_int]),
    "virtqueue_reserve": (C.c_int, [POINTER, C.c_uint, C.POINTER(C.c_uint16)]),
    "virtqueue_release": (None, [POINTER, C.c_uint, C.POINTER(C.c_uint16)]),
    "virtqueue_post": (None, [POINTER, C.c_uint16, POINTER]),
    "virtqueue_reset": (None, [POINTER]),
    "virtqueue_layout": (Layout, [POINTER]),
    "virtqueue_counters": (Counters, [POINTER]),
    "virtqueue_in_flight": (C.c_uint, [POINTER]),
    "virtqueue_waiting": (C.c_uint, [POINTER]),
    "virtqueue_avail_index": (C.c_uint16, [POINTER]),
    "virtqueue_base": (C.c_uint32, [POINTER]),
    "virtqueue_call_fd": (C.c_int, [POINTER]),
    "virtqueue_kick_fd": (C.c_int, [POINTER]),
    "client_config_init": (None, [C.POINTER(ClientConfig)]),
    "client_memory_size": (C.c_size_t, [C.POINTER(ClientConfig)]),
    "client_new": (POINTER, [POINTER, C.POINTER(ClientConfig)]),
    "client_free": (None, [POINTER]),
    "client_set_split": (None, [POINTER, C.c_int, C.c_size_t]),
    "client_reset": (None, [POINTER]),
    "client_exchange_raw": (
        C.c_int,
        [POINTER, C.POINTER(Raw), C.POINTER(Reply), C.c_int],
    ),
    "client_submit_raw": (C.c_int, [POINTER, C.POINTER(Raw), POINTER]),
    "client_reap": (C.c_int, [POINTER, C.c_uint, C.POINTER(Reply), C.c_int]),
    "client_release": (None, [POINTER, C.POINTER(Reply)]),
    "scribbler_start": (POINTER, [C.POINTER(ScribblerConfig)]),
    "scribbler_stop": (C.c_uint64, [POINTER]),
    "reply_room": (C.c_size_t, [C.c_char_p, C.c_size_t]),
    "reply_is_expected": (C.c_bool, [C.c_uint32]),
}


def _load():
    path = os.environ.get("VIRTIOFSD_FRONTEND")
    if not path:
        build = os.environ.get("VIRTIOFSD_BUILD")
        if not build:
            raise RuntimeError("set VIRTIOFSD_BUILD to the meson build directory")
        path = os.path.join(build, "tests", "support", "libfrontend.so")
    library = C.CDLL(path)
    for name, (result, arguments) in _FUNCTIONS.items():
        function = getattr(library, name)
        function.restype = result
        function.argtypes = arguments
    return library


_library = None


def library():
    """The shared library, loaded at the first use."""
    global _library
    if _library is None:
        _library = _load()
    return _library


def check(rc, what):
    if rc < 0:
        raise OSError(-rc, f"{what}: {os.strerror(-rc)}")
    return rc
