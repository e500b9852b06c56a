"""Downloads against a server that fails, resets, truncates, stalls, lies and ignores Range."""

from __future__ import annotations

import hashlib
import importlib.util
import random
import threading
from pathlib import Path

import pytest

from nanochat.dataset.__main__ import main
from nanochat.dataset.fetcher import Fetcher, FetchStopped
from nanochat.dataset.hub import cached_file, cached_snapshots, hub_cache, hub_url
from nanochat.dataset.public_shards import SETS, ShardSet, download_shards, wanted_shards
from nanochat.dataset.shards import (
    list_shards,
    read_manifest,
    shard_name,
    shard_paths,
    verify_shards,
    write_documents,
)

_spec = importlib.util.spec_from_file_location(
    "flaky_server", Path(__file__).with_name("flaky_server.py")
)
flaky_server = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(flaky_server)

SMALL = ShardSet("someone/some-text", 6, "CC0")
NAMES = [shard_name(i) for i in range(6)]


@pytest.fixture
def server(tmp_path, monkeypatch):
    for name in (
        "HF_HUB_OFFLINE",
        "HF_ENDPOINT",
        "HF_TOKEN",
        "http_proxy",
        "HTTP_PROXY",
        "all_proxy",
        "ALL_PROXY",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    root = tmp_path / "served"
    rng = random.Random(0)
    # incompressible, so that there are bytes to lose
    texts = (rng.randbytes(400_000).decode("latin-1") for _ in range(6))
    write_documents(root, texts, source="s", licence="l", shard_characters=1)
    assert [path.name for path in list_shards(root)] == NAMES
    flaky = flaky_server.FlakyServer(root)
    yield flaky
    flaky.close()


def quick(**options) -> Fetcher:
    return Fetcher(**{"attempts": 4, "timeout_s": 0.4, "wait_s": 0.01, **options})


def fetched(server, tmp_path, fetcher=None, **options) -> bool:
    """Fetch shard 0 and compare it with the original."""
    path = (fetcher or quick()).fetch(
        f"{server.url}/{NAMES[0]}", tmp_path / "got.parquet", **options
    )
    assert not (tmp_path / "got.parquet.partial").exists()
    return path.read_bytes() == (server.root / NAMES[0]).read_bytes()


@pytest.mark.parametrize("trouble", [500, 503, 429, "reset", "truncate", "stall", "no-range"])
def test_trouble_is_outlived(server, tmp_path, trouble):
    server.plan[NAMES[0]] = [trouble, trouble]
    assert fetched(server, tmp_path)


def test_a_cut_download_goes_on_where_it_stopped(server, tmp_path):
    server.plan[NAMES[0]] = ["truncate", "truncate", "stall"]
    assert fetched(server, tmp_path)
    starts = [int(wanted[6:-1]) for _, wanted in server.requests[1:]]
    assert starts[0] > 200_000 and starts == sorted(starts) and len(set(starts)) == 3


def test_an_earlier_run_is_continued(server, tmp_path):
    data = (server.root / NAMES[0]).read_bytes()
    (tmp_path / "got.parquet.partial").write_bytes(data[:1000])
    assert fetched(server, tmp_path) and server.requests == [(NAMES[0], "bytes=1000-")]


def test_a_complete_partial_is_only_checked(server, tmp_path):
    (tmp_path / "got.parquet.partial").write_bytes((server.root / NAMES[0]).read_bytes())
    assert fetched(server, tmp_path)


@pytest.mark.parametrize("left", [b"x" * 10, b"x" * 500_000])
def test_a_partial_of_something_else_is_thrown_away(server, tmp_path, left):
    server.linked_etag = True
    (tmp_path / "got.parquet.partial").write_bytes(left)
    assert fetched(server, tmp_path)


def test_a_server_without_range_starts_over(server, tmp_path):
    server.plan[NAMES[0]] = ["truncate", "no-range"]
    assert fetched(server, tmp_path) and len(server.requests) == 2


def test_another_range_than_asked_for_is_not_appended(server, tmp_path):
    server.plan[NAMES[0]] = ["truncate", "wrong-range"]
    assert fetched(server, tmp_path)


def test_corruption_is_seen_by_checksum_and_by_the_check(server, tmp_path):
    sha256 = hashlib.sha256((server.root / NAMES[0]).read_bytes()).hexdigest()
    server.plan[NAMES[0]] = ["corrupt"]
    assert fetched(server, tmp_path, sha256=sha256) and len(server.requests) == 2
    server.linked_etag = True  # the hub's own announcement of the checksum
    (tmp_path / "got.parquet").unlink()
    server.plan[NAMES[0]] = ["corrupt"]
    assert fetched(server, tmp_path) and len(server.requests) == 4


def test_hopeless_cases_end_with_a_reason_and_keep_what_came(server, tmp_path):
    def failing(plan, match, **options):
        server.plan[NAMES[0]] = list(plan)
        with pytest.raises(ValueError, match=match) as caught:
            fetched(server, tmp_path, **options)
        assert "\n" not in str(caught.value) and not (tmp_path / "got.parquet").exists()

    failing([500] * 4, "answered 500; run the command again")
    failing([404], "not found .404.; check the name")
    failing([403], "HF_TOKEN")
    failing(["corrupt"] * 9, "SHA-256 is wrong", sha256="0" * 64)
    failing(["truncate", *["reset"] * 4], "connection", fetcher=quick(attempts=3))
    assert (tmp_path / "got.parquet.partial").stat().st_size > 0
    server.close()
    failing([], "refused")


def test_a_small_answer_is_read_whole_through_trouble(server, monkeypatch):
    server.plan[NAMES[0]] = [503, "reset", "truncate", 429]
    whole = (server.root / NAMES[0]).read_bytes()
    assert quick(attempts=5).read(f"{server.url}/{NAMES[0]}") == whole
    server.plan[NAMES[0]] = ["truncate"] * 3
    with pytest.raises(ValueError, match="the connection ended .*run the command again"):
        quick(attempts=3).read(f"{server.url}/{NAMES[0]}")
    with pytest.raises(ValueError, match="not found .404."):
        quick().read(f"{server.url}/nothing")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ValueError, match="HF_HUB_OFFLINE is set; unset it or"):
        quick().read(f"{server.url}/{NAMES[0]}")


