"""Programs that take all there is: processes, memory, disk, time, the reader's patience."""

from __future__ import annotations

from tests.heal.hostile.stage import Program

TAKING = [
    Program(
        "fork bomb",
        """
def bomb():
    children = []
    try:
        while len(children) < 1000:
            child = os.fork()
            if not child:
                time.sleep(600)
                os._exit(0)
            children.append(child)
    finally:
        print(f"took {len(children)}", flush=True)
attempt("fork", bomb)
""",
        {"fork": "EAGAIN"},
        memory_mb=16384,
        says=r"took (1?[0-9]{1,2}|2[0-5][0-9])\n",
        crowds=True,
    ),
    Program(
        "thread bomb",
        """
started = []
def bomb():
    threading.stack_size(65536)
    wait = threading.Event()
    try:
        while len(started) < 1000:
            thread = threading.Thread(target=wait.wait, daemon=True)
            thread.start()
            started.append(thread)
    except RuntimeError:
        raise OSError(errno.EAGAIN, "") from None
    finally:
        print(f"took {len(started)}", flush=True)
attempt("threads", bomb)
os._exit(0)
""",
        {"threads": "EAGAIN"},
        says=r"took (1?[0-9]{1,2}|2[0-5][0-9])\n",
        crowds=True,
    ),
    Program(
        "processes that multiply and never wait",
        """
print("began", flush=True)
while True:
    try:
        os.fork()
    except OSError:
        pass
""",
        killed_for="timeout",
        timeout_s=0.5,
        memory_mb=16384,
        says="began",
        crowds=True,
    ),
    Program(
        "memory of one process",
        """
def take():
    try:
        return len(bytearray(4 << 30))
    except MemoryError:
        raise OSError(errno.ENOMEM, "") from None
import mmap
attempt("the heap", take)
attempt("a map", lambda: mmap.mmap(-1, 4 << 30))
attempt("more than the limit", lambda: resource.setrlimit(resource.RLIMIT_AS, (-1, -1)))
""",
        {"more than the limit": "ValueError.*not allowed.*"},
        limits=True,
    ),
    Program(
        "memory of many processes",
        """
print("began", flush=True)
for _ in range(8):
    if not os.fork():
        x = b"x" * (100 << 20)
        time.sleep(600)
time.sleep(600)
""",
        killed_for="memory",
        memory_mb=256,
        says="began",
        limits=True,
    ),
    Program(
        "memory that belongs to no process",
        """
attempt("memfd", lambda: call(319, 279, b"hostile", 0))
attempt("a secret memfd", lambda: call(447, 447, 0))
""",
    ),
    Program(
        "fills the disk",
        """
def fill(folder):
    written = 0
    try:
        while written < 3000:
            with open(f"{folder}/{written}", "wb") as file:
                for _ in range(10):
                    file.write(bytes(2 << 20))
            written += 20
            print(f"wrote {written}", flush=True)
    except OSError as error:
        print(f"full: {error}", flush=True)
        os._exit(3)
fill(os.environ["TMPDIR"])
print("all of it")
""",
        says=r"full: .*No space|ended, it took of the disk",
    ),
    Program(
        "fills the disk with files that have no name",
        """
kept = []
try:
    for number in range(150):
        place = os.open(os.environ["TMPDIR"] + "/file", os.O_CREAT | os.O_RDWR)
        os.unlink(os.environ["TMPDIR"] + "/file")
        kept.append(place)
        for _ in range(10):
            os.write(place, bytes(2 << 20))
        print(f"wrote {20 * len(kept)}", flush=True)
except OSError as error:
    print(f"full: {error}", flush=True)
    os._exit(3)
print("all of it")
""",
        says=r"full: .*No space|ended, it took of the disk",
    ),
    Program(
        "fills memory by its files",
        """
def fill(folder):
    for i in range(20):
        with open(f"{folder}/{i}", "wb") as file:
            file.write(bytes(20 << 20))
attempt("/dev/shm", lambda: fill("/dev/shm"))
""",
        {"/dev/shm": "ENOSPC|EACCES|EPERM"},
    ),
    Program(
        "writes one endless file",
        """
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
place = os.open(os.environ["TMPDIR"] + "/large", os.O_CREAT | os.O_WRONLY)
attempt("sparse", lambda: os.ftruncate(place, 10 << 30))
attempt("reserved", lambda: os.posix_fallocate(place, 0, 10 << 30))
attempt("written at its end", lambda: os.pwrite(place, b"x", 10 << 30))
""",
        limits=True,
    ),
    Program(
        "burns the processor, ignoring every signal",
        """
for number in range(1, 65):
    try:
        signal.signal(number, signal.SIG_IGN)
    except OSError:
        pass
print("began", flush=True)
for _ in range(3):
    os.fork()
while True:
    pass
""",
        killed_for="timeout",
        timeout_s=0.5,
        says="began",
        limits=True,
    ),
    Program(
        "uses up its time",
        """
resource.setrlimit(resource.RLIMIT_CPU, (1, 1))
attempt("more time", lambda: resource.setrlimit(resource.RLIMIT_CPU, (-1, -1)))
""",
        {"more time": "ValueError.*not allowed.*"},
        limits=True,
    ),
    Program(
        "10 GB on standard output",
        """
piece = bytes(1 << 20)
for _ in range(10 << 10):
    os.write(1, piece)
print("all of it")
""",
        killed_for="output",
        limits=True,
    ),
    Program(
        "10 GB on standard error",
        """
print("began", flush=True)
piece = bytes(1 << 20)
for _ in range(10 << 10):
    os.write(2, piece)
print("all of it")
""",
        killed_for="output",
        says="began",
        limits=True,
    ),
    Program(
        "says nothing and holds everything open",
        """
print("began", flush=True)
os.close(0), os.close(1), os.close(2)
time.sleep(600)
""",
        killed_for="timeout",
        timeout_s=0.5,
        says="began",
        limits=True,
    ),
]
