"""What a person may have meant by an option that a command does not have, or by a value that it cannot take."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

# Our options, and what other programs call them.
OTHER_NAMES = {
    "--lr": "--learning-rate --rate",
    "--number": "--count --num --num-images --num-images-per-prompt --images --n-samples --samples --n-iter "
    "--batch-count --repeat",
    "--best-of": "--count --num --number",
    "--output": "--outdir --out --out-dir --output-dir --output-path --dest --save --save-path --folder",
    "--overwrite": "--force --replace -f",
    "--yes": "--force -f",
    "--steps": "--num-steps --num-inference-steps --sampling-steps --max-train-steps --train-steps --epochs --iters",
    "--iterations": "--iters",
    "--minutes": "--time --duration --steps --epochs",
    "--lambda-b": "--cfg --cfg-scale --guidance --guidance-scale --scale --prompt-strength",
    "--lambda-a": "--style-scale --style-strength --style-fidelity",
    "--strength": "--weight --adapter-scale --lora-scale --lora-weight --lora-strength",
    "--restyle": "--strength --denoise --denoising-strength",
    "--much": "--denoise --denoising-strength --variation-strength --image-strength --amount",
    "--negative": "--negative-prompt --neg --uncond",
    "--size": "--width --height --resolution --res -W -H",
    "--model": "--base --base-model --ckpt --pretrained --pretrained-model-name-or-path",
    "--content": "--caption --captions --subject --description --instance-prompt",
    "--object": "--subject",
    "--prompts": "--prompt-file --prompts-file --from-file --file",
    "--adapter": "--lora --style-file",
    "--mix": "--adapters --loras --blend",
    "--width": "--dim --network-dim --lora-rank",
    "--kind": "--type --adapter-type --method",
    "--scorer": "--judge --clip --clip-model",
    "--feedback": "--picker --judge",
    "--fresh": "--restart --no-resume --from-scratch",
    "--resume": "--continue --resume-from",
    "--init-from": "--pretrained --from",
    "--sample-prompt": "--sample-prompts --validation-prompt --val-prompt --preview --preview-prompt",
    "--config": "--config-file --recipe --settings --options",
    "--dry-run": "--plan --simulate --what-if",
    "--device": "--gpu --cuda --cpu --use-cuda",
    "--quiet": "--silent",
    "--reference": "--ref --style-image --target",
}
# Our arguments, which are written without an option, and what other programs call them.
ARGUMENTS = {
    "PROMPT": "--prompt --text --caption",
    "ADAPTER": "--adapter --lora --checkpoint --style-file --lora-path",
    "PICTURE": "--image --input --picture --init-image --reference --instance-data-dir --data -i",
    "CORPUS": "--data --dataset --train-data-dir --corpus --input",
}
SHAPE = re.compile(r"\d+\s*[xX*:]\s*\d+")
NO_NUMBER = re.compile(r"should be a valid (integer|number)")  # Typer's words, which leave out the value


def explain(error: Any, message: str, given: Sequence[str]) -> tuple[str, str | None]:
    """One of Typer's own errors about what was `given`: its `message`, or a plainer one, and what to do."""
    context, option = getattr(error, "ctx", None), getattr(error, "option_name", None)
    if context is None:
        return message, None
    known = {name for parameter in context.command.params for name in getattr(parameter, "opts", [])}
    if option:
        for ours, others in OTHER_NAMES.items():
            if ours in known and option in others.split():
                hint = f"that is {ours} here; {context.command_path} --help shows all options"
                return f"no such option: {option}", hint
        usage = context.command.collect_usage_pieces(context)
        for argument, others in ARGUMENTS.items():
            if option in others.split() and any(argument in piece for piece in usage):
                return f"no such option: {option}", f"write that without one: {context.command_path} {' '.join(usage)}"
    names, value = getattr(getattr(error, "param", None), "opts", []), None
    for word, after in zip(given, [*given[1:], ""], strict=True):
        name, equals, behind = word.partition("=")
        value = (behind if equals else after) if name in names else value
    if value is not None and (kind := NO_NUMBER.search(message)):
        whole = "whole " if kind[1] == "integer" else ""
        message = f"{names[0]} must be a {whole}number, not '{value[:40]}'"
    if "--size" in names and value and SHAPE.fullmatch(value):
        return message, (
            'pictures are square: give one number. Other shapes: size = "1024x512" in a list for styledrop kit, or '
            "styledrop edit --outpaint, which adds to the sides of a picture"
        )
    return message, f"{context.command_path} --help shows how it is used"
