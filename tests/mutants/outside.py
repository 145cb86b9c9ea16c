"""Guards towards what comes from outside: what is shown, the socket, bundles, files, the web, releases."""

from __future__ import annotations

from tests.mutants.guard import guards

__all__ = ["OUTSIDE"]

_SHOWN = [
    *guards(
        "C6",
        "sdk/python/runloop/escape.py",
        "unit/rlp/test_escape.py",
        ("shown = (char.isprintable() and char not in _BLANK) or char in _SPACES", "shown = True"),
        ("shown = (char.isprintable() and char not in _BLANK)", "shown = char.isprintable()"),
        ("if shown and marks <= _MARKS and not _is_variation(char):", "if shown and marks <= _MARKS:"),
        (
            "if shown and marks <= _MARKS and not _is_variation(char):",
            "if shown and not _is_variation(char):",
        ),
        ("ensure_ascii=True", "ensure_ascii=False"),
    ),
]

_DOORS = [
    *guards(
        "B2",
        "runloopd/bus/door.py",
        "unit/bus/test_socket.py unit/test_systemd.py",
        "if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077:",
        ("os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC", "os.O_RDONLY | os.O_DIRECTORY"),
        ("fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)", "pass"),
        ("path.chmod(0o600)", "path.chmod(0o666)"),
        "if stat.S_IMODE(status.st_mode) != 0o600 or status.st_uid != os.geteuid():",
        (
            'if not stat.S_ISSOCK(status.st_mode):\n        raise RefusedError(f"{path} exists',
            'if False:\n        raise RefusedError(f"{path} exists',
        ),
    ),
    *guards(
        "B2",
        "runloopd/bus/socket.py",
        "unit/bus/test_socket.py",
        "elif uid != self._server.uid:",
    ),
    *guards(
        "B6",
        "sdk/python/runloop/rmp/hello.py",
        "unit/bus/test_socket.py unit/client/test_client.py",
        (
            " and hmac.compare_digest(candidate, proof(credential, nonce))",
            "",
        ),
        ("blake3(_CONTEXT + nonce, key=credential)", "blake3(_CONTEXT, key=credential)"),
        "if daemon != client:",
    ),
    *guards(
        "C4",
        "runloopd/bus/acl.py",
        "unit/bus/test_durable.py unit/bus/test_acl.py unit/bus/test_bus.py",
        'if kind != "operator":',
        'if schema_id in _DAEMON_SCHEMAS or (schema_id in _HOST_SCHEMAS and kind != "agent"):',
        'if principal.kind not in ("daemon", "operator"):',
        ("return topic == topics.client_reply(session_of(principal))", "return True"),
    ),
    *guards(
        "B6",
        "runloopd/bus/bus.py",
        "unit/bus/test_bus.py unit/bus/test_socket.py",
        "if reply_to is not None and reply_to != publisher.reply_topic:",
    ),
]

_SUPPLY = [
    *guards(
        "M9",
        "sdk/python/runloop/bundle/trust.py",
        "unit/bundle/test_trust.py",
        "if not all(envelope.is_signed_by(key) for envelope in package.envelopes):",
        "if claim.bundle_digest != package.bundle_digest or claim.tar_sha256 != package.tar_sha256:",
        "if not signers or None in signers:",
        "if not allow_dev:",
        "if anchor.expires_ms is not None and now_ms >= anchor.expires_ms:",
        "if owner_of_name not in (None, publisher):",
        ("_refuse_revoked(key_id, anchor.publisher if anchor else None, trust)", "pass"),
        "if not any(pattern_matches(pattern, manifest.name) for pattern in anchor.names):",
    ),
    *guards(
        "M9",
        "sdk/python/runloop/bundle/signature.py",
        "unit/bundle/test_signature.py",
        ('if made is not None and made.to_line() == bare + b"\\n":', "if made is not None:"),
        (
            'return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)',
            'return b"DSSEv1 %s %s" % (kind, payload)',
        ),
        ("found.key_id == key.key_id", "True"),
    ),
    *guards(
        "M10",
        "sdk/python/runloop/bundle/index.py",
        "unit/bundle/test_index.py",
        "if seen is not None and predicate.serial < seen:",
        "if stale and not allow_stale:",
        "if data is None:",
    ),
    *guards(
        "F5",
        "sdk/python/runloop/bundle/tar.py",
        "unit/bundle/test_archive.py",
        'if any(part in ("", ".", "..") for part in parts):',
        'if kind != b"0":',
        "if size > bounds.file_bytes:",
    ),
    *guards(
        "W7",
        "runloopd/runtime/cache.py",
        "integration/runtime/test_components.py",
        (
            "and self._mac(component_digest, memfd) == head[len(_MAGIC) :]",
            "and True",
        ),
        ("if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.geteuid() or facts.st_mode & 0o077:"),
    ),
]

_FILES = [
    *guards(
        "F1",
        "runloopd/broker/providers/walk.py",
        "unit/broker/test_files.py unit/broker/test_fs_ops.py",
        "if found.st_nlink > 1:",
        "if identity(found) in ours:",
        'if any(name in (b"", b".", b"..") for name in names):',
        "if kernels is not None:",
    ),
    *guards(
        "F2",
        "runloopd/broker/providers/files.py",
        "unit/broker/test_files.py unit/broker/test_fs_ops.py",
        "if now != write.expected:",
        "if out is None or (out.identity, out.digest) != (found.identity, found.digest):",
    ),
]

