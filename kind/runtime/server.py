"""The runtime's loop: requests on a unix socket, ends of processes, restarts of services. Adapter.

One JSON object per line in both directions. Requests: ``run``, ``exec`` (with three open files as
ancillary data), ``signal``, ``kill``, ``remove``, ``list``, ``watch``. It is single-threaded, so
that forking is safe, and imports only the standard library, so that it starts in milliseconds and a
container in one or two. It outlives the kubelet: containers are its children, and it is what knows
how they ended. When it is itself killed, its containers go on; the next one finds them on disk.
"""

import contextlib
import json
import os
import selectors
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from kind.runtime import records, spawn
from kind.runtime.records import Record

# A service that keeps failing is tried this often at most, and at once after a good run.
RESTART_FIRST_S, RESTART_CAP_S, GOOD_RUN_S = 0.2, 5.0, 10.0
# A client that does not read must not hold up the node.
CLIENT_TIMEOUT_S = 1.0
# Killed processes are gone in a millisecond or so; one that hangs in the kernel is left behind.
CLEAR_TIMEOUT_S = 1.0
KILLED_EXIT_CODE = 137
MAX_REQUEST_BYTES = 1 << 20  # a container's description is some 10 kB; a megabyte is a mistake


@dataclass(slots=True)
class Connection:
    """A client: what it sent so far, files it passed, and what it waits for."""

    sock: socket.socket
    buffer: bytearray = field(default_factory=bytearray)
    fds: list[int] = field(default_factory=list)
    watching: bool = False
    executing: int = 0  # pid of the process whose end it waits for

    def reply(self, message: dict[str, Any]) -> None:
        """Send one line; a client that is gone is noticed by the loop."""
        with contextlib.suppress(OSError):
            self.sock.sendall(json.dumps(message).encode() + b"\n")

    def take_fds(self) -> list[int]:
        """The files passed so far, now the caller's."""
        fds, self.fds = self.fds, []
        return fds


