"""The configuration: what is wrong is refused with its place; the fingerprint covers what the state depends on."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thalweg.streams.configuration import (
    Configuration,
    ConfigurationError,
    Duration,
    from_builtins,
    load,
    to_builtins,
)  # fmt: skip


@given(st.integers(0, 10**15))
def test_a_duration_survives_being_written(ms):
    assert Duration.parse(str(Duration(ms))) == ms


@pytest.mark.parametrize("text", ["", "7", "d", "7 d", "-7d", "7.5h", "1y", "7D", "1d2h"])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(ValueError, match="is no duration; write a whole number and a unit"):
        Duration.parse(text)


def test_a_configuration_survives_being_written():
    configuration = from_builtins(
        {"features": [{"name": "device"}], "attribution": {"window": "36h"}, "calibration": {"levels": 2}}
    )
    assert from_builtins(to_builtins(configuration)) == configuration
    assert from_builtins(msgspec.json.decode(msgspec.json.encode(to_builtins(configuration)))) == configuration


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"windw": 1}, "windw"),
        ({"attribution": {"windw": "7d"}}, "windw"),
        ({"attribution": {"window": 7}}, "expected a duration"),
        ({"attribution": {"window": "7"}}, "'7' is no duration"),
        ({"attribution": {"history": 0}}, "history"),
        ({"partitions": 0}, "partitions"),
        ({"partitions": "2"}, "partitions"),
        ({"conversion": {"policy": "hope"}}, "hope"),
        ({"conversion": {"checkpoints": [0.5, 0.2]}}, "checkpoints must rise strictly between 0 and 1"),
        ({"conversion": {"checkpoints": [0.0]}}, "checkpoints must rise strictly between 0 and 1"),
        ({"conversion": {"crosses": [["item_id", "colour"]]}}, "'colour', which is not declared in features"),
        ({"graph": {"category": "colour"}}, "graph.category 'colour' is no declared feature"),
        ({"features": [{"name": "a"}, {"name": "a"}]}, "feature 'a' is declared twice; remove one"),
        ({"features": [{"name": "price"}]}, "feature 'price' has the name of an event field; rename it"),
        ({"features": [{"name": "a b"}]}, "name"),
        ({"features": [{"name": "a", "source": "user"}]}, "user"),
        ({"audit_interval": "0ms"}, "audit_interval"),
        ({"calibration": {"epoch": "0d"}}, "calibration.epoch"),
        ({"graph": {"refresh": "0d"}}, "graph.refresh"),
        ({"attribution": {"pair_half_life": "0d"}}, "attribution.pair_half_life"),
        ({"kafka": {"linger": "0ms"}}, "kafka.linger must be longer than 0ms"),
        ({"kafka": {"session_timeout": "0s"}}, "kafka.session_timeout must be longer than 0ms"),
        ({"kafka": {"topics": {}}}, "kafka.topics names no raw topic"),
        ({"kafka": {"topics": {"x": "clicks"}}}, "'x' has rows of type 'clicks'; write impression, click, add_to_cart"),
        ({"kafka": {"brokers": ""}}, "'' is no address; write host:port"),
        ({"kafka": {"brokers": "a:9092,"}}, "'' is no address; write host:port"),
        ({"kafka": {"brokers": "a:99999"}}, "'a:99999' is no address"),
        ({"kafka": {"brokers": "PLAINTEXT://a:9092"}}, "'PLAINTEXT://a:9092' is no address"),
    ],
)
def test_what_is_wrong_is_refused_with_its_place(raw, message):
    with pytest.raises(ConfigurationError) as caught:
        from_builtins(raw, "shop.toml")
    assert str(caught.value).startswith("shop.toml: ") and message in str(caught.value)


def test_file_then_environment_then_the_command_line(tmp_path):
    path = tmp_path / "shop.toml"
    path.write_text('partitions = 2\n[time]\nlateness = "1m"\nzone = "Europe/Berlin"\n[[features]]\nname = "device"\n')
    environment = {"THALWEG_TIME__LATENESS": "2m", "THALWEG_PARTITIONS": "3", "HOME": "/root", "THALWEG_CACHE": "/x"}
    configuration = load(path, environment, partitions=4, features=None)
    assert (configuration.partitions, configuration.time.lateness, configuration.time.zone) == (
        4,
        120_000,
        "Europe/Berlin",
    )
    assert load(path, environment).partitions == 3 and load(path, {}).time.lateness == 60_000
    assert [feature.name for feature in configuration.features] == ["device"]


def test_the_environment_may_say_numbers_booleans_durations_and_text():
    environment = {
        "THALWEG_CONVERSION__BITS": "18", "THALWEG_CONVERSION__LEARNING_RATE": "0.5", "THALWEG_TIME__ZONE": "UTC",
        "THALWEG_STORE__SYNC": "true", "THALWEG_ATTRIBUTION__WINDOW": "36h", "THALWEG_CONVERSION__POLICY": "wait",
        "THALWEG_TIME__EARLIEST": "2024-01-01", "THALWEG_CONVERSION__CHECKPOINTS": "[0.1, 0.2]",
    }  # fmt: skip
    configuration = load(None, environment)
    assert configuration.conversion.bits == 18 and configuration.conversion.learning_rate == 0.5
    assert configuration.store.sync and configuration.attribution.window == 36 * 3_600_000
    assert configuration.time.earliest == "2024-01-01" and configuration.conversion.checkpoints == (0.1, 0.2)


def test_addresses_are_hosts_with_ports_or_without():
    for brokers in ("a", "a:1", "a-1.b:9092, c:9093", "[::1]:9092,127.0.0.1:9", "[fe80::1%eth0]:65535"):
        assert from_builtins({"kafka": {"brokers": brokers}}).kafka.brokers == brokers


def test_what_the_environment_says_to_the_client_stays_text():
    environment = {"THALWEG_KAFKA__CLIENT__SASL_PASSWORD": "0123", "THALWEG_KAFKA__CLIENT__SSL_KEY_PASSWORD": '"a b"'}
    assert load(None, environment).kafka.client == {"sasl_password": "0123", "ssl_key_password": "a b"}


@pytest.mark.parametrize(
    "environment",
    [
        {"THALWEG_ATTRIBUTION__WINDW": "7d"},
        {"THALWEG_ATTRIBUTION": "7d", "THALWEG_ATTRIBUTION__WINDOW": "7d"},
        {"THALWEG_PARTITIONS": "2", "THALWEG_PARTITIONS__X": "2"},
        {"THALWEG_BITS": "18"},
    ],
)
def test_a_wrong_variable_is_refused(environment):
    with pytest.raises(ConfigurationError):
        load(None, environment)


def test_a_file_that_is_missing_or_no_toml_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match=r"nowhere.toml: cannot be read: No such file"):
        load(tmp_path / "nowhere.toml", {})
    (tmp_path / "bad.toml").write_text("window = = 7")
    with pytest.raises(ConfigurationError, match="bad.toml: is no TOML"):
        load(tmp_path / "bad.toml", {})
    (tmp_path / "latin.toml").write_bytes(b'zone = "Z\xfcrich"')
    with pytest.raises(ConfigurationError, match="latin.toml: is no TOML"):
        load(tmp_path / "latin.toml", {})


def test_the_fingerprint_covers_all_but_how_the_state_is_stored():
    base = Configuration().fingerprint()
    assert from_builtins({"store": {"page": 8192, "sync": True, "checkpoint": "1s"}}).fingerprint() == base
    assert from_builtins({"attribution": {"window": "168h"}}).fingerprint() == base  # the same span
    changed = [
        {"partitions": 2}, {"attribution": {"window": "8d"}}, {"features": [{"name": "a"}]}, {"graph": {"seed": 2}},
        {"conversion": {"bits": 18}}, {"calibration": {"levels": 5}}, {"audit_interval": "2d"},
        {"features": [{"name": "b"}, {"name": "a"}]}, {"features": [{"name": "a"}, {"name": "b"}]},
    ]  # fmt: skip
    assert len({base, *(from_builtins(raw).fingerprint() for raw in changed)}) == len(changed) + 1
