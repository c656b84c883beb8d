"""Programs of models: right and wrong ones, and those that would never end, print gigabytes or start others."""

import time

import psutil
import pytest

from quantplan.evaluate.suites.programs.answer_code import code_in
from quantplan.evaluate.suites.programs.run_program import Limits, can_run, run_program

pytestmark = pytest.mark.skipif(not can_run(), reason="this system cannot limit a process")
LIMITS = Limits(seconds=1, patience=2.5, memory=256 << 20)
TESTS = ("double(2) == 4", "double('a') == 'aa'")


def reason(code, tests=TESTS):
    return run_program(code, tests, LIMITS).reason


def test_a_right_program():
    code = "import math, re, dataclasses\ndef double(x):\n    print('working')\n    return 2 * x\n"
    code += "if __name__ == '__main__':\n    input()"
    assert run_program(code, TESTS, LIMITS).passed


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("def double(x): return x", "not true: double(2) == 4"),
        ("def twice(x): return 2 * x", "NameError: name 'double' is not defined in double(2) == 4"),
        ("def double(x: return x", "SyntaxError"),
        ("def double(x): return double(x)", "RecursionError"),
        ("raise ValueError('no')", "ValueError: no"),
        ("import sys; sys.exit(0)", "SystemExit: 0"),
        ("import os; os._exit(0)", "ends before the tests"),
        ("x = input()", "EOFError"),
        ("class E(Exception):\n    def __str__(self): raise E()\nraise E()", "an exception"),
        ("x = 'a' * 10**10", "MemoryError"),
        ("f = open('here', 'w')\nwhile True: f.write('a' * 10**6)", "OSError"),
    ],
)
def test_wrong_programs(code, why):
    assert reason(code).startswith(why)


@pytest.mark.parametrize(
    "code",
    [
        "import os\nos.fork()",
        "import os\nos.system('true')",
        "import os\nos.kill(os.getppid(), 9)",
        "import subprocess\nsubprocess.run(['true'])",
        "import threading\nthreading.Thread(target=print).start()",
        "import socket",
        "import urllib.request\nurllib.request.urlopen('http://127.0.0.1:1')",
        "import ctypes",
        "import shutil\nshutil.rmtree('.')",
        "open('/tmp/elsewhere', 'w')",
        "open('../elsewhere', 'a')",
        "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (1 << 40, 1 << 40))",
    ],
)
def test_what_a_program_may_not_do(code):
    assert "not allowed here" in reason(code)


def test_files_in_its_own_folder():
    code = "open('a.txt', 'w').write('4')\ndef double(x): return 2 * x\nassert open('a.txt').read() == '4'"
    assert reason(code) == ""


@pytest.mark.parametrize(
    "code",
    [
        "while True: pass",
        "while True:\n    try:\n        while True: pass\n    except BaseException: pass",
        "import os\nwhile True:\n    try: os.fork()\n    except Exception: pass",
        "while True: print('x' * 10**6)",
        "import time; time.sleep(60)",
    ],
    ids=["endless", "catches all", "fork bomb", "prints without end", "sleeps"],
)
def test_programs_that_never_end(code):
    began, before = time.monotonic(), set(psutil.Process().children())
    assert reason(code) == "takes too long"
    assert time.monotonic() - began < 20
    assert set(psutil.Process().children()) <= before


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ("```python\ndef f(): return 1\n```", "def f(): return 1"),
        ("Sure:\n```py\nimport re\ndef f(): return 1\n```\nUse it:\n```\nf()\n```", "import re\ndef f(): return 1"),
        ("```\nf()\n```\n```\ndef f(): return 1\n```", "def f(): return 1"),
        ("```python\ndef f():\n    return 1", "def f():\n    return 1"),
        ("Here:\n\ndef f():\n    return 1\n\nThis returns one.", "def f():\n    return 1\n"),
        ("```js\nfunction f() {}\n```", ""),
        ("I cannot.", ""),
        ("", ""),
    ],
)
def test_the_code_in_an_answer(answer, code):
    assert code_in(answer) == code
