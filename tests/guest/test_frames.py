"""The C codec against guest/vectors/frames.json, and the agent against the bad frames in it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.guest.agent_client import CONFIGURE, DISK, Client, HungUp
from tests.guest.conftest import GUEST, Launch
from tests.guest.running import SANITIZERS

VECTORS: list[dict[str, Any]] = json.loads((GUEST / "vectors" / "frames.json").read_text())["frames"]
GOOD = [vector for vector in VECTORS if vector["verdict"] == "ok"]
BAD_HEADERS = [vector for vector in VECTORS if vector["verdict"] == "error" and vector["code"] != "bad_body"]
BAD_BODIES = [vector for vector in VECTORS if vector.get("code") == "bad_body" and vector["direction"] == "to_guest"]


def judge(programs: Path, vectors: list[dict[str, Any]]) -> list[str]:
    lines = "".join(f"{vector['direction'][3]} {vector['hex']}\n" for vector in vectors)
    done = subprocess.run(
        [programs / "frames_check"], input=lines, capture_output=True, text=True, env=SANITIZERS, check=True
    )
    return done.stdout.splitlines()


def told(value: Any) -> str:
    """A decoded value in the notation of frames_check."""
    if value is None:
        return "nil"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        return "s" + value.encode().hex()
    if isinstance(value, list):
        return "[" + "".join(told(item) + "," for item in value) + "]"
    if set(value) == {"bin"}:
        return "b" + str(value["bin"])
    return "{" + "".join(f"{told(key)}:{told(item)}," for key, item in value.items()) + "}"


def test_names_are_unique_and_both_verdicts_are_there() -> None:
    assert len({vector["name"] for vector in VECTORS}) == len(VECTORS)
    assert min(len(GOOD), len(BAD_HEADERS)) > 30
    assert len(BAD_BODIES) > 8


def test_c_codec_decodes_and_reencodes_every_good_vector(programs: Path) -> None:
    for vector, answer in zip(GOOD, judge(programs, GOOD), strict=True):
        header = vector["header"]
        fields = " ".join(str(header[name]) for name in ("type", "flags", "slot", "session", "length"))
        assert answer.startswith(f"ok {fields} "), (vector["name"], answer)
        if "map" in vector:
            assert answer.split()[6:] == [told(vector["map"]), vector["hex"][32:]], vector["name"]


def test_c_codec_names_the_fault_of_every_bad_header(programs: Path) -> None:
    for vector, answer in zip(BAD_HEADERS, judge(programs, BAD_HEADERS), strict=True):
        assert answer == vector["code"], vector["name"]


@pytest.mark.parametrize("code", sorted({vector["code"] for vector in BAD_HEADERS}))
def test_agent_answers_a_bad_header_and_stops(launch: Launch, code: str) -> None:
    for vector in BAD_HEADERS:
        if vector["code"] != code or vector["direction"] != "to_guest":
            continue
        with launch() as client:
            client.configure()
            client.send_raw(bytes.fromhex(vector["hex"]))
            error = client.expect("ERROR", session=0)
            assert error.body["code"] == code, vector["name"]
            client.expect("GOODBYE")
            with pytest.raises(HungUp):
                client.receive()
        break  # one of each kind: the codec has judged the others


def test_agent_refuses_bad_bodies_and_goes_on(agent: Client) -> None:
    session = agent.start(["sleep", "100"])
    agent.expect("STARTED", session)
    for vector in BAD_BODIES:
        agent.send_raw(bytes.fromhex(vector["hex"]))
        assert agent.expect("ERROR").body["code"] == "bad_body", vector["name"]
    assert [frame.name for frame in agent.barrier()] == []


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"entropy": b"short"},
        {"entropy": b"e" * 513},
        {"hostname": ""},
        {"hostname": "two\nlines"},
        {"hostname": "h" * 65},
        {"machine_id": "0" * 31},
        {"machine_id": "G" * 32},
        {"base": "b" * 21},
        {"base": ""},
        {"upper": ""},
        {"disk": "root"},
        {"fstype": "ext4"},
        {"base": "", "upper": "", "disk": "d" * 21},
        {"base": "", "upper": "", "disk": "root", "fstype": "f" * 17},
        {"base": "", "upper": "", "disk": "root", "template": True},
        {"time_ns": -1},
        {"time_ns": "now"},
        {"template": 1},
        {"warm": ["/bin/sh"]},
        {"template": False, "warm": ["/bin/sh"]},
        {"template": True, "warm": "/bin/sh"},
        {"template": True, "warm": ["bin/sh"]},
        {"template": True, "warm": [""]},
        {"template": True, "warm": ["/bin/\0sh"]},
        {"template": True, "warm": [b"/bin/sh"]},
        {"template": True, "warm": ["/" + "x" * 256]},
        {"template": True, "warm": ["/bin/sh"] * 65},
    ],
)
def test_bad_configure_is_a_boot_failure(launch: Launch, change: dict[str, object]) -> None:
    with launch(may_fail=True) as agent:
        agent.expect("HELLO")
        agent.send("CONFIGURE", {**CONFIGURE, **change})
        assert agent.expect("BOOT_FAILED").body["stage"] == "configure"
        with pytest.raises(HungUp):
            agent.receive()


@pytest.mark.parametrize("more", [{}, {"fstype": "ext4"}, {"base": "", "upper": "", "fstype": "", "template": False}])
def test_a_root_may_be_one_disk(launch: Launch, more: dict[str, object]) -> None:
    with launch() as agent:
        agent.configure({**DISK, **more})
