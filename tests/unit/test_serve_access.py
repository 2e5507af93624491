"""Who may ask `headrace serve`: keys, roles, hosts, origins."""

import json
import stat
from concurrent.futures import ThreadPoolExecutor

import pytest
from typer.testing import CliRunner

from headrace.infra.api_keys import ApiKeys
from headrace.infra.cli.app import app
from headrace.infra.processes.serve import Options, Server
from headrace.infra.serve.access import Access, is_loopback
from headrace.infra.serve.refusals import Forbidden, Unauthenticated
from headrace.infra.settings import Settings
from headrace.models.errors import BadInput, SettingsError
from headrace.models.facts import ignore


@pytest.fixture
def keys(tmp_path):
    return ApiKeys(tmp_path / "home" / "keys.json")


def access(keys, *, required=False, hosts=(), origins=()):
    return Access(keys, required=required, hosts=hosts, origins=origins)


def test_a_key_is_shown_once_and_kept_as_a_hash_that_only_its_owner_reads(keys, tmp_path):
    entry, token = keys.add("checkout", "predict")
    place = tmp_path / "home" / "keys.json"
    assert token not in place.read_text()
    assert token.rpartition("_")[2] not in place.read_text()
    assert stat.S_IMODE(place.stat().st_mode) == 0o600
    assert keys.holder(token) == entry
    assert len(token) == 55
    for wrong in ("", "hr_", token[:-1], token[:-1] + ("A" if token[-1] != "A" else "B"), token + "A", "x" * 1_000):
        assert keys.holder(wrong) is None


def test_keys_are_added_listed_and_revoked_by_commands(tmp_path, monkeypatch):
    monkeypatch.setenv("HEADRACE_API_KEYS_FILE", str(tmp_path / "keys.json"))

    def ran(*words):
        done = CliRunner().invoke(app, ["key", *words, "--output", "json"], catch_exceptions=False)
        return [json.loads(line) for line in done.stdout.splitlines()]

    assert ran("list") == []
    (added,) = ran("add", "checkout", "--role", "operate")
    entry = ApiKeys(tmp_path / "keys.json").holder(added["key"])
    assert (entry.id, entry.name, entry.role) == (added["id"], "checkout", "operate")
    (listed,) = ran("list")
    assert listed == {name: value for name, value in added.items() if name != "key"}
    (revoked,) = ran("revoke", added["id"])
    assert revoked["revoked_at"]
    assert ApiKeys(tmp_path / "keys.json").holder(added["key"]) is None


def test_another_process_s_keys_and_revocations_are_seen(keys, tmp_path):
    other = ApiKeys(tmp_path / "home" / "keys.json")
    entry, token = other.add("checkout", "read")
    assert keys.holder(token) is None
    keys.refresh()
    assert keys.holder(token) == entry
    other.revoke(entry.id)
    keys.refresh()
    assert keys.holder(token) is None
    assert keys  # all are revoked: nobody is let in, rather than everybody
    with pytest.raises(BadInput, match="expected one of"):
        keys.revoke("nobody")
    for name in ("", "x" * 61, "a\nb"):
        with pytest.raises(BadInput):
            keys.add(name, "read")


def test_what_two_write_at_once_is_all_there(keys, tmp_path):
    place = tmp_path / "home" / "keys.json"
    others = [ApiKeys(place) for _ in range(4)]  # each as old as the empty file
    leaked, token = keys.add("leaked", "operate")

    def changed(other):
        for n in range(5):
            other.add(f"key {n}", "read")
        other.revoke(leaked.id)
        other.add("last", "read")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(changed, others))
    keys.refresh()
    assert len(keys.all()) == 25
    assert keys.holder(token) is None
    assert stat.S_IMODE(place.with_name("keys.json.lock").stat().st_mode) == 0o600


def test_a_broken_file_is_an_error_and_what_was_known_stays(keys, tmp_path):
    place = tmp_path / "home" / "keys.json"
    _, token = keys.add("checkout", "read")
    for content in (b"{", b'{"keys": 1}', b"\xff"):
        place.write_bytes(content)
        with pytest.raises(SettingsError, match="expected API keys"):
            keys.refresh()
        assert keys.holder(token)
    place.unlink()
    with pytest.raises(SettingsError, match="has gone"):
        keys.refresh()
    assert keys.holder(token)


def test_roles_include_those_before_them(keys):
    tokens = {role: keys.add(role, role)[1] for role in ("read", "predict", "operate")}
    who = access(keys).who
    allowed = {(has, needs) for has, token in tokens.items() for needs in tokens if may(who, needs, f"Bearer {token}")}
    assert allowed == {("read", "read"), ("predict", "read"), ("predict", "predict")} | {
        ("operate", needs) for needs in tokens
    }
    assert who("read", lambda: f"bearer {tokens['read']}") == "read"
    for given in (None, "", tokens["read"], f"Basic {tokens['read']}", "Bearer", "Bearer x"):
        with pytest.raises(Unauthenticated):
            who("read", lambda given=given: given)


def may(who, needs, authorization):
    try:
        who(needs, lambda: authorization)
    except Forbidden:
        return False
    return True


def test_without_keys_this_machine_may_do_everything_unless_keys_are_required(keys):
    assert access(keys).who("operate", lambda: None)
    with pytest.raises(Unauthenticated):
        access(keys, required=True).who("read", lambda: None)


def test_hosts_are_those_that_were_named_and_loopback_s(keys):
    check = access(keys, hosts=["models.example.com"]).check_place
    for host in ("localhost", "127.0.0.1:8080", "[::1]:8080", "Models.Example.com:443"):
        check({b"host": host.encode()}, changes=True)
    for host in ("", "evil.example.com", "localhost.evil.example.com", "[::2]", "evil\xff", "a" * 10_000):
        with pytest.raises(Forbidden, match="Host: expected one of"):
            check({b"host": host.encode("latin-1")}, changes=False)


def test_a_page_of_another_site_changes_nothing(keys):
    check = access(keys, origins=["https://console.example.com"]).check_place
    local = {b"host": b"localhost:8080"}
    check(local, changes=True)
    check(local | {b"origin": b"https://console.example.com"}, changes=True)
    check(local | {b"origin": b"https://evil.example.com"}, changes=False)  # it could not read the answer
    for more in ({b"origin": b"https://evil.example.com"}, {b"origin": b"null"}, {b"sec-fetch-site": b"cross-site"}):
        with pytest.raises(Forbidden):
            check(local | more, changes=True)


def test_nothing_listens_beyond_loopback_without_keys(tmp_path):
    settings = Settings(home=tmp_path)
    for host in ("0.0.0.0", "::", "192.0.2.1", "models.example.com", ""):  # noqa: S104  that is what is refused
        assert not is_loopback(host)
        with pytest.raises(SettingsError, match="expected API keys"):
            Server(settings, [], ignore, Options(host=host))
    for host in ("127.0.0.1", "127.0.0.2", "::1", "localhost"):
        assert is_loopback(host)
    ApiKeys(settings.api_keys).add("checkout", "predict")
    Server(settings, [], ignore, Options(host="0.0.0.0"))  # noqa: S104  with a key
