"""Plain values -> frozen dataclasses: the classes of the library are their own schema.

A field whose type is a Protocol is chosen from a registry by the key `name`; every message gives the dotted path.
"""

import dataclasses
import typing
from collections.abc import Callable, Collection, Mapping
from functools import cache
from types import NoneType, UnionType
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

STRICT = ConfigDict(strict=True, allow_inf_nan=False)
FINITE = "finite_number"  # the type of the error for nan and for what is infinite


class ConfigError(ValueError):
    """A parameter that a person can mend: the dotted path, the rule, the value."""


@dataclasses.dataclass(frozen=True)
class Schema:
    """registries: the choices of every Protocol. derived: fields of a class that follow from other parameters."""

    registries: Mapping[Any, Mapping[str, type]]
    derived: Mapping[type, Mapping[str, Any]] = dataclasses.field(default_factory=dict)

    def build(self, kind: Any, raw: Any, path: str) -> Any:
        """A value of `kind` from plain data.

        Raises:
            ConfigError: an unknown or missing key, a wrong type, a value that the class refuses.
        """
        if kind in self.registries:
            return self._named(kind, raw, path)
        if dataclasses.is_dataclass(kind) and isinstance(kind, type):
            return self._dataclass(kind, self._mapping(raw, path), path)
        if typing.get_origin(kind) in (UnionType, typing.Union):
            options = [option for option in typing.get_args(kind) if option is not NoneType]
            if raw is None and len(options) < len(typing.get_args(kind)):
                return None
            if len(options) == 1:
                return self.build(options[0], raw, path)
        if typing.get_origin(kind) is dict:
            _, inner = typing.get_args(kind)
            entries = self._mapping(raw, path).items()
            if inner in self.registries:  # the key is the name
                return {key: self._choose(inner, key, entry, f"{path}.{key}") for key, entry in entries}
            return {key: self.build(inner, entry, f"{path}.{key}") for key, entry in entries}
        if typing.get_origin(kind) is tuple and dataclasses.is_dataclass(typing.get_args(kind)[0]):
            inner = typing.get_args(kind)[0]
            if not isinstance(raw, list):
                raise ConfigError(f"{path} must be a list, got {raw!r}")
            return tuple(self.build(inner, entry, f"{path}[{index}]") for index, entry in enumerate(raw))
        return self._leaf(kind, raw, path)

    def _named(self, kind: Any, raw: Any, path: str) -> Any:
        """Chosen by the key `name`."""
        fields = dict(self._mapping(raw, path))
        return self._choose(kind, fields.pop("name", None), fields, path)

    def _choose(self, kind: Any, name: Any, raw: Any, path: str) -> Any:
        choices = self.registries[kind]
        if not isinstance(name, str) or name not in choices:
            raise ConfigError(f"{path}.name must be one of {', '.join(choices)}, got {name!r}")
        return self._dataclass(choices[name], self._mapping(raw, path), path)

    def _dataclass(self, kind: type, raw: Mapping[str, Any], path: str) -> Any:
        derived = self.derived.get(kind, {})
        fields = {field.name: field for field in dataclasses.fields(kind) if field.name not in derived}
        for key in raw:
            if key not in fields:
                known = ", ".join(fields) or "none"
                raise ConfigError(f"{path}.{key} is not a parameter; known here: {known}")
        for name, field in fields.items():
            no_default = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
            if name not in raw and no_default:
                raise ConfigError(f"{path}.{name} must be given")
        hints = _hints(kind)
        values = {key: self.build(hints[key], value, f"{path}.{key}") for key, value in raw.items()}
        try:
            return kind(**values, **derived)
        except ValueError as error:
            raise ConfigError(f"{path}: {error}") from error

    def _mapping(self, raw: Any, path: str) -> Mapping[str, Any]:
        if not isinstance(raw, Mapping):
            raise ConfigError(f"{path} must be a mapping of parameters, got {raw!r}")
        for key in raw:
            if not isinstance(key, str):
                raise ConfigError(f"{path} must be a mapping whose keys are words, got {key!r}")
        return raw

    def _leaf(self, kind: Any, raw: Any, path: str) -> Any:
        value = tuple(raw) if isinstance(raw, list) and typing.get_origin(kind) is tuple else raw
        try:
            return _adapter(kind).validate_python(value)
        except ValidationError as error:
            first = error.errors()[0]
            if first["type"] == FINITE:
                raise ConfigError(f"{path} must be finite, got {raw!r}") from error
            raise ConfigError(f"{path}: {first['msg'].lower()}, got {raw!r}") from error


_hints = cache(typing.get_type_hints)


@cache
def _adapter(kind: Any) -> TypeAdapter:
    return TypeAdapter(kind, config=STRICT)


def with_path(path: str, check: Callable[..., Any], *arguments: Any) -> None:
    """Run a check of the library; put the dotted path before what it says."""
    try:
        check(*arguments)
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from error


def same(path: str, given: Collection[str], rule: str, wanted: Collection[str]) -> None:
    """Raises ConfigError unless both have the same entries; names what is missing and what is too much."""
    missing, extra = (", ".join(sorted(set(a) - set(b))) for a, b in ((wanted, given), (given, wanted)))
    wrong = [f"{name} {entries}" for name, entries in (("missing", missing), ("too much", extra)) if entries]
    require(not wrong, f"{path} must be exactly {rule}: {'; '.join(wrong)}")


def require(holds: bool, message: str) -> None:
    """Raises ConfigError with this message unless it holds."""
    if not holds:
        raise ConfigError(message)
