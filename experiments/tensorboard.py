"""Scalars in a file that TensorBoard reads, written in the caller's own thread.

``tensorboardX.SummaryWriter`` writes in a thread of its own. When that ends with an error, as on a
full disk, nobody learns of it, and the caller waits for ever as soon as the queue is full.
"""

import socket
import struct
import time
from pathlib import Path

from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.record_writer import masked_crc32c


class EventFile:
    """A new file of events in a folder, which is made where it is missing."""

    def __init__(self, folder: Path, purge_step: int):
        """Opens the file; events of others from ``purge_step`` on are no longer shown."""
        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}"
        self._file = (folder / name).open("ab")
        self._write(Event(file_version="brain.Event:2"))
        self._write(Event(step=purge_step, session_log=SessionLog(status=SessionLog.START)))

    def add_scalar(self, name: str, value: float, step: int) -> None:
        """One number; it is on the disk after ``flush``."""
        summary = Summary(value=[Summary.Value(tag=name, simple_value=value)])
        self._write(Event(step=step, summary=summary))

    def _write(self, event: Event) -> None:
        event.wall_time = time.time()
        data = event.SerializeToString()
        length = struct.pack("<Q", len(data))
        for part in (length, data):  # each with its checksum behind it
            self._file.write(part + struct.pack("<I", masked_crc32c(part)))

    def flush(self) -> None:
        """Hands over what is waiting."""
        self._file.flush()

    def close(self) -> None:
        """Flushes and closes."""
        self._file.close()
