"""What no reader may do, whatever it reads: leave its folder, open a pickle, start a program, ask the network, hang."""

from __future__ import annotations

import os
import re
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

SLOWEST = 10.0  # seconds of the processor that a file of a few kB may take
MOST = 1800  # MB that it may take: what docs/lab/hostile_files.md says of pictures
WRITERS = ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.chmod", "shutil.rmtree")
NEVER = ("pickle.find_class", "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "socket.connect")
OUR_OWN = tuple(str(Path(path).resolve()) for path in (sys.prefix, sys.base_prefix, Path(__file__).parents[2]))
SYSTEM = ("/usr/share/", "/usr/lib/", "/etc/localtime", "/dev/null", "/proc/", "/sys/")


class BrokenPromise(BaseException):
    """Raised where a reader does what none may; no ``except Exception`` catches it."""


_folder: list[str] = []  # the one that is watched, if any


def _hear(event: str, given: tuple[object, ...]) -> None:
    if not _folder:
        return
    if event in NEVER:
        raise BrokenPromise(f"{event} {given!r:.200}")
    if event != "open" and event not in WRITERS:
        return
    reads = event == "open" and isinstance(given[2], int) and not given[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    for path in given[:2] if event in ("os.rename", "os.link", "os.symlink") else given[:1]:
        if not isinstance(path, str | bytes | Path):
            continue  # an open file's number
        where = os.path.realpath(os.fsdecode(path))
        if not where.startswith((_folder[0], *OUR_OWN, *SYSTEM) if reads else _folder[0]):
            raise BrokenPromise(f"{event} {where}")


sys.addaudithook(_hear)


@contextmanager
def watched(folder: Path) -> Iterator[None]:
    """Within: only files of ``folder`` are read and written, beside the programs' own, and nothing is run or asked."""
    _folder[:] = [str(folder.resolve())]
    try:
        yield
    finally:
        _folder.clear()


class Memory:
    """How much memory this process has had at most since ``start``, beyond what it had then, in MB."""

    def start(self) -> None:
        """From now on."""
        with suppress(OSError):  # elsewhere than on Linux the peak of all time has to do
            Path("/proc/self/clear_refs").write_text("5")
        self._before = self._now("VmRSS")

    @property
    def more(self) -> float:
        """So far."""
        return self._now("VmHWM") - self._before

    def _now(self, what: str) -> float:
        try:
            found = re.search(rf"{what}:\s+(\d+) kB", Path("/proc/self/status").read_text())
        except OSError:
            found = None
        if found:
            return int(found[1]) / 1000
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1_000_000 if sys.platform == "darwin" else 1000)


def executed(run: Callable[[bytes], None], data: bytes, folder: Path) -> tuple[float, float]:
    """Call ``run``; the seconds of the processor and the MB that it took.

    Raises BrokenPromise for what no reader may do, and whatever ``run`` lets through.
    """
    memory, started = Memory(), time.process_time()
    memory.start()
    with watched(folder):
        run(data)
    seconds, more = time.process_time() - started, memory.more
    if seconds > SLOWEST:
        raise BrokenPromise(f"it takes {seconds:.0f} s")
    if more > MOST:
        raise BrokenPromise(f"it takes {more:.0f} MB")
    return seconds, more
