"""Processes of `experiments.run` that start in no time: forks of one that has imported it all.

The tests that kill processes start many, and each would import for seconds.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]


class Process:
    """A run of the command line, and what it has printed."""

    def __init__(self, forks, pid, out):
        self._forks, self.pid, self._out, self.status = forks, pid, out, None

    def send(self, number):
        assert self.poll() is None, self.output
        os.kill(self.pid, number)  # still ours, since nobody has waited for it

    def poll(self):
        """The exit status, negative after a signal; none while it goes on."""
        if self.status is None:
            self.status = self._forks.ask({"poll": self.pid})
        return self.status

    def wait(self, seconds=300):
        """The exit status; the bound is there for a process that hangs, and not a measurement."""
        self.wait_until(lambda: self.poll() is not None, seconds)
        return self.status

    def wait_until(self, holds, seconds=300):
        until = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > until:
                with contextlib.suppress(AssertionError):
                    self.send(signal.SIGKILL)
                raise TimeoutError(self.output)
            time.sleep(0.002)

    def wait_while_alive_until(self, holds):
        """Until it holds or the process has ended."""
        self.wait_until(lambda: holds() or self.poll() is not None)

    @property
    def output(self):
        return self._out.read_text(errors="replace")


class Forks:
    """The process that forks; ends its children as it ends."""

    def __init__(self, folder):
        """Starts it; what its children print, and what they compile, is kept in a folder."""
        self._folder, self._count = folder, 0
        environment = {
            name: value
            for name, value in os.environ.items()
            if name not in ("XLA_FLAGS", "PYTEST_CURRENT_TEST")
        }
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.experiments.forks"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=environment
            | {
                "JAX_PLATFORMS": "cpu",
                "JAX_COMPILATION_CACHE_DIR": str(folder / "xla"),
                "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
                "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
            },
        )

    def start(self, *arguments):
        self._count += 1
        out = self._folder / f"out{self._count}.txt"
        out.touch()
        pid = self.ask({"start": [str(x) for x in arguments], "out": str(out)})
        return Process(self, pid, out)

    def ask(self, request):
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        return json.loads(self._server.stdout.readline())

    def close(self):
        self._server.stdin.close()
        self._server.wait(60)


def _serve():
    from experiments import run

    children = set()
    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        request = json.loads(line)
        if "start" in request:
            answers.flush()
            pid = os.fork()
            if pid == 0:
                _child(run.main, request)
            children.add(pid)
            answer = pid
        else:
            pid, status = os.waitpid(request["poll"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if pid else None
            children.discard(pid)
        print(json.dumps(answer), file=answers, flush=True)
    for pid in children:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _child(main, request):
    """What `python -m experiments.run` does; the files of the other process are closed."""
    status = 1
    try:
        out = os.open(request["out"], os.O_WRONLY | os.O_APPEND)
        empty = os.open(os.devnull, os.O_RDONLY)
        for number, file in enumerate((empty, out, out)):
            os.dup2(file, number)
        os.closerange(3, 256)
        status = main(request["start"])
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    _serve()
