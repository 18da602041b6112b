from __future__ import annotations

import math

import pytest

from kling_async import config
from kling_async._secrets import Secret
from kling_async.config import Settings, read_settings
from kling_async.errors import ConfigurationError
from kling_async.lines import quote_value

QUEUE = "https://console.gmicloud.ai/api/v1/ie/requestqueue/apikey"


def read(environ=None, **given):
    wanted = {"api_key": None, "organization_id": None, "base_url": None, "timeout": 60.0, **given}
    return read_settings(**wanted, environ=environ or {})


def test_an_argument_overrides_the_environment():
    environ = {"GMI_API_KEY": "theirs", "GMI_ORG_ID": "their-org", "GMI_BASE_URL": "https://their.example"}
    settings = read(
        environ, api_key="mine", organization_id="my-org", base_url="https://my.example", timeout=5
    )
    assert settings == Settings(
        api_key=Secret("mine"),
        organization_id="my-org",
        queue="https://my.example/api/v1/ie/requestqueue/apikey",
        timeout=5.0,
    )


def test_a_missing_argument_comes_from_the_environment():
    environ = {"GMI_API_KEY": " theirs\n", "GMI_ORG_ID": " org ", "GMI_BASE_URL": "http://127.0.0.1:8080"}
    settings = read(environ)
    assert (settings.api_key.reveal(), settings.organization_id) == ("theirs", "org")
    assert settings.queue == "http://127.0.0.1:8080/api/v1/ie/requestqueue/apikey"


@pytest.mark.parametrize(
    "environ",
    [
        {"GMI_CLOUD_API_KEY": "k"},
        {"GMI_API_KEY": "", "GMI_CLOUD_API_KEY": "k", "GMI_CLOUD_APIKEY": "later"},
        {"GMI_CLOUD_APIKEY": "k"},
        {"GMI_API_KEY": "", "GMI_CLOUD_API_KEY": "", "GMI_CLOUD_APIKEY": "k"},
    ],
)
def test_the_key_has_three_variables_and_the_rest_a_default(environ):
    settings = read({**environ, "GMI_ORG_ID": "", "GMI_BASE_URL": ""})
    assert settings == Settings(api_key=Secret("k"), organization_id=None, queue=QUEUE, timeout=60.0)


@pytest.mark.parametrize("organization_id", ["", "  "], ids=repr)
def test_an_empty_organization_is_none(organization_id):
    assert read(api_key="k", organization_id=organization_id).organization_id is None


def test_the_environment_of_the_process_is_the_default(monkeypatch):
    monkeypatch.setenv("GMI_API_KEY", "from-the-shell")
    settings = read_settings(api_key=None, organization_id=None, base_url="https://my.example", timeout=1.0)
    assert settings.api_key.reveal() == "from-the-shell"


@pytest.mark.parametrize("given", [{}, {"api_key": ""}, {"api_key": "  "}], ids=repr)
def test_a_missing_key_names_the_argument_and_the_variable(given):
    environ = {} if not given else {"GMI_API_KEY": "never used where a key was given"}
    with pytest.raises(
        ConfigurationError,
        match=r"KlingClient\(api_key=\.\.\.\) .* GMI_API_KEY \(or .* or GMI_CLOUD_APIKEY\)",
    ):
        read(environ, **given)


@pytest.mark.parametrize("written", ['"key"', "'key'", " 'key' \n", '" key "', "`key`", "key"])
def test_white_space_and_one_pair_of_quotes_around_a_key_are_taken_off(written):
    assert read(api_key=written).api_key.reveal() == "key"
    assert read({"GMI_API_KEY": written}).api_key.reveal() == "key"
    assert read(api_key="k", organization_id=written).organization_id == "key"


