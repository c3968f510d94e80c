import json
import time

import pytest

from pipelines.command.secrets import redact, to_json
from pipelines.lake.uris import without_secrets

S = "hunter2Hunter2hunter2"
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.hunter2Hunter2"
PEM = f"-----BEGIN RSA PRIVATE KEY-----\nMIIE{S}\nabc+{S}/=\n-----END RSA PRIVATE KEY-----"

FORMATS = [
    f"s3://AKIA:{S}@bucket/key",
    f"ftp://user:pa@{S}@host/x",
    f"ftp://user:pa/{S}@host/x",
    f"redis://:{S}@cache:6379/0",
    f"postgresql+psycopg://lake:{S}@db:5432/lake",
    f"jdbc:postgresql://db/lake?user=lake&password={S}",
    f"lake:{S}@db.example.com:5432/lake",
    f"https://x.s3.amazonaws.com/k?X-Amz-Signature={S}",
    f"https://x.s3.amazonaws.com/k?X-Amz-Security-Token={S}&a=1",
    f"https://x.s3.amazonaws.com/k?X-Amz-Credential={S}%2F20260101%2Feu",
    f"https://storage.googleapis.com/b/k?X-Goog-Signature={S}",
    f"https://storage.googleapis.com/b/k?GoogleAccessId=x&Signature={S}",
    f"https://x.blob.core.windows.net/c/k?sv=2024&sig={S}&se=1",
    f"https://maps.googleapis.com/x?key={S}",
    f"https://func.azurewebsites.net/api/x?code={S}",
    f"next=https%3A%2F%2Fx%2Fk%3Fsig%3D{S}",
    f"Authorization: Bearer {S}",
    f"Authorization: Basic {S}==",
    f"Authorization: token {S}",
    f"Authorization: AWS4-HMAC-SHA256 Credential={S}/x, SignedHeaders=host, Signature={S}",
    f"{{'Authorization': 'Bearer {S}'}}",
    f"('Authorization', 'Bearer {S}')",
    f"sent Bearer {S} to it",
    f"X-Api-Key: {S}",
    f"('x-api-key', '{S}')",
    f"Ocp-Apim-Subscription-Key: {S}",
    f"PRIVATE-TOKEN: {S}",
    f"X-Vault-Token: {S}",
    f"Set-Cookie: sid={S}; Path=/",
    f"GITHUB_TOKEN={S}",
    f"HF_TOKEN={S}",
    f"export AWS_SECRET_ACCESS_KEY='{S}'",
    f"AWS_SESSION_TOKEN={S}",
    f"{{'aws_secret_access_key': '{S}'}}",
    f'{{"password": "a b {S}"}}',
    f'{{\\"client_secret\\": \\"{S}\\"}}',
    f'{{"name": "DB_PASSWORD", "value": "{S}"}}',
    f"pwd={S}",
    f"Server=db;Uid=sa;Pwd={S};",
    f"api-key: {S}",
    f"options password: {S}, region: eu",
    f"--password {S}",
    f"['--api-key', '{S}']",
    f"--storage-option key={S}",
    f"curl -u lake:{S} https://x",
    f"machine host login lake password {S}",
    f"CREATE USER lake WITH PASSWORD '{S}'",
    f"<Password>{S}</Password>",
    f"DefaultEndpointsProtocol=https;AccountName=x;AccountKey={S}==;EndpointSuffix=y",
    f"Endpoint=sb://x/;SharedAccessKeyName=Root;SharedAccessKey={S}=",
    f"refresh_token: {S}",
    f"id_token={JWT}",
    f"got {JWT} back",
    PEM,
    json.dumps({"type": "service_account", "private_key": PEM, "private_key_id": S}),
    PEM.replace("\n", " "),
    f"-----BEGIN OPENSSH PRIVATE KEY-----\n{S}",
    "key AKIAHUNTER2HUNTER2HU",
    f"AKIAHUNTER2HUNTER2HU/{S}{S[:19]}",
    f"found ghp_{S}",
    f"found github_pat_{S}",
    f"found hf_{S}",
    f"found glpat-{S}",
    f"found xoxb-{S}",
    f"found sk-proj-{S}",
    f"found AIza{S}{S}",
    f"found ya29.{S}",
    f"https://hooks.slack.com/services/T0/B0/{S}",
    f"hooks.slack.com/services/T0/B0/{S}",
    f"webhook=chat.example.com/hook/{S}",
    f"found gsk_{S}",
    f"found xai-{S}",
    f"found r8_{S}",
    f"found dckr_pat_{S}",
    f"found lin_api_{S}",
    f"found sq0atp-{S}",
    f"found hvs.{S}",
    f"found AGE-SECRET-KEY-1{S}",
    f"found sk_live_{S}",
    f"found npm_{S}",
    f"found key dop_v1_{S}",
    f"//registry/:_authToken={S}",
    f"x-goog-api-key: {S}",
    f"MYSQL_PWD={S}",
    f"otpauth://totp/x?secret={S}",
]


