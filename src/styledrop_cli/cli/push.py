"""`styledrop push`: an adapter and its model card to the Hugging Face hub."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from styledrop_cli.base.upload import check_repository, open_repository, refuse_no_access, upload
from styledrop_cli.cli import checks, console, drawing, load, options
from styledrop_cli.cli.options import flag, option
from styledrop_cli.errors import UsageError
from styledrop_cli.settings import SampleSettings

if TYPE_CHECKING:
    from PIL.Image import Image

    from styledrop_cli.adapters.header import AdapterFile
    from styledrop_cli.base.base import Base

FOLDER = Path("styledrop-push")


@dataclass(frozen=True, kw_only=True)
class Card:
    """What stands on the model card, and what goes along with it."""

    PANEL: ClassVar = "The model card"

    license_id: Annotated[
        str | None,
        option(
            "Under what licence you give the adapter away, as SPDX and the hub call it: cc-by-4.0, mit. If not given, "
            "you are asked in a terminal.",
            "--license",
            metavar="ID",
        ),
    ] = None
    prompt: Annotated[
        list[str] | None,
        option(
            "What the example sheet shows; repeat it for each picture. Of a single one, six are drawn.",
            shown="six things that the base model knows",
        ),
    ] = None
    sheet: Annotated[bool, flag("Draw an example sheet.", "--sheet/--no-sheet")] = True
    references: Annotated[
        bool,
        flag(
            "Whether the tokens and the thumbnail of the reference go along. Without them the adapter draws the same, "
            "and nobody can train it further or judge it by them.",
            "--references/--no-references",
        ),
    ] = True

    def prompts(self, command: str) -> list[str]:
        """The prompts of the sheet, none if none were given; UsageError for those that cannot be drawn."""
        if not self.prompt:
            return []
        if not self.sheet:
            raise UsageError("--prompt is for the sheet, and there is none", "leave out --prompt or --no-sheet")
        return checks.checked_prompts(self.prompt, f"{command} --prompt")

    def license(self, screen: console.Screen) -> str:
        """The licence that was given, or that is asked for; UsageError if there is none, or it is no licence."""
        from styledrop_cli.adapters.share import COMMON_LICENSES, checked_license

        said = self.license_id or screen.ask(f"Under what licence do you give it away ({COMMON_LICENSES}, ...)?")
        if not said:
            raise UsageError(
                "nothing says under what licence the adapter is given away",
                f"say it with --license: {COMMON_LICENSES}, ...",
            )
        return checked_license(said)


def push(
    adapter: options.AdapterFile,
    repo: Annotated[
        str, typer.Argument(metavar="OWNER/NAME", help="The repository: your name on the hub, and a name.")
    ],
    *,
    private: Annotated[
        bool, flag("Make the repository for your eyes only; one that is there stays as it is.", "--private")
    ] = False,
    dry_run: Annotated[bool, flag("Write what would be pushed into a folder, and push nothing.", "--dry-run")] = False,
    output: Annotated[Path | None, options.output("FOLDER", "The folder of --dry-run.", shown=f"{FOLDER}")] = None,
    overwrite: options.Overwrite = False,
    card: Card,
    model: options.OwnModel = None,
    seed: options.FirstSeed = SampleSettings.seed,
    device: options.Device = "auto",
    screen: console.Screen,
) -> None:
    """Put an adapter on the Hugging Face hub, with a model card.

    The card says what the style is, how to use it and how it was trained, and
    shows pictures that are drawn now. Log in first: hf auth login. Of the
    reference picture its tokens, a thumbnail and your words for it are pushed;
    the names of your files and folders stay here.

      styledrop push ink anna/ink --license cc-by-4.0
      styledrop push adapter.safetensors anna/ink --license mit --dry-run
    """
    check_repository(repo)
    SampleSettings(seed=seed)
    prompts = card.prompts(f"styledrop push {adapter} {repo}")
    if not dry_run:
        if output is not None or overwrite:
            raise UsageError("--output and --overwrite are for --dry-run", "leave them out, or say --dry-run, too")
        refuse_no_access(repo)
    license_id = card.license(screen)
    with screen.working("reading"):
        from styledrop_cli.adapters import share
        from styledrop_cli.adapters.header import load_adapter

        file = load_adapter(adapter)
        made = share.for_others(file, repo, card.references)
    with ExitStack() as stack:
        folder = output or FOLDER
        if not dry_run:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for name in share.FILES:
            checks.refuse_output(folder / name, overwrite)
        base = _base(screen, file, model, device) if card.sheet else None
        if not dry_run:
            with screen.working(f"asking for {repo}"):
                open_repository(repo, private)
        picture = None
        if base is not None:
            prompts, picture = _examples(screen, base, file, prompts, seed)
        paths = share.write_folder(folder, made, share.Sharing(repo, license_id, prompts, picture))
        _say_what_leaves(screen, made)
        about = {"repository": repo, "license": license_id, "files": [path.name for path in paths]}
        if dry_run:
            screen.result({"folder": folder, **about}, paths)
            return
        with screen.working(f"pushing to {repo}"):
            commit = upload(repo, paths, share.FILES, share.message_of(made))
    screen.say(f"who wants it says:  styledrop pull {repo}", "dim")
    screen.result({"commit": commit, **about}, [commit])


def _base(screen: console.Screen, file: AdapterFile, model: str | None, device: str) -> Base:
    """The base model of the examples, once it is sure that the adapter is for it."""
    with load.loading(screen, model, device, file.path) as load_base:
        from styledrop_cli.generation.examples import mixture_of

        base = load_base()
        mixture_of(file).open(base)
    return base


def _examples(
    screen: console.Screen, base: Base, file: AdapterFile, prompts: list[str], seed: int
) -> tuple[list[str], bytes]:
    """The prompts of the example sheet, each once, and the sheet as JPEG."""
    from styledrop_cli.generation.examples import example_requests, example_sheet, mixture_of
    from styledrop_cli.generation.pipeline import draw

    wanted = example_requests(base, file, prompts, seed)
    screen.warn_of_unknown(base, [one.prompt for one in wanted], mixture_of(file).learnt)
    drawn: list[Image] = []

    def pictures(on_step: Callable[[float], None]) -> Iterator[Image]:
        for _, image in draw(base, mixture_of(file), wanted, on_step):  # of equal settings, and so in their order
            drawn.append(image)
            yield image

    drawing.follow(screen, "drawing examples", pictures, 0, len(wanted))
    return list(dict.fromkeys(one.prompt for one in wanted)), example_sheet(drawn, wanted, file.header.name)


def _say_what_leaves(screen: console.Screen, made: AdapterFile) -> None:
    """Say what of this machine is in what is pushed."""
    header = made.header
    words = "; ".join(dict.fromkeys(said for said in (header.style, *header.contents) if said))
    held = "its tokens, a thumbnail and " if header.pictures else ""
    screen.say(f"of the reference it holds {held}your words for it ({words}), and none of your files' names")
