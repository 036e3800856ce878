from __future__ import annotations

import ipaddress
import time

import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.connectors.address_guard import (
    MAX_URL_CHARS,
    AddressGuard,
    AddressRefused,
    is_permitted,
    opened_networks,
    parse_address,
)
from ingest.connectors.http_client import HttpClient, Patience
from policies.errors import SourceUnavailable
from tests.unit.ingest.connectors.loopback_server import Answer, certificate_for, serving

PUBLIC = "93.184.215.14"
QUICK = Patience(connect_s=2, read_s=2, whole_s=5, attempts=1, first_wait_s=0.01)


def guard(*answers: list[str], **options) -> tuple[AddressGuard, list[str]]:
    """A guard whose resolver gives these answers, one after the other, the last one for good; and what it was asked."""
    asked: list[str] = []

    def resolve(host: str, port: int) -> list[str]:
        asked.append(host)
        return answers[min(len(asked), len(answers)) - 1]

    return AddressGuard(resolve=resolve, **options), asked


def asks(judge: AddressGuard, url: str) -> None:
    """What a connection would be allowed to do with a URL."""
    address = parse_address(url)
    judge.check(address)
    judge.addresses(address.host, address.port)


# ---- the hostile list: none of these may be asked, whatever the resolver says (it says "public" for every name)

HOSTILE = [
    # this machine and unspecified
    "http://127.0.0.1/",
    "http://127.0.0.1:80/",
    "https://127.0.0.1./",
    "http://127.255.255.254/",
    "http://0.0.0.0/",
    "http://0.1.2.3/",
    "http://[::1]/",
    "http://[0:0:0:0:0:0:0:1]/",
    "http://[::]/",
    # private, link-local, carrier-grade, benchmark, reserved, multicast, documentation
    "http://10.0.0.1/",
    "http://10.255.255.255/",
    "http://172.16.0.1/",
    "http://172.31.255.255/",
    "http://192.168.1.1/",
    "http://100.64.0.1/",
    "http://100.127.255.254/",
    "http://169.254.1.1/",
    "http://198.18.0.1/",
    "http://198.19.255.255/",
    "http://192.0.0.8/",
    "http://192.0.2.1/",
    "http://198.51.100.7/",
    "http://203.0.113.9/",
    "http://192.88.99.1/",
    "http://224.0.0.1/",
    "http://239.255.255.250/",
    "http://240.0.0.1/",
    "http://255.255.255.255/",
    "http://[fc00::1]/",
    "http://[fd12:3456:789a::1]/",
    "http://[fe80::1]/",
    "http://[fec0::1]/",
    "http://[ff02::1]/",
    "http://[100::1]/",
    "http://[2001:db8::1]/",
    "http://[3fff::1]/",
    "http://[5f00::1]/",
    # metadata services
    "http://169.254.169.254/latest/meta-data/",
    "http://169.254.170.2/v2/credentials",
    "http://100.100.100.200/latest/meta-data/",
    "http://168.63.129.16/metadata",
    "http://192.0.0.192/opc/v1/",
    "http://[fd00:ec2::254]/latest/",
    "http://[fd20:ce::254]/computeMetadata/",
    # IPv4 in IPv6
    "http://[::ffff:127.0.0.1]/",
    "http://[::ffff:7f00:1]/",
    "http://[::ffff:169.254.169.254]/",
    "http://[::ffff:10.0.0.1]/",
    "http://[::127.0.0.1]/",
    "http://[64:ff9b::127.0.0.1]/",
    "http://[64:ff9b::a00:1]/",
    "http://[64:ff9b:1::1]/",
    "http://[2002:7f00:1::]/",
    "http://[2002:a00:1::1]/",
    "http://[2001:0:4136:e378:8000:63bf:3fff:fdd2]/",
    "http://[2a00:1450:4001::5efe:10.0.0.1]/",
    # unusual spellings of addresses
    "http://2130706433/",
    "http://0x7f000001/",
    "http://0x7f.0.0.1/",
    "http://0x7f.1/",
    "http://017700000001/",
    "http://0177.0.0.1/",
    "http://127.1/",
    "http://127.0.1/",
    "http://127.0.0.01/",
    "http://127.0.0.0x1/",
    "http://1.2.3.4.5/",
    "http://256.1.1.1/",
    "http://999/",
    "http://evil.example.0x7f/",
    "http://１２７.０.０.１/",
    "http://①②⑦.⓪.⓪.①/",
    "http://127。0。0。1/",
    "http://%31%32%37.0.0.1/",
    "http://127.0.0.1%2f.example.com/",
    # who is asked is not who is shown
    "http://example.com@127.0.0.1/",
    "http://127.0.0.1@evil.example/",
    "http://user:password@example.com/",
    "http://@example.com/",
    "http://example.com\\@127.0.0.1/",
    "http://example.com\\.evil.example/",
    "http:\\\\127.0.0.1\\",
    "http://example.com%00.evil.example/",
    "http://example.com\r\nHost: 127.0.0.1\r\n/",
    "http://example.com/\r\nX-Evil: 1",
    "http://example.com/\x00",
    "http://exa\tmple.com/",
    "http://exa\nmple.com/",
    " http://example.com/",
    "http://example.com /",
    "http://[fe80::1%25eth0]/",
    "http://[fe80::1%eth0]/",
    "http://[::1/",
    "http://::1/",
    "http://[127.0.0.1]/",
    "http://[v1.fe80]/",
    "http://example.com:80:80/",
    "http://example.com:-1/",
    "http://example.com:0/",
    "http://example.com:65536/",
    "http://example.com:٨٠/",
    "http://example.com:8x/",
    # shut ports
    "http://example.com:22/",
    "http://example.com:6379/",
    "http://example.com:11211/",
    "https://example.com:9200/",
    # other schemes, and none
    "file:///etc/passwd",
    "gopher://127.0.0.1:6379/_x",
    "ftp://example.com/",
    "dict://127.0.0.1:11211/",
    "jar:http://example.com!/",
    "javascript:alert(1)",
    "data:text/html,x",
    "//example.com/",
    "http:/127.0.0.1/",
    "http:127.0.0.1",
    "http:///127.0.0.1/",
    "http://",
    "https://?x",
    "",
    # names that are none
    "http://./",
    "http://../",
    "http://a..b/",
    "http://example.com../",
    "http://-a.example/",
    "http://exa_mple!.com/",
    "http://" + "a" * 64 + ".example/",
    "http://" + "a." * 130 + "example/",
    "http://xn--\u2028.example/",
    "http://\u202eexample.com/",
    "http://exa\u200bmple\ud800.com/",
    "http://example.com/" + "a" * MAX_URL_CHARS,
]


