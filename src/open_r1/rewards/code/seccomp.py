"""A filter, in classic BPF, that denies system calls which no answer to a programming problem needs.

Denied calls fail with EPERM. They are the ones that hold memory or files which no limit counts (memfd, System V memory
and queues, shared mappings without a file, large buffers of sockets and pipes, pages given to a pipe, descriptors sent
over a socket), use up what all users share (huge pages), make others wait for a file, open sockets of any family,
affect other processes (including their limits and priorities), hide from the judge, create namespaces or mounts, or
reach large parts of the kernel (BPF, io_uring, keys, perf, userfaultfd). Pairs of Unix stream sockets, which event
loops need, are allowed. Programs cannot ignore SIGCHLD, because the kernel would then lose the processor time of their
children; that call only seems to succeed, because some interpreters do not start without it. Only x86-64 and ARM64 have
a filter.

The table has the numbers of the calls, so that the machine does not need libseccomp. If it is installed, a test
compares the table with it.
"""

import platform
import struct
from functools import cache

# (x86-64, ARM64); None if the architecture does not have the call
_DENIED: dict[str, tuple[int, int | None]] = {
    "socket": (41, 198),
    "connect": (42, 203),
    "bind": (49, 200),
    "sendmsg": (46, 211),
    "sendmmsg": (307, 269),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "pidfd_getfd": (438, 438),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "msgget": (68, 186),
    "semget": (64, 190),
    "mq_open": (240, 180),
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "statmount": (457, 457),
    "listmount": (458, 458),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "personality": (135, 92),
    "quotactl": (179, 60),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "reboot": (169, 142),
    "syslog": (103, 116),
    "acct": (163, 89),
    "fanotify_init": (300, 262),
    "modify_ldt": (154, None),
    "setpriority": (141, 140),
    "sched_setaffinity": (203, 122),
    "sched_setscheduler": (144, 119),
    "sched_setparam": (142, 118),
    "sched_setattr": (314, 274),
    "ioprio_set": (251, 30),
    "io_setup": (206, 0),
    "inotify_init": (253, None),
    "inotify_init1": (294, 26),
    "vmsplice": (278, 75),
    "sync": (162, 81),
    "syncfs": (306, 267),
}
_ATTRIBUTES: dict[str, tuple[int, int | None]] = {
    "chmod": (90, None),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "chown": (92, None),
    "lchown": (94, None),
    "fchown": (93, 55),
    "fchownat": (260, 54),
    "utime": (132, None),
    "utimes": (235, None),
    "futimesat": (261, None),
    "utimensat": (280, 88),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "setxattrat": (463, 463),
    "getxattr": (191, 8),
    "lgetxattr": (192, 9),
    "fgetxattr": (193, 10),
    "getxattrat": (464, 464),
    "listxattr": (194, 11),
    "llistxattr": (195, 12),
    "flistxattr": (196, 13),
    "listxattrat": (465, 465),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "fremovexattr": (199, 16),
    "removexattrat": (466, 466),
    "file_getattr": (468, 468),
    "file_setattr": (469, 469),
    "truncate": (76, 45),
}
"""Calls that change attributes of files by name, which Landlock does not restrict (before kernel 6.2: truncation)."""
_LOCKS: dict[str, tuple[int, int | None]] = {"flock": (73, 32)}
"""Anyone who may read a file can lock it and make others wait. Compilers need to lock their caches."""
_ARCHITECTURES = {"x86_64": (0, 0xC000003E, 56), "aarch64": (1, 0xC00000B7, 220)}
_SOCKETPAIR, _SETSOCKOPT, _FCNTL, _PRLIMIT64 = (53, 199), (54, 208), (72, 25), (302, 261)
_SIGACTION, _SIGCHLD = (13, 134), 17
_MMAP, _SHARED_WITHOUT_FILE, _HUGE_PAGES = (9, 222), 0x21, 0x40000
_PRCTL, _SET_DUMPABLE = (157, 167), 4
"""Without it, /proc hides from the judge what a process holds."""
_AF_UNIX = 1
_FCNTL_COMMANDS = (1024, 1026, 1031)  # F_SETLEASE, F_NOTIFY, F_SETPIPE_SZ
_BUFFER_OPTIONS = (7, 8, 32, 33)  # SO_SNDBUF, SO_RCVBUF, and the same with force
_CLONE3 = 435
_NAMESPACES = 0x7E020080  # CLONE_NEWUSER, PID, NET, IPC, UTS, CGROUP, NS and TIME
_X32 = 0x40000000
_LOAD, _AND, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x54, 0x15, 0x35, 0x45, 0x06
_Instruction = tuple[int, int, int, int]
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_EPERM, _ENOSYS = 1, 38


