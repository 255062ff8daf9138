"""Reading JSON of which a client has to be told what is wrong, and where."""

from __future__ import annotations

from typing import Any, NoReturn

import msgspec

from gateway.errors import BadRequestError

Raw = msgspec.Raw
MAX_SHOWN = 60


def read(value: Raw | bytes, decoder: msgspec.json.Decoder[Any], path: str) -> Any:
    """What `decoder` makes of a value that stands at `path` of the body, such as messages[0].content.

    Raises BadRequestError with the path of what is wrong.
    """
    try:
        return decoder.decode(value)
    except msgspec.ValidationError as error:
        _refuse(str(error), path)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadRequestError(f"{path} is not valid JSON: {error}.", param=path, code="invalid_json") from None
    except RecursionError:
        raise BadRequestError(f"{path} is nested too deeply.", param=path, code="invalid_json") from None


def shown(text: str) -> str:
    """A client's own word for an error message, however long it is."""
    return repr(text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "…")


def refuse(param: str, message: str) -> NoReturn:
    raise BadRequestError(message, param=param)


def _refuse(message: str, path: str) -> NoReturn:
    """msgspec's message ends in ` - at `$[0].role``, counted from the value that was read."""
    what, _, where = message.partition(" - at ")
    param = path + where.strip("`").removeprefix("$")
    if "required field" in what:
        param += "." + what.rpartition("field ")[2].strip("`")
    raise BadRequestError(f"{what} at {param}.", param=param)
