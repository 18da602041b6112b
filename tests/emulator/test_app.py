from __future__ import annotations

import json
from email.utils import parsedate_to_datetime
from urllib.parse import quote

import aiohttp
import pytest
from yarl import URL

from kling_async.emulator import JobScript, ResponseFormat
from kling_async.emulator.model_catalog import MODELS
from tests.emulator.conftest import PREFIX

GOOD = {"model": "kling-v2-6", "payload": {"prompt": "rain"}}
CALLS = [
    ("POST", "/requests"),
    ("GET", "/requests"),
    ("GET", "/requests/some-id"),
    ("GET", "/models"),
    ("GET", "/models/kling-v2-6"),
    ("POST", "/upload-url"),
]


async def test_a_submit_is_accepted_and_its_job_succeeds(bench):
    reply = await bench.submit(sound="on")
    assert (reply["status"], reply["model"], reply["created_at"]) == ("queued", "kling-v2-6", 1_800_000_000)

    bench.clock.now += 1e6
    status, row = await bench.get(f"/requests/{reply['request_id']}")

    assert (status, row["status"], row["payload"]) == (200, "success", {"prompt": "rain", "sound": "on"})
    assert row["request_id"] == reply["request_id"]


async def test_an_instant_job_has_its_outcome_in_the_submit_reply(open_bench):
    bench = await open_bench(instant_rate=1.0)

    assert (await bench.submit())["outcome"]["media_urls"]


@pytest.mark.parametrize("method, path", CALLS)
@pytest.mark.parametrize("header", [None, "Bearer ", "Basic eA==", "any-key"])
async def test_every_queue_call_without_a_valid_key_gets_a_401(bench, method, path, header):
    headers = {} if header is None else {"Authorization": header}
    status, _, body = await bench.fetch(bench.emulator.url + PREFIX + path, method=method, headers=headers)

    assert (status, list(json.loads(body))) == (401, ["error"])


@pytest.mark.parametrize(
    "settings, key, status",
    [
        ({}, "any", 200),
        ({"refused_keys": {"bad"}}, "bad", 401),
        ({"refused_keys": {"bad"}}, "any", 200),
        ({"api_keys": {"good"}}, "good", 200),
        ({"api_keys": {"good"}}, "any", 401),
    ],
)
async def test_settings_choose_the_accepted_keys(open_bench, settings, key, status):
    bench = await open_bench(**settings)

    assert (await bench.get("/models", headers={"Authorization": f"Bearer {key}"}))[0] == status


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"\xff", b"[]", b"null", b'{"model": "kling-v2-6"}', b'{"payload": {"prompt": "rain"}}',
        b'{"model": 7, "payload": {}}', b'{"model": "kling-v2-6", "payload": []}',
        b'{"model": "kling-v2-6", "payload": {"prompt": "rain", "cfg_scale": NaN}}', b"[" * 100_000,
    ],
    ids=range(11),
)  # fmt: skip
async def test_an_invalid_body_gets_a_400_and_creates_no_job(bench, body):
    status, reply = await bench.post("/requests", data=body)

    assert (status, list(reply)) == (400, ["error"])
    assert bench.emulator.stats.accepted == ()


async def test_the_error_names_missing_payload_keys(bench):
    status, reply = await bench.post("/requests", json={"model": "kling-v2-6", "payload": {}})

    assert (status, reply) == (400, {"error": "missing required payload keys: prompt"})


@pytest.mark.parametrize("model", ["kling-v9", "Kling-V2-6", "kling-text2video-v2.1-master"])
async def test_model_ids_are_case_sensitive(bench, model):
    status, reply = await bench.post("/requests", json={"model": model, "payload": {"prompt": "rain"}})

    assert (status, reply) == (404, {"error": f"model {model} does not exist"})


async def test_a_job_with_an_invalid_value_is_accepted_and_fails_a_second_later(open_bench):
    bench = await open_bench(time_scale=1.0)
    reply = await bench.submit(duration="7")
    assert reply["status"] == "queued"

    bench.clock.now += 1.0
    _, row = await bench.get(f"/requests/{reply['request_id']}")

    assert row["status"] == "failed"
    assert row["outcome"]["error"] == "duration must be one of 5, 10 (code: InvalidParameter)"


