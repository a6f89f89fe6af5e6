"""The studio's endpoints, in one table: routes, checks of what is sent, and openapi.json are all made of it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from styledrop_cli import __version__
from styledrop_cli.adapters import library
from styledrop_cli.errors import UsageError
from styledrop_cli.settings import KINDS, PRESETS, WEIGHTS, Checked, SampleSettings, TrainSettings
from styledrop_cli.studio.commands import DRAWING, LEARNING

Schema = dict[str, Any]

PROMPTS, LONGEST = 500, 1000  # of a command at most; characters of a text
SMALL, MASK = 250_000, 12_000_000  # bytes of a body
REFERENCE, ADAPTER = 40_000_000, 256_000_000  # of an upload
PAGE = 500  # pictures of an answer


def text(about: str, most: int = LONGEST, **more: Any) -> Schema:
    """A text of at most ``most`` characters."""
    return {"type": "string", "description": about, "maxLength": most, **more}


def whole(about: str, least: int, most: int) -> Schema:
    """A whole number."""
    return {"type": "integer", "description": about, "minimum": least, "maximum": most}


def number(about: str, least: float, most: float) -> Schema:
    """A number."""
    return {"type": "number", "description": about, "minimum": least, "maximum": most}


def yes_or_no(about: str) -> Schema:
    """True or false."""
    return {"type": "boolean", "description": about}


def listed(items: Schema, about: str, least: int, most: int) -> Schema:
    """A list of ``least`` to ``most`` items."""
    return {"type": "array", "description": about, "items": items, "minItems": least, "maxItems": most}


def fields(about: str, required: str = "", **properties: Schema) -> Schema:
    """An object that has these fields and no others."""
    made: Schema = {"type": "object", "description": about, "properties": properties, "additionalProperties": False}
    return made | ({"required": required.split()} if required else {})


def or_null(schema: Schema) -> Schema:
    """The same, or null."""
    return {**schema, "type": [schema["type"], "null"]}


def setting(settings: type[Checked], name: str) -> Schema:
    """A setting, by its own help and range."""
    kind, about = type(settings.defaults()[name]), settings.HELP[name]
    if kind in (bool, str):
        return yes_or_no(about) if kind is bool else text(about)
    least, most = settings.RANGES[name]
    return whole(about, int(least), int(min(most, 2**53))) if kind is int else number(about, least, most)


# ---- what bodies are made of ----

SEED = setting(SampleSettings, "seed")
MANY = whole("How many pictures, of each prompt.", 1, 100)
STYLE = text("The name of a style in the library.", library.LONGEST)
NAME = text("The name that the new style gets in the library.", library.LONGEST)
OVERWRITE = yes_or_no("Whether a style of that name may be replaced.")
A_PICTURE = text("The id of a picture: ink/a-cat-1.png.", 400)
COLOUR = r"(#?[0-9a-fA-F]{3,8}|[a-z]{3,24})"
LOOK = {
    "style": or_null(STYLE),
    "mix": listed(fields("A style and its share.", "name share", name=STYLE, share=number("Its share.", 0, 1)),
                  "Several styles in place of one; the shares add up to 1.", 0, 8),
    "prompts": listed(text("What to draw."), "What to draw.", 1, PROMPTS),
    "number": MANY,
    "seed": SEED,
    "size": or_null(setting(SampleSettings, "size")),
    "transparent": yes_or_no("Take the ground out."),
    "svg": yes_or_no("Also write SVG files, for GET /api/pictures/…/svg."),
    "palette": or_null(text("Colours, separated by blanks or commas, or keep.", 400,
                            pattern=rf"keep|{COLOUR}([ ,]+{COLOUR})*")),
    "palette_strength": or_null(setting(SampleSettings, "palette_strength")),
    "settings": fields(
        "How it is drawn; what is left out is as the style recommends.", "",
        preset=text("Settings that go together.", 20, pattern="|".join(PRESETS)),
        **{name: setting(SampleSettings, name) for name in DRAWING if name != "preset"},
    ),
}  # fmt: skip
OPTIONS = fields(
    "How it learns; what is left out is what suits the base model.",
    "",
    kind=text(TrainSettings.HELP["kind"], 20, pattern="|".join(KINDS)),
    layers=text(TrainSettings.HELP["layers"], 200, pattern="[a-z0-9, -]+"),
    superres=yes_or_no("Whether super-resolution learns the style, too."),
    **{name: setting(TrainSettings, name) for name in LEARNING if name not in ("kind", "layers", "superres")},
)
FROM = fields(
    "A reference.", "id",
    id=text("Its id.", 12), content=text("What it shows; left out it is guessed."),
    weight=number("How often it is learnt from, beside the others.", *WEIGHTS),
)  # fmt: skip


@dataclass(frozen=True)
class Endpoint:
    """A method and a path below the secret, which method of the server answers, and what is sent and answered.

    ``body`` is the JSON that a POST takes. ``takes`` are the media types of an upload in its place, of at most ``most``
    bytes. ``query`` has the parameters behind the path, ``gives`` the media type of what is answered.
    """

    method: str
    path: str
    handler: str
    about: str
    body: Schema | None = None
    takes: tuple[str, ...] = ()
    most: int = SMALL
    query: Mapping[str, Schema] | None = None
    gives: str = "application/json"


def _get(path: str, handler: str, about: str, **more: Any) -> Endpoint:
    return Endpoint("GET", path, handler, about, **more)


def _post(path: str, handler: str, about: str, required: str = "", **properties: Any) -> Endpoint:
    return Endpoint("POST", path, handler, about, fields("", required, **properties))


TAG = text("The tag of the picture: with it the browser keeps what it gets.", 40)
ONE = "/api/pictures/{style}/{file}"
JOB = "Answers {job, command}."
ENDPOINTS = (
    _get("/api/state", "state", "What there is and what goes on; with `after` once that is another than its tag, or "
         "10 s have passed.", query={"after": text("The tag of the state that is known.", 200)}),
    _get("/api/openapi.json", "openapi", "This description."),
    _get("/api/styles", "styles", "The styles of the library."),
    Endpoint("POST", "/api/styles/import", "import_style", "Put an adapter file into the library, under the name in "
             "the header X-Name.", takes=("application/octet-stream",), most=ADAPTER),
    _post("/api/styles/{name}/rename", "rename", "Give a style another name.", "name", name=NAME),
    _post("/api/styles/{name}/remove", "remove", "Delete a style, with the folder of its training."),
    _post("/api/styles/{name}/mix", "mix", f"One style made of two. {JOB}", "with share name", share=number(
          "The share of the other one.", 0, 1), name=NAME, overwrite=OVERWRITE, **{"with": STYLE}),
    _get("/api/styles/{name}/file", "style_file", "The adapter file.", gives="application/octet-stream"),
    _get("/api/styles/{name}/report", "report", "The report, once POST has made it.", gives="text/html"),
    _post("/api/styles/{name}/report", "make_report", f"Make the report of a style. {JOB}"),
    _get("/api/pictures", "pictures", "Pictures, the newest first: {pictures, next, total}.", query={
         "style": text("Of this style alone.", 100), "after": text("Those behind this id.", 400),
         "limit": whole("How many.", 1, PAGE), "hearted": whole("1: those with a heart alone.", 0, 1)}),
    _get(f"{ONE}/file", "picture_file", "The PNG; with download=1 to be saved.", gives="image/png",
         query={"download": text("1 to have it saved.", 1), "tag": TAG}),
    _get(f"{ONE}/svg", "picture_svg", "The SVG file, where there is one.", gives="image/svg+xml",
         query={"download": text("1 to have it saved.", 1)}),
    _get(f"{ONE}/thumb", "thumb", "The picture with at most 256 px a side.", gives="image/webp",
         query={"tag": TAG}),
    _post(f"{ONE}/heart", "heart", "Give a picture a heart, or take it.", "on", on=yes_or_no("Whether it has one.")),
    _post(f"{ONE}/delete", "delete", "Move a picture to the trash, which is emptied when the studio ends."),
    _post(f"{ONE}/restore", "restore", "Take a picture from the trash."),
    _get("/api/references", "references", "The reference pictures, the newest first."),
    Endpoint("POST", "/api/references", "add_reference", "Keep a reference picture, whose name is in the header X-Name "
             "(percent-encoded UTF-8).", takes=("image/png", "image/jpeg", "image/webp"), most=REFERENCE),
    _post("/api/references/{id}/delete", "delete_reference", "Remove a reference."),
    _get("/api/references/{id}/file", "reference_file", "The picture as it came.", gives="image/*"),
    _get("/api/references/{id}/crop", "reference_crop", "The square that is learnt from.", gives="image/png"),
    _get("/api/references/{id}/seen", "reference_seen", "What the base model sees of it.", gives="image/png"),
    _get("/api/references/{id}/about", "about_reference", "What it shows, and how much of it the base model keeps: "
         "{ready, width, height, guess, edges_kept, warning, error}."),
    _post("/api/learn", "learn", f"Learn a style. {JOB}", "references style name",
          references=listed(FROM, "What is learnt from.", 1, 32), style=text("The style in a few words."),
          name=NAME, overwrite=OVERWRITE, options=OPTIONS),
    _get("/api/learn/{job}/samples", "samples", "Sheets of test pictures of a training: [{step, url}]."),
    _get("/api/learn/{job}/samples/{step}", "sample", "One of them.", gives="image/png"),
    _post("/api/draw", "draw", f"Draw pictures. {JOB}", "prompts", **LOOK),
    _post("/api/preview", "preview", f"A rough picture of the first prompt; a newer one replaces one that waits. {JOB}",
          "prompts", **LOOK),
    _get("/api/preview/{job}/file", "preview_file", "That picture.", gives="image/png"),
    _post("/api/vary", "vary", f"Pictures near one that is there. {JOB}", "picture", picture=A_PICTURE,
          much=number("The share that is drawn anew.", 0, 1), number=MANY, seed=SEED),
    _post("/api/again", "again", f"A picture's prompt, seed and settings in another style. {JOB}", "picture style",
          picture=A_PICTURE, style=STYLE),
    Endpoint("POST", "/api/edit", "edit", f"Draw a part of a picture anew. {JOB}", fields(
             "", "picture prompt mask", picture=A_PICTURE, prompt=text("What that part shows."),
             mask=text("A PNG as data URL, white where it is drawn anew, elsewhere transparent.", MASK),
             number=MANY, seed=SEED), most=MASK),
    _post("/api/improve", "improve", f"A round of feedback from the pictures of a style that have a heart. {JOB}",
          "style", style=STYLE, name=NAME, overwrite=OVERWRITE, steps=whole("Training steps.", 1, 1_000_000)),
    _get("/api/rounds", "rounds", "The rounds of a style on the same prompts.", query={"style": STYLE}),
    _get("/api/rounds/{folder}/{round}/{place}", "round_picture", "One of their pictures.", gives="image/png"),
    _post("/api/rounds/keep", "keep_round", "Let a round be the style from now on; 0 is the style that they began "
          "with.", "style round", style=STYLE, round=whole("Which round.", 0, 10_000)),
    _post("/api/jobs/{job}/cancel", "cancel", "Stop a job as Ctrl-C does."),
    _post("/api/jobs/{job}/resume", "resume", "Go on with a job that was stopped, cancelled or failed."),
    _post("/api/jobs/{job}/forget", "forget", "Take a job that is over from the list; what it made stays."),
    _get("/api/jobs/{job}/log", "log", "What its command printed.", gives="text/plain"),
)  # fmt: skip


# ---- checks ----

TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,), "integer": (int,), "number": (int, float), "boolean": (bool,), "array": (list,),
    "object": (dict,), "null": (type(None),),
}  # fmt: skip

WORDS = {"string": "text", "integer": "a whole number", "number": "a number", "boolean": "true or false",
         "array": "a list", "object": "an object", "null": "null"}  # fmt: skip


def check(value: Any, schema: Schema, where: str = "it") -> None:
    """Raise UsageError for a ``value`` of JSON that is not as ``schema`` says; ``where`` it stands."""
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    if not any(isinstance(value, TYPES[kind]) and isinstance(value, bool) == (kind == "boolean") for kind in kinds):
        raise UsageError(f"{where} is not {' or '.join(WORDS[kind] for kind in kinds)}")
    if isinstance(value, str):
        if len(value) > schema.get("maxLength", LONGEST):
            raise UsageError(f"{where} has more than {schema['maxLength']:,} characters")
        if "pattern" in schema and not re.fullmatch(schema["pattern"], value):
            raise UsageError(f"{where} cannot be '{value[:40]}'")
        try:
            value.encode()
        except UnicodeEncodeError:
            raise UsageError(f"{where} holds half a character") from None
    elif isinstance(value, int | float) and not isinstance(value, bool):
        if not (math.isfinite(value) and schema["minimum"] <= value <= schema["maximum"]):
            raise UsageError(f"{where} must be between {schema['minimum']:,.12g} and {schema['maximum']:,.12g}")
    elif isinstance(value, list):
        if not schema["minItems"] <= len(value) <= schema["maxItems"]:
            least, most = schema["minItems"], schema["maxItems"]
            raise UsageError(f"{where} has {len(value):,} entries: from {least} to {most:,} are taken")
        for place, one in enumerate(value, 1):
            check(one, schema["items"], f"entry {place} of {where}")
    elif isinstance(value, dict):
        if unknown := [name for name in value if name not in schema["properties"]]:
            raise UsageError(f"{where} has no field '{unknown[0][:40]}'")
        if missing := [name for name in schema.get("required", ()) if name not in value]:
            raise UsageError(f"{missing[0]} is missing")
        for name, one in value.items():
            check(one, schema["properties"][name], name)


# ---- the description ----


def openapi() -> dict[str, Any]:
    """The table as OpenAPI 3.1."""
    paths: dict[str, Any] = {}
    for one in ENDPOINTS:
        parameters = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in re.findall(r"\{(\w+)\}", one.path)
        ] + [{"name": name, "in": "query", "schema": schema} for name, schema in (one.query or {}).items()]
        said: dict[str, Any] = {"operationId": one.handler, "summary": one.about}
        if parameters:
            said["parameters"] = parameters
        if one.body is not None:
            said["requestBody"] = {"required": True, "content": {"application/json": {"schema": one.body}}}
        if one.takes:
            upload = {"schema": {"type": "string", "format": "binary"}}
            said["requestBody"] = {"required": True, "content": dict.fromkeys(one.takes, upload)}
        said["responses"] = {
            "200": {"description": "Done.", "content": {one.gives: {}}},
            "default": {"$ref": "#/components/responses/Error"},
        }
        paths.setdefault(one.path, {})[one.method.lower()] = said
    failed = fields("", "error", error=text("What was wrong."), hint=or_null(text("What to do.")))
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "styledrop studio",
            "version": __version__,
            "description": "Every path is below the secret that `styledrop studio` prints. What changes something "
            "needs the header `Authorization: Bearer SECRET`, unless the page itself sends it.",
        },
        "servers": [{"url": "http://127.0.0.1:{port}/{secret}", "variables": {
            "port": {"default": "0"}, "secret": {"default": "SECRET"}}}],
        "paths": paths,
        "components": {
            "responses": {"Error": {"description": "Not done.", "content": {"application/json": {"schema": failed}}}},
            "securitySchemes": {"secret": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"secret": []}],
    }  # fmt: skip