def test_a_server_that_is_not_there_is_asked_less_often(server, tmp_path):
    server.close()
    fetcher = quick(attempts=100, attempts_unreachable=2, wait_s=0.001)
    with pytest.raises(ValueError, match="refused; run the command again"):
        fetched(server, tmp_path, fetcher)


def test_progress_resets_the_count_of_failures(server, tmp_path):
    server.plan[NAMES[0]] = ["truncate"] * 6  # more than `attempts`, but each brings something
    assert fetched(server, tmp_path, quick(attempts=3))


def test_stop_ends_a_stalled_wait(server, tmp_path):
    fetcher = quick(wait_s=30, wait_max_s=30)
    server.plan[NAMES[0]] = [500]
    threading.Timer(0.1, fetcher.stop.set).start()
    with pytest.raises(FetchStopped):
        fetcher.fetch(f"{server.url}/{NAMES[0]}", tmp_path / "got.parquet")


def test_a_set_is_fetched_in_parallel_through_all_troubles(server, tmp_path):
    for name, plan in zip(
        NAMES, ([500], ["reset", "truncate"], ["chunked"], ["stall"], [], ["corrupt"]), strict=True
    ):
        server.plan[name] = plan
    out = tmp_path / "out"
    paths = download_shards(SMALL, -1, out, workers=3, mirror=server.url, fetcher=quick())
    assert [path.name for path in paths] == NAMES and shard_paths(out)[1].name == NAMES[5]
    assert verify_shards(out) == [] and not list(out.glob("*.partial"))
    for name in NAMES:
        assert (out / name).read_bytes() == (server.root / name).read_bytes()
    manifest = read_manifest(out)
    assert manifest["source"] == "someone/some-text" and len(manifest["shards"]) == 6
    assert (
        manifest["shards"][0]["characters"] == 400_000
        and manifest["shards"][5]["split"] == "validation"
    )
    server.requests.clear()
    download_shards(SMALL, -1, out, mirror=server.url, fetcher=quick())
    assert server.requests == [], "what is there must not be fetched again"


def test_more_shards_later_and_repair_of_a_cut_one(server, tmp_path):
    out = tmp_path / "out"
    download_shards(SMALL, 1, out, mirror=server.url, fetcher=quick())
    assert [path.name for path in list_shards(out)] == [NAMES[0], NAMES[5]]
    (out / NAMES[0]).write_bytes((out / NAMES[0]).read_bytes()[:-100])
    (out / NAMES[1]).write_bytes(b"PAR1 left by a crash of something else")
    download_shards(SMALL, 3, out, mirror=server.url, fetcher=quick())
    assert len(list_shards(out)) == 4 and verify_shards(out) == []


def test_shards_that_cannot_be_had_are_listed(server, tmp_path):
    (server.root / NAMES[1]).unlink()
    out = tmp_path / "out"
    with pytest.raises(ValueError, match="1 of 6 shards are missing:\nshard_00001.parquet: .*404"):
        download_shards(SMALL, -1, out, mirror=server.url, fetcher=quick())
    assert len(list_shards(out)) == 5
    (server.root / NAMES[5]).unlink()
    with pytest.raises(ValueError, match="missing"):
        download_shards(SMALL, 2, tmp_path / "b", mirror=server.url, fetcher=quick())
    with pytest.raises(ValueError, match="not complete"):  # no validation shard
        shard_paths(tmp_path / "b")


def test_it_gives_up_early_when_nothing_works(tmp_path, server):
    server.close()
    big = ShardSet("someone/big", 1000, "CC0")
    with pytest.raises(ValueError, match="1000 of 1000 shards are missing") as caught:
        download_shards(big, -1, tmp_path / "out", workers=2, mirror=server.url, fetcher=quick())
    assert len(str(caught.value).splitlines()) == 7


