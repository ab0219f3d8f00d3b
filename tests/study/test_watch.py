"""What people see: shares and times by a clock of our own, plain lines where there is no terminal."""

from __future__ import annotations

import io

import pytest
from toy_study import Toy

from t5study.study.pace import Pace
from t5study.study.stages import needed, stage_id
from t5study.study.watch import Watch
from t5study.study.workers import Done, Step


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def toys() -> dict[str, Toy]:
    text = Toy("text", training=False, weight=0.0)
    return {"text": text} | {
        name: Toy(name, after=(text,), weight=weight) for name, weight in [("a", 2.0), ("b", 2.0), ("c", 4.0)]
    }


def watching(
    toys: dict[str, Toy], workers: int = 2, out: io.StringIO | None = None
) -> tuple[Watch, Clock, io.StringIO]:
    clock, out = Clock(), out or io.StringIO()
    watch = Watch(workers, out=out, clock=clock)
    watch.expect(needed(toys.values()), [stage_id(toys["text"])])
    return watch, clock, out


def test_the_share_is_of_work_and_counts_what_is_under_way(toys):
    watch, _, _ = watching(toys)
    assert watch.share == 0.0
    watch.begin(0, toys["a"])
    watch.step(0, Step(5, 4.0, 100.0))
    assert watch.share == pytest.approx(0.5 * 2 / 8)
    watch.end(0, Done(3.5))
    assert watch.share == pytest.approx(2 / 8)
    watch.begin(0, toys["c"])
    watch.step(0, Step(10, 4.0, 100.0))
    watch.end(0, None)
    assert watch.share == pytest.approx(2 / 8)


def test_a_plain_line_every_ten_seconds_tells_all(toys):
    watch, clock, out = watching(toys)
    watch.begin(0, toys["a"])
    watch.begin(1, toys["b"])
    watch.step(0, Step(5, 4.25, 1234.0))
    watch.step(1, Step(10, 3.0, 1000.0))
    watch.step(1, Step(text="scoring answer, 2 of 6"))
    clock.now += 9
    watch.show()
    clock.now += 1
    watch.show()
    watch.show()
    assert out.getvalue().splitlines() == [
        "study: 1 of 4 stages are there; 2 workers",
        "study: 38% done · 10 s so far | [1] a · step 5/10 · loss 4.250 · 1,234 tokens/s | "
        "[2] b · step 10/10 · scoring answer, 2 of 6",
    ]


def test_what_a_killed_worker_had_done_is_not_timed(toys):
    """A stage resumed after step 8 of 10 that ends in 10 s would take 50 s anew."""
    watch, clock, _ = watching(toys)
    watch.begin(0, toys["a"])
    watch.step(0, Step(9, 4.0, 100.0))  # the first it hears of
    clock.now += 10
    watch.end(0, Done(3.5))
    assert watch._pace.took["toy"] == pytest.approx((10.0, 2.0 * 0.2))


def test_time_left_goes_by_what_stages_of_the_kind_took(toys, monkeypatch):
    monkeypatch.setattr(Toy, "kind", "pretrain")
    watch, clock, out = watching(toys, workers=2)
    assert watch.seconds_left() is None
    watch.begin(0, toys["a"])
    clock.now += 20
    watch.end(0, Done(3.5))
    # 6 of 8 are left at 10 s each, for two workers; but `c` alone is 4 of them.
    assert watch.seconds_left() == pytest.approx(40.0)
    assert "done: a · 20 s · loss 3.500" in out.getvalue()


def test_what_was_done_before_this_session_tells_the_time_at_once(toys, monkeypatch):
    monkeypatch.setattr(Toy, "kind", "pretrain")
    watch, stages = Watch(2, out=io.StringIO(), clock=Clock()), needed(toys.values())
    watch.expect(stages, [stage_id(toys["text"]), stage_id(toys["a"])], Pace({"pretrain": (20.0, 2.0)}))
    assert watch.seconds_left() == pytest.approx(40.0)
    watch.lost(stage_id(toys["c"]))
    assert watch.seconds_left() == pytest.approx(20.0)


def test_on_a_terminal_lines_are_live(toys):
    watch, clock, out = watching(toys, out=Terminal())
    watch.begin(0, toys["a"])
    watch.step(0, Step(5, 4.25, 1234.0))
    clock.now += 1
    watch.show()
    watch.say("a line that stays")
    watch.close()
    text = out.getvalue()
    assert "1 of 4 stages" in text
    assert all(word in text for word in ("stage", "tokens/s", "5/10", "4.250", "1,234", "1 s"))
    assert "a line that stays" in text
    assert "study: 12%" not in text
