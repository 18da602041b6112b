PRAGMA application_id = 1263291975;
PRAGMA user_version = 1;
BEGIN TRANSACTION;
CREATE TABLE earlier_attempts (           -- what an entry was before it was intended again
        number     INTEGER NOT NULL REFERENCES entries (number),
        attempt    INTEGER NOT NULL,
        state      TEXT NOT NULL,
        sent_at    REAL,
        request_id TEXT,
        record     TEXT,
        error      TEXT,
        cost_usd   TEXT,
        PRIMARY KEY (number, attempt)
    ) WITHOUT ROWID
    ;
CREATE TABLE entries (
        number           INTEGER PRIMARY KEY, -- in the order of the first intent
        key              TEXT,                -- the caller's own name for the item
        fingerprint      TEXT NOT NULL,       -- of model and payload
        occurrence       INTEGER NOT NULL,    -- among items alike in key and fingerprint
        model            TEXT NOT NULL,
        payload          TEXT NOT NULL,       -- JSON, as it was sent
        state            TEXT NOT NULL,       -- intended, submitted, or how it ended
        sent_at          REAL,                -- Unix seconds, before the last POST
        request_id       TEXT,                -- the service's id of the last job
        record           TEXT,                -- JSON, as the service last answered it, without the payload
        error            TEXT,
        path             TEXT,                -- the saved video
        size_bytes       INTEGER,
        sha256           TEXT,
        cost_usd         TEXT,                -- decimal; all attempts together
        attempt_cost_usd TEXT,                -- decimal; the last attempt
        attempts         INTEGER NOT NULL     -- POSTs that were, or may have been, accepted
    );
