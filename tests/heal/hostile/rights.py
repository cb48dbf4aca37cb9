"""Programs that try to get more rights than they were given."""

from __future__ import annotations

from tests.heal.hostile.reaching import PRETENDED
from tests.heal.hostile.stage import Program

RIGHTS = [
    Program(
        "makes namespaces",
        """
attempt("users", lambda: call(272, 97, 0x10000000))
attempt("mounts", lambda: call(272, 97, 0x00020000))
attempt("network", lambda: call(272, 97, 0x40000000))
attempt("by clone", lambda: call(56, 220, 0x10000011, 0, 0, 0, 0))
attempt("by clone3", lambda: call(435, 435, struct.pack("Q10Q", 0x10000000, *(0,) * 10), 88))
attempt("somebody's",
    lambda: all_of(lambda n: call(308, 268, os.open(f"/proc/1/ns/{n}", os.O_RDONLY), 0),
    ["net", "user", "mnt"]))
attempt("its own again", lambda: call(308, 268, os.open("/proc/self/ns/user", os.O_RDONLY), 0))
""",
    ),
    Program(
        "mounts",
        """
here = os.environ["TMPDIR"].encode()
attempt("mount", lambda: call(165, 40, b"x", here, b"tmpfs", 0, 0))
attempt("bind", lambda: call(165, 40, b"/", here, 0, 4096, 0))
attempt("make all writable", lambda: call(165, 40, b"x", b"/", 0, 32 | 4096, 0))
attempt("unmount", lambda: call(166, 39, b"/proc", 2))
attempt("the new way", lambda: call(430, 430, b"tmpfs", 0))
attempt("take a tree", lambda: call(428, 428, -100, b"/", 1))
attempt("chroot", lambda: os.chroot(here))
attempt("pivot_root", lambda: call(155, 41, here, here))
attempt("by a handle", lambda: call(304, 265, -100, struct.pack("Ii", 8, 1) + bytes(8), 0))
""",
    ),
    Program(
        "becomes somebody else",
        """
attempt("root", lambda: os.setuid(0))
attempt("the groups of root", lambda: os.setgroups([0, 4, 27]))
attempt("another user", lambda: os.setresuid(1, 1, 1))
attempt("capabilities", lambda: call(126, 91, struct.pack("Ii", 0x20080522, 0), b"\\xff" * 24))
attempt("ambient ones", lambda: call(157, 167, 47, 2, 21, 0, 0))
attempt("keep what root may", lambda: call(157, 167, 28, 0, 0, 0, 0))
attempt("rights again", lambda: call(157, 167, 38, 0, 0, 0, 0))
attempt("no filter", lambda: call(157, 167, 22, 0, 0, 0, 0))
attempt("ports", lambda: call(172, 92, 3) if not arm else call(92, 92, -1))
""",
        {"ports": PRETENDED},
    ),
    Program(
        "starts programs that belong to root",
        """
paths = [f"/usr/bin/{name}" for name in os.listdir("/usr/bin")]
found = [path for path in paths if os.lstat(path).st_mode & stat.S_ISUID]
def root_by(path):
    child = subprocess.Popen([path], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        with open(f"/proc/{child.pid}/status") as status:
            users = next(line for line in status if line.startswith("Uid:")).split()[1:]
    finally:
        child.kill(), child.wait()
    if users == [str(os.getuid())] * 4:
        raise OSError(errno.EPERM, "")
    return users
def own():
    path = os.environ["TMPDIR"] + "/own"
    import shutil
    shutil.copyfile("/usr/bin/env", path)
    os.chmod(path, 0o4777)
    return root_by(path)
attempt("each setuid program", lambda: all_of(root_by, found[:4]))
quietly = {"stdin": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "check": True}
attempt("su", lambda: subprocess.run(["su", "-c", "true"], **quietly))
attempt("sudo", lambda: subprocess.run(["sudo", "-n", "true"], **quietly))
attempt("one of its own", own)
""",
        dict.fromkeys(("su", "sudo"), r"CalledProcessError.*|E[A-Z]+"),
    ),
    Program(
        "types into the terminal",
        """
import fcntl
def push(path):
    handle = os.open(path, os.O_RDWR | os.O_NOCTTY)
    return fcntl.ioctl(handle, 0x5412, b"x")
attempt("TIOCSTI", lambda: call(16, 29, 0, 0x5412, b"x"))
attempt("TIOCSTI with high bits", lambda: call(16, 29, 0, 0x100005412, b"x"))
attempt("TIOCLINUX", lambda: call(16, 29, 0, 0x541C, b"\\x03"))
attempt("the controlling terminal", lambda: push("/dev/tty"))
attempt("one of its own", lambda: push("/dev/ptmx"))
attempt("somebody's", lambda: all_of(push, [f"/dev/pts/{n}" for n in range(8)] + ["/dev/console", "/dev/tty1"]))
""",
    ),
    Program(
        "asks the kernel for tools",
        """
ring = bytes(120)
attempt("io_uring", lambda: call(425, 425, 4, ring))
attempt("keyctl", lambda: call(250, 219, 0, -3, 1))
attempt("add_key", lambda: call(248, 217, b"user", b"hostile", b"x", 1, -4))
attempt("request_key", lambda: call(249, 218, b"user", b"hostile", 0, -4))
attempt("bpf", lambda: call(321, 280, 0, bytes(72), 72))
attempt("perf", lambda: call(298, 241, struct.pack("II", 1, 112) + bytes(104), 0, -1, -1, 0))
attempt("userfaultfd", lambda: call(323, 282, 1))
attempt("the kernel's log", lambda: call(103, 116, 3, bytes(4096), 4096))
attempt("fanotify", lambda: call(300, 262, 0, 0))
attempt("a file by its handle", lambda: call(304, 265, -100, bytes(16), 0))
""",
    ),
    Program(
        "stops the machine",
        """
attempt("reboot", lambda: call(169, 142, 0xFEE1DEAD, 672274793, 0))
attempt("kexec", lambda: call(246, 104, 0, 0, 0, 0))
attempt("a module", lambda: call(175, 105, b"x", 1, b""))
attempt("a module by descriptor", lambda: call(313, 273, 0, b"", 0))
attempt("swap", lambda: call(167, 224, b"/proc/self/exe", 0))
attempt("accounting", lambda: call(163, 89, 0))
attempt("the clock", lambda: time.clock_settime(time.CLOCK_REALTIME, 0))
attempt("its name", lambda: socket.sethostname("hostile"))
attempt("sysrq", lambda: write("/proc/sysrq-trigger", os.O_WRONLY))
attempt("kernel settings",
    lambda: all_of(lambda p: write(p, os.O_WRONLY),
    ["/proc/sys/kernel/core_pattern", "/proc/sys/vm/drop_caches"]))
attempt("devices",
    lambda: all_of(lambda p: write(p, os.O_WRONLY), ["/sys/power/state", "/sys/kernel/uevent_helper"]))
attempt("control groups",
    lambda: all_of(lambda p: os.mkdir(f"/sys/fs/cgroup/{p}hostile"), ["", "pids/", "memory/", "unified/"]))
""",
    ),
    Program(
        "makes devices",
        """
here = os.environ["TMPDIR"]
attempt("memory", lambda: os.mknod(f"{here}/mem", 0o600 | stat.S_IFCHR, os.makedev(1, 1)))
attempt("a disk", lambda: os.mknod(f"{here}/disk", 0o600 | stat.S_IFBLK, os.makedev(254, 0)))
attempt("the machine's",
    lambda: all_of(lambda p: os.open(f"/dev/{p}", os.O_RDWR),
    ["mem", "kvm", "fuse", "net/tun", "vda", "loop-control", "uinput"]))
""",
    ),
    Program(
        "calls by other numbers",
        """
import mmap
def machine_code():
    # mov eax, 20; int 0x80; ret: getpid by its 32-bit number
    page = mmap.mmap(-1, 4096, prot=7)
    page.write(b"\\xb8\\x14\\0\\0\\0\\xcd\\x80\\xc3")
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    child = os.fork()
    if not child:
        os._exit(0 if ctypes.CFUNCTYPE(ctypes.c_int)(address)() > 0 else 1)
    status = os.waitpid(child, 0)[1]
    if not os.WIFEXITED(status) or os.WEXITSTATUS(status):
        raise OSError(errno.ENOSYS, "")
attempt("x32", lambda: call(0x40000000 | 101, 117, 0, 0, 0, 0))
attempt("x32 socket", lambda: call(0x40000000 | 41, 1 << 20, 16, 3, 0))
attempt("32 bits", machine_code if not arm else lambda: call(1 << 20, 1 << 20))
""",
    ),
]
