"""An OpenAI-compatible gateway: asks the router which expert should answer, carries the request there, remembers what it cost."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("moe-gateway")
except PackageNotFoundError:  # run from a folder that was never installed
    __version__ = "0.0.0"
