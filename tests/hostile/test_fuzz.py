"""A few hundred spoiled files for each reader, the same ones each time; ``make fuzz`` goes on from here."""

from __future__ import annotations

from random import Random

import pytest
import torch._dynamo

from hostile import mutating, targets, watching

# How many in about half a second.
EXECUTIONS = {"header": 30, "adapter": 40, "shown": 60, "lora": 60, "model": 20, "published": 25, "round_folder": 100}
MOST = 200


@pytest.mark.parametrize("name", targets.TARGETS)
@pytest.mark.filterwarnings("ignore")
def test_spoiled_files(name: str) -> None:
    target = targets.TARGETS[name]
    seeds, rng = target.seeds(), Random(name)
    for seed in seeds:
        watching.executed(target.run, seed, targets.place())
    for number in range(EXECUTIONS.get(name, MOST)):
        data = mutating.spoiled(rng.choice(seeds), rng, seeds)
        try:
            watching.executed(target.run, data, targets.place())
        except (Exception, watching.BrokenPromise) as error:
            raise AssertionError(f"file {number}: {data[:2000]!r}") from error


assert torch._dynamo  # imported late it would be found to leave the folder
