"""What is refused of what was given, before anything is loaded: paths, numbers and texts.

All of these raise UsageError, which says what is wrong, with which value, and what to do.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from styledrop_cli.adapters import library
from styledrop_cli.cli.console import helps
from styledrop_cli.errors import UsageError
from styledrop_cli.generation.lists.foreign import foreign, literal
from styledrop_cli.generation.lists.prompt_file import OPTION_INSIDE, OTHERS, SUFFIXES, read_lines
from styledrop_cli.generation.lists.wildcards import Template
from styledrop_cli.io.files import real_place, to_text
from styledrop_cli.io.run_names import run_of
from styledrop_cli.io.text_files import MOST, plain, says_something
from styledrop_cli.settings import checked_weights, exact

ADAPTER = ".safetensors"


# ---- paths ----


def refuse_output(
    output: Path, overwrite: bool = False, *, suffix: str = "", run: bool = False, option: str = "-o"
) -> None:
    """Refuse a file that cannot be written, or stands where another one is; nothing is made.

    Its name has to end in `suffix`. `run` is whether the work on it has a folder beside it.
    """
    refuse_long_name(run_of(output) if run else output, option)
    if output.is_dir():
        raise UsageError(f"{output} is a folder", f"name a file with {option}")
    if output.exists() and not output.is_file():
        raise UsageError(f"{output} is no ordinary file", f"name a file with {option}")
    if not output.name.endswith(suffix):
        raise UsageError(f"the name of the output, {output}, does not end in {suffix}", f"choose another with {option}")
    if output.exists() and not overwrite:
        raise UsageError(f"{output} is already there", f"choose another name with {option}, or say --overwrite")
    for folder in {output.parent, real_place(output).parent}:
        refuse_unwritable(folder, option)


def adapter_output(
    output: Path | None, default: Path, save_as: str | None, overwrite: bool, *, run: bool = False
) -> Path:
    """The adapter file to write: `output`, or that of the style `save_as` in the library, or the `default`.

    Refused as by `refuse_output`, and where a style is called so already.
    """
    if save_as is not None:
        refuse_name(save_as, overwrite, run=run and output is None)
    made = output or (default if save_as is None else library.file_of(save_as))
    refuse_output(made, overwrite, suffix=ADAPTER, run=run, option="-o" if output or not save_as else "--save-as")
    return made


def refuse_name(save_as: str, overwrite: bool, *, run: bool = False) -> None:
    """Refuse a name that a style of the library has already, unless it is to be replaced, and one that none can have.

    `run` is whether a training writes it, which may have been stopped half way and go on.
    """
    library.refuse_taken(save_as, overwrite)
    if not (run or overwrite):
        library.refuse_unfinished(save_as)
    refuse_unwritable(library.folder(), library.VARIABLE)


def refuse_long_name(path: Path, option: str = "-o") -> None:
    """Refuse a path whose name the system finds too long."""
    try:
        path.lstat()
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            size = len(os.fsencode(path.name))
            raise UsageError(
                f"the name {path.name[:40]}... is too long: {size} bytes", f"choose a shorter one with {option}"
            ) from None


def refuse_unwritable(folder: Path, option: str = "-o") -> None:
    """Refuse a folder in which nothing can be written, without making it."""
    refuse_long_name(folder, option)
    there = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    if not there.is_dir():
        raise UsageError(f"{there} is a file", f"name a folder with {option}")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UsageError(f"the folder {there} may not be written to", f"choose another place with {option}")


def refuse_no_adapter(path: Path, hint: str) -> None:
    """Refuse what is no adapter file by its name."""
    if path.suffix != ADAPTER:
        raise UsageError(f"'{path}' is no adapter file (*{ADAPTER})", hint)


def refuse_busy(folder: Path) -> None:
    """Refuse a folder that another process works in, unless this one helps it; nothing is made."""
    if not helps():
        from styledrop_cli.io import run_folder

        run_folder.refuse_busy(folder)


# ---- numbers ----


def refuse_outside(**numbers: tuple[float | None, float, float]) -> None:
    """Refuse numbers outside their ranges, all of them at once: `option=(value, least, most)`."""
    if problems := outside(**numbers):
        raise UsageError("; ".join(problems))


def outside(**numbers: tuple[float | None, float, float]) -> list[str]:
    """What `refuse_outside` says of each number that is outside its range."""
    return [
        f"--{name.replace('_', '-')} must be between {exact(least)} and {exact(most)}, not {value}"
        for name, (value, least, most) in numbers.items()
        if value is not None and not least <= value <= most
    ]


# ---- texts ----


def given_text(text: str, what: str) -> str:
    """A text of the command line as UTF-8, whatever encoding the system says that it has."""
    if to_text(text) == text:
        return text
    try:
        return os.fsencode(text).decode()
    except UnicodeError:
        raise UsageError(
            f"{what} holds bytes that are no text in UTF-8: '{to_text(text)[:40]}'",
            "set the terminal to UTF-8, or write prompts into a file and name it with --prompts",
        ) from None


def plain_text(text: str, what: str, hint: str) -> str:
    """`text` without control characters and with single blanks, refused if no letter, digit or sign is left."""
    said = plain(given_text(text, what))
    if not says_something(said):
        raise UsageError(f"{what} says nothing: '{said[:40]}'" if said else f"{what} is empty", hint)
    return said


def typed_text(text: str, what: str, hint: str) -> str:
    """`plain_text` of what a person typed, in which a backslash keeps a bracket as it is."""
    text = given_text(text, what)
    refuse_foreign(text, what)
    return plain_text(literal(text), what, hint)


def refuse_foreign(text: str, what: str) -> None:
    """Refuse a text that holds what only other programs read."""
    if problem := foreign(text):
        raise UsageError(f"{what}: {problem[1]}", problem[2])


def checked_prompts(prompts: Sequence[str], command: str, *, templates: bool = False) -> list[str]:
    """What to draw, as plain texts; those that are `templates` keep their backslashes.

    Refused are none, what says nothing, files, options, what only other programs read, and the words of a prompt that
    was not quoted. `command` is what they were given to, as it was typed, for the hint.
    """
    if not prompts:
        raise UsageError("there is nothing to draw", f'add a prompt: {command} "a cat"')
    plain = [plain_text(prompt, "a prompt", 'say what to draw: "a cat"') for prompt in prompts]
    for prompt in plain:
        if option := OPTION_INSIDE.search(prompt):
            raise UsageError(f"a prompt holds an option: {option[0]}", f"write it behind the quotes: {option[0]} ...")
        refuse_foreign(prompt, "a prompt")
        if Path(prompt).suffix.lower() in {*SUFFIXES, *OTHERS} and Path(prompt).is_file():
            raise UsageError(f"{prompt} is a file, and no prompt", f"draw what it says with --prompts {prompt}")
    if any(prompt in ("a", "an", "the") for prompt in plain):
        raise UsageError(f"{len(plain)} prompts: {', '.join(plain)}", 'put each prompt in quotes: "a cat"')
    return plain if templates else [literal(prompt) for prompt in plain]


def prompts_in(path: Path) -> list[str]:
    """The prompts in a file, none with options of its own, each once; of one with wildcards, each variant."""
    prompts: dict[str, None] = {}
    for line in read_lines(path):
        if line.options:
            what = f"{line.where}: '{line.text[:40]}' has {', '.join(line.options)} of its own"
            raise UsageError(what, "leave that out: here all prompts are drawn alike")
        template = Template.read(line.text, line.where)
        if len(prompts) + template.count > MOST:
            raise UsageError(f"{path} holds more than {MOST:,} prompts", "draw fewer of them")
        said = (plain_text(one, f"a prompt in {line.where}", "say what to draw: a cat") for one in template.every())
        prompts |= dict.fromkeys(said)
    return list(prompts)


def checked_style(style: str | None) -> str | None:
    """What `--style` says instead of an adapter's own style, as a plain text; empty to drop it, None if not given."""
    if not style or not style.strip():
        return style
    return typed_text(style, "--style", 'describe the style in a few words, or drop it with --style ""')


