"""Mutated input: a few hundred cases here, ten thousand by the command (docs/records/fuzz.md)."""

import numpy as np

from tests.trust import fuzz
from tests.trust.mutate import mutated, mutated_bytes

CASES, SEED = 250, 7


def test_nothing_breaks_or_hangs():
    tally = fuzz.run_all(CASES, SEED)
    assert tally.failures == []
    assert sum(tally.outcomes.values()) == CASES
    outcomes = {outcome for _, outcome in tally.outcomes}
    assert outcomes == {"fits", "refused"}


def only(monkeypatch, case):
    monkeypatch.setattr(fuzz, "KINDS", {"broken": (case, 1.0)})
    return fuzz.run_all(2, SEED).failures


def test_a_break_is_seen(monkeypatch):
    failures = only(monkeypatch, lambda rng, folder: {}["nothing"])
    assert len(failures) == 2
    assert "KeyError" in failures[0]


def test_a_warning_and_a_long_message_are_breaks(monkeypatch):
    assert "RuntimeWarning" in only(monkeypatch, lambda rng, folder: np.float64(1e308) * 10)[0]

    def long(rng, folder):
        raise fuzz.SpatialClustersError("x" * 10_000)

    assert "10000 characters" in only(monkeypatch, long)[0]


def test_a_hang_is_seen(monkeypatch):
    monkeypatch.setattr(fuzz, "SECONDS", 0.2)

    def endless(rng, folder):
        while True:
            pass

    assert "Hang" in only(monkeypatch, endless)[0]


def test_mutations_depend_on_the_seed_alone():
    def once(seed):
        rng = np.random.default_rng(seed)
        return [mutated("a = 1\nb = 2\n", rng, ("other",)) for _ in range(20)], [
            mutated_bytes(b"abc", rng) for _ in range(20)
        ]

    assert once(1) == once(1)
    assert once(1) != once(2)
