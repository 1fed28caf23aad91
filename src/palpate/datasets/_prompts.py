"""Questions that go with images."""

from collections.abc import Mapping, Sequence

from palpate.errors import DataError
from palpate.types import PromptedSegmentation, Task


def check_prompts(
    prompts: Sequence[str] | None,
    wordings: Mapping[str, Sequence[str]],
    *,
    count: int,
    task: Task,
    where: str,
) -> None:
    """Refuse prompts that do not fit the images or the task.

    Raises:
        DataError: not one per image, prompts for a task that has none, or the other way round.
    """
    for name, texts in {"prompts": prompts, **wordings}.items():
        if texts is not None and len(texts) != count:
            raise DataError(
                f"{where}: expected one prompt per image, got {len(texts)} of {name} for {count}"
                " images"
            )
    if isinstance(task, PromptedSegmentation) != (prompts is not None):
        got = "none" if prompts is None else "prompts"
        raise DataError(f"{where}: expected prompts where the task has them ({task}), got {got}")
