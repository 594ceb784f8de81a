"""Plain values -> frozen dataclasses: the classes of the library are their own schema.

A field whose type is a Protocol is chosen from a registry by the key `name`; every message gives the dotted path.
"""

import dataclasses
import typing
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

STRICT = ConfigDict(strict=True)


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
            return self._choose(kind, raw, path)
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
            return {key: self._entry(inner, key, entry, f"{path}.{key}") for key, entry in entries}
        return self._leaf(kind, raw, path)

    def _entry(self, kind: Any, key: str, raw: Any, path: str) -> Any:
        """A value of a mapping; where its kind is chosen from a registry, the key is its name."""
        return (
            self._choose(kind, {"name": key, **self._mapping(raw, path)}, path)
            if kind in self.registries
            else (self.build(kind, raw, path))
        )

    def _choose(self, kind: Any, raw: Any, path: str) -> Any:
        choices = self.registries[kind]
        fields = dict(self._mapping(raw, path))
        name = fields.pop("name", None)
        if name not in choices:
            raise ConfigError(f"{path}.name must be one of {', '.join(choices)}, got {name!r}")
        return self._dataclass(choices[name], fields, path)

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
        hints = typing.get_type_hints(kind)
        values = {key: self.build(hints[key], value, f"{path}.{key}") for key, value in raw.items()}
        try:
            return kind(**values, **derived)
        except ValueError as error:
            raise ConfigError(f"{path}: {error}") from error

    def _mapping(self, raw: Any, path: str) -> Mapping[str, Any]:
        if not isinstance(raw, Mapping):
            raise ConfigError(f"{path} must be a mapping of parameters, got {raw!r}")
        return raw

    def _leaf(self, kind: Any, raw: Any, path: str) -> Any:
        value = tuple(raw) if isinstance(raw, list) and typing.get_origin(kind) is tuple else raw
        try:
            return TypeAdapter(kind, config=STRICT).validate_python(value)
        except ValidationError as error:
            raise ConfigError(f"{path}: {error.errors()[0]['msg'].lower()}, got {raw!r}") from error
