"""Base of the targets that draw masks of classes."""

from dataclasses import dataclass, field
from typing import ClassVar

from typing_extensions import override

from palpate.targets.base import TargetSource
from palpate.types import Segmentation, Task


@dataclass(frozen=True)
class MaskSource(TargetSource):
    """A network with a plane per class, or one of foreground where two classes are exclusive.

    Attributes:
        two_planes: two exclusive classes as two softmax planes instead of one of foreground.
    """

    serves: ClassVar = (Segmentation,)

    two_planes: bool = field(default=False, kw_only=True)

    @override
    def outputs(self, task: Task) -> int:
        exclusive = isinstance(task, Segmentation) and task.exclusive
        single = exclusive and len(task.classes) == 2 and not self.two_planes
        return 1 if single else len(task.classes)
