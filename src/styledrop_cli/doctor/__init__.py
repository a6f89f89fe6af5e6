"""What is here and what is wrong with it: the checks behind `styledrop doctor`.

Whatever may be broken, torch before all, is tried in a process of its own: it may raise, hang or take its process
along, and the doctor goes on. So nothing is imported here that is not Python's, but for `hub`, which is light.
"""

from __future__ import annotations

from styledrop_cli.base import hub
from styledrop_cli.doctor import asking, libraries, machine, models, surroundings
from styledrop_cli.doctor.asking import BASE, DEVICES
from styledrop_cli.doctor.findings import NOTE, Finding

__all__ = ["NOTE", "Finding", "examine"]


def examine(model: str = hub.BUNDLED, *, thorough: bool = False) -> list[Finding]:
    """Look at everything, in the order in which it is told; what is wrong is no error, but found.

    ``model`` is loaded beside the bundled base. ``thorough`` compares fetched models with their sums, which reads all
    of their bytes.
    """
    folder, missing = (None, []) if model == hub.BUNDLED else models.located(model)
    bases = [hub.find(hub.BUNDLED), *([folder] if folder else [])]
    answers = asking.ask([*libraries.LIBRARIES.values(), DEVICES, *(f"{BASE}{one}" for one in bases)])
    said = answers.get(DEVICES, {})
    return [
        *libraries.versions(),
        *libraries.imports(answers),
        *machine.hardware(said),
        *machine.devices(said),
        *models.bundled(answers),
        *missing,
        *(models.named(model, folder, answers) if folder else ()),
        *models.fetched(thorough),
        *surroundings.folder(),
        *surroundings.environment(),
    ]
