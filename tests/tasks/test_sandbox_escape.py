"""The escape corpus: programs that try to get out of the cage, or to take more than their share.

Each program prints ESCAPED where it got somewhere it must not. Every one must be contained, in both
kinds of cage, and be reported as what it was.
"""

from __future__ import annotations

import json
import os
import socket
import threading
from pathlib import Path

import pytest

from nanochat.tasks import sandbox
from nanochat.tasks.cage.limits import MIB, Limits
from nanochat.tasks.cage.supervisor import family

CALL = "import ctypes, os, sys\nlibc = ctypes.CDLL(None, use_errno=True)\n"
ESCAPED_IF_ZERO = "print('ESCAPED' if r == 0 else os.strerror(ctypes.get_errno()))\n"

# name -> (reason to be reported, program). `OUT` in a program is a dict of what the test made
# outside the cage.
CORPUS = {
    "fork_bomb": (
        "processes",
        "import os\nwhile True:\n try:\n  os.fork()\n except OSError:\n  pass",
    ),
    "fork_and_fail": (
        "processes",
        "import os, time\nfor _ in range(500):\n if os.fork() == 0:\n  time.sleep(60)",
    ),
    "thread_bomb": (
        "processes",
        "import threading, time\nthreading.stack_size(65536)\nfor _ in range(500):\n"
        " threading.Thread(target=time.sleep, args=(60,)).start()",
    ),
    "memory_bomb": ("memory", "x = bytearray(2_000_000_000)"),
    "memory_by_many": (
        "memory",
        "import os, time\nfor _ in range(6):\n if os.fork() == 0:\n  x = bytearray(b'x') * "
        "90_000_000\n"
        "  time.sleep(60)\ntime.sleep(60)",
    ),
    "memory_shared_by_many": (
        "memory",
        "import mmap, os, time\nfor _ in range(6):\n if os.fork() == 0:\n  x = mmap.mmap(-1, "
        "90_000_000)\n"
        "  x.write(b'x' * 90_000_000)\n  time.sleep(60)\ntime.sleep(60)",
    ),
    "memory_file": ("error", "import os\nos.memfd_create('x')\nprint('ESCAPED')"),
    "disk_fill": (
        "disk",
        "for i in range(100):\n with open(f'/tmp/{i}', 'wb') as f:\n  f.write(b'x' * 1_000_000)",
    ),
    "disk_one_file": (
        "disk",
        "with open('/tmp/x', 'wb') as f:\n while True:\n  f.write(b'x' * 1_000_000)",
    ),
    "disk_many_files": (
        "disk",
        "i = 0\nwhile True:\n open(f'/tmp/{i}', 'w').close()\n i += 1",
    ),
    "output": ("output", "while True:\n print('x' * 10_000)"),
    "output_stderr": ("output", "import sys\nwhile True:\n sys.stderr.write('x' * 10_000)"),
    "sleep": ("timeout", "import time\ntime.sleep(600)"),
    "busy_deaf": (
        "timeout",
        "import signal\nfor s in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGXCPU, "
        "signal.SIGALRM):\n"
        " signal.signal(s, signal.SIG_IGN)\nwhile True:\n pass",
    ),
    "close_all_and_sleep": ("timeout", "import os, time\nos.closerange(0, 64)\ntime.sleep(600)"),
    "daemon": (
        "ok",
        "import os, time\nif os.fork() == 0:\n os.setsid()\n time.sleep(600)\n print('ESCAPED')",
    ),
    "kill_everyone": (
        "ok",
        "import os, signal\nfor pid in [-1, 1, os.getppid(), OUT['pid']]:\n try:\n  os.kill(pid, "
        "signal.SIGKILL)\n"
        " except OSError as e:\n  print(pid, e)",
    ),
    "loopback_service": (
        "ok",
        "import socket\nfor family, address in ((socket.AF_INET, ('127.0.0.1', OUT['port'])),\n"
        "    (socket.AF_UNIX, OUT['abstract']), (socket.AF_UNIX, OUT['unix'])):\n try:\n"
        "  s = socket.socket(family)\n  s.settimeout(1)\n  s.connect(address)\n  "
        "print('ESCAPED', address)\n"
        " except OSError as e:\n  print(address, e)",
    ),
    "network_outside": (
        "ok",
        # 192.0.2.1 is kept for documentation: no machine has it. Without an interface there is no
        # way to send at all.
        "import socket\ntry:\n s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        " s.sendto(b'x', ('192.0.2.1', 9))\n print('ESCAPED')\nexcept OSError as e:\n print(e)\n"
        "print('ESCAPED' if len(open('/proc/net/dev').readlines()) > 3 else 'lo only')",
    ),
    "other_sockets": (
        "ok",
        "import socket\nfor family in (16, 17, 38, 40, 29, 31):\n try:\n"
        "  socket.socket(family, socket.SOCK_DGRAM)\n  print('ESCAPED', family)\n except OSError "
        "as e:\n  print(e)",
    ),
    "proc_of_others": (
        "ok",
        "import glob\nfor path in glob.glob('/proc/[0-9]*/environ') + "
        "[f\"/proc/{OUT['pid']}/environ\"]:\n try:\n"
        "  text = open(path).read()\n  print('ESCAPED' if OUT['secret'] in text else 'nothing')\n"
        " except OSError as e:\n  print(e)\nprint('ESCAPED' if len(glob.glob('/proc/[0-9]*')) > "
        "2 else 'alone')",
    ),
    "proc_root_and_memory": (
        "ok",
        "import os\nfor path in ('/proc/1/root' + OUT['file'], '/proc/self/root' + OUT['file'], "
        "'/proc/1/mem',\n"
        "    '/proc/1/environ', '/proc/kcore', f\"/proc/{OUT['pid']}/mem\"):\n try:\n  "
        "open(path, 'rb').read(1)\n"
        "  print('ESCAPED', path)\n except OSError as e:\n  print(e)",
    ),
    "proc_settings": (
        "ok",
        "for path in ('/proc/sys/kernel/core_pattern', '/proc/sys/kernel/hostname', "
        "'/proc/sysrq-trigger',\n"
        "    '/proc/self/uid_map', '/proc/sys/vm/drop_caches'):\n try:\n  f = open(path, 'w')\n  "
        "f.write('0')\n"
        "  f.close()\n  print('ESCAPED', path)\n except OSError as e:\n  print(e)\n"
        "try:\n open('/proc/self/oom_score_adj', 'w').write('-1000')\nexcept OSError as e:\n "
        "print(e)",
    ),
    "ptrace": (
        "ok",
        CALL
        + "for pid in (1, os.getppid(), OUT['pid']):\n r = libc.ptrace(16, pid, 0, 0)\n "
        + ESCAPED_IF_ZERO,
    ),
    "nested_namespaces": (
        "ok",
        CALL + "for flag in (0x10000000, 0x20000, 0x20000000, 0x40000000, 0x4000000):\n r = "
        "libc.unshare(flag)\n "
        + ESCAPED_IF_ZERO
        + "number = {'x86_64': 56, 'aarch64': 220}[os.uname().machine]\n"
        "r = libc.syscall(number, 0x10000000 | 17, 0, 0, 0, 0)\nif r == 0:\n print('ESCAPED', "
        "flush=True)\n"
        " os._exit(0)\n"
        "r = libc.syscall(435, b'\\0' * 88, 88)\nif r == 0:\n os._exit(0)\nprint('ESCAPED' if r "
        "> 0 else 'no clone3')",
    ),
    "mounts": (
        "ok",
        CALL
        + "r = libc.mount(b'none', b'/tmp', b'tmpfs', 0, None)\n"
        + ESCAPED_IF_ZERO
        + "r = libc.mount(b'none', b'/', None, 32, None)\n"
        + ESCAPED_IF_ZERO
        + "r = libc.umount2(b'/proc/1', 2)\n"
        + ESCAPED_IF_ZERO
        + "r = libc.chroot(b'/tmp')\n"
        + ESCAPED_IF_ZERO,
    ),
    "kernel_doors": (
        "ok",
        CALL + "import platform\nx86 = platform.machine() == 'x86_64'\n"
        "for name, number in (('bpf', 321 if x86 else 280), ('io_uring', 425), ('keyctl', 250 if "
        "x86 else 219),\n"
        "    ('userfaultfd', 323 if x86 else 282), ('perf', 298 if x86 else 241)):\n"
        " r = libc.syscall(number, 0, 0, 0, 0, 0)\n print(name, 'EPERM' if ctypes.get_errno() == "
        "1 else 'ESCAPED')\n"
        "r = libc.ioctl(0, 0x5412, b'x')\n" + ESCAPED_IF_ZERO,
    ),
    "become_root": (
        "ok",
        "import os, resource\nfor f in (lambda: os.setuid(0), lambda: os.setgid(0), lambda: "
        "os.setgroups([0]),\n"
        "    lambda: resource.setrlimit(resource.RLIMIT_AS, (-1, -1)),\n"
        "    lambda: resource.setrlimit(resource.RLIMIT_NPROC, (-1, -1))):\n"
        " try:\n  f()\n  print('ESCAPED')\n except (OSError, ValueError) as e:\n  print(e)\n"
        "print('ESCAPED' if 0 in (os.getuid(), os.geteuid(), os.getgid()) else os.getgroups())",
    ),
    "symlinks": (
        "ok",
        "import os\nos.symlink(OUT['file'], '/tmp/a')\nos.symlink('/proc/1/root', '/tmp/b')\n"
        "os.symlink('/', '/tmp/c')\n"
        "for path in ('/tmp/a', '/tmp/b' + OUT['file'], '/tmp/c' + OUT['file'], "
        "'/tmp/c/etc/shadow'):\n"
        " for mode in ('r', 'a'):\n  try:\n   open(path, mode)\n   print('ESCAPED', path, mode)\n"
        "  except OSError as e:\n   print(e)",
    ),
    "write_outside": (
        "ok",
        "import os, sys\nfor folder in ('/', '/cage', '/usr/lib', '/lib', '/dev', '/etc', "
        "'/proc', '/root', '/home',\n"
        "    os.path.dirname(os.__file__), OUT['folder'], '/dev/shm', '/var/tmp', '/run', "
        "'/sys'):\n try:\n"
        "  open(folder + '/nanochat-escape', 'w')\n  print('ESCAPED', folder)\n except OSError "
        "as e:\n  print(e)\n"
        "for path in ('/cage/main.py', '/cage/guard.py', os.__file__, sys.executable):\n try:\n  "
        "open(path, 'r+b')\n"
        "  print('ESCAPED', path)\n except OSError as e:\n  print(e)",
    ),
    "secrets": (
        "ok",
        "import os\nprint('ESCAPED' if OUT['secret'] in str(os.environ) else sorted(os.environ))\n"
        "for path in (OUT['file'], '/etc/passwd', '/etc/shadow', '/root/.ssh', '/home', "
        "'/sys/kernel', '/var'):\n"
        " print('ESCAPED ' + path if os.path.exists(path) else 'absent')",
    ),
    "descriptors": (
        "ok",
        "import os\nfor fd in range(3, 1024):\n try:\n  print('ESCAPED', fd, os.read(fd, 10))\n "
        "except OSError:\n"
        "  pass\n"
        "print(os.read(0, 1))",
    ),
    "devices": (
        "ok",
        "import os, stat\nprint(sorted(os.listdir('/dev')))\nfor n in (0x101, 0x801):\n try:\n"
        "  os.mknod('/tmp/d', stat.S_IFBLK | 0o666, n)\n  print('ESCAPED')\n except OSError as "
        "e:\n  print(e)",
    ),
}


