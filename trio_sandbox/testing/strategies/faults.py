"""What goes wrong in a simulated guest: values of `Faults`, each for one sandbox, which say again what they said."""

from __future__ import annotations

from hypothesis import strategies as st

from trio_sandbox.testing.faults import DEADLY, PATIENCE_OF_HOST, Faults, Stroke, StrokeKind

_SEEDS = st.integers(0, 2**16)
_CHANCES = st.sampled_from((0.0, 0.0, 0.1, 0.5, 1.0))


def harmless_faults() -> st.SearchStrategy[Faults]:
    """Delays, disorder and silences that everybody must bear: no result may differ for them but in its time."""
    silences = st.builds(Stroke, st.just(StrokeKind.STALL), st.floats(0, 100), st.floats(0, PATIENCE_OF_HOST / 10))
    return st.builds(
        Faults,
        seed=_SEEDS,
        delay=st.floats(0, PATIENCE_OF_HOST / 10),
        delay_chance=_CHANCES,
        reorder_chance=_CHANCES,
        strokes=st.lists(silences, max_size=2).map(tuple),
    )


@st.composite
def faults(
    draw: st.DrawFn,
    kinds: frozenset[StrokeKind] = frozenset(StrokeKind),
    *,
    within: float = 60.0,
    drops: bool = False,
) -> Faults:
    """Anything: delays, disorder, and up to three strokes of these kinds within so many seconds, of which the first
    that is deadly ends the sandbox. drops: frames may be lost, too; then whoever waits for one needs a deadline.
    """
    kind = st.sampled_from(sorted(kinds))
    values = {StrokeKind.STALL: st.floats(0, 60), StrokeKind.FILL_DISK: st.sampled_from((0.0, 1.0, 4096.0))}
    strokes = []
    for one in draw(st.lists(kind, max_size=3)):
        strokes.append(Stroke(one, draw(st.floats(0, within)), draw(values.get(one, st.just(0.0)))))
        if one in DEADLY:
            break
    return Faults(
        seed=draw(_SEEDS),
        delay=draw(st.floats(0, 5)),
        delay_chance=draw(_CHANCES),
        reorder_chance=draw(_CHANCES),
        drop_chance=draw(st.sampled_from((0.0, 0.02, 0.2))) if drops else 0.0,
        strokes=tuple(strokes),
    )
