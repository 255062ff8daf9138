"""Runs the checks of the modules named on the command line and prints a JSON line for each.

A check is a function `check_…`, or an async one, that raises where the client does not get what it should.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import json
import os
import re
import sys
import time
import traceback
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

STAGE: dict[str, str] = json.loads(os.environ["MOE_CLIENTS"])
URL, KEY, FAULTY = f"{STAGE['url']}/v1", STAGE["key"], STAGE["faulty_model"]
BROKEN = STAGE["broken_model"]  # and a number below 5, each for one stream that breaks
WEATHER_TOOL = {
    "name": "get_weather",
    "description": "Current weather in a city",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
}
TIME_TOOL = {**WEATHER_TOOL, "name": "get_time", "description": "Local time in a city"}
BIO = "How do the kidneys regulate blood pressure?"
# What a client finds wrong with the first answer to it: by itself it belongs to another expert.
FAULT = """this Python function raises a TypeError, fix the code and add a unit test with pytest:
def grown_up(person: dict[str, int]) -> bool:
    return int(person["age"]) >= 18
"""
PNG = (  # one red pixel
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="
)
PNG_BYTES = 70


def state(model: str) -> Any:
    """What the fake model `native`, `plain` or `faulty` was asked: {"open": …, "requests": […]}."""
    with urllib.request.urlopen(f"{STAGE[model].removesuffix('/v1')}/state", timeout=10) as response:
        return json.load(response)


def asked(model: str, text: str) -> list[dict[str, Any]]:
    """The requests to a fake model that hold `text`."""
    return [body for body in state(model)["requests"] if text in json.dumps(body, ensure_ascii=False)]


def eventually(true: Callable[[], bool], seconds: float = 25) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if true():
            return True
        time.sleep(0.02)
    return False


def raised(kind: type[Exception], call: Callable[[], object]) -> Any:
    """The error of this kind that the call raises."""
    try:
        call()
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__} was raised")


def _names(module: str) -> list[str]:
    source = Path(__file__).with_name(f"{module}.py").read_text("utf-8")
    return re.findall(r"^(?:async )?def (check_\w+)", source, re.MULTILINE)


def _run(module: str, name: str) -> None:
    function = getattr(importlib.import_module(f"tests.clients.python.{module}"), name)
    if inspect.iscoroutinefunction(function):
        asyncio.run(function())
    else:
        function()


def main() -> None:
    for module in sys.argv[1:]:
        for name in _names(module):
            began, error = time.monotonic(), ""
            try:
                _run(module, name)
            except Exception:  # noqa: BLE001 - whatever a client raises is what is reported
                error = traceback.format_exc()
            check = f"{module}: {name.removeprefix('check_').replace('_', ' ')}"
            print(json.dumps({"check": check, "error": error, "seconds": time.monotonic() - began}), flush=True)


if __name__ == "__main__":
    main()
