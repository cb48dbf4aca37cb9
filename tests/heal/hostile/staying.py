"""Programs that want to stay, or to leave something that stays."""

from __future__ import annotations

from tests.heal.hostile.reaching import PRETENDED
from tests.heal.hostile.stage import Program

STAYING = [
    Program(
        "a daemon that outlives its parent",
        """
told, tell = os.pipe()
if not os.fork():
    os.setsid()
    if not os.fork():
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        os.write(tell, b"x")
        time.sleep(600)
    os._exit(0)
os.read(told, 1)
print("up", flush=True)
""",
        says="up",
        limits=True,
    ),
    Program(
        "a daemon past the timeout",
        """
if not os.fork():
    os.setsid()
    if not os.fork():
        os.setsid()
        print("up", flush=True)
        time.sleep(600)
    os._exit(0)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
time.sleep(600)
""",
        killed_for="timeout",
        timeout_s=0.5,
        says="up",
        limits=True,
    ),
    Program(
        "a daemon that is another program without an environment",
        """
told, tell = os.pipe()
if not os.fork():
    os.setsid()
    if not os.fork():
        os.set_inheritable(tell, False)
        os.execve(sys.executable, ["kworker/0:0", "-c", "import time; time.sleep(600)", sys.argv[2]], {})
    os._exit(0)
os.close(tell)
os.read(told, 1)
print("up", flush=True)
""",
        says="up",
    ),
    Program(
        "a daemon under another name",
        """
told, tell = os.pipe()
if not os.fork():
    os.setsid()
    if not os.fork():
        call(157, 167, 15, b"kworker/0:0", 0, 0, 0)
        libc.getenv.restype = ctypes.c_void_p
        # What /proc shows as its words and its environment lies in its own memory.
        for line in open("/proc/self/stat"):
            fields = line.rpartition(")")[2].split()
            for start, end in ((45, 46), (47, 48)):
                ctypes.memset(int(fields[start]), 0, int(fields[end]) - int(fields[start]))
        os.write(tell, b"x")
        time.sleep(600)
    os._exit(0)
os.read(told, 1)
print("up", flush=True)
""",
        says="up",
    ),
    Program(
        "processes that hand over faster than they can be killed",
        """
print("began", flush=True)
if os.fork():
    time.sleep(0.3)
    os._exit(0)
for _ in range(20000):
    if os.fork():
        os._exit(0)
    os.setsid()
""",
        says="began",
    ),
    Program(
        "processes that stop and trace one another",
        """
def stopped():
    child = os.fork()
    if not child:
        os.setsid()
        os.kill(os.getpid(), signal.SIGSTOP)
        time.sleep(600)
    os.waitpid(child, os.WUNTRACED)
for _ in range(5):
    stopped()
attempt("be traced", lambda: call(101, 117, 0, 0, 0, 0))
""",
    ),
    Program(
        "a core dump",
        """
def dump():
    resource.setrlimit(resource.RLIMIT_CORE, (-1, -1))
if not os.fork():
    os.chdir(os.environ["TMPDIR"])
    os.abort()
os.wait()
attempt("allow it", dump)
attempt("find it", lambda: all_of(lambda p: read(f"{p}/core"), [os.environ["TMPDIR"], "."]))
""",
        {"allow it": "ValueError.*not allowed.*"},
    ),
    Program(
        "links that cleaning up might follow",
        """
here = os.environ["TMPDIR"]
attempt("a hard link", lambda: os.link(world["place"] + "/file", f"{here}/hard"))
attempt("a link to a file", lambda: os.symlink(world["place"] + "/file", f"{here}/file"))
attempt("a link to a folder", lambda: os.symlink(world["place"], f"{here}/folder"))
attempt("a link to everything", lambda: os.symlink("/", f"{here}/all"))
attempt("write through it", lambda: write(f"{here}/folder/new"))
def swap():
    # A folder that becomes a link and back while somebody may look.
    end = time.monotonic() + 0.2
    os.mkdir(f"{here}/real")
    while time.monotonic() < end:
        os.rename(f"{here}/real", f"{here}/moved")
        os.symlink(world["place"], f"{here}/real")
        os.unlink(f"{here}/real")
        os.rename(f"{here}/moved", f"{here}/real")
    os.rename(f"{here}/real", f"{here}/moved")
    os.symlink(world["place"], f"{here}/real")
attempt("a race", swap)
""",
        dict.fromkeys(
            ("a link to a file", "a link to a folder", "a link to everything", "a race"), PRETENDED
        ),
    ),
    Program(
        "folders deeper than a path can name",
        """
os.chdir(os.environ["TMPDIR"])
depth = 0
def deeper():
    global depth
    while depth < 1100:
        os.mkdir("d" * 200)
        os.chdir("d" * 200)
        depth += 1
    return depth
attempt("deep", deeper)
write("last")
""",
        {"deep": PRETENDED},
        limits=True,
    ),
    Program(
        "files that resist being removed",
        """
os.chdir(os.environ["TMPDIR"])
def resist():
    os.mkdir("closed")
    write("closed/file")
    os.mkdir("closed/inner")
    write("closed/inner/file")
    os.chmod("closed/inner", 0)
    os.chmod("closed/file", 0)
    os.chmod("closed", 0)
    os.chmod(".", 0)
def named():
    for name in (b"-rf", b"\\xff\\xfe", b"new\\nline", b"~", b"*", b"n" * 255):
        write(name)
attempt("odd names", named)
attempt("a pipe", lambda: os.mkfifo("pipe"))
attempt("a socket", lambda: os.mknod("socket", 0o600 | stat.S_IFSOCK))
attempt("many", lambda: [write(f"{n}") for n in range(3000)][:0])
attempt("an attribute", lambda: call(16, 29, os.open("pipe", os.O_RDWR), 0x40086602, struct.pack("l", 0x10)))
attempt("no modes", resist)
""",
        dict.fromkeys(("odd names", "a pipe", "a socket", "many", "no modes"), PRETENDED),
        limits=True,
    ),
]
