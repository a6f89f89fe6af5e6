"""`styledrop convert`: LoRAs of aMUSEd from diffusers, and back."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from styledrop_cli.cli import checks, console, options
from styledrop_cli.errors import UsageError

OUTPUT = Path("adapter.safetensors")
FOLDER = "{}-diffusers"
LEAST, MOST = 0.001, 1_000_000  # of alpha


def convert(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="A LoRA that diffusers, peft or kohya wrote, or an adapter of ours of kind lora."
        ),
    ],
    style: Annotated[
        str | None,
        typer.Option(
            help='For a LoRA from elsewhere: the style as its prompts say it, "[V] style". It is put into each prompt.'
        ),
    ] = None,
    alpha: Annotated[
        float | None,
        typer.Option(
            help="For a LoRA from elsewhere that does not say it: the --lora_alpha that it was trained with.",
            show_default="its rank",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="PATH",
            help="The adapter file to write, or the folder for diffusers.",
            show_default=f"{OUTPUT}, or {FOLDER.format('FILE')} beside FILE",
        ),
    ] = None,
    overwrite: Annotated[bool, options.flag("--overwrite", help="Replace the output if it is already there.")] = False,
    model: options.Model = "amused-256",
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Bring a LoRA of aMUSEd here from diffusers, or take one there.

    It goes by what the file holds. What diffusers' example wrote becomes an
    adapter file, an adapter of kind lora a folder that diffusers loads; either
    draws the same on the other side.

      styledrop convert pytorch_lora_weights.safetensors --style "[V] style"
      styledrop convert adapter.safetensors
    """
    screen = console.Screen(quiet, as_json)
    checks.refuse_outside(alpha=(alpha, LEAST, MOST))
    if file.is_dir():
        raise UsageError(f"{file} is a folder", f"name the file in it: {file / 'pytorch_lora_weights.safetensors'}")
    with screen.working("reading"):
        from styledrop_cli.adapters import diffusers_lora

        ours = diffusers_lora.is_ours(file)
    if ours:
        if style is not None or alpha is not None:
            raise UsageError(f"{file} says its style and its strength itself", "leave --style and --alpha out")
        _take_out(file, output or file.with_name(FOLDER.format(file.stem)), overwrite, model, screen)
    else:
        _bring_in(file, style, alpha, output or OUTPUT, overwrite, model, screen)


def _bring_in(
    file: Path,
    style: str | None,
    alpha: float | None,
    output: Path,
    overwrite: bool,
    model: str,
    screen: console.Screen,
) -> None:
    from styledrop_cli.adapters import diffusers_lora

    hint = f'say it as the prompts did that it was trained on: styledrop convert {shlex.quote(str(file))} --style "..."'
    if style is None:
        raise UsageError(f"{file} does not say what style it draws", hint)
    style = checks.typed_text(style, "--style", hint)
    checks.refuse_output(output, overwrite)
    if output.suffix != ".safetensors":
        raise UsageError(f"the adapter's name {output} does not end in .safetensors", "name it so with -o")
    lora = diffusers_lora.read_lora(file)
    base = diffusers_lora.published_base(options.located(screen, model))
    header = diffusers_lora.bring_in(lora, base, style=style, alpha=alpha, output=output, on_message=screen.say)
    config = header["config"]
    screen.say(f"rank {config['rank']}, alpha {config['alpha']:g}, {', '.join(config['targets'])}; the adapter:")
    screen.result({"adapter": output, "style": style, **config, "base": header["base"]["name"]}, [output])
    drawn = f'styledrop generate {shlex.quote(str(output))} "a cat" --model {shlex.quote(model)}'
    screen.say(f"draw with it:  {drawn}", "dim")


def _take_out(file: Path, folder: Path, overwrite: bool, model: str, screen: console.Screen) -> None:
    from styledrop_cli.adapters import diffusers_lora
    from styledrop_cli.adapters.file import named
    from styledrop_cli.base.prompt_tokens import with_style
    from styledrop_cli.io.tensors import is_object

    own = diffusers_lora.read_own(file)
    output = folder / diffusers_lora.WEIGHTS
    checks.refuse_unwritable(folder)
    checks.refuse_output(output, overwrite)
    base = diffusers_lora.published_base(options.located(screen, model))
    diffusers_lora.take_out(own, base, output)
    header = own.header
    scale = 1 + header["recommended"].get("lambda_b", 0.0)
    what, prompt = "style", with_style("a cat", header["style"])
    if is_object(header):
        what, prompt = "object", named(header)
    screen.say(f"prompts say the {what} in words, '{prompt}', and guidance_scale is {scale:g}; the LoRA:")
    about = {"lora": output, "style": header["style"], "prompt": prompt, "guidance_scale": scale}
    screen.result(about, [output])
    load = (
        f'load_lora_adapter("{folder}", weight_name="{diffusers_lora.WEIGHTS}", prefix="{diffusers_lora.PREFIX[:-1]}")'
    )
    screen.say(f"load it:  pipe.transformer.{load}", "dim")
