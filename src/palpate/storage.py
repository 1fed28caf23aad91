"""How images are stored before they are judged, in words; what that does to pixels: `filing`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

from palpate.errors import ConfigError

Format = Literal["float32", "uint8", "png", "jpeg"]
FORMATS: Final[tuple[Format, ...]] = get_args(Format)
FILES: Final = ("png", "jpeg")  # picture files: grey or colour, two dimensions
USUAL_QUALITY: Final = 75  # what image writers take when nobody says
_KEYS: Final = ("format", "quality", "originals")
_AS_THEY_ARE: Final = "changed"


@dataclass(frozen=True)
class Storage:
    """One way of storing images.

    Attributes:
        format: "float32" as computed; "uint8" on the 256 grey levels of the bounds, a change
            rounded towards the clean image, so that no budget is overspent; "png" the same levels,
            rounded to the nearest as image writers do; "jpeg" through a real JPEG file.
        quality: of JPEG, 1 to 95.
        originals: whether the clean images go through the file as well, and changes are made to
            what came out of it (png and jpeg). Else they stay as they were loaded and only images
            that were changed are stored, as in studies that write the attacked images alone.
    """

    format: Format = "float32"
    quality: int = USUAL_QUALITY
    originals: bool = True

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise ConfigError(f"storage: expected one of {', '.join(FORMATS)}, got {self.format!r}")
        if isinstance(self.quality, bool) or not 1 <= self.quality <= 95:
            raise ConfigError(f"storage: expected a quality of 1 to 95, got {self.quality!r}")
        if self.quality != USUAL_QUALITY and self.format != "jpeg":
            raise ConfigError(f"storage: expected a quality for jpeg only, got {self.format}")
        if not self.originals and self.format not in FILES:
            raise ConfigError(
                f"storage: expected originals: false for png or jpeg only, got {self.format}"
            )

    @classmethod
    def parse(cls, value: Any) -> "Storage":
        """Read "uint8", "jpeg:90", "png:changed", or `{format, quality, originals}`.

        Raises:
            ConfigError: with the formats that exist.
        """
        if isinstance(value, Storage):
            return value
        if isinstance(value, str):
            return cls(**_read(value))
        if not isinstance(value, Mapping) or set(value) - set(_KEYS):  # pyright: ignore
            raise ConfigError(f"storage: expected a format, or {', '.join(_KEYS)}, got {value!r}")
        given: dict[str, Any] = {"format": "", **value}
        if not isinstance(given.get("originals", True), bool) or not isinstance(
            given.get("quality", 1), int
        ):
            raise ConfigError(
                f"storage: expected a whole quality and originals true or false, got {value!r}"
            )
        return cls(**given)

    def __str__(self) -> str:
        """The short form, which `parse` takes back."""
        parts: list[str] = [self.format]
        if self.format == "jpeg":
            parts.append(str(self.quality))
        return ":".join(parts if self.originals else [*parts, _AS_THEY_ARE])

    @property
    def words(self) -> str:
        """What a reader of the results must know."""
        if self.format == "float32":
            return "perturbed images judged as computed (float32), not re-quantised"
        if self.format == "uint8":
            return (
                "all images rounded to the 8-bit grid before they were judged, changes towards the"
                " clean image"
            )
        kind = f"JPEG files of quality {self.quality}" if self.format == "jpeg" else "PNG files"
        which = (
            f"all images judged as they come out of {kind}"
            if self.originals
            else f"changed images judged as they come out of {kind}, clean images as loaded"
        )
        loss = (
            "; JPEG moves pixels by itself, so the recorded change may exceed an attack's budget"
            if self.format == "jpeg"
            else "; rounding to the nearest grey level may exceed a budget by half a level"
        )
        return which + loss


def _read(text: str) -> dict[str, Any]:
    kind, *rest = text.split(":")
    found: dict[str, Any] = {"format": kind}
    if rest and rest[-1] == _AS_THEY_ARE:
        found["originals"] = False
        rest = rest[:-1]
    if rest and (len(rest) > 1 or not rest[0].isdecimal()):
        raise ConfigError(f"storage: expected a form such as jpeg:90, got {text!r}")
    return found | ({"quality": int(rest[0])} if rest else {})
