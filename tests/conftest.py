"""Fixtures shared by all tests: a throw-away base directory, the reference checkpoints when they
are there.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from postgres_server import NoPostgres, new_database, postgres


@pytest.fixture(autouse=True)
def base_dir(tmp_path, monkeypatch):
    """Every test works under its own base directory, never the user's."""
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(tmp_path / "base"))
    for name in ("WANDB_RUN", "NANOCHAT_DTYPE", "NANOCHAT_DATA_DIR", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(
        "HF_HOME", str(tmp_path / "hf")
    )  # what the user's own cache holds is nobody's data here
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # a test that needs the hub's own behaviour unsets it
    torch.manual_seed(1337)
    return tmp_path / "base"


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """`../shared` beside the repository: reference checkpoints and development data. Skips when
    absent.
    """
    path = Path(__file__).resolve().parents[2] / "shared"
    if not path.is_dir():
        pytest.skip(
            f"no reference data at ../shared ({path.name} is absent): parity checks cannot run"
        )
    return path


@pytest.fixture(scope="session")
def postgres_address() -> Iterator[str]:
    """A PostgreSQL on loopback. Skips where it cannot be had."""
    pytest.importorskip("psycopg", reason="the extra postgres is not installed")
    try:
        with postgres() as address:
            yield address
    except NoPostgres as error:
        pytest.skip(str(error))


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], str]:
    """Gives addresses of new, empty databases, once for each kind."""

    def new() -> str:
        name = f"test_{uuid.uuid4().hex}"
        if request.param == "sqlite":
            return f"sqlite:///{tmp_path / name}.db"
        return new_database(request.getfixturevalue("postgres_address"), name)

    return new
