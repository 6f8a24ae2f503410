"""Runs one case with the replay.py of the directory of cases, and prints what came.

usage: replay_one.py DIR HOST PORT USER DATABASE < case

The case is one JSON object with "steps"; the answer is {"steps": [...], "errors":
[[...], ...]}: each step's result as replay.py has it, and the fields of the errors
that came in each.
"""
import json, re, sys, types

replay = types.ModuleType("replay")
with open(sys.argv[1] + "/replay.py") as f:  # it calls main() where it ends
    exec(re.sub(r"\nmain\(\)\s*$", "\n", f.read()), replay.__dict__)
replay.HOST, replay.PORT, replay.USER = sys.argv[2], int(sys.argv[3]), sys.argv[4]
errors, new = [], []
err = replay.Sess.err


def kept(session, body):
    code = err(session, body)
    new.append(session.last)
    return code


class Steps(list):
    """Hands out the steps one by one, and puts by the errors of each."""

    def __iter__(self):
        for step in super().__iter__():
            new.clear()
            yield step
            errors.append(list(new))


replay.Sess.err = kept
case = json.load(sys.stdin)
case["setup"], case["steps"] = [], Steps(case["steps"])
broke = ""
try:
    got = replay.run(case, sys.argv[5])
except Exception as e:
    got, broke = [], repr(e)
json.dump({"steps": got, "errors": errors, "broke": broke}, sys.stdout)
