from __future__ import annotations

import json

import pytest

from kling_async.emulator.queue_api import QueueApi, read_json_object
from kling_async.emulator.service_queue import RefusedError, ServiceQueue
from kling_async.emulator.settings import EmulatorSettings, JobScript

NOON = 1_800_000_000.0
PLACE = {"storage_url": "https://storage.example"}
BODY = json.dumps({"model": "kling-v2-6", "payload": {"prompt": "rain"}}).encode()


def api(**settings):
    chosen = EmulatorSettings(time_scale=1.0, **settings)
    return QueueApi(chosen, ServiceQueue(chosen))


def test_replies_follow_from_the_calls_and_their_times_alone():
    def replies(service):
        reply = service.submit(BODY, now=NOON, **PLACE)
        later = NOON + 10_000.0
        return [
            reply,
            service.get_job(reply["request_id"], now=later, **PLACE),
            service.list_jobs({"model_id": "kling-v2-6"}, now=later, **PLACE),
        ]

    first, second = replies(api()), replies(api())

    assert first == second
    assert [first[1]["status"], first[2]["requests"]] == ["success", [first[1]]]


def test_a_job_can_be_rejected_for_something_beside_its_parameters():
    service = api()
    reply = service.submit(BODY, now=NOON, find_rejection=lambda payload: f"no {payload['prompt']}", **PLACE)

    assert service.get_job(reply["request_id"], now=NOON + 10.0, **PLACE)["outcome"] == {"error": "no rain"}


def test_a_call_by_the_id_of_a_vanished_job_is_refused():
    service = api(script=lambda _number, _payload: JobScript(request_id="job", lifetime=5.0))
    service.submit(BODY, now=NOON, **PLACE)

    assert service.get_job("job", now=NOON + 4.9, **PLACE)["request_id"] == "job"
    with pytest.raises(RefusedError) as refused:
        service.get_job("job", now=NOON + 5.0, **PLACE)
    assert refused.value.status == 404


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"a": Infinity}', b'{"a": %s}' % (b"9" * 5000)])
def test_a_body_that_is_no_json_object_is_refused(body):
    with pytest.raises(RefusedError) as refused:
        read_json_object(body)
    assert refused.value.status == 400