async def test_a_submit_without_credits_gets_a_402(open_bench):
    bench = await open_bench(credits=1)
    await bench.submit()

    status, reply = await bench.post("/requests", json=GOOD)

    assert (status, reply) == (
        402,
        {"error": "Insufficient credits. Please add more credits to your account."},
    )


async def test_a_throttled_submit_has_a_retry_after_header(open_bench):
    bench = await open_bench(max_jobs_in_flight=0, retry_after=3)
    async with bench.session.post(f"{PREFIX}/requests", json=GOOD) as response:
        assert (response.status, response.headers["Retry-After"]) == (429, "3")


@pytest.mark.parametrize("ahead", [0.0, 600.0, -600.0])
async def test_the_date_header_has_the_time_of_the_records(open_bench, ahead):
    bench = await open_bench(response_format=ResponseFormat(clock_ahead=ahead))
    async with bench.session.post(f"{PREFIX}/requests", json=GOOD) as response:
        created, date = (await response.json())["created_at"], response.headers.getall("Date")

    assert [parsedate_to_datetime(text).timestamp() for text in date] == [created]


async def test_replies_have_the_organization_of_the_call(bench):
    _, reply = await bench.post("/requests", json=GOOD, headers={"X-Organization-ID": "org-7"})
    _, row = await bench.get(f"/requests/{reply['request_id']}")
    _, model = await bench.get("/models/kling-v2-6", headers={"X-Organization-ID": "org-7"})

    assert (row["org_id"], model["org_id"]) == ("org-7", "org-7")


async def test_an_unknown_id_gets_a_404(bench):
    assert await bench.get("/requests/some-id") == (404, {"error": "Request not found"})


async def test_a_vanished_job_gets_a_404(open_bench):
    bench = await open_bench(time_scale=1.0, script=lambda _number, _payload: JobScript(lifetime=30.0))
    reply = await bench.submit()

    bench.clock.now += 29.0
    assert (await bench.get(f"/requests/{reply['request_id']}"))[0] == 200
    bench.clock.now += 1.0
    assert await bench.get(f"/requests/{reply['request_id']}") == (404, {"error": "Request not found"})


async def test_the_payload_of_a_record_has_the_exact_prompt(bench):
    prompt = "</script> \x00 \u202e \N{GRINNING FACE} \ud800 雨"

    assert (await bench.run_job(prompt=prompt))["payload"] == {"prompt": prompt}


async def test_a_list_has_the_jobs_of_one_model_in_pages(bench):
    ids = [(await bench.submit())["request_id"] for _ in range(3)]
    await bench.post("/requests", json={"model": "kling-v2-5-turbo", "payload": {"prompt": "rain"}})

    _, page = await bench.get("/requests", params={"model_id": "kling-v2-6", "limit": 2, "offset": 1})
    _, all_jobs = await bench.get("/requests")

    assert [row["request_id"] for row in page["requests"]] == [ids[1], ids[0]]
    assert (page["total"], page["has_more"], all_jobs["total"]) == (3, False, 4)


@pytest.mark.parametrize(
    "query",
    [
        "limit=-1",
        "offset=x",
        "limit=",
        "offset=1.5",
        "limit=²",
        f"limit={'9' * 5000}",
        f"offset={'0' * 5000}",
    ],
)
async def test_a_page_parameter_that_is_no_number_gets_a_400(bench, query):
    status, reply = await bench.get(f"/requests?model_id=kling-v2-6&{query}")

    assert (status, list(reply)) == (400, ["error"])
    assert len(reply["error"]) < 100


async def test_a_list_call_without_a_model_can_get_a_400(open_bench):
    bench = await open_bench(response_format=ResponseFormat(list_needs_model=True))

    assert (await bench.get("/requests"))[0] == 400
    assert (await bench.get("/requests?model_id=kling-v2-6"))[0] == 200


async def test_model_calls_list_and_describe_models(bench):
    assert await bench.get("/models") == (200, {"model_ids": list(MODELS)})
    status, reply = await bench.get("/models/Kling-Image2Video-V1.6-Pro")
    assert (status, reply["model"], reply["price_info"]["price"]) == (
        200,
        "Kling-Image2Video-V1.6-Pro",
        98_000,
    )
    assert await bench.get("/models/kling-v9") == (404, {"error": "model kling-v9 does not exist"})