@pytest.fixture(scope="module", params=list(sandbox.CAGES))
def cage(request) -> str:
    """Each kind of cage that can be built on this machine."""
    kind = request.param
    why = sandbox.CAGES[kind].missing()
    if why is None:
        outcome, stood = sandbox._spawn(kind, b"print('in')\n", Limits())
        why = None if stood else outcome.stderr.decode(errors="replace")[-200:]
    if why is not None:
        pytest.skip(f"{kind} does not work here: {why}")
    return kind


@pytest.fixture(scope="module")
def outside(tmp_path_factory):
    """What an escaped program would find: a secret in a file, in the environment and behind a
    descriptor; services.
    """
    folder = tmp_path_factory.mktemp("outside")
    folder.chmod(0o777)
    secret = "s3cret-of-the-test"
    file = folder / "secret.txt"
    file.write_text(secret)
    fd = os.open(file, os.O_RDONLY)
    os.set_inheritable(fd, True)
    many = [os.dup(fd) for _ in range(300)]  # so that what a cage is given has high numbers
    os.environ["NANOCHAT_TEST_SECRET"] = secret
    servers, reached = [], []
    made = {"folder": str(folder), "file": str(file), "secret": secret, "pid": os.getpid()}
    made.update(unix=str(folder / "socket"), abstract=f"\0nanochat-test-{os.getpid()}")
    for kind, address in (
        (socket.AF_INET, ("127.0.0.1", 0)),
        (socket.AF_UNIX, made["unix"]),
        (socket.AF_UNIX, made["abstract"]),
    ):
        server = socket.socket(kind)
        server.bind(address)
        server.listen()
        servers.append(server)
        threading.Thread(target=lambda s=server: reached.append(s.accept()), daemon=True).start()
    made["port"] = servers[0].getsockname()[1]
    made["reached"] = reached
    yield made
    os.environ.pop("NANOCHAT_TEST_SECRET")
    for opened in [fd, *many]:
        os.close(opened)


