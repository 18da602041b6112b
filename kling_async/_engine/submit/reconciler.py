"""Lost submits: the service's own list shows their jobs, or they stay ambiguous; no job is guessed."""

from __future__ import annotations

import anyio

from kling_async._engine.api import ApiCaller
from kling_async._engine.list_pages import MAX_PAGES
from kling_async._engine.shared_state import SharedState, UnresolvedSubmit
from kling_async._engine.submit.list_search import ListSearch
from kling_async._engine.submit.look_alikes import LookAlikes, RegisteredPost
from kling_async._engine.submit.open_reconciliation import OpenReconciliation, lost_submit_of
from kling_async._journal.entry import Entry
from kling_async._journal.journal import WriteAheadJournal
from kling_async._journal.store import Activity
from kling_async._policy.lost_submit import lost_submit
from kling_async._policy.retry import backoff, is_transient
from kling_async._policy.scan_delays import proof_delays, scan_delays
from kling_async._policy.service_clock import Instant
from kling_async._policy.submission import wants_proof
from kling_async.errors import AmbiguousSubmitError, JournalError, KlingError
from kling_async.jobs import Job
from kling_async.types import OnAmbiguous

_FEW_PAGES = 20
"""Pages of a list that are read for a proof which no caller has asked for."""


class Reconciler:
    """Finds the job of each lost submit of the client, or says why it stays ambiguous.

    Args:
        api: The clocks, and the delays after a failed call.
        shared: The lost submits without a job. An outage of the list ends a reconciliation after the `wait_timeout` of its
            `polling`.
        look_alikes: Holds back the requests whose jobs could match a lost submit.
        list_search: Scans the list.
    """

    def __init__(
        self, api: ApiCaller, shared: SharedState, look_alikes: LookAlikes, list_search: ListSearch
    ) -> None:
        self.api = api
        self._shared = shared
        self._look_alikes = look_alikes
        self._list_search = list_search
        shared.cover_timeout(api.timeout)

    def begin_for_post(
        self,
        post: RegisteredPost,
        error: KlingError,
        *,
        sent: Instant,
        journal: WriteAheadJournal | None,
        entry_number: int | None,
    ) -> OpenReconciliation:
        """Begin the reconciliation of a POST, sent at this instant: from now on no look-alike leaves.

        `reconcile` goes through with it, or `end` ends it.
        """
        reconciliation = OpenReconciliation(
            model=post.model,
            lost=lost_submit(post.payload, sent=sent, given_up=self.api.instant()),
            error=error,
            journal=journal,
            entry_number=entry_number,
        )
        self._look_alikes.begin(reconciliation)
        return reconciliation

    def begin_for_entry(self, entry: Entry, journal: WriteAheadJournal) -> OpenReconciliation:
        """Begin the reconciliation for a POST that an earlier process sent and never got an answer to."""
        lost = lost_submit_of(entry, now=self.api.instant(), longest_timeout=self._shared.longest_timeout)
        reconciliation = OpenReconciliation(
            model=entry.model,
            lost=lost,
            error=KlingError("an earlier run got no answer"),
            journal=journal,
            entry_number=entry.number,
            # A process that was cut off from a shared journal, and not from the service, may still get the answer.
            search_until_age=lost.max_answer_age if journal.sharing.is_shared else 0.0,
        )
        self._shared.forget_unresolved(reconciliation.location, entry.number)
        self._look_alikes.begin(reconciliation)
        return reconciliation

    async def reconcile(
        self, reconciliation: OpenReconciliation, *, on_ambiguous: OnAmbiguous | None = None
    ) -> Job:
        """The job of a lost submit.

        Cancelling it leaves the submit ambiguous, as it was.

        Args:
            reconciliation: The lost submit.
            on_ambiguous: The option of the batch: `resend_absent` waits until the list can prove that there is no job.
                None outside a batch.

        Raises:
            AmbiguousSubmitError: The list does not show the job, or shows more than one that could match.
            JournalError: The journal cannot be read or written meanwhile.
            TakenOverError: Another process of a shared journal holds the item, and reconciles it.
        """
        try:
            await _tell_other_processes(reconciliation)
            reason = await self._search(reconciliation, may_wait=wants_proof(on_ambiguous))
        finally:
            self.end(reconciliation)
        if reconciliation.job is not None:
            self._shared.lost_streak.record_answer()
            return reconciliation.job
        ambiguous = _ambiguous(reconciliation, reason, in_batch=on_ambiguous is not None)
        raise ambiguous from reconciliation.list_error

    def end(self, reconciliation: OpenReconciliation) -> None:
        """End a reconciliation, whether or not it found a job: look-alikes may leave again. A second end does nothing."""
        if not self._look_alikes.end(reconciliation):
            return
        if reconciliation.journal is not None and reconciliation.entry_number is not None:
            reconciliation.journal.sharing.end(reconciliation.entry_number, Activity.RECONCILIATION)
        if reconciliation.job is None:
            self._shared.unresolved.append(
                UnresolvedSubmit(
                    model=reconciliation.model,
                    lost=reconciliation.lost,
                    journal=reconciliation.location,
                    entry_number=reconciliation.entry_number,
                )
            )
        if not self._look_alikes.reconciliations:
            self._list_search.forget_old_rows()

    async def _search(self, reconciliation: OpenReconciliation, *, may_wait: bool) -> str:
        """Scan the list again and again, until the job is found, is proven absent, or no scan is left.

        Returns the reason for which the job was not found.
        """
        began = self.api.clock.now()
        max_pages = MAX_PAGES if may_wait else _FEW_PAGES
        try:
            if reconciliation.lost.age(self.api.instant()) is None:
                # Its answer can show the service's clock.
                await self._scan_after(0.0, reconciliation, began=began)
            age = reconciliation.lost.age(self.api.instant()) or 0.0
            for delay in scan_delays(age, search_until_age=reconciliation.search_until_age):
                await self._scan_after(delay, reconciliation, began=began)
            for delay in proof_delays(reconciliation.lost, now=self.api.instant(), may_wait=may_wait):
                if reconciliation.is_absent or reconciliation.job is not None:
                    break
                await self._scan_after(delay, reconciliation, began=began, max_pages=max_pages)
        except JournalError:
            raise  # the list may show the job, and the journal does not say whose it is
        except KlingError as error:
            reconciliation.list_error = error
            return f"the list cannot be read: {error.message.rstrip('.')}"
        return await self._list_search.explain(reconciliation)

    async def _scan_after(
        self, delay: float, reconciliation: OpenReconciliation, *, began: float, max_pages: int | None = None
    ) -> None:
        """Wait, then scan the list once, unless the job is found meanwhile; an outage or a look-alike puts the scan off.

        Raises:
            KlingError: The list cannot be read, and the error does not go away within the `wait_timeout` of the client.
        """
        clock, wait_timeout, failures = self.api.clock, self._shared.polling.wait_timeout, 0
        while reconciliation.job is None:
            with anyio.move_on_after(delay):
                await reconciliation.is_found.wait()
            await self._look_alikes.wait_searchable(reconciliation)
            try:
                if await self._list_search.scan(reconciliation, max_pages=max_pages):
                    return
                delay = 0.0
            except KlingError as error:
                waited = clock.now() - began
                if not is_transient(error) or (wait_timeout is not None and waited > wait_timeout):
                    raise
                delay = backoff(self.api.retry, attempt=failures, jitter=self.api.rng.random())
                failures += 1


