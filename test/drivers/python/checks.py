"""What all programs of this folder share: where to connect, and how a check is told."""
import os
import sys
import traceback

HOST, PORT = os.environ["DRIVER_HOST"], int(os.environ["DRIVER_PORT"])
USER, PASSWORD = os.environ["DRIVER_USER"], os.environ["DRIVER_PASSWORD"]
DATABASE, CA = os.environ["DRIVER_DATABASE"], os.environ["DRIVER_CA"]
LARGE = 10_000_000
UUID = "8c5a3ef0-8e4c-4d0a-9a40-0c8bb0b1d6f1"
NUMERIC = "-12345678901234567890.123456789"
DOC = {"a": 1.5, "b": ["x", None, True], "c": 'quote " and \\ '}
TEXTS = ["a", 'b"c', "{d,e}", ""]
BYTES = bytes([0, 1, 255, 92, 39, 10])
# A Unicode text of some length and bytes of all kinds.
TEXT, BLOB = "äx\\'" * (LARGE // 5), bytes([0, 255, 7, 9]) * (LARGE // 4)


def schema():
    with open(os.environ["DRIVER_SCHEMA"], encoding="utf-8") as f:
        return f.read()


def told(name, error=None):
    if error is None:
        print(f"{name}\tok", flush=True)
        return
    traceback.print_exception(error, file=sys.stderr)
    text = " ".join(f"{type(error).__name__}: {error}".split())
    print(f"{name}\tfail\t{text[:600]}", flush=True)


def check(name, f, *args):
    try:
        f(*args)
        told(name)
    except BaseException as e:  # a check that fails must not end the others
        told(name, e)


def none(*names):
    for n in names:
        print(f"{n}\tnone", flush=True)


def equal(what, got, want):
    if got != want:
        raise AssertionError(f"{what}: {str(got)[:200]!r} instead of {str(want)[:200]!r}")


class raises:
    """A block that must end with an error of one SQLSTATE, and constraint if given."""

    def __init__(self, state, constraint=None):
        self.state, self.constraint = state, constraint

    def __enter__(self):
        return self

    def __exit__(self, kind, e, tb):
        if e is None:
            raise AssertionError(f"no error, but {self.state} was due")
        for inner in (e, getattr(e, "orig", None), e.__cause__):
            state = getattr(inner, "pgcode", None) or getattr(inner, "sqlstate", None)
            if state is not None:
                equal("SQLSTATE", state, self.state)
                if self.constraint:
                    name = getattr(inner, "constraint_name", None) or getattr(getattr(inner, "diag", None), "constraint_name", None)
                    equal("constraint", name, self.constraint)
                return True
        return False
