"""What the tests in Python count: check() says whether something holds, finish() ends a test with the line that tests/run reads."""
import sys

passed = failed = 0
tells = False  # what holds is told, too: for long runs, whose figures people read


def check(ok, *what):
    global passed, failed
    passed += bool(ok)
    failed += not ok
    if not ok and failed < 20:
        print(f"failed: line {sys._getframe(1).f_lineno}:", *what, file=sys.stderr, flush=True)
    elif ok and tells:
        print("ok    ", *what, flush=True)
    return ok


def finish():
    print(f"{passed} passed, {failed} failed", flush=True)
    sys.exit(failed != 0)