def test_the_hostile_list_is_long_enough() -> None:
    assert len(set(HOSTILE)) == len(HOSTILE) >= 80


@pytest.mark.parametrize("url", HOSTILE)
def test_a_hostile_url_is_refused(url: str) -> None:
    judge, _ = guard([PUBLIC], ports={80, 443})
    with pytest.raises(AddressRefused) as caught:
        asks(judge, url)
    assert "127.0.0.1" not in caught.value.detail
    assert "169.254" not in caught.value.detail


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.1.2.3", "169.254.169.254", "::1", "fe80::1%eth0", "fd00:ec2::254", "::ffff:192.168.0.1"]
    + ["0.0.0.0", "100.64.0.1", "64:ff9b::10.0.0.1", "168.63.129.16", "224.0.0.1", "2002:c0a8:1::1"],
)
@pytest.mark.parametrize("name", ["metadata.google.internal", "localhost", "localtest.example", "db.corp.internal"])
def test_a_name_is_judged_by_its_address(name: str, address: str) -> None:
    judge, _ = guard([address])
    with pytest.raises(AddressRefused):
        asks(judge, f"http://{name}/")


def test_one_private_address_among_public_ones_is_enough_to_refuse() -> None:
    judge, _ = guard([PUBLIC, "2606:2800:21f:cb07:6820:80da:af6b:8b2c", "10.0.0.1"])
    with pytest.raises(AddressRefused):
        judge.addresses("mixed.example", 80)


@pytest.mark.parametrize(
    "address", [PUBLIC, "8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "64:ff9b::8.8.8.8", "::ffff:8.8.8.8"]
)
def test_public_addresses_are_permitted(address: str) -> None:
    assert is_permitted(ipaddress.ip_address(address))


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=100, deadline=None)
def test_no_address_gains_by_being_written_inside_ipv6(number: int) -> None:
    plain = ipaddress.IPv4Address(number)
    for prefix in (0xFFFF << 32, 0x0064FF9B << 96):
        assert is_permitted(ipaddress.IPv6Address(prefix | number)) == is_permitted(plain)
    assert not is_permitted(ipaddress.IPv6Address(0x2002 << 112 | number << 80))
    if plain.is_private or plain.is_multicast or plain.is_reserved:
        assert not is_permitted(plain)