@cache
def filter_program(machine: str | None = None, *, attributes: bool = True, locks: bool = False) -> bytes | None:
    """The filter for `machine` (default: this one), None if it is unknown. `attributes`: allow changing those of files;
    `locks`: allow locking files."""
    known = _ARCHITECTURES.get(machine or platform.machine())
    if known is None:
        return None
    column, audit, clone = known
    refused = _DENIED | ({} if attributes else _ATTRIBUTES) | ({} if locks else _LOCKS)
    denied = sorted(number for numbers in refused.values() if (number := numbers[column]) is not None)
    program = [
        (_LOAD, 0, 0, 4),  # architecture
        (_EQUAL, 1, 0, audit),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, 0),  # number of the call
    ]
    if column == 0:
        program += [(_AT_LEAST, 0, 1, _X32), (_RETURN, 0, 0, _ERRNO | _EPERM)]
    for number in denied:
        program += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ERRNO | _EPERM)]
    program += _where(_SOCKETPAIR[column], 0, [(_EQUAL, 1, 0, _AF_UNIX), (_RETURN, 0, 0, _ERRNO | _EPERM)])
    # Datagram sockets (bit 2 of the type) can send to any path, even if they are a connected pair.
    program += _where(_SOCKETPAIR[column], 1, [(_ANY_BIT, 0, 1, 2), (_RETURN, 0, 0, _ERRNO | _EPERM)])
    program += _where(_PRLIMIT64[column], 0, [(_EQUAL, 1, 0, 0), (_RETURN, 0, 0, _ERRNO | _EPERM)])  # its own only
    program += _where(_PRCTL[column], 0, [(_EQUAL, 0, 1, _SET_DUMPABLE), (_RETURN, 0, 0, _ERRNO | _EPERM)])
    program += _where(_MMAP[column], 3, [(_ANY_BIT, 0, 1, _HUGE_PAGES), (_RETURN, 0, 0, _ERRNO | _EPERM)])
    both = [(_AND, 0, 0, _SHARED_WITHOUT_FILE), (_EQUAL, 0, 1, _SHARED_WITHOUT_FILE)]
    program += _where(_MMAP[column], 3, [*both, (_RETURN, 0, 0, _ERRNO | _EPERM)])
    program += _where(_SIGACTION[column], 0, [(_EQUAL, 0, 1, _SIGCHLD), (_RETURN, 0, 0, _ERRNO)])
    for option in _BUFFER_OPTIONS:
        program += _where(_SETSOCKOPT[column], 2, [(_EQUAL, 0, 1, option), (_RETURN, 0, 0, _ERRNO | _EPERM)])
    for command in _FCNTL_COMMANDS:
        program += _where(_FCNTL[column], 1, [(_EQUAL, 0, 1, command), (_RETURN, 0, 0, _ERRNO | _EPERM)])
    program += [
        (_EQUAL, 0, 1, _CLONE3),  # a filter cannot read its flags, which are in memory; libc falls back to clone
        (_RETURN, 0, 0, _ERRNO | _ENOSYS),
        (_EQUAL, 0, 3, clone),
        (_LOAD, 0, 0, 16),  # lower half of the first argument: flags
        (_ANY_BIT, 0, 1, _NAMESPACES),
        (_RETURN, 0, 0, _ERRNO | _EPERM),
        (_RETURN, 0, 0, _ALLOW),
    ]
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)


def _where(number: int, argument: int, then: list[_Instruction]) -> list[_Instruction]:
    """Runs `then` on the lower half of an argument if the system call is `number`; then loads the number again."""
    return [
        (_EQUAL, 0, len(then) + 2, number),
        (_LOAD, 0, 0, 16 + 8 * argument),
        *then,
        (_LOAD, 0, 0, 0),
    ]