@pytest.mark.parametrize("text", FORMATS)
def test_no_part_of_a_secret_is_left(text):
    for shown in (redact(text), redact(redact(text)), to_json({"error": text, "list": [text]})):
        assert "hunter2" not in shown.lower(), shown


def test_there_are_fifty_formats():
    assert len(set(FORMATS)) >= 50


@pytest.mark.parametrize("name", ["GITHUB_TOKEN", "HF_TOKEN", "PGPASSWORD", "OPENAI_API_KEY"])
def test_the_value_of_a_secret_variable_is_masked_in_each_spelling(name, monkeypatch):
    monkeypatch.setenv(name, 'a/b "c" 7')
    for text in ('a/b "c" 7', "a%2Fb%20%22c%22%207", json.dumps('a/b "c" 7')):
        assert "c" not in redact(text), redact(text)


@pytest.mark.parametrize(
    "text",
    [
        "tokenizer=bert max_tokens: 128 key=title sigma=0.1 signal: 15",
        "s3://lake/products/part-0001.parquet?versionId=3",
        "https://shop.example.com:8080/a@2x.jpg",
        "table lake/shop@2026-01-01T10:00:00 at epoch-00000007",
        "cannot reach s3://lake/t: basic settings; check the credentials and the network",
        "rows_in 2,000 key_rows=3 passed=1 author=Ann",
        "run 20260101T101010.123456Z: task-force-0123456789abcdef0123",
    ],
)
def test_plain_words_stay(text):
    assert redact(text) == text


def test_masking_takes_time_in_line_with_the_length():
    started = time.monotonic()
    redact("a" * 200_000)
    redact("password" * 20_000)
    redact("x://" * 50_000)
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    ("uri", "kept"),
    [
        (f"ftp://user:{S}@host/a/b", "ftp://host/a/b"),
        (f"ftp://user:x/{S}@host/a", "ftp://host/a"),
        (f"https://h/a.parquet?sv=1&sig={S}&b=2", "https://h/a.parquet?sv=1&b=2"),
        (f"https://h/a?X-Amz-Credential={S}&X-Amz-Signature={S}", "https://h/a"),
        ("s3://lake/a@b/day=1?x.parquet", "s3://lake/a@b/day=1?x.parquet"),
        ("s3://lake/token=3/x.parquet", "s3://lake/token=3/x.parquet"),
        ("/lake/user:pw@x/a", "/lake/user:pw@x/a"),
        ("http://h:80/a@b", "http://h:80/a@b"),
    ],
)
def test_a_uri_is_kept_without_what_unlocks_it(uri, kept):
    assert without_secrets(uri) == kept


def test_the_environment_is_looked_through_once_for_a_whole_summary(monkeypatch):
    for i in range(2000):
        monkeypatch.setenv(f"SHOP_SETTING_{i}", f"value {i}")
    monkeypatch.setenv("SHOP_TOKEN", S)
    started = time.process_time()
    shown = to_json({f"name {i}": f"text {i} {S}" for i in range(1000)})
    assert "hunter2" not in shown
    assert time.process_time() - started < 2