@pytest.mark.unmeasured
@pytest.mark.parametrize("scheme", ["media_urls", "video_url"])
async def test_media_exist_after_success_and_need_no_key(open_bench, scheme):
    bench = await open_bench(response_format=ResponseFormat(outcome=scheme))
    reply = await bench.submit()
    path = f"/gmi-video-assests-prod/user-assests/org-emulator/{reply['request_id']}.mp4"
    early, headers, _ = await bench.fetch(bench.emulator.url + path)
    assert (early, headers["Content-Type"]) == (404, "application/xml; charset=utf-8")

    bench.clock.now += 1e6
    _, row = await bench.get(f"/requests/{reply['request_id']}")
    url = row["outcome"].get("video_url") or row["outcome"]["media_urls"][0]["url"]
    status, headers, body = await bench.fetch(url)

    assert url == bench.emulator.url + path
    assert (status, headers["Content-Type"], body[4:8]) == (200, "video/mp4", b"ftyp")
    assert int(headers["Content-Length"]) == len(body)
    thumbnail = await bench.fetch(row["outcome"]["thumbnail_image_url"])
    assert (thumbnail[0], thumbnail[1]["Content-Type"], thumbnail[2][:3]) == (
        200,
        "image/jpeg",
        b"\xff\xd8\xff",
    )


async def test_media_of_other_organizations_and_of_failed_jobs_do_not_exist(open_bench):
    bench = await open_bench(script=lambda number, _: JobScript(ending="failed") if number == 2 else None)
    good, failed = await bench.run_job(), await bench.run_job()
    url = good["outcome"]["media_urls"][0]["url"]

    for other in (
        url.replace("org-emulator", "org-7"),
        url.replace(good["request_id"], failed["request_id"]),
        url.replace(good["request_id"], "some-id"),
    ):
        assert (await bench.fetch(other))[0] == 404


async def test_a_range_call_gets_that_part_of_the_media(bench):
    url = (await bench.run_job())["outcome"]["thumbnail_image_url"]
    _, headers, whole = await bench.fetch(url)
    assert headers["Accept-Ranges"] == "bytes"

    status, cut, body = await bench.fetch(url, headers={"Range": "bytes=10-19"})

    assert (status, body, cut["ETag"]) == (206, whole[10:20], headers["ETag"])
    assert cut["Content-Range"] == f"bytes 10-19/{len(whole)}"


async def test_a_range_after_the_end_gets_a_416(bench):
    url = (await bench.run_job())["outcome"]["thumbnail_image_url"]
    size = len((await bench.fetch(url))[2])
    status, headers, body = await bench.fetch(url, headers={"Range": f"bytes={size}-"})

    assert (status, headers["Content-Range"]) == (416, f"bytes */{size}")
    assert b"InvalidRange" in body


async def test_a_range_call_with_another_etag_gets_the_whole_file(bench):
    url = (await bench.run_job())["outcome"]["thumbnail_image_url"]
    etag = (await bench.fetch(url))[1]["ETag"]

    assert (await bench.fetch(url, headers={"Range": "bytes=1-2", "If-Range": '"old"'}))[0] == 200
    assert (await bench.fetch(url, headers={"Range": "bytes=1-2", "If-Range": etag}))[0] == 206


async def test_storage_without_ranges_sends_the_whole_file(open_bench):
    bench = await open_bench(response_format=ResponseFormat(ranges=False))
    url = (await bench.run_job())["outcome"]["thumbnail_image_url"]
    status, headers, _ = await bench.fetch(url, headers={"Range": "bytes=1-2"})

    assert status == 200
    assert "Accept-Ranges" not in headers


async def test_a_head_call_gets_the_length_without_a_body(bench):
    url = (await bench.run_job())["outcome"]["thumbnail_image_url"]
    size = len((await bench.fetch(url))[2])
    status, headers, body = await bench.fetch(url, method="HEAD")

    assert (status, headers["Content-Length"], body) == (200, str(size), b"")


async def test_an_upload_can_be_downloaded_and_used_as_an_image(bench):
    _, reply = await bench.post("/upload-url", json={"file_type": "png"})
    assert reply["upload_url"].startswith(reply["public_url"] + "?")
    assert (await bench.fetch(reply["public_url"]))[0] == 404

    put = await bench.fetch(
        reply["upload_url"], method="PUT", data=b"a picture", headers={"Content-Type": "image/png"}
    )
    _, headers, body = await bench.fetch(reply["public_url"])

    assert put[0] == 200
    assert (headers["Content-Type"], body) == ("image/png", b"a picture")
    assert (await bench.run_job(image=reply["public_url"]))["status"] == "success"


