"""`nanochat push MODEL REPO`: a checkpoint from the machine it was trained on to the hub."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, TypeVar

from nanochat.config import Positional
from nanochat.dataset.hub import hub_endpoint, offline
from nanochat.exchange.export_gguf import GGUFExportConfig, export_gguf
from nanochat.exchange.export_hf import HFExportConfig, export_hf
from nanochat.exchange.model_card import model_card
from nanochat.exchange.optional_module import needed
from nanochat.exchange.repo_files import REPO
from nanochat.exchange.secrets import LEFT_OUT, VALUES, without_secrets
from nanochat.exchange.stored_model import StoredModel, open_stored
from nanochat.model_spec import parse_spec
from nanochat.runtime.errors import reason
from nanochat.runtime.files import atomic_write, sha256_file

T = TypeVar("T")
Layout = Literal["native", "hf", "hf-stock", "gguf"]
ATTEMPTS = 5
LICENSE_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789.-")


@dataclass
class PushConfig:
    """Upload a checkpoint to a repository on the hub, private unless told otherwise."""

    model: Positional[str]
    """The checkpoint: stage[:tag[:step]] such as sft:d20."""
    repo: Positional[str]
    """owner/name on the hub; made when it is not there."""
    layouts: tuple[Layout, ...] = ("native",)
    """What to upload: native, hf (or hf-stock), gguf. Exports are checked first."""
    license: str | None = None
    """The licence by the hub's name for it, such as mit; asked for in a terminal, never guessed."""
    public: bool = False
    """Let everybody see the repository, where it is made now."""
    wait_s: float = 1.0
    """First pause after a network error, s; doubled each time."""

    def problems(self) -> list[str]:
        found = []
        try:
            parse_spec(self.model)
        except ValueError as error:
            found.append(f"{self.model}: {error}")
        if not REPO.fullmatch(self.repo) or "@" in self.repo:
            found.append(f"{self.repo}: write a repository as owner/name")
        if not self.layouts or {"hf", "hf-stock"} <= set(self.layouts):
            found.append("--layouts: name at least one, and hf or hf-stock but not both")
        if self.license is not None and (not self.license or set(self.license) - LICENSE_LETTERS):
            found.append(f"--license={self.license}: use the hub's name for it, such as mit")
        if not self.wait_s >= 0:
            found.append(f"--wait-s={self.wait_s}: must be 0 or more")
        return found


def push(cfg: PushConfig) -> str:
    """Upload; prints what is done and returns the address. Run again it goes on where it stopped.
    Raises ValueError when the hub cannot be reached or refuses.
    """
    hub = needed("huggingface_hub")
    if offline():
        raise ValueError("HF_HUB_OFFLINE is set; unset it to upload")
    license_id = cfg.license or _asked_license()
    if license_id is None:
        print("no licence is named in the card: nobody said which; add --license=NAME")
    model = open_stored(parse_spec(cfg.model))
    with tempfile.TemporaryDirectory(prefix="nanochat-push-") as place:
        folder = Path(place)
        for name in fill(folder, model, cfg, license_id):
            print(f"left out of the upload, it looks like a secret: {name}")
        upload(hub, folder, cfg)
    address = f"{hub_endpoint()}/{cfg.repo}"
    print(f"{model.name} -> {address}")
    return address


def _asked_license() -> str | None:
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return None
    answer = input("licence for the card, such as mit or cc-by-4.0 (empty: none): ").strip().lower()
    return answer if answer and not set(answer) - LICENSE_LETTERS else None


def fill(folder: Path, model: StoredModel, cfg: PushConfig, license_id: str | None) -> list[str]:
    """Put everything to be uploaded into `folder`; returns the settings that were left out."""
    left_out: list[str] = []
    for layout in cfg.layouts:
        if layout in ("hf", "hf-stock"):
            stock = layout == "hf-stock"
            export_hf(HFExportConfig(model=model.name, out=str(folder), stock=stock, replace=True))
    if "native" in cfg.layouts:
        left_out = _native(folder, model)
    if "gguf" in cfg.layouts:
        out = folder / f"{model.directory.name}-bf16.gguf"
        export_gguf(GGUFExportConfig(model=model.name, out=str(out)))
    main = next(name for name in ("hf", "hf-stock", "gguf", "native") if name in cfg.layouts)
    card = folder / "README.md"
    notes = _checked(card.read_text(encoding="utf-8")) if card.exists() else []
    text = model_card(model, main, notes, license_id=license_id, repo=cfg.repo)
    if main != "native" and "native" in cfg.layouts:
        spec = f"{model.source}:{model.directory.name}"
        text += f"\nIn nanochat: `nanochat pull {cfg.repo} --as {spec}`\n"
    atomic_write(card, VALUES.sub(LEFT_OUT, text))
    return left_out


