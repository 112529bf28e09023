"""What the tests of official clients share: a server with the default model on a free port, and the client's Python package.

A package that this Python lacks is looked for in BUILD/sdk, a virtual environment that HADAL_TEST_FULL=1 makes (with pip, so
over the network).  Without package or model nothing is tested, and the last line says 0 passed.
"""
import os
import re
import signal
import subprocess
import sys
import tempfile

HADAL = os.environ.get("HADAL", "build/hadal")
BUILD = os.environ.get("HADAL_BUILD", "build")
MODEL = os.environ.get("HADAL_TEST_MODEL", "")
passed = failed = 0


def check(ok, what=""):
    global passed, failed
    passed += bool(ok)
    failed += not ok
    if not ok:
        frame = sys._getframe(1)
        print(f"failed: line {frame.f_lineno}: {what}", file=sys.stderr)
    return ok


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


def finish():
    print(f"{passed} passed, {failed} failed")
    sys.exit(failed != 0)


def need(package):
    """Import it, if need be by starting again in the virtual environment."""
    try:
        return __import__(package)
    except ImportError:
        pass
    venv = os.path.join(BUILD, "sdk")
    python = os.path.join(venv, "bin", "python")
    if sys.prefix != os.path.abspath(venv):
        if os.environ.get("HADAL_TEST_FULL"):
            subprocess.run([sys.executable, "-m", "venv", venv], check=True)
            subprocess.run([python, "-m", "pip", "install", "-q", "openai", "anthropic", "ollama", "jsonschema"], check=True)
        if os.path.exists(python):
            os.execv(python, [python] + sys.argv)
    print(f"the Python package {package} is not installed: nothing is tested")
    finish()


class Server:
    def __init__(self, *options):
        if not MODEL:
            print("no model at hand: nothing is tested")
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
        if failed:
            self.log.seek(0)
            print(self.log.read().decode("utf-8", "replace")[-2000:], file=sys.stderr)