def test_a_mirror_folder_and_the_hub_cache_need_no_network(server, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    server.close()
    download_shards(SMALL, 2, tmp_path / "a", mirror=str(server.root))
    assert len(shard_paths(tmp_path / "a")[0]) == 2
    with pytest.raises(ValueError, match="HF_HUB_OFFLINE is set"):
        download_shards(SMALL, 2, tmp_path / "b", fetcher=quick())
    cache = tmp_path / "hf" / "hub" / "datasets--someone--some-text" / "snapshots" / "abc"
    cache.parent.mkdir(parents=True)
    server.root.rename(cache)
    assert cached_file(SMALL.repo, NAMES[0]) == cache / NAMES[0]
    download_shards(SMALL, 2, tmp_path / "b", fetcher=quick())
    assert len(list_shards(tmp_path / "b")) == 3
    (cache / NAMES[3]).write_bytes(b"damaged")
    with pytest.raises(ValueError, match="damaged"):
        download_shards(SMALL, 4, tmp_path / "b", mirror=str(cache))
    with pytest.raises(ValueError, match="not in the mirror folder"):
        download_shards(SETS["climbmix"], 1, tmp_path / "c", mirror=str(cache))


def test_other_data_is_not_mixed_in(server, tmp_path):
    out = tmp_path / "out"
    download_shards(SMALL, 1, out, mirror=server.url, fetcher=quick())
    with pytest.raises(ValueError, match="holds someone/some-text, not karpathy"):
        download_shards(SETS["climbmix"], 1, out, mirror=server.url, fetcher=quick())


def test_names_and_addresses(monkeypatch):
    assert wanted_shards(SETS["fineweb-edu"], 1) == ["shard_01822.parquet", "shard_00000.parquet"]
    assert len(wanted_shards(SETS["climbmix"], -1)) == 6543 and len(wanted_shards(SMALL, 99)) == 6
    monkeypatch.setenv("HF_ENDPOINT", "http://mirror.example/")
    assert (
        hub_url("a/b", "x.parquet") == "http://mirror.example/datasets/a/b/resolve/main/x.parquet"
    )


def test_the_hubs_cache_is_found_as_its_own_library_finds_it(tmp_path, monkeypatch):
    for name in ("HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert hub_cache() == tmp_path / ".cache" / "huggingface" / "hub"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert hub_cache() == tmp_path / "x" / "huggingface" / "hub"
    monkeypatch.setenv("HF_HOME", "~/h")
    assert hub_cache() == tmp_path / "h" / "hub"
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "c"))
    assert hub_cache() == tmp_path / "c"


def test_the_snapshot_of_main_comes_first_and_a_file_missing_there_is_found_elsewhere(tmp_path):
    repo = tmp_path / "hf" / "hub" / "datasets--a--b"
    assert cached_snapshots("a/b") == [] and cached_file("a/b", "x") is None
    for revision, name in (("new", "x"), ("main", "x"), ("old", "y")):
        (repo / "snapshots" / revision).mkdir(parents=True)
        (repo / "snapshots" / revision / name).write_text(revision)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("main")
    assert cached_snapshots("a/b")[0].name == "main" and len(cached_snapshots("a/b")) == 3
    assert cached_file("a/b", "x").read_text() == "main"
    assert cached_file("a/b", "y").read_text() == "old"


def run_main(capsys, *argv) -> tuple[int, str, str]:
    code = 0
    try:
        main(list(argv))
    except SystemExit as stop:
        code = stop.code
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_the_command_downloads_through_hf_endpoint(server, tmp_path, monkeypatch, capsys, base_dir):
    monkeypatch.setitem(SETS, "fineweb-edu", SMALL)
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    code, out, err = run_main(capsys, "-n", "2")
    assert code == 0 and "someone/some-text: 3 shards" in out and "shards: 3/3" in err
    assert len(list_shards(base_dir / "base_data")) == 3
    assert run_main(capsys, "--verify")[0] == 0
    (server.root / NAMES[3]).unlink()
    code, _, err = run_main(capsys, "-n", "-1")
    assert code == 2 and "error: 1 of 6 shards are missing" in err


def test_the_command_imports_text_and_the_embedded_world(tmp_path, capsys, base_dir):
    (tmp_path / "a.txt").write_text(
        "\n\n".join(f"Paragraph {i} of a small text." for i in range(40))
    )
    code, out, _ = run_main(capsys, f"--data={tmp_path / 'a.txt'}", "--licence", "CC0")
    assert code == 0 and "training and" in out
    pytest.importorskip("nanochat.dataset.embedded")
    code, out, _ = run_main(capsys, "--embedded", "--characters", "100000")
    assert code == 0 and "embedded world: 2 shards" in out
    assert len(shard_paths(base_dir)[0]) == 1


def test_the_command_reports_all_problems_at_once(capsys, base_dir):
    code, _, err = run_main(
        capsys, "-n", "0", "--embedded", "--workers=0", "--mirror", "/no/such", "--wrokers", "3"
    )
    assert code == 2 and err.count("error: ") == 5 and not (base_dir / "base_data").exists()
