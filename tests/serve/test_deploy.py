"""The files of deploy/: read by the programs they are for, where those are installed."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"


def program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed: what it reads cannot be checked here")
    return found


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as bound:
        return bound.getsockname()[1]


@pytest.fixture
def behind_nginx(server, tmp_path: Path) -> Iterator[str]:
    """The address of an nginx with deploy/nginx.conf in front of the server."""
    nginx, openssl = program("nginx"), program("openssl")
    certificate, key = tmp_path / "fullchain.pem", tmp_path / "privkey.pem"
    make = f"{openssl} req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost"
    files = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*make.split(), *files], check=True, capture_output=True)
    port, plain_port = free_port(), free_port()
    text = (DEPLOY / "nginx.conf").read_text()
    for old, new in (
        ("worker_processes auto;", f"worker_processes 1; daemon off; pid {tmp_path}/pid;"),
        ("/etc/nginx/certificates", str(tmp_path)),
        ("server nanochat:8000", f"server {server.url[7:]}"),
        ("listen 443 ssl", f"listen 127.0.0.1:{port} ssl"),
        ("listen 80", f"listen 127.0.0.1:{plain_port}"),
        ("error_log /dev/stderr", f"error_log {tmp_path}/error.log"),
        ("access_log /dev/stdout", f"access_log {tmp_path}/access.log"),
    ):
        assert old in text, old
        text = text.replace(old, new)
    text = re.sub(r" *listen \[::\].*\n", "", text)
    for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"):
        text = text.replace("http {", f"http {{ {kind}_temp_path {tmp_path}/{kind};", 1)
    (tmp_path / "nginx.conf").write_text(text)
    command = [nginx, "-c", str(tmp_path / "nginx.conf"), "-e", str(tmp_path / "error.log")]
    running = subprocess.Popen([*command], stderr=subprocess.PIPE, text=True)
    end_s = time.monotonic() + 10
    while socket.socket().connect_ex(("127.0.0.1", port)):
        assert running.poll() is None, running.stderr.read()
        assert time.monotonic() < end_s, (tmp_path / "error.log").read_text()
        time.sleep(0.05)
    yield f"https://127.0.0.1:{port}"
    running.terminate()
    running.wait(timeout=10)


def test_nginx_passes_streams_on_as_they_are_written(server, behind_nginx, tmp_path):
    server.engine.step_s = 0.05
    body = {"messages": [{"role": "user", "content": "x"}], "stream": True, "max_tokens": 20}
    with httpx.Client(verify=False, timeout=30, http2=False) as client:
        times = []
        url = f"{behind_nginx}/v1/chat/completions?q=a-search"
        with client.stream("POST", url, json=body) as answer:
            assert answer.status_code == 200
            number = answer.headers["X-Request-ID"]
            for _ in answer.iter_bytes():
                times.append(time.monotonic())
        assert times[-1] - times[0] > 0.5, "the answer came in one piece"
        assert client.get(f"{behind_nginx}/metrics").status_code == 404
    logged = (tmp_path / "access.log").read_text()
    assert number in logged and "a-search" not in logged


def test_the_dockerfile_has_no_findings():
    done = subprocess.run(
        [program("hadolint"), str(DEPLOY / "Dockerfile")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


def test_what_runs_may_not_do_more_than_it_has_to():
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    last_stage = dockerfile.rpartition("\nFROM ")[2]
    assert re.search(r"^USER 10001", last_stage, re.MULTILINE)
    for copied in re.findall(r"^COPY (?!--from)(.*) \S+$", dockerfile, re.MULTILINE):
        for name in copied.split():
            assert (DEPLOY.parent / name).exists(), name
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    service = compose["services"]["nanochat"]
    assert service["read_only"] and service["cap_drop"] == ["ALL"] and "ports" not in service
    assert "ports" not in compose["services"]["database"]
    unit = (DEPLOY / "nanochat.service").read_text()
    for line in ("User=nanochat", "NoNewPrivileges=yes", "ProtectSystem=strict"):
        assert line in unit.splitlines()


def test_systemd_reads_the_unit(tmp_path):
    unit = tmp_path / "nanochat.service"
    text = (DEPLOY / "nanochat.service").read_text()
    unit.write_text(text.replace("/opt/nanochat/bin/nanochat", "/bin/true"))
    command = [program("systemd-analyze"), "verify", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and "nanochat.service" not in done.stderr, done.stderr
