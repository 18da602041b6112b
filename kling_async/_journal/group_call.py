"""Group calls: questions that tasks ask at the same time share one call."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

import anyio
import attrs

from kling_async.errors import JournalError

Q = TypeVar("Q")
A = TypeVar("A")

_GATHER_DELAY = 0.003
"""Seconds that the first question waits for others: a call costs as much as some ten questions."""
_MAX_QUESTIONS = 500
"""Questions in one call."""


@attrs.define(eq=False)
class GroupCall(Generic[Q, A]):
    """Answers the questions of many tasks with few calls, one call at a time."""

    answer_all: Callable[[Sequence[Q]], Awaitable[Sequence[A]]]
    """The answers to questions, in their order."""
    give_back: Callable[[Q, A], None] = lambda _question, _answer: None
    """Called with an answer that its task no longer waits for."""
    _waiting: deque[tuple[Q, asyncio.Future[A]]] = attrs.field(init=False, factory=deque)
    _task: asyncio.Task[None] | None = attrs.field(init=False, default=None)

    async def ask(self, question: Q) -> A:
        """The answer to one question.

        Raises:
            JournalError: The call failed.
        """
        answer: asyncio.Future[A] = asyncio.get_running_loop().create_future()
        self._waiting.append((question, answer))
        if self._task is None:
            self._task = asyncio.ensure_future(self._run())
        return await answer

    async def _run(self) -> None:
        """Answer all questions that wait, and those that come meanwhile."""
        group: list[tuple[Q, asyncio.Future[A]]] = []
        try:
            await anyio.sleep(_GATHER_DELAY)
            while self._waiting:
                group = [self._waiting.popleft() for _ in range(min(len(self._waiting), _MAX_QUESTIONS))]
                await self._answer(group)
        finally:
            self._task = None
            for _, answer in (*group, *self._waiting):
                answer.cancel()  # the event loop ends; an answer that is there stays
            self._waiting.clear()

    async def _answer(self, group: Sequence[tuple[Q, asyncio.Future[A]]]) -> None:
        try:
            answers = await self.answer_all([question for question, _ in group])
        except Exception as error:  # noqa: BLE001 - each task that waits raises it
            for _, answer in group:
                if not answer.done():
                    answer.set_exception(_copy_of(error))
            return
        for (question, answer), value in zip(group, answers, strict=True):
            if answer.done():
                self.give_back(question, value)
            else:
                answer.set_result(value)


def _copy_of(error: Exception) -> Exception:
    """The error for one of several tasks: each adds a traceback of its own to a `JournalError`, which users see."""
    if not isinstance(error, JournalError):
        return error
    failure = JournalError(error.message)
    failure.__cause__ = error
    return failure
