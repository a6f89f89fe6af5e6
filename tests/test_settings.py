"""Run settings and the device: bad values are all named at once."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from styledrop_cli.devices import NAMES, autocast, generator, pick_device
from styledrop_cli.errors import DeviceError, UsageError
from styledrop_cli.settings import KINDS as ADAPTERS
from styledrop_cli.settings import (
    LARGEST_SEED,
    PRESETS,
    RECOMMENDABLE,
    RoundSettings,
    SampleSettings,
    SweepSettings,
    TrainSettings,
    exact,
    preset_values,
    seeds_from,
)

KINDS = (SampleSettings, TrainSettings)


@pytest.mark.parametrize("kind", KINDS)
def test_defaults_are_allowed_and_shown(kind: Any) -> None:
    settings = kind()
    assert kind.defaults() == {name: getattr(settings, name) for name in kind.defaults()}
    numbers = {n for n, v in kind.defaults().items() if isinstance(v, int | float) and not isinstance(v, bool)}
    assert set(kind.RANGES) == numbers  # no number goes unchecked


@pytest.mark.parametrize("kind", KINDS)
def test_both_ends_of_every_range(kind: Any) -> None:
    for name, (low, high) in kind.RANGES.items():
        for value in (low, high):
            assert getattr(kind(**{name: value}), name) == value
        for value in (low - 1, high * 1.01 + 1, float("nan"), float("inf")):
            with pytest.raises(UsageError, match=f"^{name} must be between"):
                kind(**{name: value})


def test_all_bad_values_at_once() -> None:
    with pytest.raises(UsageError) as error:
        SampleSettings(steps=0, temperature=-1, lambda_b=99, seed=LARGEST_SEED + 1)
    assert [part.split()[0] for part in error.value.message.split("; ")] == ["steps", "temperature", "lambda_b", "seed"]
    assert error.value.exit_code == 2


def test_settings_fit_the_kind_of_adapter() -> None:
    for kind, fitting in ADAPTERS.items():
        settings = TrainSettings.of(kind, steps=7)
        assert (settings.kind, settings.steps) == (kind, 7)
        assert {name: getattr(settings, name) for name in fitting} == fitting
        assert TrainSettings.of(kind, width=3).width == 3  # what is given counts
    assert TrainSettings.of("bottleneck") == TrainSettings()
    with pytest.raises(UsageError, match="called 'lorax'") as error:
        TrainSettings.of("lorax")
    assert "bottleneck, lora, prompt" in str(error.value.hint)


def test_an_object_is_not_compared_by_its_style() -> None:
    assert TrainSettings.of("lora", learn="object") == TrainSettings.of("lora", learn="object", checkpoints=0)
    assert TrainSettings().learn == "style"
    with pytest.raises(UsageError, match="of which an object has none") as error:
        TrainSettings.of("lora", learn="object", checkpoints=1)
    assert "--checkpoints" in str(error.value.hint)
    with pytest.raises(UsageError, match="no learning of 'colour'"):
        TrainSettings(learn="colour")


def test_settings_are_frozen() -> None:
    with pytest.raises(AttributeError):
        SampleSettings().steps = 3  # type: ignore[misc]


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    assert pick_device("cpu") == torch.device("cpu")
    assert pick_device("auto").type in NAMES
    with pytest.raises(DeviceError, match="toaster"):
        pick_device("toaster")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceError, match="no usable 'cuda'") as error:
        pick_device("cuda")
    assert error.value.hint
    assert error.value.exit_code == 2


def test_generators_draw_on_the_processor() -> None:
    assert generator(3).device.type == "cpu"
    assert torch.equal(torch.rand(4, generator=generator(3)), torch.rand(4, generator=generator(3)))
    for seed in (0, LARGEST_SEED):
        generator(seed)


def test_autocast_can_be_left_out() -> None:
    with autocast(torch.device("cpu"), enabled=False):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32


def test_guidance_may_not_end_before_it_begins() -> None:
    with pytest.raises(UsageError, match=r"guidance_from 0\.6 is after guidance_to 0\.4"):
        SampleSettings(guidance_from=0.6, guidance_to=0.4)
    assert SampleSettings(guidance_from=0.5, guidance_to=0.5).guidance_to == 0.5
    assert not {"guidance_every", "guidance_from", "guidance_to"} & set(RECOMMENDABLE)


def test_presets_are_settings_that_differ_from_the_defaults() -> None:
    for name, values in PRESETS.items():
        settings = SampleSettings(**preset_values(name))
        assert all(getattr(settings, key) == value != SampleSettings.defaults()[key] for key, value in values.items())
        preset_values(name).clear()  # a copy
        assert preset_values(name) == values != {}
    paper = SampleSettings(**PRESETS["paper"])  # StyleDrop, Table S3
    assert (paper.steps, paper.temperature, paper.lambda_a, paper.lambda_b) == (36, 4.5, 2, 5)
    assert preset_values(None) == {}
    with pytest.raises(UsageError, match="preset called 'slow'") as error:
        preset_values("slow")
    assert "fast, paper" in str(error.value.hint)


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        (LARGEST_SEED, "9,223,372,036,854,775,807"),
        (1_000_000, "1,000,000"),
        (0, "0"),
        (0.0, "0"),
        (50.0, "50"),
        (1e-8, "0.00000001"),
        (0.1, "0.1"),
        (-1234.5, "-1,234.5"),
        (float("nan"), "nan"),
        (float("inf"), "inf"),
    ],
)
def test_numbers_in_messages_are_exact(number: float, shown: str) -> None:
    assert exact(number) == shown


def test_ranges_are_said_exactly() -> None:
    with pytest.raises(UsageError, match=f"between 0 and {exact(LARGEST_SEED)}, not {LARGEST_SEED + 1}$"):
        SampleSettings(seed=LARGEST_SEED + 1)
    with pytest.raises(UsageError, match=r"lr must be between 0\.00000001 and 1, not 2$"):
        TrainSettings(lr=2)


def test_seeds_count_on_to_the_largest_and_no_further() -> None:
    assert list(seeds_from(LARGEST_SEED - 1, 2)) == [LARGEST_SEED - 1, LARGEST_SEED]
    with pytest.raises(UsageError, match=f"no 3 seeds from {LARGEST_SEED - 1} on: the largest is 9,223"):
        seeds_from(LARGEST_SEED - 1, 3)
    axes, prompts = {"strength": [0.0, 1.0]}, ["a cat"]
    assert SweepSettings(axes, prompts, number=2, seed=LARGEST_SEED - 1).seeds[-1] == LARGEST_SEED
    with pytest.raises(UsageError, match="seeds from"):
        SweepSettings(axes, prompts, number=2, seed=LARGEST_SEED)
    assert RoundSettings(rounds=3, per_prompt=8, seed=LARGEST_SEED - 3007)
    with pytest.raises(UsageError, match="seeds from"):
        RoundSettings(rounds=3, per_prompt=8, seed=LARGEST_SEED - 3006)


def test_a_whole_number_for_a_float_becomes_one() -> None:
    """So that a picture says the same of itself, however its settings were typed."""
    typed, meant = SampleSettings(lambda_a=2, steps=3, seed=2**53 + 1), SampleSettings(lambda_a=2.0, steps=3)
    assert repr(typed.lambda_a) == repr(meant.lambda_a) == "2.0"
    assert repr(typed.steps) == "3" and typed.seed == 2**53 + 1  # what is counted stays whole


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("all", ()),
        ("style", ()),
        ("4-6", (4, 5, 6)),
        ("1,3-5", (1, 3, 4, 5)),
        (" 7 , 2 - 3,3", (2, 3, 7)),
        ("12", (12,)),
    ],
)
def test_layers_by_their_numbers(text: str, numbers: tuple[int, ...]) -> None:
    assert TrainSettings(layers=text).layer_numbers == numbers


@pytest.mark.parametrize("text", ["", "0-3", "3-2", "1,,2", "first", "1-2-3", "-1", "1.5", "1-9999"])
def test_what_names_no_layers(text: str) -> None:
    with pytest.raises(UsageError, match="names no layers") as error:
        TrainSettings(layers=text)
    assert error.value.hint == "Say numbers as 4-6 or 1,3-5, style or all."