INSERT INTO "entries" VALUES(1,NULL,'35fe336852c4f58124b78be932957af0',0,'kling-v2-6','{"prompt":"a cat\r\nat night"}','succeeded',1800000000.0,'job-0','{"request_id":"job-0","org_id":"org","model":"kling-v2-6","status":"success","outcome":{"media_urls":[{"id":"0","url":"https://storage.example/job-0.mp4"}]},"created_at":1800000000,"updated_at":1800000060,"queued_at":1800000000}',NULL,NULL,NULL,NULL,NULL,NULL,1);
INSERT INTO "entries" VALUES(2,NULL,'d3c1ce630894f56fc2cf7955a6eb06e7',0,'kling-v2-6','{"prompt":"a cat\nat night"}','succeeded',1800000000.0,'job-1','{"request_id":"job-1","org_id":"org","model":"kling-v2-6","status":"success","outcome":{"media_urls":[{"id":"0","url":"https://storage.example/job-1.mp4"}]},"created_at":1800000000,"updated_at":1800000060,"queued_at":1800000000}',NULL,NULL,NULL,NULL,NULL,NULL,1);
INSERT INTO "entries" VALUES(3,NULL,'781ce38a68c097feb94583743af01933',0,'kling-v2-6','{"prompt":"an eagle\n","duration":"10"}','succeeded',1800000000.0,'job-2','{"request_id":"job-2","org_id":"org","model":"kling-v2-6","status":"success","outcome":{"media_urls":[{"id":"0","url":"https://storage.example/job-2.mp4"}]},"created_at":1800000000,"updated_at":1800000060,"queued_at":1800000000}',NULL,NULL,NULL,NULL,NULL,NULL,1);
INSERT INTO "entries" VALUES(4,NULL,'6b242cc00f33804ea8559ca5656a6919',0,'kling-v2-6','{"prompt":"an eagle","duration":"10"}','succeeded',1800000000.0,'job-3','{"request_id":"job-3","org_id":"org","model":"kling-v2-6","status":"success","outcome":{"media_urls":[{"id":"0","url":"https://storage.example/job-3.mp4"}]},"created_at":1800000000,"updated_at":1800000060,"queued_at":1800000000}',NULL,NULL,NULL,NULL,NULL,NULL,1);
INSERT INTO "entries" VALUES(5,NULL,'0d7f5d55d34334606ce20f5f57964ed6',0,'kling-v2-6','{"prompt":"cafe\u0301 au lait"}','succeeded',1800000000.0,'job-4','{"request_id":"job-4","org_id":"org","model":"kling-v2-6","status":"success","outcome":{"media_urls":[{"id":"0","url":"https://storage.example/job-4.mp4"}]},"created_at":1800000000,"updated_at":1800000060,"queued_at":1800000000}',NULL,NULL,NULL,NULL,NULL,NULL,1);
INSERT INTO "entries" VALUES(6,NULL,'239c089aa72c52b7b97ff0343c7621ca',0,'kling-v2-6','{"prompt":"\u00a0the sea\u00a0at dawn "}','succeeded',1800000000.0,'job-5','{"request_id":"job-5","org_id":"org","model":"kling-v2-6","status":"success","outcome":{"media_urls":[{"id":"0","url":"https://storage.example/job-5.mp4"}]},"created_at":1800000000,"updated_at":1800000060,"queued_at":1800000000}',NULL,NULL,NULL,NULL,NULL,NULL,1);
INSERT INTO "entries" VALUES(7,'row 1' || char(13),'eadf0cccb17eda2bebf6eb10ceec1bbd',0,'kling-v2-6','{"prompt":"a fox"}','succeeded',1800000000.0,'job-6','{"request_id":"job-6","org_id":"org","model":"kling-v2-6","status":"success","outcome":{"media_urls":[{"id":"0","url":"https://storage.example/job-6.mp4"}]},"created_at":1800000000,"updated_at":1800000060,"queued_at":1800000000}',NULL,NULL,NULL,NULL,NULL,NULL,1);
INSERT INTO "entries" VALUES(8,NULL,'1a8bf696c09b43dcf45cf46de0345a59',0,'kling-v2-6','{"prompt":"lost\r\n"}','ambiguous',1800000000.0,NULL,NULL,'submit: the service may have taken this request (the connection was lost), and the list does not show it, or shows more than one job that could match. It was not sent again; look for it with client.list_jobs(''kling-v2-6'') before you do, or say on_ambiguous=''resend''.',NULL,NULL,NULL,NULL,NULL,1);
INSERT INTO "entries" VALUES(9,NULL,'97cc364f0646b458042483d7205e1d78',0,'kling-v2-6','{"prompt":"plain"}','succeeded',1800000000.0,'job-7','{"request_id":"job-7","org_id":"org","model":"kling-v2-6","status":"success","outcome":{"media_urls":[{"id":"0","url":"https://storage.example/job-7.mp4"}]},"created_at":1800000000,"updated_at":1800000060,"queued_at":1800000000}',NULL,NULL,NULL,NULL,NULL,NULL,1);
INSERT INTO "entries" VALUES(10,NULL,'3bfad73ad8805a85c4acf97e5b0bfd89',0,'kling-v2-6','{"prompt":"a wolf ","camera":{"note":"slow\r\npan"}}','succeeded',1800000000.0,'job-8','{"request_id":"job-8","org_id":"org","model":"kling-v2-6","status":"success","outcome":{"media_urls":[{"id":"0","url":"https://storage.example/job-8.mp4"}]},"created_at":1800000000,"updated_at":1800000060,"queued_at":1800000000}',NULL,NULL,NULL,NULL,NULL,NULL,1);
INSERT INTO "entries" VALUES(11,NULL,'e1020fc577a8ffc356bea584cbba8551',0,'kling-v2-6','{"prompt":"a city\n","image":"https://storage.example/cat.png"}','succeeded',1800000000.005,'job-9','{"request_id":"job-9","org_id":"org","model":"kling-v2-6","status":"success","outcome":{"media_urls":[{"id":"0","url":"https://storage.example/job-9.mp4"}]},"created_at":1800000000,"updated_at":1800000060,"queued_at":1800000000}',NULL,NULL,NULL,NULL,NULL,NULL,1);
CREATE INDEX entries_by_identity ON entries (fingerprint, occurrence);
CREATE INDEX entries_by_request_id ON entries (request_id) WHERE request_id IS NOT NULL;
CREATE INDEX earlier_by_request_id ON earlier_attempts (request_id) WHERE request_id IS NOT NULL;
CREATE VIEW jobs AS
    WITH readable AS (
        -- SQLite reads JSON up to a depth of 1,000, and a service may answer anything.
        SELECT *, iif(json_valid(payload), payload, '{}') AS sent, iif(json_valid(record), record, '{}') AS said
        FROM entries
    )
    SELECT
        number,
        json_extract(sent, '$.prompt') AS prompt,
        state,
        request_id,
        coalesce(
            json_extract(said, '$.outcome.media_urls[0].url'),
            iif(json_type(said, '$.outcome.media_urls[0]') = 'text',
                json_extract(said, '$.outcome.media_urls[0]'), NULL),
            json_extract(said, '$.outcome.video_url')
        ) AS video_url,
        path,
        error,
        cost_usd,
        attempts,
        datetime(sent_at, 'unixepoch') AS sent_utc,
        datetime(json_extract(said, '$.created_at'), 'unixepoch') AS created_utc,
        datetime(json_extract(said, '$.updated_at'), 'unixepoch') AS updated_utc,
        key,
        model
    FROM readable
    ORDER BY number;
COMMIT;