@pytest.mark.parametrize("blank", ["", " ", '""', "' '"])
def test_a_blank_variable_is_as_one_that_is_not_set(blank):
    assert read({"GMI_API_KEY": blank, "GMI_CLOUD_APIKEY": "k"}).api_key.reveal() == "k"
    with pytest.raises(ConfigurationError, match="No API key"):
        read({"GMI_API_KEY": blank})


@pytest.mark.parametrize(
    "key, reason",
    [
        ("Bearer secret", "begins with 'Bearer '"),
        ("bearer  secret", "begins with 'Bearer '"),
        ('"Bearer secret"', "begins with 'Bearer '"),
        ("${GMI_API_KEY}", "is a placeholder"),
        ("$SECRET", "is a placeholder"),
        ("$(pass secret)", "is a placeholder"),
        ("%GMI_API_KEY%", "is a placeholder"),
        ("{{ secret }}", "is a placeholder"),
        ("<your secret>", "is a placeholder"),
        ("GMI_API_KEY=secret", "begins with the name of a variable"),
        ("Authorization: Bearer secret", "has white space or a quote within it"),
        ("sec ret", "has white space or a quote within it"),
        ('"secret', "has white space or a quote within it"),
        ("secret'", "has white space or a quote within it"),
    ],
)
@pytest.mark.parametrize("name", ["api_key", "GMI_API_KEY", "GMI_CLOUD_APIKEY"])
def test_what_is_no_key_alone_is_refused_and_not_shown(name, key, reason):
    given, environ = ({"api_key": key}, {}) if name == "api_key" else ({}, {name: key})
    with pytest.raises(ConfigurationError, match=f"^{name} {reason}") as caught:
        read(environ, **given)
    assert "secret" not in str(caught.value).lower()


def test_a_key_can_hold_any_sign_that_a_header_carries():
    key = "eyJhbGciOiJIUzI1NiJ9.eyJpZCI6IjEifQ.a-b_c~d+e/f=="
    assert read(api_key=key).api_key.reveal() == key


@pytest.mark.parametrize("name", ["api_key", "organization_id"])
@pytest.mark.parametrize(
    "value", ["secret\u2026", "secret\r\nX-Other: 1", "sec\x00ret", b"secret", 7], ids=repr
)
def test_a_key_that_no_header_can_carry_is_refused_and_not_shown(name, value):
    with pytest.raises(ConfigurationError, match=name) as caught:
        read(**{"api_key": "k", name: value})
    assert "sec" not in caught.value.message


@pytest.mark.parametrize(
    "timeout", [0, -1, math.nan, math.inf, 24 * 3600 + 1, True, "60", None, 10**5000], ids=quote_value
)
def test_a_timeout_is_a_number_of_seconds_for_one_request(timeout):
    with pytest.raises(ConfigurationError, match=r"timeout=.* one HTTP request; .* PollingPolicy"):
        read(api_key="k", timeout=timeout)


def test_a_wrong_base_url_is_a_configuration_error():
    with pytest.raises(ConfigurationError, match="base_url"):
        read(api_key="k", base_url="console")


def test_no_repr_shows_the_key():
    assert "secret" not in repr(read(api_key="secret"))


def test_the_version_is_one_of_pep_440():
    assert all(part.isdecimal() for part in config.__version__.split("."))


@pytest.mark.parametrize(
    "environ, proxies",
    [
        ({}, {}),
        ({"HTTPS_PROXY": "http://a:1"}, {"https": "http://a:1"}),
        (
            {"HTTP_PROXY": "http://a:1", "https_proxy": "http://b:1"},
            {"http": "http://a:1", "https": "http://b:1"},
        ),
        ({"HTTPS_PROXY": "http://a:1", "https_proxy": "b:1"}, {"https": "http://b:1"}),
        ({"ALL_PROXY": "http://a:1", "HTTP_PROXY": ""}, {"http": "http://a:1", "https": "http://a:1"}),
        ({"HTTP_PROXY": "http://a:1", "REQUEST_METHOD": "GET"}, {}),
    ],
)
def test_the_proxies_come_from_the_environment(environ, proxies):
    network = read({"GMI_API_KEY": "k", "NO_PROXY": "c", **environ}).network
    assert {scheme: proxy.url for scheme, proxy in network.proxies.items()} == proxies
    assert network.no_proxy == "c"