def checked_contents(content: Sequence[str] | None, pictures: int, what: str, hint: str) -> list[str]:
    """What the reference pictures show, as plain texts: one for each, or none at all."""
    texts = [typed_text(text, "a --content", f'say what {what} shows: "a cat"') for text in content or []]
    if texts and len(texts) != pictures:
        raise UsageError(f"{what}s: {pictures}, --content texts: {len(texts)}", hint)
    return texts


def references_in(
    paths: Sequence[Path],
    weights: Sequence[float] | None,
    style: str,
    content: list[str] | None,
    on_message: Callable[[str], None],
) -> tuple[list[Path], list[float] | None, list[str] | None]:
    """The reference pictures, a folder's in the order of their names, their weights, and what they show.

    A folder's weight is that of each picture in it. Where nothing was said by --content of what they show, a folder's
    captions say it, without the style behind them. What they leave out is an error if there are some: UsageError, also
    for a folder without pictures, and for weights out of range.
    """
    checked_weights(weights, paths)
    if not any(path.is_dir() for path in paths):
        return list(paths), list(weights) if weights else None, content
    from styledrop_cli.corpus.folder import Record, records_in

    found: list[Record] = []
    each: list[float] = []
    for path, weight in zip(paths, weights or [1.0] * len(paths), strict=True):
        found += records_in(path, on_message) if path.is_dir() else [Record(path, ())]
        each += [weight] * (len(found) - len(each))
    pictures, said = [one.path for one in found], each if weights else None
    if content or not any(one.captions for one in found):
        return pictures, said, content
    if without := [one.path for one in found if not one.captions]:
        raise UsageError(
            f"{len(without)} of {len(found)} pictures have no caption, the first is {without[0]}",
            "put a .txt of the same name beside it, or say what all show with --content",
        )
    return pictures, said, [one.captions[0].removesuffix(f" in {style} style") for one in found]


def refuse_references(pictures: Sequence[Path]) -> None:
    """Refuse reference pictures that cannot be read or are transparent all over, with a PictureError.

    What there is to remark on them is said when they are read to learn from.
    """
    if pictures:
        from styledrop_cli.io.images import load_reference

        for picture in pictures:
            load_reference(picture)


def checked_references(
    pictures: Sequence[Path], style: str, content: Sequence[str] | None
) -> tuple[str, list[str] | None]:
    """The style and the contents as plain texts, once all is found that can be wrong with references by themselves."""
    style = typed_text(style, "--style", 'describe the style in a few words: "watercolor"')
    hint = "give one --content for each picture, in their order, or none"
    contents = checked_contents(content, len(pictures), "picture", hint)
    refuse_references(pictures)
    return style, contents or None
