"""What recipes have made under a base directory: which steps are complete, and moving earlier
results out of the way.

Kept in `<base>/recipes.json`. Nothing is ever deleted: it moves to `<base>/previous/<time>`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nanochat.launch.recipes import RecipeStep
from nanochat.runtime.files import atomic_write
from nanochat.runtime.previous import set_aside, sizes


@dataclass
class Ledger:
    """The record of one recipe's steps, in a file shared by all recipes of this base directory."""

    base: Path
    recipe: str

    @property
    def file(self) -> Path:
        return self.base / "recipes.json"

    def read(self) -> dict[str, dict[str, Any]]:
        """`steps`: recipe/step -> its last run; `places`: path -> who made it. Empty when absent or
        damaged.
        """
        try:
            data = json.loads(self.file.read_text(encoding="utf-8"))
            return {"steps": dict(data["steps"]), "places": dict(data["places"])}
        except (OSError, ValueError, KeyError, TypeError):
            return {"steps": {}, "places": {}}

    def write(self, data: dict[str, dict[str, Any]]) -> None:
        atomic_write(self.file, json.dumps(data, indent=2) + "\n")

    def key(self, step: RecipeStep) -> str:
        return f"{step.recipe or self.recipe}/{step.name}"

    def note(self, step: RecipeStep, fingerprint: str, state: str, **more: Any) -> None:
        """Remember that a step was started or completed."""
        data = self.read()
        data["steps"][self.key(step)] = {"state": state, "fingerprint": fingerprint, **more}
        for place in step.makes:
            data["places"][place] = {
                "recipe": step.recipe or self.recipe,
                "fingerprint": fingerprint,
                "download": step.download,
            }
        self.write(data)

    def complete(self, step: RecipeStep, fingerprint: str) -> bool:
        """True when the step finished with these settings and nobody has replaced what it made."""
        data = self.read()
        known = data["steps"].get(self.key(step), {})
        if known.get("state") != "complete" or known.get("fingerprint") != fingerprint:
            return False
        for place in step.makes:
            owner = data["places"].get(place, {})
            same = (
                owner.get("download") if step.download else owner.get("fingerprint") == fingerprint
            )
            if not same or not holds_something(self.base / place):
                return False
        return True

    def unfinished(self, step: RecipeStep, fingerprint: str) -> bool:
        """True when the step was started with these settings and did not finish: a training may go
        on from there.
        """
        known = self.read()["steps"].get(self.key(step), {})
        return known.get("state") == "started" and known.get("fingerprint") == fingerprint

    def forget(self, step: RecipeStep, when: str) -> list[str]:
        """Make a step not complete and move what it made away (downloads stay). Returns lines to
        show.
        """
        data = self.read()
        data["steps"].pop(self.key(step), None)
        self.write(data)
        places = () if step.download else step.makes
        return [line for place in places for line in self.set_aside(place, when)]

    def in_the_way(self, step: RecipeStep, fingerprint: str) -> list[str]:
        """Places where this step writes and where others left something. A step that was
        interrupted with the same settings finds its own, and downloads add to downloads.
        """
        found, places = [], self.read()["places"]
        for place in step.makes:
            owner = places.get(place)
            if step.download:
                foreign = owner is not None and not owner.get("download")
            else:
                foreign = owner is None or owner.get("fingerprint") != fingerprint
            if foreign and holds_something(self.base / place):
                found.append(place)
        return found

    def clear_way(self, step: RecipeStep, fingerprint: str, when: str) -> list[str]:
        """Move what others left where this step writes: a longer old run must not be taken for the
        newest one.
        """
        places = self.in_the_way(step, fingerprint)
        return [line for place in places for line in self.set_aside(place, when)]

    def set_aside(self, place: str, when: str) -> list[str]:
        """Move a file, or what a folder holds, into the dated folder `when`. Nothing is deleted."""
        data = self.read()
        data["places"].pop(place, None)
        target = set_aside(self.base / place, self.base, when)
        if target is None:
            return []
        self.write(data)
        n_files, n_bytes = sizes(target)
        return [
            f"set aside: earlier {place} is now in {target} ({n_files} files, "
            f"{n_bytes / 1e9:.2f} GB)"
        ]


def holds_something(place: Path) -> bool:
    return place.is_file() or (place.is_dir() and any(place.iterdir()))