# ---- what an operator opens


def test_an_opened_network_is_open_for_the_hosts_of_the_source_only() -> None:
    judge, _ = guard(["10.1.2.3"], opened=opened_networks(["10.1.0.0/16"]), private_hosts={"wiki.intra"})
    assert judge.addresses("wiki.intra", 80) == ["10.1.2.3"]
    with pytest.raises(AddressRefused):
        judge.addresses("other.example", 80)


@pytest.mark.parametrize("address", ["169.254.169.254", "100.100.100.200", "fd00:ec2::254"])
def test_metadata_services_stay_shut_in_an_opened_network(address: str) -> None:
    opened = opened_networks(["169.254.0.0/16", "100.64.0.0/10", "fd00::/8"])
    assert not is_permitted(ipaddress.ip_address(address), opened)


@pytest.mark.parametrize(
    "text", ["0.0.0.0/0", "::/0", "8.8.8.0/24", "10.0.0.0/7", "224.0.0.0/4", "10.0.0.1/8", "x", "2000::/3"]
)
def test_only_private_networks_can_be_opened(text: str) -> None:
    with pytest.raises(ValueError, match=r"private|network|host bits"):
        opened_networks([text])


# ---- one spelling


@pytest.mark.parametrize(
    ("written", "spelt"),
    [
        ("HTTP://EXAMPLE.com", "http://example.com/"),
        ("http://example.com:80/#top", "http://example.com/"),
        ("https://example.com:443/a/../b/./c", "https://example.com/b/c"),
        ("https://example.com:8443/", "https://example.com:8443/"),
        ("http://example.com./a", "http://example.com/a"),
        ("http://example.com/%7euser/%c3%a4", "http://example.com/~user/%C3%A4"),
        ("http://example.com/ä?q=ö&x=[1]", "http://example.com/%C3%A4?q=%C3%B6&x=%5B1%5D"),
        ("http://example.com/%2e%2e/%2e/a", "http://example.com/a"),
        ("http://example.com/../../etc", "http://example.com/etc"),
        ("http://example.com/100%", "http://example.com/100%25"),
        ("http://example.com?", "http://example.com/?"),
        ("http://bücher.example/", "http://xn--bcher-kva.example/"),
        ("http://BÜCHER.example/", "http://xn--bcher-kva.example/"),
        ("http://[2606:4700:4700:0:0:0:0:1111]/", "http://[2606:4700:4700::1111]/"),
        ("http://my_host.example/a", "http://my_host.example/a"),
        ("http://example.com/a;b=1,2?c=/d?e", "http://example.com/a;b=1,2?c=/d?e"),
    ],
)
def test_a_url_has_one_spelling(written: str, spelt: str) -> None:
    assert parse_address(written).url == spelt
    assert parse_address(spelt).url == spelt


@given(st.text(max_size=60), st.sampled_from(["http://", "https://", "http://a", "http://example.com/", ""]))
@settings(max_examples=200, deadline=None)
def test_whatever_is_read_is_read_alike_by_the_library_that_sends_it(text: str, prefix: str) -> None:
    try:
        address = parse_address(prefix + text)
    except AddressRefused:
        return
    theirs = httpx2.URL(address.url)
    port = theirs.port or {"http": 80, "https": 443}[theirs.scheme]
    assert (theirs.raw_host.decode(), port) == (address.host, address.port)
    assert str(theirs) == address.url
    assert parse_address(address.url) == address


@pytest.mark.parametrize(
    ("reference", "spelt"),
    [
        ("b", "http://example.com/a/b"),
        ("/b", "http://example.com/b"),
        ("?x=1", "http://example.com/a/?x=1"),
        ("//other.example/c", "http://other.example/c"),
        ("#top", "http://example.com/a/"),
    ],
)
def test_a_reference_is_read_from_its_page(reference: str, spelt: str) -> None:
    assert parse_address(reference, base="http://example.com/a/").url == spelt


def test_a_long_hostile_url_takes_no_time() -> None:
    began = time.process_time()
    for text in ("http://" + "a." * 900, "http://a/" + "%" * 1900, "http://a/" + "../" * 600, "http://[" + ":" * 1900):
        try:
            parse_address(text)
        except AddressRefused:
            continue
    assert time.process_time() - began < 0.5


# ---- the connection itself


def client(judge: AddressGuard, **options) -> HttpClient:
    return HttpClient(1000, QUICK, addresses=judge.addresses, **options)


