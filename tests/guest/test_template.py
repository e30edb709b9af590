"""A machine that is to be cloned: from CONFIGURE with `template` to IDENTIFY, as far as a host can play it."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.guest.agent_client import CONFIGURE, IDENTIFY, TEMPLATE, Client, HungUp, encode, exec_map
from tests.guest.conftest import Launch
from tests.guest.test_frames import BAD_BODIES

SILENCE = 10.0
"""Seconds that the agent waits for CONFIGURE or IDENTIFY."""


@pytest.fixture
def template(launch: Launch) -> Iterator[Client]:
    """An agent that waits for IDENTIFY."""
    with launch() as client:
        client.configure(TEMPLATE)
        yield client


def refused(agent: Client) -> str:
    return str(agent.expect("ERROR", 0).body["code"])


def test_a_clone_serves_once_it_knows_who_it_is(template: Client) -> None:
    assert template.barrier() == []
    template.send("IDENTIFY", IDENTIFY)
    timings = template.expect("READY").body["timings"]
    # Those of the template were told before, and say nothing about the clone.
    assert set(timings) == {"identify", "ready"}
    assert timings["identify"] <= timings["ready"]
    assert template.run(["echo", "here"]).stdout == b"here\n"


def test_frames_behind_identify_are_served(template: Client) -> None:
    template.send_raw(encode("IDENTIFY", IDENTIFY) + encode("EXEC", exec_map(["echo", "at once"]), 1))
    template.expect("READY")
    assert template.outcome(1).stdout == b"at once\n"


def test_the_template_tells_its_timings(launch: Launch) -> None:
    with launch() as agent:
        timings = agent.configure(TEMPLATE).body["timings"]
        assert timings["hello"] <= timings["configured"] <= timings["ready"]


def test_a_template_runs_nothing_and_its_clones_count_sessions_anew(template: Client) -> None:
    template.send("EXEC", exec_map(["true"]), 5)
    assert template.outcome(5).failure == "other"
    template.send("KILL", None, 6)
    assert template.expect("ERROR", 6).body["code"] == "unknown_session"
    template.send("IDENTIFY", IDENTIFY)
    template.expect("READY")
    template.seen.clear()
    assert template.run(["true"]).code == 0
    assert template.last_session == 1


def test_a_template_answers_pings_and_takes_the_time(template: Client) -> None:
    template.send("CLOCK", {"time_ns": 1})
    template.send("PING", b"there?")
    assert template.expect("PONG").body == b"there?"


def test_a_template_can_be_stopped(launch: Launch) -> None:
    with launch() as agent:
        agent.configure(TEMPLATE)
        agent.send("SHUTDOWN", {"grace_ms": 0})
        agent.expect("GOODBYE")
        with pytest.raises(HungUp):
            agent.receive()


def test_identify_comes_once_and_only_to_a_template(launch: Launch) -> None:
    with launch() as agent:
        agent.expect("HELLO")
        agent.send("IDENTIFY", IDENTIFY)
        assert refused(agent) == "not_ready"
        agent.send("CONFIGURE", TEMPLATE)
        agent.expect("READY")
        for body in (TEMPLATE, CONFIGURE):
            agent.send("CONFIGURE", body)
            assert refused(agent) == "already_configured"
        agent.send("IDENTIFY", IDENTIFY)
        agent.expect("READY")
        for name, body in (("IDENTIFY", IDENTIFY), ("CONFIGURE", CONFIGURE)):
            agent.send(name, body)
            assert refused(agent) == "already_configured"
    with launch() as agent:
        agent.configure({**CONFIGURE, "template": False, "warm": []})
        agent.send("IDENTIFY", IDENTIFY)
        assert refused(agent) == "already_configured"


def test_identify_that_cannot_be_right_changes_nothing(template: Client) -> None:
    vectors = [vector for vector in BAD_BODIES if vector["name"].startswith("identify")]
    assert len(vectors) > 5
    for vector in vectors:
        template.send_raw(bytes.fromhex(vector["hex"]))
        assert refused(template) == "bad_body", vector["name"]
    template.send("IDENTIFY", {**IDENTIFY, "from a later version": [1, {"a": b"b"}]})
    template.expect("READY")


@pytest.mark.parametrize(
    "more", [encode("PING", b"x"), encode("IDENTIFY", IDENTIFY), b"\0"], ids=["frame", "who", "part"]
)
def test_what_comes_before_ready_would_be_in_every_clone(launch: Launch, more: bytes) -> None:
    with launch(may_fail=True) as agent:
        agent.expect("HELLO")
        agent.send_raw(encode("CONFIGURE", TEMPLATE) + more)
        assert agent.expect("BOOT_FAILED").body["stage"] == "template"
        with pytest.raises(HungUp):
            agent.receive()


def test_silence_ends_a_machine_that_waits(launch: Launch) -> None:
    """All kinds at once, as it takes its time; PING is no reason to wait longer."""
    with launch(may_fail=True) as blank, launch(may_fail=True) as template, launch(may_fail=True) as frozen:
        began = time.monotonic()
        blank.expect("HELLO")
        template.configure(TEMPLATE)
        frozen.configure(CONFIGURE)
        for agent in (blank, template):
            agent.send("PING", b"")
            agent.expect("PONG")
        frozen.send("FREEZE")
        frozen.expect("FROZEN")
        for agent in (blank, template, frozen):
            with pytest.raises(HungUp):
                agent.receive()
        assert time.monotonic() - began > SILENCE * 0.9
