"""Decides who may send while a submit is reconciled, and what can be searched for while a POST is on its way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import anyio
import attrs

from kling_async._engine.submit.open_reconciliation import OpenReconciliation
from kling_async._policy.matching import could_match


@attrs.frozen(eq=False)
class RegisteredPost:
    """A POST from just before it leaves until `LookAlikes.end_post`."""

    model: str
    payload: Mapping[str, Any]


class LookAlikes:
    """The POSTs on their way and the open reconciliations of a client: their jobs could be confused.

    While a submit is reconciled, no request is sent whose job could match it: jobs in the list are then told apart
    by their number. What is already on its way ends first.
    """

    def __init__(self) -> None:
        self.reconciliations: list[OpenReconciliation] = []
        """The open ones. `begin` and `end` change this."""
        self._posts: set[RegisteredPost] = set()
        self._changed = anyio.Event()

    # POSTs

    def register_post(self, model: str, payload: Mapping[str, Any]) -> RegisteredPost | None:
        """Register a POST that is about to leave; None if its job could match a submit that is reconciled now."""
        if self._is_blocked(model, payload):
            return None
        post = RegisteredPost(model, payload)
        self._posts.add(post)
        return post

    def end_post(self, post: RegisteredPost) -> None:
        """End the registration of a POST: it was answered, lost, or never sent."""
        self._posts.remove(post)
        if self.reconciliations:
            self._signal()

    async def wait_unblocked(self, model: str, payload: Mapping[str, Any]) -> None:
        """Wait while the job of such a request could match a submit that is reconciled now."""
        while self._is_blocked(model, payload):
            await self._changed.wait()

    def _is_blocked(self, model: str, payload: Mapping[str, Any]) -> bool:
        return any(
            one.model == model and could_match(payload, one.lost.payload) for one in self.reconciliations
        )

    # Reconciliations

    def begin(self, reconciliation: OpenReconciliation) -> None:
        """Let no look-alike of a lost submit leave, until `end`."""
        self.reconciliations.append(reconciliation)

    def end(self, reconciliation: OpenReconciliation) -> bool:
        """Let look-alikes leave again; False if this has ended already."""
        if reconciliation not in self.reconciliations:
            return False
        self.reconciliations.remove(reconciliation)
        self._signal()
        return True

    def has_look_alike(self, reconciliation: OpenReconciliation) -> bool:
        """Whether a POST of this client is on its way whose job could match the lost one."""
        return any(
            post.model == reconciliation.model and could_match(post.payload, reconciliation.lost.payload)
            for post in self._posts
        )

    async def select_searchable(self, open_ones: list[OpenReconciliation]) -> list[OpenReconciliation]:
        """The reconciliations for which no look-alike is on its way, in this client or in another process of a shared journal."""
        unclear: set[OpenReconciliation] = set()
        for journal in dict.fromkeys(one.journal for one in open_ones if one.journal is not None):
            here = {
                one.entry_number: one
                for one in open_ones
                if one.journal is journal and one.entry_number is not None
            }
            searchable = await journal.sharing.find_searchable(list(here))
            unclear.update(one for number, one in here.items() if number not in searchable)
        return [one for one in open_ones if one not in unclear and not self.has_look_alike(one)]

    async def wait_searchable(self, reconciliation: OpenReconciliation) -> None:
        """Wait while a look-alike is on its way, so that the jobs in the list can be told apart.

        Raises:
            TakenOverError: Another process of a shared journal holds the item.
        """
        while True:
            while self.has_look_alike(reconciliation):
                await self._changed.wait()
            journal, number = reconciliation.journal, reconciliation.entry_number
            if journal is None or number is None or await self.select_searchable([reconciliation]):
                return
            journal.sharing.raise_if_taken_over(number)
            await journal.sharing.wait_changed()

    def _signal(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()
