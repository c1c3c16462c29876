"""The one entry point for everything that is checked or built: `python -m nox -l` lists it.

A developer's machine and the continuous integration call the same sessions. Every session installs
from a lock file with hashes, so that it sees the same versions everywhere; `nox -s lock` writes the
lock files anew after a change to the dependencies in `pyproject.toml`.

Invariant: no session but `lock` asks for a version that is not in a lock file.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import nox
from nox.command import CommandFailed

nox.needs_version = ">=2024.10.9"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.reuse_venv = "yes"
nox.options.sessions = ["lint", "types", "tests", "wheel"]
# A supported interpreter that this machine lacks is skipped (nox says so), never downloaded.
nox.options.error_on_missing_interpreters = False
nox.options.download_python = "never"

ROOT = Path(__file__).parent
LOCK = ROOT / "requirements.lock"
BASE_LOCK = ROOT / "requirements-base.lock"
DIGEST_PREFIX = "# inputs: sha256:"
UV = "uv==0.13.9"

PACKAGES = ("aiki_actors", "aiki_gateway", "aiki_sdk", "aiki_trio")
PUBLIC = ("aiki_sdk", "aiki_trio")
"""The packages whose names are promised; the others serve them."""
SUPPORTED = ("3.11", "3.12", "3.13")
ON_ONE_PYTHON = ("docs", "examples", "gateway", "postgres", "redis", "sim", "typing")
"""Folders of tests that in CI the oldest interpreter alone runs."""


def _runs(version: str) -> bool:
    """Tell whether `pythonX.Y` is there and starts: a version manager's shim may not."""
    interpreter = shutil.which(f"python{version}")
    if interpreter is None:
        return False
    return subprocess.run([interpreter, "-c", ""], capture_output=True, check=False).returncode == 0


def _test_interpreters() -> list[str]:
    """Choose the interpreters that `tests` runs on.

    Locally: every supported one; those that are absent are skipped. In CI (`CI` is set): only the
    oldest and the newest that are present, since what breaks between versions shows at the ends,
    and the middle one would cost a third of the time. With none of them under its usual name, the
    interpreter that runs nox is used: the session never passes without having run a test.
    """
    present = [version for version in SUPPORTED if _runs(version)]
    if not present:
        return [f"{sys.version_info.major}.{sys.version_info.minor}"]
    if os.environ.get("CI"):
        return sorted({present[0], present[-1]}, key=SUPPORTED.index)
    return list(SUPPORTED)


def _install(session: nox.Session, lock: Path = LOCK) -> None:
    """Install what `lock` pins, then the project itself, editable and without asking an index."""
    session.install("--require-hashes", "-r", str(lock), silent=True)
    session.install("--no-deps", "--no-build-isolation", "--editable", ".", silent=True)


def _run_each(session: nox.Session, *commands: tuple[str, ...]) -> None:
    """Run every command, and fail after the last one: one run shows all that is wrong."""
    failed: list[str] = []
    for command in commands:
        try:
            session.run(*command)
        except CommandFailed:
            failed.append(command[0])
    if failed:
        session.error(f"failed: {', '.join(failed)}")


@nox.session
def demo(session: nox.Session) -> None:
    """Run the order workflow: it survives a crash half-way.

    In one process; `-- --processes`: on a server and workers that are killed in turn;
    `-- --cluster`: with PostgreSQL and Redis, which are killed too.
    """
    _install(session)
    command = ("python", "-m", "examples.orders", *session.posargs)
    session.run(*command, interrupt_timeout=60.0, terminate_timeout=10.0)


@nox.session
def cluster(session: nox.Session) -> None:
    """Run a server and workers here until Ctrl-C (`-- --workers 4 --postgres --redis`)."""
    _install(session)
    # By itself nox gives what it runs 0.5 s after Ctrl-C: the server would be left behind.
    command = ("python", "-m", "aiki_trio.testing.cluster", *session.posargs)
    session.run(*command, interrupt_timeout=60.0, terminate_timeout=10.0)