async def test_a_job_fails_if_its_image_was_never_uploaded(bench):
    _, reply = await bench.post("/upload-url", json={"file_type": "png"})
    url = reply["public_url"]
    rows = [
        await bench.run_job(image=url),
        await bench.run_job(model="kling-v3-omni", image_list=[{"image_url": url, "type": "first_frame"}]),
    ]

    for row in rows:
        assert (row["status"], row["outcome"]["error"]) == ("failed", "Failed to download media")


async def test_a_video_of_several_shots_needs_no_prompt_and_an_element_has_no_video(bench):
    shots = [{"prompt": "rain", "duration": "2"}, {"prompt": "snow", "duration": "3"}]
    video = await bench.run_job(
        model="kling-v3-omni", prompt=None, multi_shot=True, multi_prompt=shots, duration="5"
    )
    element = await bench.run_job(
        model="kling-create-element",
        element_name="cat",
        element_description="a grey cat",
        reference_type="image_refer",
        frontal_image="iVBORw0KGgo=",
        refer_images=["iVBORw0KGgo="],
    )
    url = video["outcome"]["video_url"]

    assert (await bench.fetch(url.replace("mp4", "jpg")))[0] == 200
    assert (element["status"], list(element["outcome"])) == ("success", ["element_id"])
    assert (await bench.fetch(url.replace(video["request_id"], element["request_id"])))[0] == 404


@pytest.mark.parametrize("body", [{}, {"file_type": "exe"}, {"file_type": ["png"]}])
async def test_an_unknown_upload_type_gets_a_400(bench, body):
    assert (await bench.post("/upload-url", json=body))[0] == 400


@pytest.mark.parametrize(
    "content_type, wait, status, code",
    [
        ("image/jpg", 0, 403, "SignatureDoesNotMatch"),
        (None, 0, 400, "MalformedSecurityHeader"),
        ("image/jpeg", 900, 400, "ExpiredToken"),
    ],
)
async def test_a_put_that_does_not_match_its_signature_gets_an_xml_error(
    open_bench, content_type, wait, status, code
):
    bench = await open_bench(time_scale=1.0)
    _, reply = await bench.post("/upload-url", json={"file_type": "jpeg"})
    bench.clock.now += wait
    async with (
        aiohttp.ClientSession(skip_auto_headers=["Content-Type"]) as session,
        session.put(
            reply["upload_url"],
            data=b"a picture",
            headers={"Content-Type": content_type} if content_type else {},
        ) as response,
    ):
        assert (response.status, response.content_type) == (status, "application/xml")
        assert f"<Code>{code}</Code>" in await response.text()


async def test_stats_count_storage_calls_with_a_key(bench):
    url = (await bench.run_job())["outcome"]["thumbnail_image_url"]
    await bench.fetch(url)
    assert bench.emulator.stats.credentials_at_storage == 0

    await bench.fetch(url, headers={"Authorization": "Bearer any-key"})

    assert bench.emulator.stats.credentials_at_storage == 1


async def test_storage_url_is_the_host_of_media_urls(open_bench):
    bench = await open_bench(storage_url="https://storage.example")
    row = await bench.run_job()

    assert row["outcome"]["media_urls"][0]["url"].startswith("https://storage.example/gmi-video")


@pytest.mark.parametrize(
    "request_id", ["../../etc/passwd", '"><script>&?#%2e\N{RIGHT-TO-LEFT OVERRIDE}', "a b"]
)
async def test_an_id_with_any_characters_has_a_record_and_a_video(open_bench, request_id):
    bench = await open_bench(script=lambda _number, _payload: JobScript(request_id=request_id))
    reply = await bench.submit()
    bench.clock.now += 1e6
    path = f"{bench.emulator.url}{PREFIX}/requests/{quote(request_id, safe='')}"
    async with bench.session.get(URL(path, encoded=True)) as response:
        record = await response.json()
    thumbnail = URL(record["outcome"]["thumbnail_image_url"], encoded=True)

    assert (reply["request_id"], record["request_id"]) == (request_id, request_id)
    assert (await bench.fetch(thumbnail))[0] == 200