def _checked(card: str) -> list[str]:
    """What the check of an export found, from the card that it wrote."""
    block = card.partition("## Checked\n```\n")[2].partition("\n```")[0]
    return block.splitlines()


def _native(folder: Path, model: StoredModel) -> list[str]:
    """The files of the step and its tokenizer, without the optimizer's state."""
    weights = f"model_{model.step:06d}.pt"
    shutil.copyfile(model.directory / weights, folder / weights)
    meta = {**model.meta, "stage": model.meta.get("stage", model.source)}
    files = meta.get("files") or {}
    meta["files"] = {name: facts for name, facts in files.items() if name == weights}
    cleaned, left_out = without_secrets(meta)
    text = json.dumps(cleaned, indent=1) + "\n"
    atomic_write(folder / f"meta_{model.step:06d}.json", text)
    model.tokenizer.save(folder / "tokenizer")
    return left_out


def upload(hub: ModuleType, folder: Path, cfg: PushConfig) -> None:
    """Every file of the folder, the large ones first and each by itself, then one commit; at the
    end the hub's list is compared. What is there already is not sent again.
    """
    api = hub.HfApi(endpoint=hub_endpoint())
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    names = {path.relative_to(folder).as_posix(): path for path in paths}
    additions = [
        hub.CommitOperationAdd(path_in_repo=name, path_or_fileobj=path)
        for name, path in names.items()
    ]
    _persist(lambda: api.create_repo(cfg.repo, private=not cfg.public, exist_ok=True), hub, cfg)
    for number, addition in enumerate(additions, 1):
        print(f"uploading {addition.path_in_repo} ({number} of {len(additions)})", flush=True)
        send = partial(api.preupload_lfs_files, cfg.repo, [addition], free_memory=False)
        _persist(send, hub, cfg)
    message = f"Upload {cfg.model}"
    _persist(lambda: api.create_commit(cfg.repo, additions, commit_message=message), hub, cfg)
    there = _persist(lambda: api.model_info(cfg.repo, files_metadata=True), hub, cfg)
    if missing := _missing(names, there.siblings or []):
        raise ValueError(
            f"{cfg.repo}: not complete on the hub: {', '.join(missing)}; run the command again"
        )


def _missing(names: dict[str, Path], siblings: Sequence[Any]) -> list[str]:
    """Files that the hub does not list as they are here."""
    listed = {entry.rfilename: entry for entry in siblings}
    wrong = []
    for name, path in names.items():
        entry = listed.get(name)
        large = getattr(entry, "lfs", None)
        digest = large["sha256"] if large else None
        same_size = entry is not None and entry.size in (None, path.stat().st_size)
        if not same_size or (digest is not None and digest != sha256_file(path)):
            wrong.append(name)
    return wrong


def _persist(call: Callable[[], T], hub: ModuleType, cfg: PushConfig) -> T:
    """The call's result, tried again where the network or the server failed. ValueError at the
    end, or at once where the hub refuses.
    """
    for attempt in range(ATTEMPTS):
        try:
            return call()
        except Exception as error:  # those of the library, of its transport, and broken answers
            status = getattr(getattr(error, "response", None), "status_code", None)
            final = attempt == ATTEMPTS - 1 or (status is not None and 400 <= status < 500)
            if isinstance(error, (TypeError, AttributeError)) or final:
                raise ValueError(f"{cfg.repo}: {_refusal(status, error)}") from None
            time.sleep(cfg.wait_s * 2**attempt)
    raise AssertionError


def _refusal(status: int | None, error: Exception) -> str:
    if status in (401, 403):
        return f"the hub refused ({status}); set HF_TOKEN to a token that may write there"
    if status is not None:
        return f"the hub answered {status} ({reason(error)})"
    return f"the upload broke off ({reason(error)}); run the command again to go on"
