"""Scores at multiple-choice tasks by llama-perplexity; finished scores are cached."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

from quantplan.abilities import check_positions
from quantplan.errors import BadUsage
from quantplan.evaluate.measure import MeasureOptions
from quantplan.evaluate.task_files import TaskFile
from quantplan.gguf.reader import read_model
from quantplan.llamacpp import tasks as tool
from quantplan.llamacpp.engine import Engine
from quantplan.llamacpp.loaded_model import EngineOptions
from quantplan.llamacpp.perplexity import ToolOptions
from quantplan.llamacpp.tasks import TaskRun
from quantplan.llamacpp.tools import build
from quantplan.progress import SILENT, Advance, Reporter
from quantplan.records.cache import Cache
from quantplan.records.formats import TASK_SCORES
from quantplan.task_score import TaskConditions, TaskScore
from quantplan.tensor import Model


def score_tasks(
    files: Sequence[Path],
    data: Mapping[str, TaskFile],
    count: int | None = None,
    options: MeasureOptions | None = None,
    advance: Advance | None = None,
    cache: Path | None = None,
    report: Reporter = SILENT,
) -> list[list[TaskScore]]:
    """For each file its scores in the order of ``data`` (name -> file). ``count``: tasks of each kind, None for all.

    ``advance`` gets shares that add up to 1. In the folder ``cache`` a score is kept as soon as it is known. Raises
    BadFile, BadUsage, ToolFailed, ToolMissing.
    """
    options, advance = options or MeasureOptions(), advance or (lambda _share: None)
    models = [read_model(file) for file in files]
    share = 1 / (len(models) * len(data))
    by_file: list[list[TaskScore]] = [[] for _ in models]
    for name, task_file in data.items():
        task = _Task(name, task_file, count, options, cache)
        with task.on_disk() as path:
            for file, model, scores in zip(files, models, by_file, strict=True):
                score = task.score(model, path, lambda part: advance(share * part), report)
                scores.append(replace(score, file=str(file)))
    return by_file


class _Task:
    """One kind of task, as the tool runs it, and its scores that are cached."""

    def __init__(
        self, name: str, data: TaskFile, count: int | None, options: MeasureOptions, cache: Path | None
    ) -> None:
        if count is not None and count < 1:
            raise BadUsage(f"--tasks {count}: at least one task is needed")
        self.name, self.data, self.options = name, data, options
        self.conditions = TaskConditions(
            mode=data.mode,
            data_digest=data.digest,
            tasks=min(count or len(data.questions), len(data.questions)),
            n_ctx=options.n_ctx,
            backend=options.execution.backend,
            llama_cpp=build(),
        )
        self._cache = Cache(TASK_SCORES, cache, "tasks", asdict(self.conditions))

    @contextmanager
    def on_disk(self) -> Iterator[Path]:
        """The data as the tool reads it: the file itself, or a temporary one where it was converted."""
        if self.data.path.suffix != ".jsonl":
            yield self.data.path
            return
        with tempfile.TemporaryDirectory(prefix="quantplan-") as folder:
            path = Path(folder) / f"{self.data.path.stem}.bin"
            path.write_bytes(self.data.data)
            yield path

    def score(self, model: Model, data: Path, advance: Advance, report: Reporter) -> TaskScore:
        """The model's score, from the cache where it is there; ``advance`` gets shares of this one."""
        if model.digest in self._cache:
            advance(1)
            return replace(self._cache[model.digest], task=self.name)
        score = TaskScore(
            task=self.name,
            file=str(model.path),
            model_digest=model.digest,
            file_bytes=model.file_bytes,
            notes=ambiguity_notes(model, self.data),
            outcomes=self._run(model, data, advance, report),
            conditions=self.conditions,
        )
        self._cache.put(model.digest, score)
        return score

    def _run(self, model: Model, data: Path, advance: Advance, report: Reporter) -> tuple[bool, ...]:
        check_positions(model, self.options.n_ctx)
        tool_options = ToolOptions(self.options.n_ctx, self.options.execution)
        count = self.conditions.tasks
        run = TaskRun(self.data.mode, data, count, self.data.most_answers)
        return tool.outcomes(model.path, run, tool_options, step=lambda done: advance(done / count), report=report)


def ambiguity_notes(model: Model, data: TaskFile) -> tuple[str, ...]:
    """A note where all tokens of an answer are shared by the task's other answers.

    llama-perplexity then takes the likelihood of a token after the answer's last, which does not exist: the outcome is chance.
    """
    with Engine(model, EngineOptions(vocabulary_only=True)) as engine:
        doubtful = sum(
            _shares_all([engine.tokenize(text).tolist() for text in question.texts]) for question in data.questions
        )
    if not doubtful:
        return ()
    return (
        f"in {doubtful} of the {len(data.questions)} tasks of {data.path.name} an answer is the beginning of all "
        "others, token by token; llama-perplexity reads past its end there, so that these outcomes are chance",
    )


def _shares_all(sequences: list[list[int]]) -> bool:
    shortest = min(sequences, key=len)
    return all(tokens[: len(shortest)] == shortest for tokens in sequences)