def pids(pid: int) -> set[int]:
    """A process and all below it."""
    return {member for member, _ in family(pid)}


def outlived(others: set[int]) -> set[int]:
    """Processes below this one that are neither `others` nor below them. A database server starts
    workers as it likes, so one that ends while it is looked at is looked for again.
    """
    left: set[int] = set()
    for _ in range(3):
        left = pids(os.getpid()) - {os.getpid()}
        for pid in others:
            left -= pids(pid)
        if not left:
            break
    return left


@pytest.mark.parametrize("name", CORPUS)
def test_contained_and_reported(cage, outside, name, monkeypatch):
    monkeypatch.setattr(sandbox, "find_cage", lambda: (cage, ""))
    expected, code = CORPUS[name]
    told = {key: value for key, value in outside.items() if key != "reached"}
    limits = Limits(
        timeout_s=1.5 if expected == "timeout" else 20, memory_bytes=256 * MIB, output_bytes=100_000
    )
    others = pids(os.getpid()) - {os.getpid()}  # servers that other tests share
    stdlib_before = set(os.listdir(os.path.dirname(os.__file__)))
    result = sandbox.run_python(
        f"import json\nOUT = json.loads({json.dumps(told)!r})\n{code}\n", limits=limits
    )
    assert "ESCAPED" not in result.stdout, result.stdout
    assert result.reason == expected, result
    assert result.ok == (expected == "ok")
    assert len(result.stdout) <= 100_000 and len(result.stderr) <= 100_000
    assert result.wall_s < limits.timeout_s + 2
    assert not outlived(others), "a process of the cage outlived it"
    assert not outside["reached"], "a service outside was reached"
    assert Path(outside["file"]).read_text() == outside["secret"]
    assert sorted(os.listdir(outside["folder"])) == ["secret.txt", "socket"]
    assert set(os.listdir(os.path.dirname(os.__file__))) == stdlib_before


def test_the_corpus_can_fail(outside):
    """Without a cage the same programs do find the secret: the checks above are able to fail."""
    told = json.dumps({key: value for key, value in outside.items() if key != "reached"})
    escaped = []
    for name in ("secrets", "loopback_service", "proc_root_and_memory"):
        code = f"import json\nOUT = json.loads({told!r})\n{CORPUS[name][1]}\n"
        outcome, _ = sandbox._spawn("none", code.encode(), Limits())
        escaped.append(b"ESCAPED" in outcome.stdout)
    outside["reached"].clear()
    assert all(escaped), escaped
