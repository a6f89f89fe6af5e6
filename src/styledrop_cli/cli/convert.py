"""`styledrop convert`: LoRAs of published bases from diffusers and peft, and back."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from styledrop_cli.adapters import library
from styledrop_cli.base.registry import PUBLISHED
from styledrop_cli.cli import checks, console, load, options
from styledrop_cli.cli.options import option
from styledrop_cli.cli.train import OUTPUT, say_how_to_draw
from styledrop_cli.errors import UsageError

FOLDER = "{}-diffusers"
DEFAULT = "amused-256"
LEAST, MOST = 0.001, 1_000_000  # of alpha


def convert(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="A LoRA written by diffusers, peft or kohya, or an adapter of kind lora: a file, or a saved style.",
            **options.of_any_file,
        ),
    ],
    *,
    style: Annotated[
        str | None,
        option(
            'For a LoRA from elsewhere: the words for its style that it was trained with, "[V] style". They are added '
            "to each prompt."
        ),
    ] = None,
    alpha: Annotated[
        float | None,
        option(
            "For a LoRA from elsewhere whose file does not say it: the --lora_alpha that it was trained with.",
            metavar=f"<{LEAST} to {MOST:,}>",
            shown="its rank",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        options.output(
            "PATH",
            "The adapter file to write, or the folder for diffusers.",
            shown=f"{OUTPUT}, or {FOLDER.format('FILE')} beside FILE",
        ),
    ] = None,
    save_as: options.SaveAs = None,
    overwrite: options.Overwrite = False,
    model: Annotated[
        str | None,
        options.common(options.MODEL, metavar="NAME|FOLDER", shown=f"the adapter's, or {DEFAULT} for a LoRA"),
    ] = None,
    screen: console.Screen,
) -> None:
    """Turn a LoRA of aMUSEd or Meissonic into an adapter, or an adapter into one.

    The content of the file decides: what diffusers' training script wrote
    becomes an adapter file, and an adapter of kind lora becomes a folder that
    diffusers loads. Both draw the same pictures.

      styledrop convert pytorch_lora_weights.safetensors --style "[V] style"
      styledrop convert adapter.safetensors
    """
    checks.refuse_outside(alpha=(alpha, LEAST, MOST))
    if file.is_dir():
        raise UsageError(f"{file} is a folder", f"name the file in it: {file / 'pytorch_lora_weights.safetensors'}")
    with screen.working("reading"):
        from styledrop_cli.adapters import diffusers_lora

        ours = diffusers_lora.is_ours(file)
    if ours:
        if style is not None or alpha is not None:
            raise UsageError(f"{file} holds its style and its alpha", "leave --style and --alpha out")
        if save_as is not None:
            raise UsageError(f"{file} becomes a folder for diffusers, and no style", "leave --save-as out")
        _take_out(file, output or library.beside(file, FOLDER.format(file.stem)), overwrite, model, screen)
    else:
        _bring_in(file, style, alpha, output, save_as, overwrite, model or DEFAULT, screen)


def _bring_in(
    file: Path,
    style: str | None,
    alpha: float | None,
    output: Path | None,
    save_as: str | None,
    overwrite: bool,
    model: str,
    screen: console.Screen,
) -> None:
    from styledrop_cli.adapters import diffusers_lora

    hint = f'give the words for it that it was trained with: styledrop convert {shlex.quote(str(file))} --style "..."'
    if style is None:
        raise UsageError(f"{file} does not say what style it draws", hint)
    style = checks.typed_text(style, "--style", hint)
    output = checks.adapter_output(output, OUTPUT, save_as, overwrite)
    row = PUBLISHED.get(model.partition("+")[0])  # what does not fit a known base is refused before that is fetched
    lora = diffusers_lora.read_lora(file, row) if row else None
    base = diffusers_lora.published_base(load.located(screen, model))
    lora = lora or diffusers_lora.read_lora(file, base.spec)
    header = diffusers_lora.bring_in(lora, base, style=style, alpha=alpha, output=output, on_message=screen.say)
    config = header.config
    screen.say(f"rank {config['rank']}, alpha {config['alpha']:g}, {', '.join(config['targets'])}; the adapter:")
    kept = load.keep(screen, output, save_as, overwrite)
    about = {"adapter": output, "saved_as": save_as if kept else None, "style": style, **config}
    screen.result(about | {"base": header.base["name"]}, [output])
    say_how_to_draw(screen, (kept and save_as) or output, model)
    if not kept:
        raise typer.Exit(1)


def _take_out(file: Path, folder: Path, overwrite: bool, model: str | None, screen: console.Screen) -> None:
    from styledrop_cli.adapters import diffusers_lora
    from styledrop_cli.base.prompt_tokens import with_style

    own = diffusers_lora.read_own(file)
    output = folder / diffusers_lora.WEIGHTS
    checks.refuse_unwritable(folder)
    checks.refuse_output(output, overwrite)
    name = str(own.header.base.get("name"))
    if model is None and name not in PUBLISHED:
        raise UsageError(f"{file} was trained on {name}, which is a base of your own", "name its folder with --model")
    base = diffusers_lora.published_base(load.located(screen, model, file))
    diffusers_lora.take_out(own, base, output)
    header = own.header
    scale = 1 + header.recommended.get("lambda_b", 0.0)
    what, prompt = "style", with_style("a cat", header.style)
    if header.is_object:
        what, prompt = "object", header.name
    screen.say(f"name the {what} in prompts, '{prompt}', and set guidance_scale to {scale:g}; the LoRA:")
    about = {"lora": output, "style": header.style, "prompt": prompt, "guidance_scale": scale}
    screen.result(about, [output])
    call = (
        f'load_lora_adapter("{folder}", weight_name="{diffusers_lora.WEIGHTS}", prefix="{diffusers_lora.PREFIX[:-1]}")'
    )
    screen.say(f"load it:  pipe.transformer.{call}", "dim")
