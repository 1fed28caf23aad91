"""The mapping file: which measurement is evidence for which clause of which document."""

from datetime import date
from functools import cache
from importlib.resources import as_file, files
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from palpate import config, registry
from palpate.errors import ConfigError, UnknownComponent, nearest

Text = Annotated[str, Field(min_length=1)]
Family = Literal["none", "attacks", "corruptions", "occlusions", "faults"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Wanted(_Part):
    """What a run must hold to be evidence.

    Attributes:
        shows: what it is evidence for, in words.
        families: of the cells; "none" for clean ones; empty for all but clean.
        names: components; empty for every one of the families.
        where: values that parameters must have, in cells whose component has them.
        metrics: of which a cell must have at least one value; empty for any.
        defended: only cells with a defence, clean ones too where no family is named.
        defences: their names; empty for any.
        checks: checks of the audit on itself, instead of cells.
    """

    shows: Text
    families: tuple[Family, ...] = ()
    names: tuple[str, ...] = ()
    where: dict[str, float | str] = Field(default_factory=dict)
    metrics: tuple[str, ...] = ()
    defended: bool = False
    defences: tuple[str, ...] = ()
    checks: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _asks_for_something(self) -> "Wanted":
        if not (self.families or self.defended or self.checks):
            raise ValueError("expected families, defended or checks, got none of them")
        if self.checks and (self.families or self.defended):
            raise ValueError("expected either checks or cells, got both")
        if self.defences and not self.defended:
            raise ValueError("expected defended: true beside defences")
        for metric in self.metrics:
            if metric not in (known := registry.names("metrics")):
                raise ValueError(f"no metric named {metric!r}; {nearest(metric, known)}")
        return self


class Clause(_Part):
    """One clause.

    Attributes:
        clause: its number or heading.
        asks: what it asks for, in short.
        evidence: what an audit can show of it; empty where it can show nothing.
        not_covered: what remains for others.
    """

    clause: Text
    asks: Text
    evidence: tuple[Wanted, ...]
    not_covered: Text


class Document(_Part):
    """One document.

    Attributes:
        id: key.
        short: name for a list.
        title: full name.
        status: draft, published, in force and the like.
        dated: date of that state in words; None where our sources give none.
        seen: the day on which the status was looked up.
        clauses: at least one.
    """

    id: Text
    short: Text
    title: Text
    status: Text
    dated: Text | None
    seen: date
    clauses: tuple[Clause, ...] = Field(min_length=1)

    @property
    def state(self) -> str:
        """Status and date in one line."""
        dated = "undated in our sources" if self.dated is None else f"dated {self.dated}"
        return f"{self.status}; {dated}; looked up {self.seen:%B %Y}"


class Mapping(_Part):
    """The whole file.

    Attributes:
        schema_version: version of this format.
        reviewed: the day on which a person last went through it.
        documents: in the order of the report.
    """

    schema_version: Literal[1]
    reviewed: date
    documents: tuple[Document, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _named_once(self) -> "Mapping":
        names = [document.id for document in self.documents]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"documents: expected each id once, got {twice[0]!r} twice")
        return self


def load(path: Path) -> Mapping:
    """Read a mapping file.

    Raises:
        ConfigError: unreadable, not YAML, or one line that names the key, what was expected and
            what came.
    """
    return parse(config.read_yaml(path), where=path.name)


@cache
def bundled() -> Mapping:
    """The mapping that comes with Palpate."""
    with as_file(files("palpate") / "data" / "evidence.yaml") as path:
        return load(path)


def parse(data: Any, *, where: str = "evidence") -> Mapping:
    """Validate plain data.

    Raises:
        ConfigError: see `load`.
    """
    try:
        return Mapping.model_validate(data)
    except ValidationError as error:
        raise _one_line(error, where) from None


def _one_line(error: ValidationError, where: str) -> ConfigError:
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        known = {k for part in (Wanted, Clause, Document, Mapping) for k in part.model_fields}
        unknown = str(first["loc"][-1])
        return UnknownComponent(f"{where}: {place}: unknown key; {nearest(unknown, known)}")
    message = first["msg"].removeprefix("Value error, ")
    got = "" if first["type"] == "value_error" else f", got {first['input']!r}"
    return ConfigError(f"{where}: {place + ': ' if place else ''}{message}{got}")