@nox.session(python=_test_interpreters())
def tests(session: nox.Session) -> None:
    """Run the test suite; arguments go to pytest (`nox -s tests-3.12 -- tests/unit -k tidy`).

    Without arguments, on all cores: a file's tests stay together, for they may share a server. In
    CI the oldest interpreter runs everything, and the newest what depends on the interpreter: not
    the slow tests, which are about processes and servers, nor the documentation.
    """
    _install(session)
    arguments = list(session.posargs) or ["--numprocesses", "auto", "--dist", "loadfile"]
    if os.environ.get("CI") and not session.posargs and session.python != _test_interpreters()[0]:
        arguments += ["-m", "not slow", *(f"--ignore=tests/{name}" for name in ON_ONE_PYTHON)]
        session.env["HYPOTHESIS_PROFILE"] = "quick"
    session.run("python", "-m", "pytest", *arguments)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, format, import directions, spelling, and that the lock files are fresh."""
    _check_locks(session)
    _install(session)
    _run_each(
        session,
        ("ruff", "check", "."),
        ("ruff", "format", "--check", "."),
        ("lint-imports", "--no-logo"),
        ("codespell",),
    )


@nox.session
def types(session: nox.Session) -> None:
    """Check the types: mypy and pyright, both strict, and that what is public is typed in full."""
    _install(session)
    complete = [("pyright", "--verifytypes", name, "--ignoreexternal") for name in PUBLIC]
    _run_each(session, ("mypy", *session.posargs), ("pyright", *session.posargs), *complete)


@nox.session
def wheel(session: nox.Session) -> None:
    """Build the wheel, look inside, install it without any extra, and run a worker from it."""
    dist = Path(session.create_tmp()).resolve() / "dist"
    shutil.rmtree(dist, ignore_errors=True)
    session.install("--require-hashes", "-r", str(LOCK), silent=True)
    session.run("python", "-m", "build", "--wheel", "--no-isolation", "--outdir", str(dist))
    (built,) = dist.glob("*.whl")
    _check_wheel_names(session, built)

    clean = dist.parent / "clean"
    shutil.rmtree(clean, ignore_errors=True)
    session.run("python", "-m", "virtualenv", "--quiet", str(clean))
    python = str(clean / ("Scripts/python.exe" if os.name == "nt" else "bin/python"))
    pip = (python, "-m", "pip", "--quiet", "--disable-pip-version-check")
    session.run(*pip, "install", "--require-hashes", "-r", str(BASE_LOCK), external=True)
    session.run(*pip, "install", "--no-deps", "--no-index", str(built), external=True)
    session.run(*pip, "check", external=True)

    # From a folder outside the project, so that nothing but the wheel can be imported.
    smoke = ROOT / "tests" / "wheel" / "smoke.py"
    with session.chdir(dist):
        session.run(python, "-I", "-W", "error", str(smoke), external=True)


@nox.session
def bench(session: nox.Session) -> None:
    """Measure throughput and latency; arguments go to the benchmark (`nox -s bench -- --help`)."""
    _install(session)
    session.run("python", "-m", "tests.bench", *session.posargs)


@nox.session
def sim(session: nox.Session) -> None:
    """Explore crashes, delays and losses by seed, on virtual time (`-- --seeds 2000`)."""
    _install(session)
    session.run("python", "-m", "aiki_trio.testing.sim", *session.posargs)


@nox.session
def chaos(session: nox.Session) -> None:
    """Kill real processes at random under load, and check what is left (`-- --minutes 10`)."""
    _install(session)
    session.run("python", "-m", "tests.chaos", *session.posargs)


@nox.session
def soak(session: nox.Session) -> None:
    """Run a steady load with faults, and see whether anything grows (`-- --minutes 120`)."""
    _install(session)
    session.run("python", "-m", "tests.soak", *session.posargs)


@nox.session
def lock(session: nox.Session) -> None:
    """Write the lock files anew; `nox -s lock -- --upgrade` moves every version forward."""
    session.install(UV)
    # Neither the index's address nor this machine's paths may end up in the files.
    options = ("--universal", "--python-version", SUPPORTED[0], "--generate-hashes")
    silent = ("--no-header", "--no-annotate", "--no-emit-index-url", "--quiet", *session.posargs)
    compiled = ("uv", "pip", "compile", "pyproject.toml", *options, *silent)
    session.run(*compiled, "--all-extras", "--group", "dev", "--output-file", LOCK.name)
    # The base lock takes its versions from the full one, so that the two never disagree.
    session.run(*compiled, "--constraint", LOCK.name, "--output-file", BASE_LOCK.name)
    for path in (LOCK, BASE_LOCK):
        path.write_text(f"{DIGEST_PREFIX}{_lock_inputs_digest()}\n{path.read_text()}")


def _lock_inputs_digest() -> str:
    """Digest the parts of pyproject.toml that a lock file follows from."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    inputs = {
        "base": project["project"]["dependencies"],
        "extras": project["project"]["optional-dependencies"],
        "groups": project["dependency-groups"],
        "requires-python": project["project"]["requires-python"],
    }
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def _check_locks(session: nox.Session) -> None:
    """Fail if a lock file is older than pyproject.toml's dependencies, without asking an index."""
    expected = f"{DIGEST_PREFIX}{_lock_inputs_digest()}"
    for path in (LOCK, BASE_LOCK):
        text = path.read_text()
        if text.partition("\n")[0] != expected:
            session.error(f"{path.name} is out of date with pyproject.toml: run `nox -s lock`")
        for trace in ("://", "file:", "--index-url", "--find-links"):
            if trace in text:
                session.error(f"{path.name} contains {trace!r}: it must name no index or path")


def _check_wheel_names(session: nox.Session, built: Path) -> None:
    """Fail if the wheel puts anything but the four packages and its metadata on sys.path."""
    with zipfile.ZipFile(built) as archive:
        members = archive.namelist()
    top_level = {member.split("/")[0] for member in members}
    stray = sorted(name for name in top_level - set(PACKAGES) if not name.endswith(".dist-info"))
    missing = sorted(name for name in PACKAGES if f"{name}/py.typed" not in members)
    if stray or missing:
        session.error(
            f"{built.name}: unexpected names {stray}, packages without py.typed {missing}"
        )
    session.log(f"{built.name} holds {sorted(top_level)}")