async def _tell_other_processes(reconciliation: OpenReconciliation) -> None:
    """Have no look-alike of another process sent while a submit of a shared journal is reconciled."""
    journal, number = reconciliation.journal, reconciliation.entry_number
    if journal is not None and number is not None:
        payload = reconciliation.lost.payload
        await journal.sharing.begin_reconciliation(number, model=reconciliation.model, payload=payload)


def _ambiguous(reconciliation: OpenReconciliation, reason: str, *, in_batch: bool) -> AmbiguousSubmitError:
    error, model = reconciliation.error, reconciliation.model
    lost = error.message.rstrip(".")
    if reconciliation.is_absent:
        said = f"the service does not have this request ({lost}): it is absent from the whole list, which shows a later job"
        advice = (
            "Say on_ambiguous='resend_absent' to send it again." if in_batch else "You can submit it again."
        )
    else:
        said = f"the service may have taken this request ({lost}), and {reason}"
        advice = f"Look for it with `client.list_jobs({model!r})` before you submit it again."
        if in_batch:
            advice += (
                " on_ambiguous='resend_absent' sends it again once the list proves that it is absent, and 'resend' "
                "at once, at the risk of paying twice."
            )
    return AmbiguousSubmitError(
        f"submit: {said}. It was not sent again.",
        absent=reconciliation.is_absent,
        status_code=error.status_code,
        body=error.body,
        request_id=error.request_id,
        advice=advice,
    )
