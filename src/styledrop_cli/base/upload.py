"""Files from here into a repository of the Hugging Face hub."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from styledrop_cli.base.hub import REPOSITORY
from styledrop_cli.base.hub_files import Errand, UnreachableError, talking
from styledrop_cli.errors import StyledropError, UsageError

LOG_IN = "log in with 'hf auth login', or set HF_TOKEN to a token that may write: {}/settings/tokens"


def check_repository(repo: str) -> str:
    """``repo`` as it is; raises UsageError for what no repository of the hub is called."""
    if not REPOSITORY.fullmatch(repo):
        hint = "give both, your name on the hub in front: anna/ink"
        said = re.sub(r".*huggingface\.co/|/+$", "", repo)
        if said != repo and REPOSITORY.fullmatch(said):
            hint = f"give it without the address: {said}"
        raise UsageError(f"'{repo[:100]}' is no repository of the hub (owner/name)", hint)
    return repo


def refuse_no_access(repo: str) -> None:
    """Raise UsageError if nobody is logged in, StyledropError if the hub must not be asked; nothing is asked yet."""
    from huggingface_hub import constants, get_token

    if constants.HF_HUB_OFFLINE:
        raise StyledropError(f"HF_HUB_OFFLINE forbids to push to {repo}", "say it without HF_HUB_OFFLINE")
    if not get_token():
        raise UsageError(f"nobody is logged in to push to {repo}", LOG_IN.format(constants.ENDPOINT))


def open_repository(repo: str, private: bool) -> None:
    """Make a repository, if there is none, and see that files may be put into it.

    One that is there stays as public or private as it is. Raises ModelError if this user may not write to it,
    StyledropError if the hub cannot be reached.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    with _pushing(repo):
        HfApi().create_repo(repo, private=private, exist_ok=True)
        # The hub is asked how it would take a small file, which it tells only those who may write.
        HfApi().preupload_lfs_files(repo, [CommitOperationAdd("README.md", b"-")])


def upload(repo: str, files: Sequence[Path], names: Collection[str], message: str) -> str:
    """Put ``files`` into a repository under their own names, all or none of them; returns the address of the commit.

    Those of the ``names`` that are in it and not among them are removed. What is not changed by that makes no commit.
    Raises as ``open_repository`` does.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    with _pushing(repo):
        there = {one.rfilename for one in HfApi().model_info(repo).siblings or ()}
        gone = there.intersection(names) - {path.name for path in files}
        added = [CommitOperationAdd(path.name, str(path)) for path in files]
        removed = [CommitOperationDelete(name) for name in sorted(gone)]
        return str(HfApi().create_commit(repo, [*added, *removed], commit_message=message).commit_url)


@contextmanager
def _pushing(repo: str) -> Iterator[None]:
    from huggingface_hub import constants

    errand = Errand(
        repo,
        f"{repo} may not be written to with the token that was sent",
        "",
        done="pushed to",
        allowed="written to",
        token=f"if {repo.partition('/')[0]} is you or an organisation of yours, {LOG_IN.format(constants.ENDPOINT)}",
    )
    try:
        with talking(errand):
            yield
    except RuntimeError as error:  # what uploads large files raises it around the true error
        cause = error.__cause__ or error
        words = (str(cause).strip().splitlines() or [type(cause).__name__])[0]
        raise UnreachableError(
            f"{repo} cannot be pushed to {constants.ENDPOINT}: {words[:100]}", "try again: nothing is pushed by halves"
        ) from error
