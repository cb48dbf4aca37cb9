"""Programs that reach for what is not theirs: files, secrets, memory, the network, other processes."""

from __future__ import annotations

from tests.heal.hostile.stage import Program

DONE = r"did it.*"
PRETENDED = rf"{DONE}|E[A-Z]+"
"""For what the stage alone can tell: the program may have been told that it was done."""

REACHING = [
    Program(
        "changes files of others",
        """
place = world["place"]
attempt("create", lambda: write(f"{place}/new"))
attempt("overwrite", lambda: write(f"{place}/file", os.O_WRONLY))
attempt("append", lambda: write(f"{place}/file", os.O_WRONLY | os.O_APPEND))
attempt("truncate", lambda: os.truncate(f"{place}/file", 0))
attempt("unlink", lambda: os.unlink(f"{place}/file"))
attempt("rename", lambda: os.rename(f"{place}/file", f"{place}/other"))
attempt("make a folder", lambda: os.mkdir(f"{place}/made"))
attempt("remove a folder", lambda: os.rmdir(f"{place}/folder"))
attempt("make a link", lambda: os.symlink("/etc", f"{place}/link"))
attempt("make a pipe", lambda: os.mkfifo(f"{place}/pipe"))
""",
        bare=True,
    ),
    Program(
        "changes what a file is, without opening it",
        """
path = world["place"] + "/file"
attempt("chmod", lambda: os.chmod(path, 0))
attempt("chmod of a folder", lambda: os.chmod(world["place"], 0))
attempt("chown", lambda: os.chown(path, os.getuid(), os.getgid()))
attempt("utime", lambda: os.utime(path, (0, 0)))
attempt("utime to now", lambda: os.utime(path))
attempt("setxattr", lambda: os.setxattr(path, "user.hostile", b"1"))
attempt("fchmodat2", lambda: call(452, 452, -100, path.encode(), 0, 0))
attempt("open_tree", lambda: call(428, 428, -100, path.encode(), 1))
handle = os.open(__import__("ssl").__file__, os.O_RDONLY)
attempt("make it immutable", lambda: call(16, 29, handle, 0x40086602, struct.pack("l", 0x10)))
attempt("read only, yet emptied", lambda: os.open("file", os.O_RDONLY | os.O_TRUNC))
attempt("emptied by openat2", lambda: call(437, 437, -100, b"file", struct.pack("QQQ", os.O_TRUNC, 0, 0), 24))
""",
        dict.fromkeys(("chmod", "chmod of a folder", "utime", "utime to now", "fchmodat2"), PRETENDED),
    ),
    Program(
        "writes into the system and the interpreter",
        """
import sysconfig
site = sysconfig.get_path("purelib")
folders = [site, sys.prefix, sys.base_prefix, "/usr/lib", "/etc", "/", "/var/tmp", "/root", "/dev"]
attempt("a startup file",
    lambda: all_of(write, [f"{site}/usercustomize.py", f"{site}/hostile.pth", "/etc/hostile"]))
attempt("a file anywhere", lambda: all_of(lambda f: write(f"{f}/hostile"), folders))
attempt("a folder anywhere", lambda: all_of(lambda f: os.mkdir(f"{f}/hostile"), folders))
attempt("an existing file",
    lambda: all_of(lambda f: write(f, os.O_WRONLY), [os.__file__, "/etc/passwd", "/etc/ld.so.cache"]))
attempt("away with one", lambda: all_of(os.unlink, [os.__file__, "/etc/passwd", "/etc/localtime"]))
""",
    ),
    Program(
        "writes into the tree",
        """
attempt("create", lambda: write("new"))
attempt("overwrite", lambda: write("file", os.O_WRONLY))
attempt("unlink", lambda: os.unlink("file"))
attempt("rename", lambda: os.rename("package", "other"))
attempt("by its name outside", lambda: write(world["tree"] + "/file", os.O_WRONLY))
attempt("compiled code beside it", lambda: write("package/__pycache__"))
""",
    ),
    Program(
        "reads files of others",
        """
place = world["place"]
attempt("a secret that all may read", lambda: read(f"{place}/secret"))
attempt("the list of a folder", lambda: os.listdir(place))
attempt("by a link",
    lambda: (os.symlink(f"{place}/secret", os.environ["TMPDIR"] + "/l"), read(os.environ["TMPDIR"] + "/l")))
attempt("by climbing", lambda: read("../" * 20 + f"{place}/secret"))
attempt("through a process",
    lambda: all_of(lambda p: read(f"/proc/{p}/root{place}/secret"), ["self", 1, os.getppid()]))
attempt("run as a program", lambda: os.execv(f"{place}/secret", ["x"]))
""",
        bare=True,
    ),
    Program(
        "reads secrets of the system",
        """
attempt("passwords", lambda: all_of(read, ["/etc/shadow", "/etc/gshadow", "/etc/sudoers"]))
attempt("keys", lambda: all_of(os.listdir, ["/etc/ssl/private", "/etc/ssh", "/var/lib", "/var/log"]))
attempt("a home",
    lambda: all_of(lambda p: os.listdir(f"/{p}"), ["home", "root/.ssh", "root/.config", "root/.cache"]))
attempt("who this machine is",
    lambda: all_of(read, ["/etc/machine-id", "/etc/hostname", "/sys/class/dmi/id/product_uuid"]))
attempt("temporary files", lambda: all_of(os.listdir, ["/var/tmp", "/var/spool", "/run", world["folder"]]))
attempt("memory and disks",
    lambda: all_of(lambda p: read(f"/dev/{p}"), ["mem", "kmem", "port", "vda", "sda", "kmsg"]))
attempt("the kernel's memory", lambda: all_of(read, ["/proc/kcore", "/proc/kmsg"]))
""",
    ),
    Program(
        "reads the environment of other processes",
        """
def secret_of(pid):
    found = read(f"/proc/{pid}/environ")
    if world["half the secret"].encode() in found:
        return found
    raise OSError(errno.ENODATA, "")
attempt("of the healer", lambda: secret_of(world["healer"]))
attempt("of the parent", lambda: secret_of(os.getppid()))
attempt("of bystanders", lambda: all_of(secret_of, world["bystanders"]))
attempt("of any", lambda: all_of(secret_of, [p for p in os.listdir("/proc") if p.isdigit()]))
""",
        bare=True,
    ),
    Program(
        "reads the memory of other processes",
        """
def there(pid):
    with open(f"/proc/{pid}/mem", "rb", 0) as memory:
        memory.seek(world["address"])
        return memory.read(23)
def vector(pid, x86, on_arm):
    mine = ctypes.create_string_buffer(b"hostile", 23)
    local, remote = struct.pack("PL", ctypes.addressof(mine), 23), struct.pack("PL", world["address"], 23)
    call(x86, on_arm, pid, local, 1, remote, 1, 0)
    return mine.value
attempt("by its file", lambda: there(world["healer"]))
attempt("by process_vm_readv", lambda: vector(world["healer"], 310, 270))
attempt("what it maps",
    lambda: all_of(lambda p: read(f"/proc/{p}/maps"), [world["healer"], *world["bystanders"]]))
attempt("what it has open",
    lambda: all_of(lambda p: os.readlink(f"/proc/{p}/fd/0"), [world["healer"], *world["bystanders"]]))
attempt("where it is",
    lambda: all_of(lambda p: os.readlink(f"/proc/{p}/cwd"), [world["healer"], *world["bystanders"]]))
""",
        bare=True,
    ),
    Program(
        "writes the memory of other processes, and traces them",
        """
def vector(pid):
    mine = ctypes.create_string_buffer(b"hostile")
    local, remote = struct.pack("PL", ctypes.addressof(mine), 7), struct.pack("PL", world["address"], 7)
    return call(311, 271, pid, local, 1, remote, 1, 0)
def there(pid):
    with open(f"/proc/{pid}/mem", "r+b", 0) as memory:
        memory.seek(world["address"])
        return memory.write(b"hostile")
others = [world["healer"], os.getppid(), *world["bystanders"]]
memory = ["/proc/1/mem", "/proc/1/task/1/mem", f"/proc/{os.getppid()}/mem"]
attempt("of the first process", lambda: all_of(lambda p: os.open(p, os.O_RDWR), memory))
attempt("by its file", lambda: there(world["healer"]))
attempt("by process_vm_writev", lambda: vector(world["healer"]))
attempt("attach", lambda: all_of(lambda p: call(101, 117, 16, p, 0, 0), others))
attempt("seize", lambda: all_of(lambda p: call(101, 117, 0x4206, p, 0, 0), others))
attempt("take a descriptor", lambda: all_of(lambda p: call(438, 438, os.pidfd_open(p), 0, 0), others))
attempt("compare", lambda: all_of(lambda p: call(312, 272, p, os.getpid(), 0, 0, 0), others))
""",
    ),
    Program(
        "uses inherited descriptors",
        """
numbers = range(3, 1024)
attempt("the healer's", lambda: os.read(world["inherited"], 4096))
attempt("any", lambda: all_of(lambda n: os.pread(n, 4096, 0), numbers))
attempt("the healer's end of a pipe", lambda: all_of(lambda n: os.write(n, b"hostile"), numbers))
""",
    ),
    Program(
        "connects to a server of this machine",
        """
def connect(family, kind, address, *, send=False):
    with socket.socket(family, kind) as mine:
        mine.settimeout(2)
        if send:
            return mine.sendto(b"hostile", address)
        return mine.connect(address)
attempt("TCP", lambda: connect(socket.AF_INET, socket.SOCK_STREAM, tuple(world["tcp"])))
attempt("a socket by its path", lambda: connect(socket.AF_UNIX, socket.SOCK_STREAM, world["stream"]))
attempt("an abstract socket",
    lambda: connect(socket.AF_UNIX, socket.SOCK_STREAM, "\\0" + world["abstract"] + "-stream"))
attempt("a datagram by its path",
    lambda: connect(socket.AF_UNIX, socket.SOCK_DGRAM, world["datagram"], send=True))
attempt("an abstract datagram",
    lambda: connect(socket.AF_UNIX, socket.SOCK_DGRAM, "\\0" + world["abstract"] + "-datagram", send=True))
""",
        bare=True,
    ),
    Program(
        "sends a datagram to this machine",
        """
attempt("UDP", lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"hostile", tuple(world["udp"])))
""",
        # An own network has an own loopback: the datagram is taken, and nobody is there to get it.
        {"UDP": PRETENDED},
        bare=True,
    ),
    Program(
        "sends from a paired socket",
        """
def paired(address):
    one, two = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    return one.sendto(b"hostile", address)
def stream(address):
    one, two = socket.socketpair()
    return one.connect(address)
attempt("a datagram by a path", lambda: paired(world["datagram"]))
attempt("an abstract datagram", lambda: paired("\\0" + world["abstract"] + "-datagram"))
attempt("a stream, connected anew", lambda: stream(world["stream"]))
""",
        bare=True,
    ),
    Program(
        "opens unusual sockets",
        """
attempt("netlink", lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0))
attempt("packets", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW))
attempt("raw", lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1))
attempt("virtual machines", lambda: socket.socket(40, socket.SOCK_STREAM))
attempt("the kernel's ciphers", lambda: socket.socket(38, socket.SOCK_SEQPACKET))
attempt("the outside", lambda: socket.create_connection(("192.0.2.1", 80), 2))
""",
    ),
    Program(
        "signals other processes",
        """
others = [*world["bystanders"], world["healer"]]
def queued(pid):
    return call(129, 138, pid, signal.SIGKILL, struct.pack("iii", signal.SIGKILL, 0, -1) + bytes(116))
def by_input(pid):
    # The kernel sends the signal by itself when the pipe can be read.
    reader, writer = os.pipe()
    import fcntl
    fcntl.fcntl(reader, fcntl.F_SETOWN, pid)
    fcntl.fcntl(reader, 10, signal.SIGKILL)
    fcntl.fcntl(reader, fcntl.F_SETFL, fcntl.fcntl(reader, fcntl.F_GETFL) | os.O_ASYNC)
    os.write(writer, b"x")
attempt("kill", lambda: all_of(lambda p: os.kill(p, signal.SIGKILL), others))
attempt("stop", lambda: all_of(lambda p: os.kill(p, signal.SIGSTOP), others))
attempt("queued", lambda: all_of(queued, others))
attempt("by a descriptor",
    lambda: all_of(lambda p: signal.pidfd_send_signal(os.pidfd_open(p), signal.SIGKILL), others))
attempt("kill the parent", lambda: os.kill(os.getppid(), signal.SIGKILL))
attempt("stop the parent", lambda: os.kill(os.getppid(), signal.SIGSTOP))
attempt("by input", lambda: [by_input(p) for p in (*others, os.getppid()) if os.path.exists(f"/proc/{p}")])
""",
        # Inside namespaces the parent is the first process, which the kernel keeps from harm.
        {"by input": PRETENDED, "kill the parent": PRETENDED, "stop the parent": PRETENDED},
    ),
    Program(
        "signals everybody",
        """
attempt("kill all", lambda: os.kill(-1, signal.SIGKILL))
attempt("kill the group of the first", lambda: os.kill(-world["healer"], signal.SIGKILL))
""",
        {"kill all": PRETENDED},
    ),
    Program(
        "presses other processes",
        """
pid = world["bystanders"][-1]
attempt("a limit of 0", lambda: resource.prlimit(pid, resource.RLIMIT_CPU, (0, 0)))
attempt("the lowest priority", lambda: os.setpriority(os.PRIO_PROCESS, pid, 19))
attempt("that of all of this user", lambda: os.setpriority(os.PRIO_USER, 0, 19))
attempt("one processor", lambda: os.sched_setaffinity(pid, {0}))
attempt("only when idle", lambda: os.sched_setscheduler(pid, os.SCHED_IDLE, os.sched_param(0)))
attempt("the disk last", lambda: call(251, 30, 1, pid, 3 << 13))
""",
        {"that of all of this user": PRETENDED},
    ),
    Program(
        "leaves memory that outlives it",
        """
KEY = 305419896
attempt("shared memory", lambda: call(29, 194, KEY, 4096, 0o1666))
attempt("a semaphore", lambda: call(64, 190, KEY, 1, 0o1666))
attempt("a message queue", lambda: call(68, 186, KEY, 0o1666))
attempt("a queue with a name", lambda: call(240, 180, b"hostile", os.O_CREAT | os.O_RDWR, 0o666, 0))
""",
        # In a namespace of its own it ends with that.
        dict.fromkeys(("shared memory", "a semaphore", "a message queue", "a queue with a name"), PRETENDED),
    ),
]