_WEB = [
    *guards(
        "W8",
        "runloopd/broker/providers/web.py",
        "contract/test_web.py",
        "if len(body) > _RATIO_FREE_BYTES and len(body) > received * _MAX_RATIO:",
        'if request.place.scheme == "https" and place.scheme != "https":',
    ),
    *guards(
        "F3",
        "runloopd/broker/tools/egress.py",
        "unit/broker/test_egress.py unit/broker/test_proxy.py",
        "if not self._granted(place):",
        "if kind_of_address(address) is not None and not self._named(place, address):",
        "if (host, port) != (self._place.host, self._place.port):",
    ),
    *guards(
        "K2",
        "runloopd/broker/secret_ops.py",
        "unit/broker/test_secret_ops.py",
        'if place.scheme != "https" and not is_loopback(place.host):',
        "if not hmac.compare_digest(reference.encode(), self._reference(agent, name).encode()):",
        "if to not in self._book.destinations(name):",
    ),
    *guards(
        "K2",
        "runloopd/broker/scrubber.py",
        "unit/broker/test_scrubber.py",
        ("yield raw.hex().upper()", "pass"),
        ("for offset in range(3):", "for offset in range(1):"),
    ),
    *guards(
        "M1",
        "runloopd/broker/mcp/definitions.py",
        "unit/broker/mcp",
        "if shown in alike:",
        "if size > MAX_DEFINITION:",
        "if total > MAX_LISTING:",
    ),
    *guards(
        "C8",
        "sdk/python/runloop/config.py",
        "unit/config/test_config.py",
        ("if key in system:\n", "if False:\n"),
    ),
]

_RELEASES = [
    *guards(
        "M9",
        "packaging/release/verify",
        "packaging/test_release.py::test_a_turned_bit_in_the_list_or_its_signature_refuses_everything",
        ("comment=$(signed SHA256SUMS) || refuse", 'comment="runloop 1.2.3" || refuse'),
    ),
    *guards(
        "M10",
        "packaging/release/verify",
        "packaging/test_release.py::test_another_version_than_was_asked_for_is_refused",
        ('[ -z "$wanted" ] || [ "$version" = "$wanted" ] || refuse', "true || refuse"),
    ),
    *guards(
        "F5",
        "packaging/release/verify",
        "packaging/test_release.py::test_a_list_that_names_anything_but_plain_files_is_refused",
        ("if grep -Evq '^[0-9a-f]{64}  [A-Za-z0-9][A-Za-z0-9._+~-]*$' \"$folder/SHA256SUMS\"", "if false"),
    ),
    *guards(
        "M9",
        "packaging/release/verify",
        "packaging/test_release.py::test_a_turned_bit_in_any_file_is_refused_by_its_name "
        "packaging/test_release.py::test_a_turned_bit_in_any_signature_is_refused_by_its_name",
        ('[ "${actual%% *}" = "$digest" ] || wrong', "true || wrong"),
        ('wrong "$name.minisig: missing, or does not fit the file and the key"', ":"),
    ),
    *guards(
        "M9",
        "packaging/release/verify",
        "packaging/test_release.py::test_what_is_not_in_its_place_is_refused_by_its_name",
        ('grep -qxF "file:$name" || wrong', "grep -q . || wrong"),
        ('wrong "$name: nobody signed it"', ":"),
        ('if [ -L "$folder/$name" ] || [ ! -f "$folder/$name" ]; then', 'if [ ! -f "$folder/$name" ]; then'),
    ),
    *guards(
        "M9",
        "packaging/release/verify",
        "packaging/test_release.py::test_a_provenance_of_another_key_is_refused_though_the_list_is_signed "
        "packaging/test_release.py::test_a_provenance_of_other_files_is_refused_though_the_list_is_signed "
        "packaging/test_release.py::test_a_provenance_of_another_version_is_refused_though_the_list_is_signed",
        ('wrong "provenance.intoto.jsonl: its signature does not hold"', ":"),
        ('cmp -s "$work/subject" "$work/listed" ||', "true ||"),
        ('wrong "provenance.intoto.jsonl: speaks of another version"', ":"),
    ),
    *guards(
        "K9",
        "packaging/release/seal",
        "packaging/test_release.py::test_a_key_in_the_folder_that_is_published_is_not_used",
        ('case $key in "$folder"/*)', "case $key in nowhere)"),
    ),
    *guards(
        "K9",
        "sdk/python/runloop/bundle/keyfile.py",
        "packaging/test_release.py::test_a_provenance_key_that_others_can_read_is_not_used",
        "if mode & 0o177:",
    ),
    *guards(
        "M6",
        "packaging/deb/debian/environment.py",
        "packaging/test_isolation.py",
        "if planted:",
        ("bin/python3 -I\\n", "bin/python3\\n"),
        ("include-system-site-packages = false", "include-system-site-packages = true"),
    ),
    *guards(
        "M7",
        "packaging/deb/build",
        "packaging/test_offline.py::test_the_package_is_built_where_there_is_no_network_and_asks_no_index",
        (
            'DEB_BUILD_OPTIONS=nocheck "${offline[@]}" dpkg-buildpackage',
            "DEB_BUILD_OPTIONS=nocheck dpkg-buildpackage",
        ),
    ),
]

OUTSIDE = (
    *_SHOWN,
    *_DOORS,
    *_SUPPLY,
    *_FILES,
    *_WEB,
    *_RELEASES,
)
