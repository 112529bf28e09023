"""What the tests of official clients share: a server with the default model on a free port, and the client's Python package.

A package that this Python lacks is looked for in BUILD/sdk, a virtual environment that HADAL_TEST_SDK=1 or HADAL_TEST_FULL=1 makes (with
pip, so over the network).  Without package or model nothing is tested, and the last line says 0 passed; where it was to be made, that is a
failure.
"""
import fcntl
import os
import re
import signal
import subprocess
import sys
import tempfile

import counted
from counted import check, finish

HADAL = os.environ.get("HADAL", "build/hadal")
BUILD = os.environ.get("HADAL_BUILD", "build")
MODEL = os.environ.get("HADAL_TEST_MODEL", "")


def raises(kind, call, what=""):
    """The exception of this kind that the call ends with; a failed check otherwise."""
    try:
        call()
    except kind as e:
        check(True)
        return e
    except Exception as e:  # of another kind
        check(False, f"{what}: {type(e).__name__}: {e}")
        return None
    check(False, f"{what}: no error")
    return None


def wanted():
    return os.environ.get("HADAL_TEST_SDK") or os.environ.get("HADAL_TEST_FULL")


def make(venv, packages):
    """Once, whoever comes first: tests run beside each other."""
    os.makedirs(BUILD, exist_ok=True)
    with open(venv + ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        python = os.path.join(venv, "bin", "python")
        if not os.path.exists(python):
            subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        names = ", ".join(packages)
        if subprocess.run([python, "-c", f"import {names}"], stderr=subprocess.DEVNULL).returncode != 0:
            subprocess.run([python, "-m", "pip", "install", "-q", "--disable-pip-version-check", *packages], check=True)


def need(package, more=()):
    """Import it, if need be by starting again in the virtual environment.  more: packages of this test's own."""
    try:
        return __import__(package)
    except ImportError:
        pass
    venv = os.path.abspath(os.path.join(BUILD, "sdk"))
    python = os.path.join(venv, "bin", "python")
    if sys.prefix != venv:
        if wanted():
            try:
                make(venv, ["openai", "anthropic", "ollama", "jsonschema", *more])
            except (OSError, subprocess.CalledProcessError) as e:
                check(False, f"no virtual environment: {e}")
                finish()
        if os.path.exists(python):
            os.execv(python, [python] + sys.argv)
    print(f"the Python package {package} is not installed: nothing is tested")
    if wanted():
        check(False, f"no {package} in {venv}")
    finish()


class Server:
    def __init__(self, *options):
        if not MODEL:
            print("no model at hand: nothing is tested")
            if wanted():
                check(False, "no model at hand")
            finish()
        self.log = tempfile.TemporaryFile()
        self.home = tempfile.TemporaryDirectory()
        env = dict(os.environ, XDG_DATA_HOME=self.home.name, XDG_CACHE_HOME=self.home.name, XDG_STATE_HOME=self.home.name)
        self.process = subprocess.Popen([HADAL, "serve", MODEL, "--port", "0", "--ctx", "2048", *options], stdout=subprocess.PIPE,
                                        stderr=self.log, text=True, env=env)
        self.url = self.process.stdout.readline().strip().rstrip("/")
        if not re.match(r"https?://", self.url):
            self.log.seek(0)
            print("no server:", self.url, self.log.read().decode("utf-8", "replace"))
            check(False, "the server starts")
            finish()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.process.send_signal(signal.SIGTERM)
        try:
            check(self.process.wait(20) == 0, "the server ends well")
        except subprocess.TimeoutExpired:
            self.process.kill()
            check(False, "the server ends in time")
        if counted.failed:
            self.log.seek(0)
            print(self.log.read().decode("utf-8", "replace")[-2000:], file=sys.stderr)
