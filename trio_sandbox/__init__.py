"""trio_sandbox: microVM sandboxes whose life is a block of your Trio program.

The layers, each importing only those above it in this list:

    errors, home, files, locks       what goes wrong; where things are; files and locks that leave nothing behind
    convert, image_source, patch     plain data to classes; what a root file system is made of; changes to it
    scripts                          programs that a sandbox brings along
    registry_auth, pull_event        who somebody is to a registry; what happens to an image
    config, lifecycle                what is asked for; what may follow what
    admission                        room on the host, for all sandboxes of a data folder
    service, exclusive, tools        tasks that end in order; one maker at a time; system programs
    relay                            frames, credit, sessions (sans-IO); the agent stream, and its clients, on Trio
    vm                               QEMU: command line, monitor, console, supervision
    state                            the store: sandboxes and their runs, across processes
    logs                             what programs print and what becomes of a sandbox, on disk
    host                             kernel, initramfs, acceleration: what a boot needs of this machine
    image                            OCI images to root file systems
    snapshot                         disks of sandboxes that do not run, kept: folders and archives
    client                           the handles, and what they do in the guest; anyio only
    patterns                         what is built of handles: race, map, capture, supervisor, probes; anyio only
    machine                          machines that are ready: cloned from a warm template, or booted
    preparation                      patches and scripts, put into a machine that is ready
    life, metrics, runtime           a machine from ready to over; what it uses; what is asked of it
    sandbox                          `serve_sandbox`: all of it, as one function; `open_sandbox`
    pool                             sandboxes that are ready before anybody asks for them
    process                          sandboxes in a process of their own
    cli                              the command line; the one place that turns errors into sentences

Public names load on first use, so that importing the package costs nothing and the command line starts quickly.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trio_sandbox.client.attach import AttachResult as AttachResult
    from trio_sandbox.client.connect import connect as connect
    from trio_sandbox.client.event_lines import Event as Event
    from trio_sandbox.client.events import EventStream as EventStream
    from trio_sandbox.client.fs import SandboxFs as SandboxFs
    from trio_sandbox.client.fs_streams import FsEntryStream as FsEntryStream
    from trio_sandbox.client.fs_streams import FsReadStream as FsReadStream
    from trio_sandbox.client.fs_streams import FsWriteSink as FsWriteSink
    from trio_sandbox.client.fs_types import FsCopied as FsCopied
    from trio_sandbox.client.fs_types import FsEntry as FsEntry
    from trio_sandbox.client.fs_types import FsEntryKind as FsEntryKind
    from trio_sandbox.client.fs_types import FsMetadata as FsMetadata
    from trio_sandbox.client.handle import SandboxHandle as SandboxHandle
    from trio_sandbox.client.handle import SandboxInfo as SandboxInfo
    from trio_sandbox.client.image import Image as Image
    from trio_sandbox.client.logs import LogStream as LogStream
    from trio_sandbox.client.metrics import MetricsStream as MetricsStream
    from trio_sandbox.client.metrics import SandboxMetrics as SandboxMetrics
    from trio_sandbox.client.options import Stdin as Stdin
    from trio_sandbox.client.outcome import ExecEvent as ExecEvent
    from trio_sandbox.client.outcome import ExecEventType as ExecEventType
    from trio_sandbox.client.outcome import ExecOutput as ExecOutput
    from trio_sandbox.client.outcome import ExitStatus as ExitStatus
    from trio_sandbox.client.outcome import ResourceUsage as ResourceUsage
    from trio_sandbox.client.program import ExecHandle as ExecHandle
    from trio_sandbox.client.program import ExecSink as ExecSink
    from trio_sandbox.client.pull_session import PullSession as PullSession
    from trio_sandbox.client.rlimits import Rlimit as Rlimit
    from trio_sandbox.client.rlimits import RlimitResource as RlimitResource
    from trio_sandbox.client.sandbox import PingResult as PingResult
    from trio_sandbox.client.sandbox import Sandbox as Sandbox
    from trio_sandbox.client.snapshot import Snapshot as Snapshot
    from trio_sandbox.client.terminal import Terminal as Terminal
    from trio_sandbox.config import LogLevel as LogLevel
    from trio_sandbox.config import PullPolicy as PullPolicy
    from trio_sandbox.config import SandboxConfig as SandboxConfig
    from trio_sandbox.config import WebSocketAddress as WebSocketAddress
    from trio_sandbox.errors import BootError as BootError
    from trio_sandbox.errors import CheckpointError as CheckpointError
    from trio_sandbox.errors import ClientLimitError as ClientLimitError
    from trio_sandbox.errors import ConnectionLostError as ConnectionLostError
    from trio_sandbox.errors import ExecFailedError as ExecFailedError
    from trio_sandbox.errors import ExecTimeoutError as ExecTimeoutError
    from trio_sandbox.errors import FilesystemError as FilesystemError
    from trio_sandbox.errors import HostLimitError as HostLimitError
    from trio_sandbox.errors import HostNotReadyError as HostNotReadyError
    from trio_sandbox.errors import ImageError as ImageError
    from trio_sandbox.errors import ImageInUseError as ImageInUseError
    from trio_sandbox.errors import ImageNotFoundError as ImageNotFoundError
    from trio_sandbox.errors import ImagePullError as ImagePullError
    from trio_sandbox.errors import InvalidConfigError as InvalidConfigError
    from trio_sandbox.errors import InvalidImageError as InvalidImageError
    from trio_sandbox.errors import LocalProtocolError as LocalProtocolError
    from trio_sandbox.errors import MissedLogsError as MissedLogsError
    from trio_sandbox.errors import PatchFailedError as PatchFailedError
    from trio_sandbox.errors import PathNotFoundError as PathNotFoundError
    from trio_sandbox.errors import PoolClosedError as PoolClosedError
    from trio_sandbox.errors import ProtocolError as ProtocolError
    from trio_sandbox.errors import RemoteProtocolError as RemoteProtocolError
    from trio_sandbox.errors import SandboxAlreadyExistsError as SandboxAlreadyExistsError
    from trio_sandbox.errors import SandboxCrashedError as SandboxCrashedError
    from trio_sandbox.errors import SandboxDrainingError as SandboxDrainingError
    from trio_sandbox.errors import SandboxError as SandboxError
    from trio_sandbox.errors import SandboxNotFoundError as SandboxNotFoundError
    from trio_sandbox.errors import SandboxNotRunningError as SandboxNotRunningError
    from trio_sandbox.errors import SandboxPausedError as SandboxPausedError
    from trio_sandbox.errors import SandboxStillRunningError as SandboxStillRunningError
    from trio_sandbox.errors import SnapshotAlreadyExistsError as SnapshotAlreadyExistsError
    from trio_sandbox.errors import SnapshotError as SnapshotError
    from trio_sandbox.errors import SnapshotNotFoundError as SnapshotNotFoundError
    from trio_sandbox.errors import StorageError as StorageError
    from trio_sandbox.errors import TerminalError as TerminalError
    from trio_sandbox.errors import UnsupportedError as UnsupportedError
    from trio_sandbox.home import Home as Home
    from trio_sandbox.image_info import ImageDetail as ImageDetail
    from trio_sandbox.image_info import ImageInfo as ImageInfo
    from trio_sandbox.image_info import ImageLayer as ImageLayer
    from trio_sandbox.image_info import ImagePruneReport as ImagePruneReport
    from trio_sandbox.image_info import ImageRunConfig as ImageRunConfig
    from trio_sandbox.image_info import ImageUsage as ImageUsage
    from trio_sandbox.image_source import DiskImageFormat as DiskImageFormat
    from trio_sandbox.image_source import ImageKind as ImageKind
    from trio_sandbox.image_source import ImageSource as ImageSource
    from trio_sandbox.lifecycle import EndReason as EndReason
    from trio_sandbox.lifecycle import State as State
    from trio_sandbox.logs.entry import LogEntry as LogEntry
    from trio_sandbox.logs.entry import LogSource as LogSource
    from trio_sandbox.patch import Patch as Patch
    from trio_sandbox.patch import PatchConfig as PatchConfig
    from trio_sandbox.patch import PatchKind as PatchKind
    from trio_sandbox.patterns.capture import Captured as Captured
    from trio_sandbox.patterns.capture import CapturedOutput as CapturedOutput
    from trio_sandbox.patterns.capture import capture as capture
    from trio_sandbox.patterns.errors import NotReadyError as NotReadyError
    from trio_sandbox.patterns.errors import RestartLimitError as RestartLimitError
    from trio_sandbox.patterns.errors import UnsuccessfulError as UnsuccessfulError
    from trio_sandbox.patterns.mapping import map_sandboxes as map_sandboxes
    from trio_sandbox.patterns.mapping import map_sandboxes_as_completed as map_sandboxes_as_completed
    from trio_sandbox.patterns.race import race as race
    from trio_sandbox.patterns.readiness import exec_probe as exec_probe
    from trio_sandbox.patterns.readiness import file_probe as file_probe
    from trio_sandbox.patterns.readiness import port_probe as port_probe
    from trio_sandbox.patterns.readiness import unix_socket_probe as unix_socket_probe
    from trio_sandbox.patterns.readiness import wait_until_ready as wait_until_ready
    from trio_sandbox.patterns.restarts import Restart as Restart
    from trio_sandbox.patterns.restarts import RestartPolicy as RestartPolicy
    from trio_sandbox.patterns.supervise import Restarting as Restarting
    from trio_sandbox.patterns.supervise import SupervisionEnd as SupervisionEnd
    from trio_sandbox.patterns.supervise import supervise as supervise
    from trio_sandbox.pool import Pool as Pool
    from trio_sandbox.pool import PoolStatistics as PoolStatistics
    from trio_sandbox.pool import open_pool as open_pool
    from trio_sandbox.pull_event import PullEvent as PullEvent
    from trio_sandbox.registry_auth import RegistryAuth as RegistryAuth
    from trio_sandbox.relay.client_messages import SessionInfo as SessionInfo
    from trio_sandbox.sandbox import open_sandbox as open_sandbox

_HOMES = {
    "trio_sandbox.client.attach": ("AttachResult",),
    "trio_sandbox.client.event_lines": ("Event",),
    "trio_sandbox.client.events": ("EventStream",),
    "trio_sandbox.client.fs": ("SandboxFs",),
    "trio_sandbox.client.fs_streams": ("FsEntryStream", "FsReadStream", "FsWriteSink"),
    "trio_sandbox.client.fs_types": ("FsCopied", "FsEntry", "FsEntryKind", "FsMetadata"),
    "trio_sandbox.client.handle": ("SandboxHandle", "SandboxInfo"),
    "trio_sandbox.client.image": ("Image",),
    "trio_sandbox.client.logs": ("LogStream",),
    "trio_sandbox.client.metrics": ("MetricsStream", "SandboxMetrics"),
    "trio_sandbox.client.options": ("Stdin",),
    "trio_sandbox.client.outcome": ("ExecEvent", "ExecEventType", "ExecOutput", "ExitStatus", "ResourceUsage"),
    "trio_sandbox.client.program": ("ExecHandle", "ExecSink"),
    "trio_sandbox.client.connect": ("connect",),
    "trio_sandbox.client.pull_session": ("PullSession",),
    "trio_sandbox.client.rlimits": ("Rlimit", "RlimitResource"),
    "trio_sandbox.client.sandbox": ("PingResult", "Sandbox"),
    "trio_sandbox.client.snapshot": ("Snapshot",),
    "trio_sandbox.client.terminal": ("Terminal",),
    "trio_sandbox.config": ("LogLevel", "PullPolicy", "SandboxConfig", "WebSocketAddress"),
    "trio_sandbox.errors": (
        "BootError",
        "CheckpointError",
        "ClientLimitError",
        "ConnectionLostError",
        "ExecFailedError",
        "ExecTimeoutError",
        "FilesystemError",
        "HostLimitError",
        "HostNotReadyError",
        "ImageError",
        "ImageInUseError",
        "ImageNotFoundError",
        "ImagePullError",
        "InvalidConfigError",
        "InvalidImageError",
        "LocalProtocolError",
        "MissedLogsError",
        "PatchFailedError",
        "PathNotFoundError",
        "PoolClosedError",
        "ProtocolError",
        "RemoteProtocolError",
        "SandboxAlreadyExistsError",
        "SandboxCrashedError",
        "SandboxDrainingError",
        "SandboxError",
        "SandboxNotFoundError",
        "SandboxNotRunningError",
        "SandboxPausedError",
        "SandboxStillRunningError",
        "SnapshotAlreadyExistsError",
        "SnapshotError",
        "SnapshotNotFoundError",
        "StorageError",
        "TerminalError",
        "UnsupportedError",
    ),
    "trio_sandbox.home": ("Home",),
    "trio_sandbox.image_info": (
        "ImageDetail",
        "ImageInfo",
        "ImageLayer",
        "ImagePruneReport",
        "ImageRunConfig",
        "ImageUsage",
    ),
    "trio_sandbox.image_source": ("DiskImageFormat", "ImageKind", "ImageSource"),
    "trio_sandbox.lifecycle": ("EndReason", "State"),
    "trio_sandbox.logs.entry": ("LogEntry", "LogSource"),
    "trio_sandbox.patch": ("Patch", "PatchConfig", "PatchKind"),
    "trio_sandbox.patterns.capture": (
        "Captured",
        "CapturedOutput",
        "capture",
    ),
    "trio_sandbox.patterns.errors": ("NotReadyError", "RestartLimitError", "UnsuccessfulError"),
    "trio_sandbox.patterns.mapping": (
        "map_sandboxes",
        "map_sandboxes_as_completed",
    ),
    "trio_sandbox.patterns.race": ("race",),
    "trio_sandbox.patterns.readiness": (
        "exec_probe",
        "file_probe",
        "port_probe",
        "unix_socket_probe",
        "wait_until_ready",
    ),
    "trio_sandbox.patterns.restarts": (
        "Restart",
        "RestartPolicy",
    ),
    "trio_sandbox.patterns.supervise": (
        "Restarting",
        "SupervisionEnd",
        "supervise",
    ),
    "trio_sandbox.pool": ("Pool", "PoolStatistics", "open_pool"),
    "trio_sandbox.pull_event": ("PullEvent",),
    "trio_sandbox.registry_auth": ("RegistryAuth",),
    "trio_sandbox.relay.client_messages": ("SessionInfo",),
    "trio_sandbox.sandbox": ("open_sandbox",),
}
_MODULE_OF = {name: module for module, names in _HOMES.items() for name in names}
__all__ = sorted(_MODULE_OF)

__version__ = "0.1.0.dev0"


def __getattr__(name: str) -> object:
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted((*globals(), *_MODULE_OF))