@pytest.mark.parametrize("proxy", ["", "http://u:secret@b:1"])
def test_a_proxy_that_is_given_beats_the_environment(proxy):
    network = read({"HTTPS_PROXY": "http://a:1", "NO_PROXY": "*"}, api_key="k", proxy=proxy).network
    assert {found.url for found in network.proxies.values()} == ({"http://b:1"} if proxy else set())
    assert network.no_proxy == ""
    assert "secret" not in repr(network)


@pytest.mark.parametrize("proxy", ["socks5://u:secret@h", "http://u:secret@", 3])
def test_a_proxy_that_is_none_is_an_error_that_names_the_way_out_and_no_password(proxy):
    with pytest.raises(ConfigurationError, match="proxy") as caught:
        read(api_key="k", proxy=proxy)
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_an_error_names_the_variable_whose_proxy_cannot_be_used():
    with pytest.raises(ConfigurationError, match=r"ALL_PROXY is not .*KlingClient\(proxy=\"\"\)"):
        read({"ALL_PROXY": "socks5://h:1"}, api_key="k")


def test_certificates_come_from_the_file_that_the_environment_names(tmp_path, monkeypatch):
    file = tmp_path / "ca.pem"
    file.touch()
    assert read({"SSL_CERT_FILE": str(file)}, api_key="k").network.ca_file == str(file)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert read({"SSL_CERT_FILE": "~/ca.pem"}, api_key="k").network.ca_file == str(file)
    with pytest.raises(ConfigurationError, match=r"SSL_CERT_FILE=.* is not a file"):
        read({"SSL_CERT_FILE": str(tmp_path)}, api_key="k")


def test_the_environment_picks_the_transport():
    assert read(api_key="k").transport_path == "fast"
    assert read({"KLING_ASYNC_TRANSPORT": "public"}, api_key="k").transport_path == "public"
    with pytest.raises(ConfigurationError, match="KLING_ASYNC_TRANSPORT='slow' is neither public nor fast"):
        read({"KLING_ASYNC_TRANSPORT": "slow"}, api_key="k")


@pytest.mark.parametrize(
    "base_url", ["http://gmi.example.com", "http://10.0.0.5:8080", "HTTP://service", "http://[fd00::1]"]
)
def test_a_key_goes_to_another_host_encrypted_unless_the_network_is_trusted(base_url):
    with pytest.raises(
        ConfigurationError, match=r"without encryption: write https://.*KLING_ASYNC_TRUST_NETWORK=1"
    ):
        read(api_key="k", base_url=base_url)
    with pytest.raises(ConfigurationError, match="without encryption"):
        read({"GMI_BASE_URL": base_url, "KLING_ASYNC_TRUST_NETWORK": "0"}, api_key="k")
    settings = read({"KLING_ASYNC_TRUST_NETWORK": "1"}, api_key="k", base_url=base_url)
    assert settings.allow_private


@pytest.mark.parametrize(
    "base_url, allowed",
    [
        ("http://127.0.0.1:1", True),
        ("http://localhost", True),
        ("https://[::1]", True),
        ("https://gmi.example", False),
    ],
)
def test_a_service_on_this_machine_may_name_hosts_of_this_machine(base_url, allowed):
    assert read(api_key="k", base_url=base_url).allow_private is allowed


@pytest.mark.parametrize("value", ["yes", "true", "2", " 1"])
def test_the_network_is_trusted_by_one_word_alone(value):
    with pytest.raises(ConfigurationError, match=r"KLING_ASYNC_TRUST_NETWORK=.* is neither 1 nor 0"):
        read({"KLING_ASYNC_TRUST_NETWORK": value}, api_key="k")
