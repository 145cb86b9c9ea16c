"""Where a request would go: URLs read in one way only, and which addresses are out in the internet."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import urlsplit

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runloop.caps.destination import kind_of_address, parse_destination, redirected
from runloop.errors import UsageError


@pytest.mark.parametrize(
    ("url", "read"),
    [
        ("https://api.example.org", "https://api.example.org/"),
        ("HTTPS://API.Example.ORG./v1?city=Bern", "https://api.example.org/v1?city=Bern"),
        ("https://api.example.org:443/", "https://api.example.org/"),
        ("https://api.example.org:8443/a%20b", "https://api.example.org:8443/a%20b"),
        ("http://10.0.0.1:80/x", "http://10.0.0.1/x"),
        ("https://[2001:DB8:0:0::1]:8443/", "https://[2001:db8::1]:8443/"),
        ("https://api.example.org?q=1#part", "https://api.example.org/?q=1"),
        ("https://api.example.org/..a/.b?c=/../d", "https://api.example.org/..a/.b?c=/../d"),
    ],
)
def test_a_url_has_one_spelling(url: str, read: str) -> None:
    assert str(parse_destination(url)) == read


@pytest.mark.parametrize(
    "url",
    [
        "",
        "api.example.org",
        "//api.example.org/",
        "ftp://api.example.org/",
        "file:///etc/passwd",
        "https:///x",
        "https://user@api.example.org/",
        "https://user:secret@api.example.org/",
        "https://api.example.org@evil.example/",
        "https://api.example.org:/",
        "https://api.example.org:0/",
        "https://api.example.org:65536/",
        "https://api.example.org:+80/",
        "https://api.example.org:８０/",
        "https://api.example.org\\@evil.example/",
        "https://evil.example\\.api.example.org/",
        "https://api.example.org/a b",
        "https://api.example.org/\r\nHost: evil.example",
        "https://api.example.org/\x00",
        "https://api.example.org\t/",
        " https://api.example.org/",
        "https://api.example.org/%zz",
        "https://api.example.org/.",
        "https://api.example.org/a/../b",
        "https://api.example.org/a/%2E./b",
        "https://api.example.org/ü",
        "https://bücher.example/",
        "https://api..example.org/",
        "https://-api.example.org/",
        "https://127.1/",
        "https://2130706433/",
        "https://0x7f000001/",
        "https://0x7f.0.0.1/",
        "https://0177.0.0.1/",
        "https://127.0.0.0x1/",
        "https://1.2.3.4.5/",
        "https://256.1.1.1/",
        "https://[::1%25eth0]/",
        "https://[::1%eth0]/",
        "https://[::1/",
        "https://[127.0.0.1]/",
        "https://[::1]x/",
        "https://*.example.org/",
        "https://" + "a" * 64 + ".example.org/",
        "https://api.example.org/" + "a" * 9_000,
    ],
)
def test_what_readers_disagree_about_is_refused(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_destination(url)
    assert caught.value.named_code == "http.url"


def test_a_refused_url_is_not_repeated() -> None:
    with pytest.raises(UsageError) as caught:
        parse_destination("https://me:hunter2@api.example.org/")
    assert "hunter2" not in str(caught.value)
    assert "user name or password" in str(caught.value)


URLS = st.one_of(
    st.text(max_size=40),
    st.builds(
        "{}://{}{}{}".format,
        st.sampled_from(["https", "http", "HTTPS", "ws"]),
        st.one_of(
            st.sampled_from(
                ["a.example", "A.EXAMPLE.", "[::1]", "[fe80::1]", "127.0.0.1", "0x7f.1", "u@h", ""]
            ),
            st.text("aA.0@:[]\\%-_x", max_size=12),
        ),
        st.sampled_from(["", ":80", ":443", ":", ":99999"]),
        st.one_of(st.just(""), st.text("/?#%.aA0;=&@:\\ é", max_size=20).map(lambda rest: "/" + rest)),
    ),
)


@given(URLS)
def test_whatever_is_accepted_means_the_same_to_every_reader(url: str) -> None:
    try:
        place = parse_destination(url)
    except UsageError:
        return
    text = str(place)
    assert parse_destination(text) == place
    split = urlsplit(text)
    assert (split.scheme, split.hostname, split.username) == (place.scheme, place.host, None)
    assert (split.port or {"https": 443, "http": 80}[place.scheme]) == place.port
    other = httpx2.URL(text)
    assert (other.host, other.userinfo) == (place.host, b"")
    assert other.raw_path == place.target.encode()


@pytest.mark.parametrize(
    ("location", "leads"),
    [
        ("/b", "https://a.example/b"),
        ("c?d=1", "https://a.example/x/c?d=1"),
        ("//b.example/", "https://b.example/"),
        ("http://127.0.0.1/", "http://127.0.0.1/"),
        ("/ü x", "https://a.example/%C3%BC%20x"),
        ("https://b.example/#top", "https://b.example/"),
        ("../../d", "https://a.example/d"),
    ],
)
def test_a_redirect_leads_where_a_browser_would_go(location: str, leads: str) -> None:
    assert str(redirected(parse_destination("https://a.example/x/y"), location)) == leads


@pytest.mark.parametrize(
    "location",
    [
        "https://u:p@b.example/",
        "file:///etc/passwd",
        "/a\r\nb",
        "https:\\\\b.example",
        "javascript:1",
        "https://b.example/../c",
    ],
)
def test_a_redirect_to_what_no_url_may_be_is_refused(location: str) -> None:
    with pytest.raises(UsageError):
        redirected(parse_destination("https://a.example/x/y"), location)


# --- addresses ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("8.8.8.8", None),
        ("93.184.215.14", None),
        ("2606:2800:21f::1", None),
        ("127.0.0.1", "loopback"),
        ("127.255.255.254", "loopback"),
        ("::1", "loopback"),
        ("0.0.0.0", "this network"),
        ("::", "unspecified"),
        ("10.1.2.3", "private"),
        ("172.31.0.1", "private"),
        ("172.32.0.1", None),
        ("192.168.0.1", "private"),
        ("fd00::1", "private"),
        ("169.254.169.254", "link-local"),
        ("fe80::1", "link-local"),
        ("fe80::1%eth0", "link-local"),
        ("2606:2800:21f::1%eth0", "link-local"),
        ("100.64.0.1", "carrier-grade NAT"),
        ("100.128.0.1", None),
        ("224.0.0.1", "multicast"),
        ("ff02::1", "multicast"),
        ("255.255.255.255", "reserved"),
        ("198.18.0.1", "reserved"),
        ("192.0.2.1", "for documentation"),
        ("2001:db8::1", "for documentation"),
        ("::ffff:127.0.0.1", "IPv4 in IPv6"),
        ("::ffff:8.8.8.8", "IPv4 in IPv6"),
        ("::127.0.0.1", "IPv4 in IPv6"),
        ("2002:7f00:1::", "IPv4 in IPv6"),
        ("2001:0:7f00:1::", "IPv4 in IPv6"),
        ("64:ff9b::7f00:1", "NAT64"),
        ("64:ff9b:1::a00:1", "NAT64"),
        ("100::1", "reserved"),
        ("4000::1", "reserved"),
    ],
)
def test_only_what_is_out_in_the_internet_is_public(address: str, kind: str | None) -> None:
    assert kind_of_address(ip_address(address)) == kind


@given(st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)))
def test_nothing_is_public_that_the_registries_call_special(address: IPv4Address | IPv6Address) -> None:
    if kind_of_address(address) is None:
        assert address.is_global and not address.is_multicast and not address.is_reserved


@given(st.ip_addresses(v=4))
def test_an_address_inside_another_is_never_public(inner: IPv4Address) -> None:
    low = int(inner)
    for outer in (
        (0xFFFF << 32) | low,
        low,
        (0x64FF9B << 96) | low,
        (0x2002 << 112) | (low << 80),
        (0x20010000 << 96) | low,
    ):
        assert kind_of_address(IPv6Address(outer)) is not None