LOOPBACK = {"opened": opened_networks(["127.0.0.0/8"])}


def test_a_connection_goes_to_the_address_that_was_judged_and_keeps_the_name() -> None:
    with serving() as server:
        server.routes["/"] = Answer("here")
        judge, asked = guard(["127.0.0.1"], **LOOPBACK)
        reply = client(judge).get(f"http://docs.example:{server.port}/", 100)
        assert reply.body == b"here"
        assert server.asked[0].headers["host"] == f"docs.example:{server.port}"
        assert asked == ["docs.example"]


def test_a_resolver_that_changes_its_answer_is_asked_once_for_a_connection() -> None:
    """Rebinding: public when judged, this machine when connected to. There is no second look-up to lie to."""
    with serving() as server:
        server.routes["/"] = Answer("inside")
        judge, asked = guard([PUBLIC], ["127.0.0.1"])
        addresses: list[str] = []

        def judged(host: str, port: int) -> list[str]:
            addresses.extend(judge.addresses(host, port))
            return addresses

        quick = Patience(connect_s=0.3, read_s=1, whole_s=2, attempts=1)
        with pytest.raises(SourceUnavailable):  # the public address has no such server
            HttpClient(1000, quick, addresses=judged).get(f"http://rebind.example:{server.port}/", 100)
        assert (asked, addresses, server.asked) == (["rebind.example"], [PUBLIC], [])


def test_the_next_connection_is_judged_anew() -> None:
    with serving() as server:
        server.routes["/"] = Answer("here", headers={"connection": "close"})
        judge, asked = guard(["127.0.0.1"], ["169.254.169.254"], **LOOPBACK)
        sender = client(judge)
        assert sender.get(f"http://rebind.example:{server.port}/", 100).body == b"here"
        with pytest.raises(AddressRefused):
            sender.get(f"http://rebind.example:{server.port}/", 100)
        assert len(asked) == 2


def test_an_open_connection_stays_where_it_was_judged() -> None:
    with serving() as server:
        server.routes["/"] = Answer("here")
        judge, asked = guard(["127.0.0.1"], ["10.0.0.1"], **LOOPBACK)
        sender = client(judge)
        for _ in range(3):
            assert sender.get(f"http://docs.example:{server.port}/", 100).body == b"here"
        assert (len(asked), server.connections) == (1, 1)


def test_tls_holds_the_server_to_the_name_and_not_to_the_address(tmp_path) -> None:
    certificate = certificate_for("docs.example", tmp_path)
    with serving(certificate) as server:
        server.routes["/"] = Answer("secret")
        judge, _ = guard(["127.0.0.1"], **LOOPBACK)
        sender = client(judge, ca_file=str(certificate))
        assert sender.get(f"https://docs.example:{server.port}/", 100).body == b"secret"
        assert server.names == ["docs.example"]
        with pytest.raises(SourceUnavailable, match="certificate"):
            sender.get(f"https://other.example:{server.port}/", 100)
        with pytest.raises(SourceUnavailable, match="certificate"):
            client(judge).get(f"https://docs.example:{server.port}/", 100)
        assert len(server.asked) == 1


def test_proxies_and_certificates_of_the_environment_take_no_part(monkeypatch, tmp_path) -> None:
    certificate = certificate_for("docs.example", tmp_path)
    with serving() as proxy, serving(certificate) as secure, serving() as server:
        proxy.routes["*"] = Answer("from the proxy")
        server.routes["/"] = secure.routes["/"] = Answer("direct")
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        judge, _ = guard(["127.0.0.1"], **LOOPBACK)
        assert client(judge).get(f"http://docs.example:{server.port}/", 100).body == b"direct"
        with pytest.raises(SourceUnavailable, match="certificate"):
            client(judge).get(f"https://docs.example:{secure.port}/", 100)
        assert proxy.asked == []


def test_a_name_without_address_is_no_answer() -> None:
    def resolve(host: str, port: int) -> list[str]:
        raise OSError("no such name")

    with pytest.raises(SourceUnavailable, match="cannot be connected"):
        client(AddressGuard(resolve=resolve)).get("http://nowhere.example/", 100)


def test_all_judged_addresses_are_tried() -> None:
    with serving() as server:
        server.routes["/"] = Answer("here")
        judge, _ = guard(["127.0.0.2", "127.0.0.1"], **LOOPBACK)
        assert client(judge).get(f"http://docs.example:{server.port}/", 100).body == b"here"