class Runtime:
    """All processes of one node."""

    def __init__(
        self,
        node: spawn.Node,
        socket_path: str,
        store: records.Store,
        clock: Callable[[], float],
        start_guard: Callable[[], int],
    ) -> None:
        self._start_guard = start_guard
        self._guard = 0
        self._node = node
        self._store = store
        self._clock = clock
        self._selector = selectors.DefaultSelector()
        self._records = store.load()
        self._pids: dict[int, str] = {}
        self._execs: dict[int, Connection] = {}
        self._clients: list[Connection] = []
        self._due: dict[str, float] = {}  # services to start again, and when
        self._socket_path = socket_path

    def serve(self) -> None:
        """Run for ever; when it is killed the containers stay."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._socket_path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(self._socket_path)
        listener.listen(64)
        wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        self._selector.register(listener, selectors.EVENT_READ, self._accept)
        self._selector.register(wake_read, selectors.EVENT_READ, self._reap)
        self._guard = self._start_guard()
        self._adopt()
        while True:
            for key, _ in self._selector.select(self._timeout_s()):
                key.data(key.fileobj)
            self._start_due()

    def _timeout_s(self) -> float | None:
        if not self._due:
            return None
        return max(0.0, min(self._due.values()) - self._clock())

    # Clients

    def _accept(self, listener: socket.socket) -> None:
        sock, _ = listener.accept()
        sock.settimeout(CLIENT_TIMEOUT_S)
        client = Connection(sock)
        self._clients.append(client)
        self._selector.register(sock, selectors.EVENT_READ, lambda _: self._receive(client))

    def _receive(self, client: Connection) -> None:
        try:
            data, fds, _, _ = socket.recv_fds(client.sock, 65536, 8)
        except OSError:
            data, fds = b"", []
        client.fds += fds
        client.buffer += data
        if not data or len(client.buffer) > MAX_REQUEST_BYTES:
            self._close(client)
            return
        while b"\n" in client.buffer:
            line, _, rest = client.buffer.partition(b"\n")
            client.buffer = bytearray(rest)
            self._answer(client, bytes(line))

    def _close(self, client: Connection) -> None:
        self._selector.unregister(client.sock)
        client.sock.close()
        self._clients.remove(client)
        for fd in client.take_fds():
            os.close(fd)
        if client.executing:
            # Its terminal or pipe is gone: nobody will read what it still writes.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(client.executing, signal.SIGKILL)

    def _answer(self, client: Connection, line: bytes) -> None:
        try:
            request = json.loads(line)
            handler = getattr(self, "_do_" + request.pop("op"))
            handler(client, **request)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            client.reply({"error": str(error)})

    # Requests

    def _do_run(self, client: Connection, launch: dict[str, Any]) -> None:
        wanted = records.launch_from(launch)
        known = self._records.get(wanted.id)
        if known is not None and known.state == "running":
            client.reply({"record": known.as_json()})
            return
        record = Record(wanted)
        self._start(record)
        client.reply({"record": record.as_json()})

    def _do_exec(
        self, client: Connection, launch: dict[str, Any], inside: str = "", tty: bool = False
    ) -> None:
        fds = client.take_fds()
        try:
            if len(fds) != 3:
                raise ValueError(f"exec wants 3 open files, got {len(fds)}")
            wanted = records.launch_from(launch)
            pid = None
            if inside:
                container = self._records.get(inside)
                if container is None or container.state != "running":
                    raise ValueError(f"container {inside} is not running")
                pid = container.pid
            started = spawn.execute(self._node, wanted, pid, (fds[0], fds[1], fds[2]), tty)
        finally:
            for fd in fds:
                os.close(fd)
        client.executing = started
        self._execs[started] = client
        client.reply({"pid": started})

    def _do_signal(self, client: Connection, id: str, number: int) -> None:
        record = self._records.get(id)
        if record is not None and record.state == "running":
            with contextlib.suppress(ProcessLookupError):
                os.kill(record.pid, number)
        client.reply({})

    def _do_kill(self, client: Connection, id: str) -> None:
        """End a container with all it started; a service is not started again."""
        record = self._records.get(id)
        self._due.pop(id, None)
        if record is not None:
            if record.launch.restart:
                # Kept by its caller's wish: what is killed by request stays down.
                self._store.remove(id)
                self._records.pop(id)
            self._kill_cgroup(record)
        client.reply({})

    def _do_remove(self, client: Connection, id: str) -> None:
        """Forget a container that ended, and its cgroup."""
        record = self._records.get(id)
        if record is not None:
            if record.state == "running":
                raise ValueError(f"container {id} still runs")
            self._kill_cgroup(record)
            with contextlib.suppress(OSError):
                os.rmdir(record.launch.cgroup)
            self._records.pop(id, None)
            self._store.remove(id)
        client.reply({})

    def _do_list(self, client: Connection) -> None:
        client.reply({"records": [record.as_json() for record in self._records.values()]})

    def _do_watch(self, client: Connection) -> None:
        client.watching = True
        client.reply({})

    # Processes

    def _start(self, record: Record) -> None:
        record.message = ""
        # Written before it is done: a runtime killed in between must not leave a process that
        # nobody knows, and what one left is ended before it is started again.
        self._records[record.launch.id] = record
        self._store.save(record)
        self._clear_cgroup(record)
        try:
            record.pid = spawn.start(self._node, record.launch)
        except OSError as error:
            record.message = str(error)
            record.started_at = record.finished_at = time.time()
            record.exit_code = 128  # what container runtimes report for "could not be started"
            record.state = "exited"
        else:
            record.start_ticks = records.start_ticks(record.pid)
            record.state, record.exit_code = "running", None
            record.started_at = time.time()
            self._pids[record.pid] = record.launch.id
        self._store.save(record)
        if record.state == "exited":
            self._schedule(record)

    def _adopt(self) -> None:
        """Take over what an earlier runtime of this node left running."""
        for record in self._records.values():
            if record.state != "running":
                self._schedule(record)
                continue
            if records.start_ticks(record.pid) == record.start_ticks:
                fd = os.pidfd_open(record.pid)
                self._selector.register(fd, selectors.EVENT_READ, self._adopted_ended(record, fd))
            else:
                self._ended(record, None)

    def _adopted_ended(self, record: Record, fd: int) -> Callable[[object], None]:
        def ended(_: object) -> None:
            self._selector.unregister(fd)
            os.close(fd)
            self._ended(record, None)

        return ended

    def _reap(self, wake: int) -> None:
        with contextlib.suppress(BlockingIOError):
            while os.read(wake, 4096):
                pass
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            code = os.waitstatus_to_exitcode(status)
            code = 128 - code if code < 0 else code  # as a shell says it
            if pid == self._guard:
                self._guard = self._start_guard()
            elif pid in self._execs:
                client = self._execs.pop(pid)
                client.executing = 0
                client.reply({"exit": code})
            elif pid in self._pids:
                record = self._records.get(self._pids.pop(pid))
                if record is not None and record.pid == pid:
                    self._ended(record, code)

    def _ended(self, record: Record, code: int | None) -> None:
        record.state = "exited"
        record.exit_code = KILLED_EXIT_CODE if code is None else code
        record.finished_at = time.time()
        self._kill_cgroup(record)  # what it left behind, as the end of a container's init does
        self._store.save(record)
        for watcher in [client for client in self._clients if client.watching]:
            watcher.reply({"exited": record.launch.id, "exit_code": record.exit_code})
        self._schedule(record)

    def _schedule(self, record: Record) -> None:
        if not record.launch.restart:
            return
        ran_s = record.finished_at - record.started_at
        record.restarts = 0 if ran_s > GOOD_RUN_S else record.restarts + 1
        delay_s = min(RESTART_CAP_S, RESTART_FIRST_S * 2 ** min(record.restarts, 8))
        self._due[record.launch.id] = self._clock() + (0 if record.restarts == 0 else delay_s)

    def _start_due(self) -> None:
        now = self._clock()
        for name in [name for name, at in self._due.items() if at <= now]:
            del self._due[name]
            record = self._records.get(name)
            if record is not None and record.state != "running":
                self._start(record)

    def _clear_cgroup(self, record: Record) -> None:
        procs = f"{record.launch.cgroup}/cgroup.procs"
        deadline = self._clock() + CLEAR_TIMEOUT_S
        while _text(procs) and self._clock() < deadline:
            self._kill_cgroup(record)
            time.sleep(0.001)

    def _kill_cgroup(self, record: Record) -> None:
        with (
            contextlib.suppress(OSError),
            open(f"{record.launch.cgroup}/cgroup.kill", "w") as file,
        ):
            file.write("1")


def _text(path: str) -> str:
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""
